//! MCP over stdin and stdout: one JSON-RPC message a line.
//!
//! What it promises:
//! - Only what this server knows is let in: `initialize`, `ping`, `tools/list`, `tools/call` and two notifications. All else
//!   is refused as a server refuses it that has never heard of it. That holds above all for the probe for revision
//!   2026-07-28 (`server/discover`), of which no answer speaks: a client that hears of it does not register a channel.
//! - A line that is no JSON, no request or far too long gets an error, under its id wherever one can be found; stray messages
//!   are ignored, the next line is read.
//! - Proof of writing: the mail that an answer carries is acknowledged as handed over when the answer has been written, and
//!   released when it cannot be.
//!
//! Where the system can, pipes and sockets are read and written without threads.

use super::{acknowledge::Handover, link::Link, locked, mail::Mailbox, salvage::Scan};
use rmcp::{
    RoleServer,
    model::{
        CallToolRequestParams, CancelledNotification, CancelledNotificationParam, ClientCapabilities, ClientNotification,
        ClientRequest, ErrorCode, ErrorData, Implementation, InitializeRequest, InitializeRequestParams, JsonRpcMessage,
        RequestId, ServerResult,
    },
    service::{RxJsonRpcMessage, TxJsonRpcMessage},
    transport::Transport,
};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::{
    io,
    os::fd::{AsFd, BorrowedFd},
    sync::{Arc, Mutex},
};
use tokio::{
    io::{AsyncBufReadExt, AsyncRead, AsyncWrite, AsyncWriteExt, BufReader},
    net::UnixStream,
    task::JoinSet,
};
use tokio_util::sync::CancellationToken;

/// Longest line accepted. A message's text has at most 256 KiB, which JSON's escapes make at most six times as long.
const MAX_LINE: usize = 4 * 1024 * 1024;
/// What is kept of a line's buffer once the line is read; one long message must not cost memory for ever.
const KEPT_LINE: usize = 16 * 1024;
/// Where lines come from.
pub type Reader = Box<dyn AsyncRead + Send + Unpin>;

/// Where lines go. Clones write to the same place, a whole line at a time.
#[derive(Clone)]
pub struct Writer(Arc<tokio::sync::Mutex<Box<dyn AsyncWrite + Send + Unpin>>>);

impl Writer {
    /// Writes to `out`.
    pub fn new(out: impl AsyncWrite + Send + Unpin + 'static) -> Self {
        Self(Arc::new(tokio::sync::Mutex::new(Box::new(out))))
    }

    /// Writes `message` as one line; done when the system has taken all of it.
    pub async fn write(&self, message: &Value) -> io::Result<()> {
        let mut line = serde_json::to_vec(message)?;
        line.push(b'\n');
        self.write_line(&line).await
    }

    async fn write_line(&self, line: &[u8]) -> io::Result<()> {
        let mut out = self.0.lock().await;
        out.write_all(line).await?;
        out.flush().await
    }
}

/// This process's stdin and stdout.
pub fn open() -> (Reader, Writer) {
    let (stdin, stdout) = (io::stdin(), io::stdout());
    let reader: Reader = if let Some(pipe) = pipe_options().and_then(|pipe| pipe.open_receiver("/proc/self/fd/0").ok()) {
        Box::new(pipe)
    } else if let Some(socket) = socket(stdin.as_fd()) {
        Box::new(socket)
    } else {
        Box::new(tokio::io::stdin())
    };
    let writer = if let Some(pipe) = pipe_options().and_then(|pipe| pipe.open_sender("/proc/self/fd/1").ok()) {
        Writer::new(pipe)
    } else if let Some(socket) = socket(stdout.as_fd()) {
        Writer::new(socket)
    } else {
        Writer::new(tokio::io::stdout())
    };
    (reader, writer)
}

/// Opening a pipe anew by its descriptor gives it flags of its own: whoever shares the old one keeps a blocking pipe. Only
/// Linux can.
fn pipe_options() -> Option<tokio::net::unix::pipe::OpenOptions> {
    cfg!(target_os = "linux").then(tokio::net::unix::pipe::OpenOptions::new)
}

fn socket(fd: BorrowedFd<'_>) -> Option<UnixStream> {
    let stat = rustix::fs::fstat(fd).ok()?;
    if !rustix::fs::FileType::from_raw_mode(stat.st_mode).is_socket() {
        return None;
    }
    let socket = std::os::unix::net::UnixStream::from(fd.try_clone_to_owned().ok()?);
    socket.set_nonblocking(true).ok()?;
    UnixStream::from_std(socket).ok()
}

/// The transport of one session.
pub struct Stdio {
    input: BufReader<Reader>,
    line: Vec<u8>,
    /// The line that is being read is too long: it is not kept, only looked at.
    too_long: Option<Scan>,
    out: Writer,
    /// The client has sent `initialize`.
    opened: bool,
    /// Answers given here. They are tasks, since a read may be dropped half-way and a written line may not.
    answers: Mutex<JoinSet<io::Result<()>>>,
    mail: Arc<Mailbox>,
    link: Arc<Link>,
    /// Cancelled when stdin ends, so that nothing goes on waiting for the sake of a client that is gone.
    closing: CancellationToken,
}

/// What a read from stdin gave.
enum Line {
    Whole,
    TooLong(Scan),
    End,
}

impl Stdio {
    /// A transport that tells `mail` which answers were written, `link` who the client is, and `closing` when stdin has ended.
    pub fn new(input: Reader, out: Writer, mail: Arc<Mailbox>, link: Arc<Link>, closing: CancellationToken) -> Self {
        let answers = Mutex::default();
        Self { input: BufReader::new(input), line: Vec::new(), too_long: None, out, opened: false, answers, mail, link, closing }
    }

    /// Reads one line into `self.line`. May be dropped at its `.await` and called again: nothing read is lost.
    async fn read_line(&mut self) -> io::Result<Line> {
        loop {
            let available = self.input.fill_buf().await?;
            if available.is_empty() {
                return Ok(Line::End);
            }
            let newline = available.iter().position(|byte| *byte == b'\n');
            let used = newline.map_or(available.len(), |at| at + 1);
            match &mut self.too_long {
                Some(scan) => scan.feed(&available[..used]),
                None => self.line.extend_from_slice(&available[..used]),
            }
            self.input.consume(used);
            if self.line.len() > MAX_LINE {
                self.too_long = Some(Scan::of(&std::mem::take(&mut self.line)));
            }
            if newline.is_some() {
                return Ok(self.too_long.take().map_or(Line::Whole, Line::TooLong));
            }
        }
    }

    /// What the service is to see of a line; the rest is answered or ignored here.
    fn parse(&mut self, line: &[u8]) -> Option<RxJsonRpcMessage<RoleServer>> {
        if line.trim_ascii().is_empty() {
            return None;
        }
        let mut message = match serde_json::from_slice(line) {
            Ok(Value::Object(message)) => message,
            Ok(Value::Array(batch)) => return self.refuse_batch(&batch),
            Ok(_) => return self.refuse(None, invalid_request("not a JSON object")),
            Err(error) => return self.refuse_unreadable(&Scan::of(line), unreadable(&error)),
        };
        let written_id = message.get("id").and_then(id_as_written);
        let id = message.get("id").map(RequestId::deserialize);
        let params = match message.remove("params") {
            Some(Value::Object(params)) => params,
            _ => Map::new(),
        };
        match (message.get("method").and_then(Value::as_str), id) {
            (Some(method), Some(Ok(id))) => match self.request(method, params) {
                Ok(request) => Some(JsonRpcMessage::request(request, id)),
                Err(error) => self.refuse(written_id.as_deref(), error),
            },
            (Some(method), None) if self.opened => notification(method, params).map(JsonRpcMessage::notification),
            // A stray notification, or the answer to a request that nobody made. Neither is ever answered.
            (_, None) => None,
            (None, _) if message.contains_key("result") || message.contains_key("error") => None,
            _ => {
                let what = "not a JSON-RPC 2.0 request with a string or whole number as its id";
                self.refuse(written_id.as_deref(), invalid_request(what))
            }
        }
    }

    /// The request that `method` names. What a client says of itself beside it is not needed here.
    fn request(&mut self, method: &str, mut params: Map<String, Value>) -> Result<ClientRequest, ErrorData> {
        let wrong = |what: &'static str| ErrorData::invalid_params(what, None);
        Ok(match method {
            "ping" => ClientRequest::PingRequest(Default::default()),
            "initialize" => {
                let version = params.remove("protocolVersion").map(serde_json::from_value).and_then(Result::ok);
                let client = params.remove("clientInfo");
                let said = |field: &str| client.as_ref().and_then(|client| client[field].as_str()).unwrap_or_default().to_owned();
                let (name, client_version) = (said("name"), said("version"));
                let version = version.ok_or_else(|| wrong("initialize: protocolVersion is missing or no text"))?;
                let mut params = InitializeRequestParams::new(ClientCapabilities::default(), Implementation::default());
                params.protocol_version = version;
                self.link.client_is(&name, &client_version);
                self.opened = true;
                ClientRequest::InitializeRequest(InitializeRequest::new(params))
            }
            "tools/list" | "tools/call" if !self.opened => {
                return Err(ErrorData::invalid_request("the session is not open yet: send initialize first", None));
            }
            "tools/list" => ClientRequest::ListToolsRequest(Default::default()),
            "tools/call" => {
                let Some(Value::String(name)) = params.remove("name") else {
                    return Err(wrong("tools/call: name is missing or no text"));
                };
                let mut call = CallToolRequestParams::new(name);
                call.arguments = match params.remove("arguments") {
                    None | Some(Value::Null) => None,
                    Some(Value::Object(arguments)) => Some(arguments),
                    Some(_) => return Err(wrong("tools/call: arguments is no object")),
                };
                ClientRequest::CallToolRequest(rmcp::model::CallToolRequest::new(call))
            }
            _ => return Err(ErrorData::new(ErrorCode::METHOD_NOT_FOUND, format!("Method not found: {method}"), None)),
        })
    }

    /// Answers an id, as it is written, with an error.
    fn refuse<T>(&self, id: Option<&str>, error: ErrorData) -> Option<T> {
        // JSON-RPC wants the id there even where it is not known.
        let id = id.unwrap_or("null");
        match serde_json::to_string(&error) {
            Ok(error) => self.answer(format!("{{\"jsonrpc\":\"2.0\",\"id\":{id},\"error\":{error}}}\n")),
            Err(error) => super::log!("writing an error: {error}"),
        }
        None
    }

    /// Answers a line of which only this is known.
    fn refuse_unreadable<T>(&self, scan: &Scan, error: ErrorData) -> Option<T> {
        if scan.is_answer() {
            super::log!("ignored an answer to a request that nobody made: {}", error.message);
            return None;
        }
        self.refuse(scan.id(), error)
    }

    /// Each request of a batch waits for an answer of its own.
    fn refuse_batch<T>(&self, batch: &[Value]) -> Option<T> {
        let waiting = batch.iter().filter(|message| message.get("method").is_some());
        let ids: Vec<String> = waiting.filter_map(|message| message.get("id").and_then(id_as_written)).collect();
        let error = || invalid_request("not a JSON object; this server takes one message a line, no batches");
        if ids.is_empty() {
            return self.refuse(None, error());
        }
        ids.iter().fold(None, |_, id| self.refuse(Some(id), error()))
    }

    fn answer(&self, line: String) {
        let out = self.out.clone();
        let mut answers = locked(&self.answers);
        while answers.try_join_next().is_some() {}
        answers.spawn(async move { out.write_line(line.as_bytes()).await });
    }
}

fn invalid_request(what: &str) -> ErrorData {
    ErrorData::invalid_request(format!("Invalid request: {what}"), None)
}

/// What is wrong with a line that is no JSON, in words that help whoever wrote it.
fn unreadable(error: &serde_json::Error) -> ErrorData {
    let mut what = format!("Parse error: {error}");
    if what.contains("hex escape") {
        what +=
            ": an escape such as \\ud83d is only half of a character, an emoji for example; send it again with whole characters";
    } else if what.contains("unicode code point") {
        what += ": the line is not text in UTF-8";
    }
    ErrorData::parse_error(what, None)
}

/// A request's id as it goes back: a text or a number of any kind.
fn id_as_written(id: &Value) -> Option<String> {
    (id.is_string() || id.is_number()).then(|| id.to_string())
}

/// The notification that `method` names, if it is one that means something here.
fn notification(method: &str, mut params: Map<String, Value>) -> Option<ClientNotification> {
    match method {
        "notifications/initialized" => Some(ClientNotification::InitializedNotification(Default::default())),
        "notifications/cancelled" => {
            let request = RequestId::deserialize(params.remove("requestId")?).ok()?;
            let params = CancelledNotificationParam::new(Some(request), None);
            Some(ClientNotification::CancelledNotification(CancelledNotification::new(params)))
        }
        _ => None,
    }
}

/// The line for a message. Of all that the protocol knows, only the answers that this server gives: code for the others
/// would take more memory than everything else.
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
            _ => return Err(io::Error::other("an answer that this server does not give")),
        },
        JsonRpcMessage::Error(error) => serde_json::to_vec(error)?,
        _ => return Err(io::Error::other("a message that this server does not send")),
    };
    line.push(b'\n');
    Ok(line)
}

impl Transport<RoleServer> for Stdio {
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
            match self.read_line().await {
                Ok(Line::Whole) => {
                    let mut line = std::mem::take(&mut self.line);
                    let message = self.parse(&line);
                    line.clear();
                    line.shrink_to(KEPT_LINE);
                    self.line = line;
                    if message.is_some() {
                        return message;
                    }
                }
                Ok(Line::TooLong(scan)) => {
                    let error = invalid_request(&format!("a line of more than {MAX_LINE} bytes"));
                    self.refuse_unreadable::<()>(&scan, error);
                }
                Ok(Line::End) => break,
                Err(error) => {
                    super::log!("reading stdin: {error}");
                    break;
                }
            }
        }
        self.closing.cancel();
        None
    }

    async fn close(&mut self) -> io::Result<()> {
        let answers = std::mem::take(&mut *locked(&self.answers));
        answers.join_all().await.into_iter().collect()
    }
}

#[cfg(test)]
#[path = "stdio_tests.rs"]
mod tests;
