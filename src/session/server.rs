//! The MCP server as rmcp sees it: who it is, its tools, and calls of them. Every result that went well carries the mail that waits
//! for the session.

use super::{
    Initialized, facts,
    mail::{Mail, Mailbox},
    tools::{self, Answer, Tools},
    words,
};
use crate::{
    agents::shown,
    wire::{
        VERSION,
        text::{each_text, printable, visible},
    },
};
use rmcp::{
    ErrorData, RoleServer, ServerHandler,
    model::{
        CallToolRequestParams, CallToolResponse, CallToolResult, CancelledNotificationParam, ContentBlock, Implementation,
        JsonObject, ListToolsResult, PaginatedRequestParams, ProtocolVersion, RequestId, ServerCapabilities, ServerConfig,
    },
    service::{NotificationContext, RequestContext},
};
use serde_json::json;
use std::{borrow::Cow, sync::Arc};
use tokio_util::sync::CancellationToken;

/// The newest revision of MCP offered: Claude Code does not register a server of a newer one as a channel.
const NEWEST: ProtocolVersion = ProtocolVersion::V_2025_11_25;

/// The server of one session.
pub struct Server {
    tools: Tools,
    mail: Arc<Mailbox>,
    initialized: Initialized,
    closing: CancellationToken,
}

impl Server {
    /// A server that stops waiting on behalf of its client when `closing` is cancelled.
    pub fn new(tools: Tools, mail: Arc<Mailbox>, initialized: Initialized, closing: CancellationToken) -> Self {
        Self { tools, mail, initialized, closing }
    }

    /// Opens the channel and the inbox; a second time changes nothing.
    fn open(&self) {
        let _ = self.initialized.set(());
    }

    async fn complete(&self, request: &RequestId, answer: Answer) -> CallToolResult {
        let Answer { mut json, text, handover, takes_mail } = answer;
        let mut content = vec![ContentBlock::text(text)];
        if let Some(handover) = handover {
            self.mail.attach(request, handover);
        }
        if takes_mail && let Some(Mail { messages, more, handover }) = self.mail.beside().await {
            content.push(ContentBlock::text(shown::messages(&messages, more)));
            json["incomingMessages"] = json!(messages);
            if more > 0 {
                json["more"] = more.into();
            }
            json["notice"] = shown::NOTICE.into();
            self.mail.attach(request, handover);
        }
        let mut result = CallToolResult::success(content);
        result.structured_content = Some(each_text(json, visible));
        result
    }
}

impl ServerHandler for Server {
    fn get_info(&self) -> ServerConfig {
        let channel = [("claude/channel".to_owned(), JsonObject::new())].into();
        let capabilities = ServerCapabilities::builder().enable_experimental_with(channel).enable_tools().build();
        let mut info = ServerConfig::new(capabilities).with_instructions(words::INSTRUCTIONS);
        info.server_info = Implementation::new(facts::SERVER, VERSION);
        info.protocol_version = NEWEST;
        info
    }

    fn supported_protocol_versions(&self) -> Cow<'static, [ProtocolVersion]> {
        Cow::Borrowed(ProtocolVersion::known_up_to(&NEWEST))
    }

    async fn list_tools(
        &self,
        _page: Option<PaginatedRequestParams>,
        _context: RequestContext<RoleServer>,
    ) -> Result<ListToolsResult, ErrorData> {
        Ok(ListToolsResult::with_all_items(tools::definitions()))
    }

    async fn call_tool(
        &self,
        call: CallToolRequestParams,
        context: RequestContext<RoleServer>,
    ) -> Result<CallToolResponse, ErrorData> {
        self.open(); // a client that calls tools is initialized, whether or not it has said so
        self.mail.begin(&context.id);
        let stop = async {
            tokio::select! {
                () = context.ct.cancelled() => {}
                () = self.closing.cancelled() => {}
            }
        };
        match self.tools.call(&call.name, call.arguments.unwrap_or_default(), stop).await {
            None => Err(ErrorData::invalid_params(format!("there is no tool {:?}", call.name), None)),
            Some(Ok(answer)) => Ok(self.complete(&context.id, answer).await.into()),
            Some(Err(error)) => Ok(CallToolResult::error(vec![ContentBlock::text(printable(&error.to_string()))]).into()),
        }
    }

    async fn on_initialized(&self, _context: NotificationContext<RoleServer>) {
        self.open();
    }

    async fn on_cancelled(&self, cancelled: CancelledNotificationParam, _context: NotificationContext<RoleServer>) {
        if let Some(request) = &cancelled.request_id {
            drop(self.mail.claim(request)); // no answer will be written: its mail is released
        }
    }
}
