//! Talking to the broker: connect over the Unix socket, check who is listening, exchange versions, call a verb.
//!
//! Promises: the socket's owner is checked before a byte is sent; versions are exchanged first on every connection; one
//! kept-alive connection is reused for calls and reopened when it has gone stale; an event stream has a connection of its
//! own. Every failure to reach the broker is [`Code::Unreachable`] with its cause and its remedy. No lock is held while a
//! request is under way.

mod query;

pub use query::with_query;

use crate::wire::{API, API_HEADER, API_MIN, Code, Error, Hello, Result, VERSION};
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
use std::{
    path::{Path, PathBuf},
    sync::Mutex,
    time::Duration,
};
use tokio::net::UnixStream;

/// How long connecting and the exchange of versions may take: a broker that is alive answers in milliseconds, one that is
/// being started by its socket in a fraction of a second.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long an answer may take that does not wait for anything on purpose: a commit on a very slow disk and then some.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);
/// Largest answer accepted: 1,000 messages of history fit, a runaway answer does not.
const MAX_ANSWER: usize = 512 * 1024 * 1024;

type Body = Full<Bytes>;

/// A client of one broker.
#[derive(Debug)]
pub struct Client {
    socket: PathBuf,
    program: &'static str,
    idle: Mutex<Option<SendRequest<Body>>>,
}

impl Client {
    /// A client of the broker behind `socket`, for the program named `program`. Connects when first asked for something.
    pub fn new(socket: PathBuf, program: &'static str) -> Self {
        Self { socket, program, idle: Mutex::new(None) }
    }

    /// The socket this client connects to.
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// Asks the broker who it is.
    ///
    /// # Errors
    /// [`Code::Unreachable`], or [`Code::VersionMismatch`] if there is no protocol version in common.
    pub async fn hello(&self) -> Result<Hello> {
        let (sender, hello) = self.connect().await?;
        self.put_back(sender);
        Ok(hello)
    }

    /// `GET path`, with `bearer` as the caller's secret.
    ///
    /// # Errors
    /// What the broker says, or [`Code::Unreachable`].
    pub async fn get<T: DeserializeOwned>(&self, path: &str, bearer: Option<&str>) -> Result<T> {
        self.get_waiting(path, bearer, Duration::ZERO).await
    }

    /// Like [`Client::get`], for a request that the broker answers up to `wait` later on purpose.
    ///
    /// # Errors
    /// What the broker says, or [`Code::Unreachable`].
    pub async fn get_waiting<T: DeserializeOwned>(&self, path: &str, bearer: Option<&str>, wait: Duration) -> Result<T> {
        self.call(Method::GET, path, bearer, Bytes::new(), ANSWER_TIMEOUT + wait).await
    }

    /// `POST path` with `body` as JSON.
    ///
    /// # Errors
    /// What the broker says, or [`Code::Unreachable`].
    pub async fn post<T: DeserializeOwned>(&self, path: &str, bearer: Option<&str>, body: &impl Serialize) -> Result<T> {
        self.post_waiting(path, bearer, body, Duration::ZERO).await
    }

    /// Like [`Client::post`], for a request that the broker answers up to `wait` later on purpose.
    ///
    /// # Errors
    /// What the broker says, or [`Code::Unreachable`].
    pub async fn post_waiting<T: DeserializeOwned>(
        &self,
        path: &str,
        bearer: Option<&str>,
        body: &impl Serialize,
        wait: Duration,
    ) -> Result<T> {
        let body = serde_json::to_vec(body).map_err(|e| Error::new(Code::InvalidRequest, format!("writing the request: {e}")))?;
        self.call(Method::POST, path, bearer, body.into(), ANSWER_TIMEOUT + wait).await
    }

    /// Opens an event stream on a connection of its own, which ends when the returned body is dropped.
    ///
    /// # Errors
    /// What the broker says, or [`Code::Unreachable`].
    pub async fn stream(&self, path: &str, bearer: &str) -> Result<Incoming> {
        let (mut sender, _) = self.connect().await?;
        let request = self.request(Method::GET, path, Some(bearer), Bytes::new())?;
        let answer = sender.send_request(request).await.map_err(|e| self.unreachable(&e))?;
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
    ) -> Result<T> {
        let exchange = async {
            let request = || self.request(method.clone(), path, bearer, body.clone());
            // A kept connection may have been closed by the broker meanwhile. Every verb may be said twice (idempotency
            // keys, leases), so what failed on an old connection is said once more on a new one.
            if let Some(mut sender) = self.take_idle()
                && let Ok(answer) = sender.send_request(request()?).await
            {
                return Ok::<_, Error>((sender, answer));
            }
            let (mut sender, _) = self.connect().await?;
            let answer = sender.send_request(request()?).await.map_err(|e| self.unreachable(&e))?;
            Ok((sender, answer))
        };
        let whole = async {
            let (sender, answer) = exchange.await?;
            let answer = self.read(answer).await;
            self.put_back(sender);
            answer
        };
        tokio::time::timeout(patience, whole)
            .await
            .unwrap_or_else(|_| Err(self.unreachable(&format!("no answer within {} s", patience.as_secs()))))
    }

    async fn connect(&self) -> Result<(SendRequest<Body>, Hello)> {
        tokio::time::timeout(CONNECT_TIMEOUT, self.connect_patiently())
            .await
            .unwrap_or_else(|_| Err(self.unreachable(&format!("no answer within {} s", CONNECT_TIMEOUT.as_secs()))))
    }

    async fn connect_patiently(&self) -> Result<(SendRequest<Body>, Hello)> {
        let stream = UnixStream::connect(&self.socket).await.map_err(|e| self.unreachable(&e))?;
        let owner = stream.peer_cred().map_err(|e| self.unreachable(&e))?.uid();
        let ours = rustix::process::getuid().as_raw();
        if owner != ours {
            let what = format!("{} is served by user {owner}, not by you (user {ours})", self.socket.display());
            return Err(Error::new(Code::Forbidden, what).help("set CLAUDE_PEERS_SOCKET to a socket of your own"));
        }
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(|e| self.unreachable(&e))?;
        tokio::spawn(connection); // ends with the connection; its error reaches whoever waits for an answer on it
        let request = self.request(Method::GET, "/v1/hello", None, Bytes::new())?;
        let answer = sender.send_request(request).await.map_err(|e| self.unreachable(&e))?;
        let hello: Hello = self.read(answer).await?;
        if hello.api < API_MIN || hello.api_min > API {
            return Err(version_mismatch(&hello));
        }
        Ok((sender, hello))
    }

    fn request(&self, method: Method, path: &str, bearer: Option<&str>, body: Bytes) -> Result<Request<Body>> {
        let mut request = Request::builder()
            .method(&method)
            .uri(path)
            .header(header::HOST, "localhost")
            .header(header::USER_AGENT, format!("{}/{VERSION}", self.program))
            .header(API_HEADER, API);
        if let Some(secret) = bearer {
            request = request.header(header::AUTHORIZATION, format!("Bearer {secret}"));
        }
        if method == Method::POST {
            request = request.header(header::CONTENT_TYPE, "application/json");
        }
        request.body(Full::new(body)).map_err(|e| Error::new(Code::InvalidRequest, format!("writing the request: {e}")))
    }

    async fn read<T: DeserializeOwned>(&self, answer: Response<Incoming>) -> Result<T> {
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
        let garbled = |e| Error::new(Code::VersionMismatch, format!("the broker's answer (HTTP {status}) cannot be read: {e}"));
        if status.is_success() {
            serde_json::from_slice(&body).map_err(garbled)
        } else {
            Err(serde_json::from_slice::<Refused>(&body).map_err(garbled)?.error)
        }
    }

    fn take_idle(&self) -> Option<SendRequest<Body>> {
        self.idle.lock().ok()?.take().filter(SendRequest::is_ready)
    }

    fn put_back(&self, sender: SendRequest<Body>) {
        if let Ok(mut idle) = self.idle.lock() {
            *idle = Some(sender);
        }
    }

    fn unreachable(&self, cause: &dyn std::fmt::Display) -> Error {
        let what = format!("the claude-peers broker cannot be reached at {}: {cause}", self.socket.display());
        Error::new(Code::Unreachable, what).help(START_HELP)
    }
}

/// What a person does when the broker cannot be reached.
pub const START_HELP: &str = "`claude-peers doctor` finds out why; to run it by hand: `claude-peersd`";

fn version_mismatch(hello: &Hello) -> Error {
    let what = format!(
        "this program ({VERSION}, protocol {API_MIN} to {API}) and the broker ({}, protocol {} to {}) have no protocol version in common",
        hello.version, hello.api_min, hello.api
    );
    let older = if hello.api < API_MIN {
        "restart the broker after the upgrade: `systemctl --user restart claude-peers`"
    } else {
        "upgrade this program"
    };
    Error::new(Code::VersionMismatch, what).help(older)
}
