//! What MCP asks of a server: who it is, its tools, and calls of them. Every result that went well carries the mail that
//! waits for the session.

use super::{
    channel::Channel,
    door::Door,
    facts,
    link::Link,
    mail::{Mail, Mailbox},
    tools,
    tools::{Answer, Tools},
    words,
};
use crate::{agents::shown, wire::VERSION};
use rmcp::{
    ErrorData, RoleServer, ServerHandler,
    model::{
        CallToolRequestParams, CallToolResponse, CallToolResult, CancelledNotificationParam, ContentBlock, Implementation,
        JsonObject, ListToolsResult, PaginatedRequestParams, ProtocolVersion, RequestId, ServerCapabilities, ServerConfig,
    },
    service::{NotificationContext, RequestContext},
};
use serde_json::{Value, json};
use std::{borrow::Cow, sync::Arc};
use tokio_util::sync::CancellationToken;

/// The newest revision of MCP offered: a server of a newer one is not registered as a channel.
const NEWEST: ProtocolVersion = ProtocolVersion::V_2025_11_25;

/// What pushes messages into the session once its client is initialized.
pub struct Pushes {
    pub channel: Arc<Channel>,
    /// The client's inbox.
    pub door: Arc<Door>,
}

impl Pushes {
    fn open(&self) {
        self.channel.open();
        self.door.open();
    }
}

/// The server of one session.
pub struct Server {
    tools: Tools,
    mail: Arc<Mailbox>,
    pushes: Pushes,
    closing: CancellationToken,
}

impl Server {
    /// A server that stops waiting on behalf of its client when `closing` is cancelled.
    pub fn new(link: Arc<Link>, mail: Arc<Mailbox>, pushes: Pushes, closing: CancellationToken) -> Self {
        Self { tools: Tools::new(link, mail.clone()), mail, pushes, closing }
    }

    async fn complete(&self, request: &RequestId, answer: Answer) -> CallToolResult {
        let Answer { mut json, text, handover, takes_mail } = answer;
        let mut content = vec![ContentBlock::text(text)];
        if let Some(handover) = handover {
            self.mail.attach(request, handover);
        }
        if takes_mail && let Some(Mail { messages, more, handover }) = self.mail.beside().await {
            content.push(ContentBlock::text(shown::messages(&messages, more)));
            json.insert("incomingMessages".to_owned(), json!(messages));
            if more > 0 {
                json.insert("more".to_owned(), more.into());
            }
            json.insert("notice".to_owned(), shown::NOTICE.into());
            self.mail.attach(request, handover);
        }
        let mut result = CallToolResult::success(content);
        result.structured_content = Some(Value::Object(json));
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
        self.pushes.open(); // a client that calls tools is initialized, whether or not it has said so
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
            Some(Err(error)) => Ok(CallToolResult::error(vec![ContentBlock::text(error.to_string())]).into()),
        }
    }

    async fn on_initialized(&self, _context: NotificationContext<RoleServer>) {
        self.pushes.open();
    }

    async fn on_cancelled(&self, cancelled: CancelledNotificationParam, _context: NotificationContext<RoleServer>) {
        if let Some(request) = &cancelled.request_id {
            drop(self.mail.claim(request)); // no answer will be written: what it would have carried is released
        }
    }
}
