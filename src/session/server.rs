//! The MCP server as rmcp sees it: its identity, its tools and their calls. Every successful result carries the session's waiting
//! mail.

use super::{
    mail::Mail,
    progress::Progress,
    published,
    stdio::Writer,
    tools::{self, Answer, Tools},
};
use crate::{
    agents::{clients::Shows, names::SERVER, shown},
    wire::{
        VERSION,
        text::{each_text, printable, visible},
    },
};
use rmcp::{
    ErrorData, RoleServer, ServerHandler,
    model::{
        CallToolRequestParams, CallToolResponse, CallToolResult, ContentBlock, Implementation, JsonObject, ListToolsResult,
        PaginatedRequestParams, ProtocolVersion, RequestId, RequestMetaObject, ServerCapabilities, ServerConfig,
    },
    service::{NotificationContext, RequestContext},
};
use std::borrow::Cow;

/// The newest MCP revision offered. Claude Code does not register a server of a newer revision as a channel.
const NEWEST: ProtocolVersion = ProtocolVersion::V_2025_11_25;

pub struct Server {
    pub tools: Tools,
    pub out: Writer,
}

impl Server {
    /// Whether a call comes from the session that this process serves: not from a subagent, and not from another session of its client.
    async fn is_from_session(&self, meta: Option<&JsonObject>) -> bool {
        let (client, Some(meta)) = (self.tools.link.client(), meta) else { return true };
        match client.session_of(meta) {
            _ if client.is_subagents(meta) => false,
            Some(session) => self.tools.link.serve(session).await,
            None => true,
        }
    }

    async fn complete(&self, request: &RequestId, answer: Answer) -> CallToolResult {
        let Answer { mut json, text, handover, takes_mail } = answer;
        let mut content = vec![ContentBlock::text(text)];
        if let Some(handover) = handover {
            self.tools.mail.attach(request, handover);
        }
        if takes_mail && let Some(Mail { messages, more, handover }) = self.tools.mail.beside().await {
            content.push(ContentBlock::text(shown::messages(&messages, more)));
            tools::put(&mut json, "incomingMessages", &messages, more);
            self.tools.mail.attach(request, handover);
        }
        let shows = self.tools.link.client().shows;
        let is_text_alone = matches!(shows, Shows::Text | Shows::Both); // a client that shows both shows this once
        if is_text_alone && let Some(notice) = json["notice"].as_str() {
            content.push(ContentBlock::text(notice));
        }
        let mut result = CallToolResult::success(content);
        result.structured_content = (!is_text_alone).then(|| each_text(json, visible));
        result
    }
}

fn failed(why: &str) -> CallToolResult {
    CallToolResult::error(vec![ContentBlock::text(printable(why))])
}

impl ServerHandler for Server {
    fn get_info(&self) -> ServerConfig {
        let channel = [("claude/channel".to_owned(), JsonObject::new())].into();
        let capabilities = ServerCapabilities::builder().enable_experimental_with(channel).enable_tools().build();
        let mut info = ServerConfig::new(capabilities);
        info.instructions = published::instructions(self.tools.link.client(), self.tools.link.has_door());
        info.server_info = Implementation::new(SERVER, VERSION);
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
        Ok(ListToolsResult::with_all_items(published::definitions(self.tools.link.client(), self.tools.link.has_door())))
    }

    async fn call_tool(
        &self,
        call: CallToolRequestParams,
        context: RequestContext<RoleServer>,
    ) -> Result<CallToolResponse, ErrorData> {
        _ = self.tools.link.initialized.set(()); // a client that calls tools is initialized, even if it has not said so
        let Some(_running) = self.tools.mail.begin(&context.id) else {
            return Ok(failed("too many calls are under way; call again when one of them has ended").into());
        };
        let takes_mail = self.is_from_session(call.meta.as_ref().map(|meta| &**meta as &JsonObject)).await;
        let token = call.meta.as_ref().and_then(RequestMetaObject::get_progress_token);
        let progress = token.map(|token| Progress::of(token, self.out.clone()));
        let called = self.tools.call(&call.name, call.arguments.unwrap_or_default(), takes_mail, context.ct.cancelled()).await;
        if let Some(progress) = progress {
            progress.end().await; // none may follow the answer
        }
        match called {
            None => Err(ErrorData::invalid_params(format!("there is no tool {:?}", call.name), None)),
            Some(Ok(mut answer)) => {
                answer.takes_mail &= takes_mail;
                Ok(self.complete(&context.id, answer).await.into())
            }
            Some(Err(error)) => Ok(failed(&error.to_string()).into()),
        }
    }

    async fn on_initialized(&self, _context: NotificationContext<RoleServer>) {
        _ = self.tools.link.initialized.set(()); // a second time changes nothing
    }
}
