//! Talking to the broker: connect over the Unix socket, check who is listening, exchange versions, call a verb.
//!
//! Promises: the socket's owner is checked before a byte is sent; versions are exchanged first on every connection; calls reuse one
//! connection, which is reopened when it has gone stale; an event stream has a connection of its own. No lock is held while a
//! request is under way.

use crate::platform::mounted;
use crate::wire::{self, API, API_HEADER, API_MIN, Code, Error, Hello, VERSION};
use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::{
    Method, Request, Response, StatusCode,
    body::Incoming,
    client::conn::http1::{self, SendRequest},
    header,
};
use hyper_util::rt::TokioIo;
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;
use std::{
    fmt, io,
    path::{Path, PathBuf},
    sync::Mutex,
    time::Duration,
};
use tokio::{net::UnixStream, time::timeout};

/// Advice for when the broker cannot be reached.
pub const START_HELP: &str = "`claude-peers start` starts it; `claude-peers doctor` finds out why it does not run";
pub const OUTSIDE: &str = "run it outside the sandbox; for Claude Code's Bash, add `claude-peers *` to `sandbox.excludedCommands` \
     in its settings.json";

/// Advice where another user listens.
const FOREIGN: &str =
    "set CLAUDE_PEERS_SOCKET to a socket of your own; in a container, mount the folder of the socket, and not the socket itself";

/// How long connecting and the exchange of versions may take: a running broker answers in milliseconds, one that its socket
/// starts in a fraction of a second.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Time limit for an answer that does not wait on purpose: longer than a commit on a very slow disk.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);
/// Largest answer accepted: 1,000 messages of history fit, a runaway answer does not.
const MAX_ANSWER: usize = 512 * 1024 * 1024;

type Body = Full<Bytes>;
type Connection = SendRequest<Body>;

/// A client of one broker.
#[derive(Debug)]
pub struct Client {
    socket: PathBuf,
    program: &'static str,
    idle: Mutex<Option<Connection>>,
}

impl Client {
    /// A client of the broker behind `socket`, for the program named `program`. Connects at its first call.
    pub fn new(socket: PathBuf, program: &'static str) -> Self {
        Self { socket, program, idle: Mutex::new(None) }
    }

    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// Asks the broker for its identity.
    pub async fn hello(&self) -> wire::Result<Hello> {
        let (connection, hello) = self.connect().await?;
        self.put_back(connection);
        Ok(hello)
    }

    /// `GET path`, with `bearer` as the caller's secret.
    pub async fn get<T: DeserializeOwned>(&self, path: &str, bearer: Option<&str>) -> wire::Result<T> {
        self.get_waiting(path, bearer, Duration::ZERO).await
    }

    /// Like [`Client::get`], for a request that the broker answers up to `wait` later on purpose.
    pub async fn get_waiting<T: DeserializeOwned>(&self, path: &str, bearer: Option<&str>, wait: Duration) -> wire::Result<T> {
        self.call(Method::GET, path, bearer, Bytes::new(), ANSWER_TIMEOUT + wait).await
    }

    /// `POST path` with `body` as JSON.
    pub async fn post<T: DeserializeOwned>(&self, path: &str, bearer: Option<&str>, body: &impl Serialize) -> wire::Result<T> {
        self.post_waiting(path, bearer, body, Duration::ZERO).await
    }

    /// Like [`Client::post`], for a request that the broker answers up to `wait` later on purpose.
    pub async fn post_waiting<T: DeserializeOwned>(
        &self,
        path: &str,
        bearer: Option<&str>,
        body: &impl Serialize,
        wait: Duration,
    ) -> wire::Result<T> {
        let body = serde_json::to_vec(body).map_err(|error| unwritable(&error))?;
        self.call(Method::POST, path, bearer, body.into(), ANSWER_TIMEOUT + wait).await
    }

    /// Opens an event stream on a connection of its own, which ends when the returned body is dropped.
    pub async fn stream(&self, path: &str, bearer: Option<&str>) -> wire::Result<Incoming> {
        let (mut connection, _) = self.connect().await?;
        let request = self.request(&Method::GET, path, bearer, Bytes::new())?;
        let answer = connection.send_request(request).await.map_err(|e| self.unreachable(&e))?;
        match answer.status() {
            StatusCode::OK => Ok(answer.into_body()),
            _ => Err(self.read::<()>(answer).await.err().unwrap_or_else(|| self.unreachable(&"an unexpected answer"))),
        }
    }

    async fn call<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        bearer: Option<&str>,
        body: Bytes,
        patience: Duration,
    ) -> wire::Result<T> {
        let request = || self.request(&method, path, bearer, body.clone());
        self.within(patience, async {
            // The broker may have closed a kept connection meanwhile. Every request may be repeated (idempotency keys, leases), so
            // one that failed on a kept connection is sent again on a new one.
            let (connection, answer) = if let Some(mut kept) = self.take_idle()
                && let Ok(answer) = kept.send_request(request()?).await
            {
                (kept, answer)
            } else {
                let (mut connection, _) = self.connect().await?;
                let answer = connection.send_request(request()?).await.map_err(|e| self.unreachable(&e))?;
                (connection, answer)
            };
            let answer = self.read(answer).await;
            self.put_back(connection);
            answer
        })
        .await
    }

    async fn connect(&self) -> wire::Result<(Connection, Hello)> {
        self.within(CONNECT_TIMEOUT, async {
            let stream = UnixStream::connect(&self.socket).await.map_err(|e| self.unconnected(&e))?;
            let owner = stream.peer_cred().map_err(|e| self.unreachable(&e))?.uid();
            if !mounted::is_trusted(&self.socket, owner) {
                let ours = rustix::process::getuid().as_raw();
                let what = format!("{} is served by user {owner}, not by you (user {ours})", self.socket.display());
                return Err(Error::new(Code::Forbidden, what).help(FOREIGN));
            }
            let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(|e| self.unreachable(&e))?;
            tokio::spawn(connection); // ends with the connection; its error reaches those who wait for an answer on it
            let request = self.request(&Method::GET, "/v1/hello", None, Bytes::new())?;
            let answer = sender.send_request(request).await.map_err(|e| self.unreachable(&e))?;
            let hello: Hello = self.read(answer).await?;
            check_version(&hello)?;
            Ok((sender, hello))
        })
        .await
    }

    async fn within<T>(&self, patience: Duration, work: impl Future<Output = wire::Result<T>>) -> wire::Result<T> {
        let late = || self.unreachable(&format!("no answer within {} s", patience.as_secs()));
        timeout(patience, work).await.unwrap_or_else(|_| Err(late()))
    }

    fn request(&self, method: &Method, path: &str, bearer: Option<&str>, body: Bytes) -> wire::Result<Request<Body>> {
        let mut request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::HOST, "localhost")
            .header(header::USER_AGENT, format!("{}/{VERSION}", self.program))
            .header(API_HEADER, API);
        if let Some(secret) = bearer {
            request = request.header(header::AUTHORIZATION, format!("Bearer {secret}"));
        }
        if *method == Method::POST {
            request = request.header(header::CONTENT_TYPE, "application/json");
        }
        request.body(Full::new(body)).map_err(|error| unwritable(&error))
    }

    async fn read<T: DeserializeOwned>(&self, answer: Response<Incoming>) -> wire::Result<T> {
        #[derive(serde::Deserialize)]
        struct Refused {
            error: Error,
        }
        let (status, is_broker) = (answer.status(), answer.headers().contains_key(API_HEADER));
        let body = Limited::new(answer.into_body(), MAX_ANSWER).collect().await.map_err(|e| self.unreachable(&e))?.to_bytes();
        if !is_broker {
            let what = format!("the program that answers at {} is not claude-peersd", self.socket.display());
            return Err(Error::new(Code::VersionMismatch, what).help("stop it, or set CLAUDE_PEERS_SOCKET"));
        }
        let unreadable = |error: serde_json::Error| {
            Error::new(Code::VersionMismatch, format!("the broker's answer (HTTP {status}) cannot be read: {error}"))
        };
        if status.is_success() {
            serde_json::from_slice(&body).map_err(unreadable)
        } else {
            Err(serde_json::from_slice::<Refused>(&body).map_err(unreadable)?.error)
        }
    }

    fn take_idle(&self) -> Option<Connection> {
        self.idle.lock().ok()?.take().filter(SendRequest::is_ready)
    }

    fn put_back(&self, connection: Connection) {
        if let Ok(mut idle) = self.idle.lock() {
            *idle = Some(connection);
        }
    }

    fn unconnected(&self, error: &io::Error) -> Error {
        if !is_sandboxed(error) {
            return self.unreachable(error);
        }
        let what = format!("a sandbox keeps this program from connecting to {}", self.socket.display());
        Error::new(Code::Unreachable, what).help(OUTSIDE)
    }

    fn unreachable(&self, cause: &dyn fmt::Display) -> Error {
        let what = format!("the claude-peers broker cannot be reached at {}: {cause}", self.socket.display());
        Error::new(Code::Unreachable, what).help(START_HELP)
    }
}

/// Whether the error of a connection shows a sandbox: file permissions give another one.
pub fn is_sandboxed(error: &io::Error) -> bool {
    error.raw_os_error() == Some(rustix::io::Errno::PERM.raw_os_error())
}

fn unwritable(cause: &dyn fmt::Display) -> Error {
    Error::new(Code::InvalidRequest, format!("writing the request: {cause}"))
}

fn check_version(hello: &Hello) -> wire::Result<()> {
    let Hello { version, api, api_min, .. } = hello;
    let help = if *api < API_MIN {
        "restart the broker after the upgrade: `systemctl --user restart claude-peers`"
    } else if *api_min > API {
        "upgrade this program"
    } else {
        return Ok(());
    };
    let what = format!(
        "this program ({VERSION}, protocol {API_MIN} to {API}) and the broker ({version}, protocol {api_min} to {api}) have no \
         protocol version in common"
    );
    Err(Error::new(Code::VersionMismatch, what).help(help))
}

/// `path` with the fields of `query`, a JSON object, as its query. Fields that are null are left out.
pub fn with_query(path: &str, query: &Value) -> String {
    let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    let fields = query.as_object().into_iter().flatten().filter(|(_, value)| !value.is_null());
    let pairs = fields.map(|(name, value)| (name, text(value)));
    form_urlencoded::Serializer::for_suffix(format!("{path}?"), path.len() + 1).extend_pairs(pairs).finish()
}
