//! The transport between rmcp and the client: one JSON-RPC message a line.
//!
//! rmcp's own transport drops lines that it cannot read, so that their sender waits for ever, and links the code for every message
//! of the protocol, which costs memory beside every session. This one:
//! - lets in `initialize`, `ping`, `tools/list`, `tools/call` and two notifications, and refuses every other method as unknown.
//!   That matters most for `server/discover`: a client that hears of revision 2026-07-28 does not register a channel.
//! - answers a line that it cannot use with an error, under the line's id if it has one. Stray messages are ignored.
//! - acknowledges the mail that an answer carries once the answer is written, and releases it if writing fails.

use super::{
    acknowledge::Handover,
    link::Link,
    mail::Mailbox,
    stdio::{Reader, Writer},
};
use rmcp::{
    RoleServer,
    model::{
        CallToolRequest, CallToolRequestParams, CancelledNotification, CancelledNotificationParam, ClientCapabilities,
        ClientNotification, ClientRequest, ErrorCode, ErrorData, Implementation, InitializeRequest, InitializeRequestParams,
        JsonObject, JsonRpcMessage, ProtocolVersion, RequestId, ServerResult,
    },
    service::{RxJsonRpcMessage, TxJsonRpcMessage},
    transport::Transport,
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::{Value, value::RawValue};
use std::{borrow::Cow, io, sync::Arc};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, BufReader},
    task::JoinSet,
};
use tokio_util::sync::CancellationToken;

/// The longest line accepted. The broker takes 256 KiB of text, which JSON's escapes make at most six times as long; a longer
/// text reaches the broker, which says so.
const MAX_LINE: usize = 16 * 1024 * 1024;
/// How much of the line buffer is kept between lines, so that one long message does not cost memory for ever.
const KEPT_LINE: usize = 16 * 1024;

/// The transport of one session.
pub struct ClientTransport {
    input: BufReader<Reader>,
    line: Vec<u8>,
    /// The start of the current line was too long and is gone.
    too_long: bool,
    out: Writer,
    /// The client has sent `initialize`.
    opened: bool,
    /// Errors on their way out. Tasks, since a read may be dropped half-way and a line may not.
    errors: JoinSet<io::Result<()>>,
    mail: Arc<Mailbox>,
    link: Arc<Link>,
    /// Cancelled when stdin ends, so that no call keeps waiting for a client that is gone.
    closing: CancellationToken,
}

/// What a read from stdin gave.
enum Line {
    Whole,
    TooLong,
    End,
}

/// A message in parts, each as it is written: an error inside one part does not hide the id.
#[derive(Deserialize)]
struct Parts<'a> {
    #[serde(borrow)]
    id: Option<&'a RawValue>,
    #[serde(borrow)]
    method: Option<&'a RawValue>,
    #[serde(borrow)]
    params: Option<&'a RawValue>,
    #[serde(borrow)]
    result: Option<&'a RawValue>,
    #[serde(borrow)]
    error: Option<&'a RawValue>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Initialize {
    protocol_version: ProtocolVersion,
    #[serde(default)]
    client_info: Value,
}

#[derive(Deserialize)]
struct ToolCall {
    name: String,
    arguments: Option<JsonObject>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Cancelled {
    request_id: RequestId,
}

impl ClientTransport {
    /// A transport that tells `mail` which answers were written, `link` who the client is, and `closing` when stdin has ended.
    pub fn new(input: Reader, out: Writer, mail: Arc<Mailbox>, link: Arc<Link>, closing: CancellationToken) -> Self {
        let (input, errors) = (BufReader::new(input), JoinSet::new());
        Self { input, line: Vec::new(), too_long: false, out, opened: false, errors, mail, link, closing }
    }

    /// Reads one line into `self.line`. May be dropped at its `.await` and called again: nothing read is lost.
    async fn read_line(&mut self) -> io::Result<Line> {
        loop {
            let room = MAX_LINE.saturating_sub(self.line.len()) as u64 + 1;
            (&mut self.input).take(room).read_until(b'\n', &mut self.line).await?;
            if self.line.ends_with(b"\n") {
                return Ok(if std::mem::take(&mut self.too_long) { Line::TooLong } else { Line::Whole });
            }
            if self.line.len() <= MAX_LINE {
                return Ok(Line::End);
            }
            self.too_long = true;
            self.line.clear();
        }
    }

    /// The message for the service in a line. Everything else is answered or ignored here.
    fn parse(&mut self, line: &[u8]) -> Option<RxJsonRpcMessage<RoleServer>> {
        let text = String::from_utf8_lossy(line.trim_ascii());
        if text.is_empty() {
            return None;
        }
        if text.starts_with('[') {
            return self.refuse_batch(&text);
        }
        let parts: Parts = match serde_json::from_str(&text) {
            Ok(parts) => parts,
            Err(error) if error.is_data() => return self.refuse(None, invalid_request("not a JSON object")),
            Err(error) => return self.refuse(None, parse_error(&error)),
        };
        let method = parts.method.and_then(|method| serde_json::from_str::<String>(method.get()).ok());
        let id = parts.id.map(|id| serde_json::from_str::<RequestId>(id.get()));
        match (method, id) {
            (Some(method), None) if self.opened => notification(&method, parts.params).map(JsonRpcMessage::notification),
            // A stray notification, or an answer, though this server asks nothing. Neither is ever answered.
            (_, None) => None,
            (None, _) if parts.result.is_some() || parts.error.is_some() => None,
            (Some(_), Some(Ok(_))) if matches!(text, Cow::Owned(_)) => {
                self.refuse(parts.id, ErrorData::parse_error("Parse error: the line is not text in UTF-8", None))
            }
            (Some(method), Some(Ok(id))) => match self.request(&method, parts.params) {
                Ok(request) => Some(JsonRpcMessage::request(request, id)),
                Err(error) => self.refuse(parts.id, error),
            },
            _ => {
                let what = "not a JSON-RPC 2.0 request with a string or a whole number as its id";
                self.refuse(parts.id, invalid_request(what))
            }
        }
    }

    /// The request that `method` names.
    fn request(&mut self, method: &str, params: Option<&RawValue>) -> Result<ClientRequest, ErrorData> {
        Ok(match method {
            "ping" => ClientRequest::PingRequest(Default::default()),
            "initialize" => {
                let Initialize { protocol_version, client_info } = read(method, params)?;
                let said = |field: &str| client_info[field].as_str().unwrap_or_default();
                self.link.client_is(said("name"), said("version"));
                self.opened = true;
                let mut params = InitializeRequestParams::new(ClientCapabilities::default(), Implementation::default());
                params.protocol_version = protocol_version;
                ClientRequest::InitializeRequest(InitializeRequest::new(params))
            }
            "tools/list" | "tools/call" if !self.opened => {
                return Err(ErrorData::invalid_request("the session is not open yet: send initialize first", None));
            }
            "tools/list" => ClientRequest::ListToolsRequest(Default::default()),
            "tools/call" => {
                let ToolCall { name, arguments } = read(method, params)?;
                let mut call = CallToolRequestParams::new(name);
                call.arguments = arguments;
                ClientRequest::CallToolRequest(CallToolRequest::new(call))
            }
            _ => return Err(ErrorData::new(ErrorCode::METHOD_NOT_FOUND, format!("Method not found: {method}"), None)),
        })
    }

    /// Answers a request with an error, under its id as it is written; JSON-RPC wants `null` where there is none.
    fn refuse<T>(&mut self, id: Option<&RawValue>, error: ErrorData) -> Option<T> {
        let can_be_id = |id: &&str| id.starts_with(|c: char| c == '"' || c == '-' || c.is_ascii_digit());
        let id = id.map(RawValue::get).filter(can_be_id).unwrap_or("null");
        match serde_json::to_string(&error) {
            Ok(error) => {
                let (out, line) = (self.out.clone(), format!("{{\"jsonrpc\":\"2.0\",\"id\":{id},\"error\":{error}}}\n"));
                while self.errors.try_join_next().is_some() {}
                self.errors.spawn(async move { out.write_line(line.as_bytes()).await });
            }
            Err(error) => super::log!("writing an error: {error}"),
        }
        None
    }

    /// Refuses a batch: each of its requests gets an error of its own.
    fn refuse_batch<T>(&mut self, batch: &str) -> Option<T> {
        let error = || invalid_request("this server takes one message a line, no batches");
        let parts: Vec<Parts> = match serde_json::from_str(batch) {
            Ok(parts) => parts,
            Err(error) if error.is_data() => Vec::new(),
            Err(error) => return self.refuse(None, parse_error(&error)),
        };
        let ids: Vec<_> = parts.iter().filter(|part| part.method.is_some()).filter_map(|part| part.id).collect();
        match ids.is_empty() {
            true => self.refuse(None, error()),
            false => ids.into_iter().fold(None, |_, id| self.refuse(Some(id), error())),
        }
    }
}

fn invalid_request(what: &str) -> ErrorData {
    ErrorData::invalid_request(format!("Invalid request: {what}"), None)
}

/// What is wrong with text that is not JSON.
fn parse_error(error: &serde_json::Error) -> ErrorData {
    let mut what = format!("Parse error: {error}");
    if what.contains("hex escape") {
        what +=
            ": an escape such as \\ud83d is only half of a character, an emoji for example; send it again with whole characters";
    }
    ErrorData::parse_error(what, None)
}

/// What this server needs of a request's parameters.
fn read<T: DeserializeOwned>(method: &str, params: Option<&RawValue>) -> Result<T, ErrorData> {
    serde_json::from_str(params.map_or("{}", RawValue::get)).map_err(|error| match error.is_data() {
        true => ErrorData::invalid_params(format!("{method}: {error}"), None),
        false => parse_error(&error),
    })
}

/// The notification that `method` names, if this server knows it.
fn notification(method: &str, params: Option<&RawValue>) -> Option<ClientNotification> {
    match method {
        "notifications/initialized" => Some(ClientNotification::InitializedNotification(Default::default())),
        "notifications/cancelled" => {
            let Cancelled { request_id } = read(method, params).ok()?;
            let params = CancelledNotificationParam::new(Some(request_id), None);
            Some(ClientNotification::CancelledNotification(CancelledNotification::new(params)))
        }
        _ => None,
    }
}

/// The line for a message. Knows only the results of this server, to leave out the code for all others.
fn line(message: &TxJsonRpcMessage<RoleServer>) -> io::Result<Vec<u8>> {
    #[derive(Serialize)]
    struct Answer<'a, T> {
        jsonrpc: &'static str,
        id: &'a RequestId,
        result: &'a T,
    }
    fn answer<T: Serialize>(id: &RequestId, result: &T) -> serde_json::Result<Vec<u8>> {
        serde_json::to_vec(&Answer { jsonrpc: "2.0", id, result })
    }
    let mut line = match message {
        JsonRpcMessage::Response(given) => match &given.result {
            ServerResult::InitializeResult(result) => answer(&given.id, result)?,
            ServerResult::ListToolsResult(result) => answer(&given.id, result)?,
            ServerResult::CallToolResult(result) => answer(&given.id, result)?,
            ServerResult::EmptyResult(result) => answer(&given.id, result)?,
            _ => return Err(io::Error::other("a result that this server does not give")),
        },
        JsonRpcMessage::Error(error) => serde_json::to_vec(error)?,
        _ => return Err(io::Error::other("a message that this server does not send")),
    };
    line.push(b'\n');
    Ok(line)
}

impl Transport<RoleServer> for ClientTransport {
    type Error = io::Error;

    fn send(&mut self, item: TxJsonRpcMessage<RoleServer>) -> impl Future<Output = io::Result<()>> + Send + 'static {
        // Claimed now, not when it is written: from here on a cancellation comes too late.
        let carried = match &item {
            JsonRpcMessage::Response(answer) => self.mail.claim(&answer.id),
            JsonRpcMessage::Error(error) => error.id.as_ref().map(|id| self.mail.claim(id)).unwrap_or_default(),
            _ => Vec::new(),
        };
        let out = self.out.clone();
        let line = line(&item);
        async move {
            out.write_line(&line?).await?; // on failure `carried` is dropped, which releases it
            carried.into_iter().for_each(Handover::written);
            Ok(())
        }
    }

    async fn receive(&mut self) -> Option<RxJsonRpcMessage<RoleServer>> {
        loop {
            let read = self.read_line().await;
            let mut line = std::mem::take(&mut self.line);
            let message = match read {
                Ok(Line::Whole) => self.parse(&line),
                Ok(Line::TooLong) => self.refuse(None, invalid_request(&format!("a line of more than {MAX_LINE} bytes"))),
                Ok(Line::End) => break,
                Err(error) => {
                    super::log!("reading stdin: {error}");
                    break;
                }
            };
            line.clear();
            line.shrink_to(KEPT_LINE);
            self.line = line;
            if message.is_some() {
                return message;
            }
        }
        self.closing.cancel();
        None
    }

    async fn close(&mut self) -> io::Result<()> {
        std::mem::take(&mut self.errors).join_all().await.into_iter().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::session::acknowledge::Acknowledger;
    use std::time::Duration;
    use tokio::io::AsyncWriteExt;

    #[tokio::test]
    async fn a_half_read_line_is_kept() {
        let (near, mut far) = tokio::io::duplex(64 * 1024);
        let link = Arc::new(Link::default());
        let mail = Arc::new(Mailbox::new(link.clone(), Arc::new(Acknowledger::default())));
        let closing = CancellationToken::new();
        let mut transport = ClientTransport::new(Box::new(near), Writer::new(tokio::io::sink()), mail, link, closing.clone());
        far.write_all(b"{\"id\":1,\"met").await.expect("written");
        let half = tokio::time::timeout(Duration::from_millis(20), transport.receive()).await;
        assert!(half.is_err(), "half a line is no message");
        far.write_all(b"hod\":\"ping\"}\n{\"id\":2").await.expect("written");
        let Some(JsonRpcMessage::Request(request)) = transport.receive().await else { panic!("a request") };
        assert_eq!(request.id, RequestId::Number(1));
        drop(far);
        assert!(transport.receive().await.is_none() && closing.is_cancelled(), "the end of stdin ends the session");
    }
}
