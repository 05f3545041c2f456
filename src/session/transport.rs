//! The transport between rmcp and the client: one JSON-RPC message per line.
//!
//! rmcp's own transport drops unreadable lines, so their sender waits forever. It also links the code for every protocol
//! message, which costs 0.4 of 2 MiB per session. This one:
//! - lets in `initialize`, `ping`, `tools/list`, `tools/call` and two notifications, and refuses every other method as unknown.
//!   That matters most for `server/discover`: a client that hears of revision 2026-07-28 does not register a channel.
//! - answers a line that it cannot use with an error, under the line's id if it has one. Stray messages are ignored.
//! - acknowledges the mail that an answer carries once the answer is written, and releases it if writing fails.
//! - reads nothing while the client does not take an answer, so that answers do not pile up.

use super::{
    acknowledge::Handover,
    link::{Link, Opener},
    log,
    mail::Mailbox,
    stdio::{Reader, Writer},
};
use rmcp::{
    RoleServer,
    model::{
        CallToolRequest, CancelledNotification, ClientCapabilities, ClientNotification, ClientRequest, ErrorCode, ErrorData,
        Implementation, InitializeRequest, InitializeRequestParams, JsonRpcMessage, ProtocolVersion, RequestId, ServerResult,
    },
    service::{RxJsonRpcMessage, TxJsonRpcMessage},
    transport::Transport,
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::{Value, value::RawValue};
use std::{borrow::Cow, collections::HashMap, io, sync::Arc};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, BufReader},
    task::JoinSet,
};
use tokio_util::sync::CancellationToken;

/// The longest line accepted. The broker takes 256 KiB of text, which JSON's escapes make at most six times as long; a longer
/// text reaches the broker, which says so.
const MAX_LINE: usize = 16 * 1024 * 1024;
/// The longest batch, in bytes, of which each request gets an error.
const LONGEST_BATCH: usize = 64 * 1024;
/// How much of the line buffer is kept between lines, so that one long message does not cost memory forever.
const KEPT_LINE: usize = 16 * 1024;

pub struct ClientTransport {
    input: BufReader<Reader>,
    line: Vec<u8>,
    /// The start of the current line was too long and has been dropped.
    too_long: bool,
    out: Writer,
    /// The client has sent `initialize`.
    opened: bool,
    /// Errors being written. They are tasks, because a read may be cancelled half-way and a line must not be.
    errors: JoinSet<io::Result<()>>,
    mail: Arc<Mailbox>,
    link: Arc<Link>,
    /// Cancelled when stdin ends, so that no call keeps waiting for a client that is gone.
    end: CancellationToken,
}

enum Line {
    Whole,
    TooLong,
    End,
}

/// The raw parts of a message, so that an error inside one of them does not hide the id.
type Parts<'a> = HashMap<String, &'a RawValue>;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Initialize {
    protocol_version: ProtocolVersion,
    #[serde(default)]
    client_info: Value,
}

impl ClientTransport {
    pub fn new(input: Reader, out: Writer, mail: Arc<Mailbox>, link: Arc<Link>, end: CancellationToken) -> Self {
        let (input, errors) = (BufReader::new(input), JoinSet::new());
        Self { input, line: Vec::new(), too_long: false, out, opened: false, errors, mail, link, end }
    }

    /// Reads one line into `self.line`. Can be cancelled at its `.await` and called again without losing input.
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

    /// The message in a line, if it is for the service. All other lines are answered or ignored here.
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
        let (id, params) = (parts.get("id").copied(), parts.get("params").copied());
        let method = parts.get("method").and_then(|method| serde_json::from_str::<String>(method.get()).ok());
        match (method, id.map(|id| serde_json::from_str::<RequestId>(id.get()))) {
            (Some(method), None) if self.opened => {
                let notification = notification(&method, params);
                if let Some(ClientNotification::CancelledNotification(cancelled)) = &notification
                    && let Some(request) = &cancelled.params.request_id
                {
                    self.mail.cancel(request); // now, before the next line
                }
                notification.map(JsonRpcMessage::notification)
            }
            // A stray notification, or an answer to a request that this server never made. Neither gets an answer.
            (_, None) => None,
            (None, _) if parts.contains_key("result") || parts.contains_key("error") => None,
            (Some(_), Some(Ok(_))) if matches!(text, Cow::Owned(_)) => {
                self.refuse(id, ErrorData::parse_error("Parse error: the line is not text in UTF-8", None))
            }
            (Some(method), Some(Ok(request))) => match self.mail.under_way(&request) {
                // Under that id the client awaits an answer, which may have mail.
                Some(is_cancelled) => self.refuse(id.filter(|_| is_cancelled), same_id(&request)),
                None => match self.request(&method, params) {
                    Ok(message) => {
                        if matches!(message, ClientRequest::CallToolRequest(_)) {
                            self.mail.open(&request);
                        }
                        Some(JsonRpcMessage::request(message, request))
                    }
                    Err(error) => self.refuse(id, error),
                },
            },
            _ => self.refuse(id, invalid_request("not a JSON-RPC 2.0 request with a string or a whole number as its id")),
        }
    }

    fn request(&mut self, method: &str, params: Option<&RawValue>) -> Result<ClientRequest, ErrorData> {
        Ok(match method {
            "ping" => ClientRequest::PingRequest(Default::default()),
            "initialize" => {
                let Initialize { protocol_version, client_info } = read(method, params)?;
                let said = |field: &str| client_info[field].as_str().unwrap_or_default().to_owned();
                _ = self.link.opener.set(Opener::new(&said("name"), said("version"))); // the first time counts
                self.opened = true;
                let mut params = InitializeRequestParams::new(ClientCapabilities::default(), Implementation::default());
                params.protocol_version = protocol_version;
                ClientRequest::InitializeRequest(InitializeRequest::new(params))
            }
            "tools/list" | "tools/call" if !self.opened => {
                return Err(ErrorData::invalid_request("the session is not open yet: send initialize first", None));
            }
            "tools/list" => ClientRequest::ListToolsRequest(Default::default()),
            "tools/call" => ClientRequest::CallToolRequest(CallToolRequest::new(read(method, params)?)),
            _ => return Err(ErrorData::new(ErrorCode::METHOD_NOT_FOUND, format!("Method not found: {method}"), None)),
        })
    }

    /// Answers a request with an error, under its id as written, or `null` if there is none, as JSON-RPC requires.
    fn refuse<T>(&mut self, id: Option<&RawValue>, error: ErrorData) -> Option<T> {
        let can_be_id = |id: &&str| id.starts_with(|c: char| c == '"' || c == '-' || c.is_ascii_digit());
        let line = answer(id.map(RawValue::get).filter(can_be_id).unwrap_or("null"), "error", &error);
        let out = self.out.clone();
        while self.errors.try_join_next().is_some() {}
        self.errors.spawn(async move { out.write_line(&line?).await });
        None
    }

    /// Refuses a batch: each of its requests gets an error of its own, but a long batch gets one.
    fn refuse_batch<T>(&mut self, batch: &str) -> Option<T> {
        if batch.len() > LONGEST_BATCH {
            return self.refuse(None, no_batches());
        }
        let messages: Vec<Parts> = match serde_json::from_str(batch) {
            Ok(messages) => messages,
            Err(error) if error.is_data() => Vec::new(),
            Err(error) => return self.refuse(None, parse_error(&error)),
        };
        let requests = messages.iter().filter(|parts| parts.contains_key("method"));
        let mut ids: Vec<_> = requests.filter_map(|parts| parts.get("id").copied()).map(Some).collect();
        if ids.is_empty() {
            ids.push(None);
        }
        ids.into_iter().find_map(|id| self.refuse(id, no_batches()))
    }
}

fn invalid_request(what: &str) -> ErrorData {
    ErrorData::invalid_request(format!("Invalid request: {what}"), None)
}

fn no_batches() -> ErrorData {
    invalid_request("this server takes one message a line, no batches")
}

fn same_id(request: &RequestId) -> ErrorData {
    invalid_request(&format!("the call with the id {request} has not ended; give each request an id of its own"))
}

/// In place of an answer with mail that comes after its client may have given the call up.
fn late() -> ErrorData {
    let what = "the answer came after the time that this client waits, so its messages wait again: call check_messages; a message \
                that this call was to send may have been sent";
    ErrorData::internal_error(what, None)
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
            let cancelled = CancelledNotification::new(read(method, params).ok()?);
            Some(ClientNotification::CancelledNotification(cancelled))
        }
        _ => None,
    }
}

/// The line of an answer; `key` is `result` or `error`.
fn answer(id: &str, key: &str, value: &impl Serialize) -> io::Result<Vec<u8>> {
    Ok(format!("{{\"jsonrpc\":\"2.0\",\"id\":{id},\"{key}\":{}}}\n", serde_json::to_string(value)?).into_bytes())
}

/// The line of a message. Supports only this server's results, to leave out the code for all others.
fn line(message: &TxJsonRpcMessage<RoleServer>) -> io::Result<Vec<u8>> {
    let (id, result) = match message {
        JsonRpcMessage::Response(response) => (serde_json::to_string(&response.id)?, &response.result),
        JsonRpcMessage::Error(error) => return answer(&serde_json::to_string(&error.id)?, "error", &error.error),
        _ => return Err(io::Error::other("a message that this server does not send")),
    };
    match result {
        ServerResult::InitializeResult(result) => answer(&id, "result", result),
        ServerResult::ListToolsResult(result) => answer(&id, "result", result),
        ServerResult::CallToolResult(result) => answer(&id, "result", result),
        ServerResult::EmptyResult(result) => answer(&id, "result", result),
        _ => Err(io::Error::other("a result that this server does not give")),
    }
}

impl Transport<RoleServer> for ClientTransport {
    type Error = io::Error;

    fn send(&mut self, item: TxJsonRpcMessage<RoleServer>) -> impl Future<Output = io::Result<()>> + Send + 'static {
        // Claimed now rather than when written: a later cancellation has no effect.
        let (id, carried) = match &item {
            JsonRpcMessage::Response(answer) => (Some(&answer.id), self.mail.claim(&answer.id)),
            JsonRpcMessage::Error(error) => (error.id.as_ref(), error.id.as_ref().and_then(|id| self.mail.claim(id))),
            _ => (None, Some(Vec::new())),
        };
        let line = match (&carried, id) {
            (None, Some(id)) => serde_json::to_string(id).map_err(io::Error::from).and_then(|id| answer(&id, "error", &late())),
            _ => line(&item),
        };
        let (out, carried) = (self.out.clone(), carried.unwrap_or_default());
        async move {
            out.write_line(&line?).await?; // on failure `carried` is dropped, which releases it
            carried.into_iter().for_each(Handover::written);
            Ok(())
        }
    }

    async fn receive(&mut self) -> Option<RxJsonRpcMessage<RoleServer>> {
        loop {
            self.out.taken().await;
            let read = self.read_line().await;
            let mut line = std::mem::take(&mut self.line);
            let message = match read {
                Ok(Line::Whole) => self.parse(&line),
                Ok(Line::TooLong) => self.refuse(None, invalid_request(&format!("a line of more than {MAX_LINE} bytes"))),
                Ok(Line::End) => break,
                Err(error) => {
                    log!("reading stdin: {error}");
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
        self.end.cancel();
        None
    }

    async fn close(&mut self) -> io::Result<()> {
        std::mem::take(&mut self.errors).join_all().await.into_iter().collect()
    }
}
