//! MCP over stdin and stdout: one JSON-RPC message a line.
//!
//! What it adds to the protocol's plain transport:
//! - Revision 2026-07-28 is never spoken of: a client that hears of it does not register a channel. The probe for it
//!   (`server/discover`) gets the answer of a server that does not know it, and no request may select it for itself.
//! - Before `initialize` nothing but that and `ping` is served, and stray messages do not end the process.
//! - A line that is no JSON, no request or far too long gets an error, and the next line is read.
//! - Proof of writing: the mail that an answer carries is settled as handed over when the answer has been written, and
//!   released when it cannot be.
//!
//! Where the system can, pipes and sockets are read and written without threads.

use super::{inbox::Inbox, locked, settle::Handover};
use rmcp::{
    RoleServer,
    model::{ClientJsonRpcMessage, ClientRequest, ErrorCode, ErrorData, GetMeta, JsonRpcError, JsonRpcMessage, RequestId},
    service::{RxJsonRpcMessage, TxJsonRpcMessage},
    transport::Transport,
};
use serde::Serialize;
use serde_json::{Value, json};
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
/// The field by which a request selects a protocol revision for itself.
const REVISION: &str = "io.modelcontextprotocol/protocolVersion";

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
    pub async fn write(&self, message: &(impl Serialize + Sync)) -> io::Result<()> {
        let mut line = serde_json::to_vec(message)?;
        line.push(b'\n');
        let mut out = self.0.lock().await;
        out.write_all(&line).await?;
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
    /// The rest of a line that is too long is being skipped.
    skipping: bool,
    out: Writer,
    /// The client has sent `initialize`.
    opened: bool,
    /// Answers given here. They are tasks, since a read may be dropped half-way and a written line may not.
    answers: Mutex<JoinSet<io::Result<()>>>,
    inbox: Arc<Inbox>,
    /// Cancelled when stdin ends, so that nothing goes on waiting for the sake of a client that is gone.
    closing: CancellationToken,
}

/// What a read from stdin gave.
enum Line {
    Whole,
    TooLong,
    End,
}

impl Stdio {
    /// A transport that tells `inbox` which answers were written, and `closing` when stdin has ended.
    pub fn new(input: Reader, out: Writer, inbox: Arc<Inbox>, closing: CancellationToken) -> Self {
        let answers = Mutex::default();
        Self { input: BufReader::new(input), line: Vec::new(), skipping: false, out, opened: false, answers, inbox, closing }
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
            if !self.skipping {
                self.line.extend_from_slice(&available[..used]);
            }
            self.input.consume(used);
            let was_skipping = self.skipping;
            self.skipping = newline.is_none() && (was_skipping || self.line.len() > MAX_LINE);
            match newline {
                Some(_) if was_skipping => self.line.clear(),
                Some(_) if self.line.len() <= MAX_LINE => return Ok(Line::Whole),
                _ if !was_skipping && self.line.len() > MAX_LINE => {
                    self.line = Vec::new();
                    return Ok(Line::TooLong);
                }
                _ => {}
            }
        }
    }

    /// What the service is to see of a line; the rest is answered here.
    fn parse(&mut self, line: &[u8]) -> Option<RxJsonRpcMessage<RoleServer>> {
        if line.trim_ascii().is_empty() {
            return None;
        }
        match serde_json::from_slice(line) {
            Ok(message) => self.admit(message),
            Err(_) => {
                self.refuse_garbled(line);
                None
            }
        }
    }

    fn admit(&mut self, message: ClientJsonRpcMessage) -> Option<ClientJsonRpcMessage> {
        let JsonRpcMessage::Request(mut request) = message else {
            return self.opened.then_some(message); // a stray message before the session is open
        };
        request.request.get_meta_mut().remove(REVISION);
        match &request.request {
            ClientRequest::DiscoverRequest(_) => {
                self.refuse(request.id, ErrorData::new(ErrorCode::METHOD_NOT_FOUND, "Method not found: server/discover", None));
                return None;
            }
            ClientRequest::InitializeRequest(_) => self.opened = true,
            ClientRequest::PingRequest(_) => {}
            _ if !self.opened => {
                self.refuse(request.id, ErrorData::invalid_request("the session is not open yet: send initialize first", None));
                return None;
            }
            _ => {}
        }
        Some(JsonRpcMessage::Request(request))
    }

    fn refuse(&self, id: RequestId, error: ErrorData) {
        self.answer(JsonRpcError::new(Some(id), error));
    }

    /// A line that is no message of the protocol. A notification is never answered, not even a broken one.
    fn refuse_garbled(&self, line: &[u8]) {
        let (code, message, id) = match serde_json::from_slice::<Value>(line) {
            Err(error) => (ErrorCode::PARSE_ERROR, format!("Parse error: {error}"), Value::Null),
            Ok(Value::Object(object)) if object.contains_key("method") && !object.contains_key("id") => return,
            Ok(value) => {
                let id = value.get("id").filter(|id| id.is_string() || id.is_i64()).cloned().unwrap_or_default();
                (ErrorCode::INVALID_REQUEST, "Invalid request: not a JSON-RPC 2.0 request of this protocol".to_owned(), id)
            }
        };
        self.answer(json!({"jsonrpc": "2.0", "id": id, "error": {"code": code, "message": message}}));
    }

    fn answer(&self, answer: impl Serialize + Send + Sync + 'static) {
        let out = self.out.clone();
        let mut answers = locked(&self.answers);
        while answers.try_join_next().is_some() {}
        answers.spawn(async move { out.write(&answer).await });
    }
}

impl Transport<RoleServer> for Stdio {
    type Error = io::Error;

    fn send(&mut self, item: TxJsonRpcMessage<RoleServer>) -> impl Future<Output = io::Result<()>> + Send + 'static {
        // Claimed now, not when it is written: from here on a cancellation comes too late.
        let carried = match &item {
            JsonRpcMessage::Response(answer) => self.inbox.claim(&answer.id),
            JsonRpcMessage::Error(error) => error.id.as_ref().map(|id| self.inbox.claim(id)).unwrap_or_default(),
            _ => Vec::new(),
        };
        let out = self.out.clone();
        async move {
            out.write(&item).await?; // on failure `carried` is dropped, which releases it
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
                Ok(Line::TooLong) => {
                    let message = format!("Invalid request: a line of more than {MAX_LINE} bytes");
                    let error = json!({"code": ErrorCode::INVALID_REQUEST, "message": message});
                    self.answer(json!({"jsonrpc": "2.0", "id": null, "error": error}));
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
