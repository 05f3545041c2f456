//! Who may come in. Checked before anything of a request is acted on, on every listener and every path.
//!
//! | who | gets | how |
//! |---|---|---|
//! | another user | nothing | the Unix socket's peer credentials; for TCP the owner of the connecting socket, from the kernel; where the kernel cannot tell, a token from a file only we can read |
//! | a web page | 403 | any `Origin` or `Sec-Fetch-Site`, any `Host` but this port's loopback names |
//! | a session's shell | the session's name on what it sends | the kernel shows that the connecting process descends from its agent |
//! | a liar | 401, 403 | a peer is who its secret says; a hook is of the session whose process the kernel shows it to descend from; a session of the reference is bound to its process |

use super::errors::Refusal;
use crate::{
    broker::{Broker, Caller},
    platform::{kernel, process},
    wire::{self, API, API_HEADER, API_MIN, Code, Error, PROCESS_SCHEME, Process, SESSION_SCHEME, TOKEN_HEADER, VERSION},
};
use axum::{
    extract::{FromRequestParts, Request, State},
    http::{HeaderMap, HeaderValue, header, request::Parts},
    middleware::Next,
    response::{IntoResponse, Response},
};
use std::{net::SocketAddr, sync::Arc};

/// What is known of the connection a request came by.
#[derive(Debug, Clone)]
pub enum Connection {
    /// The Unix socket; the process at the other end, if it lives in our view of processes.
    Unix {
        /// The connecting process.
        pid: Option<u32>,
    },
    /// The TCP socket.
    Tcp {
        /// The connecting socket, where the kernel tells.
        inode: Option<u64>,
        /// The port it connected to.
        port: u16,
        /// The token that every request must carry, where the kernel does not tell.
        token: Option<Arc<str>>,
    },
}

impl Connection {
    /// The process at the other end, if the kernel can tell. Reads the process table.
    pub fn owner(&self) -> Option<u32> {
        match self {
            Self::Unix { pid } => *pid,
            Self::Tcp { inode, .. } => kernel::owner((*inode)?),
        }
    }

    /// Whether `process`, or a process it started, is at the other end; none where the kernel cannot tell.
    pub fn belongs_to(&self, process: Process) -> Option<bool> {
        let from_tree = |pid: u32| pid == process.pid || process::ancestors(pid).contains(&process.pid);
        match self {
            Self::Unix { pid } => pid.map(from_tree),
            Self::Tcp { inode: None, .. } => None,
            Self::Tcp { inode: Some(inode), .. } => match kernel::holds(process.pid, *inode) {
                Some(true) => Some(true),
                // Its files do not show the socket, or it is gone: whoever holds the socket must be of its tree.
                _ => Some(kernel::owner(*inode).is_some_and(from_tree)),
            },
        }
    }
}

/// Whether a TCP connection comes from this user, and the connecting socket: the kernel's word, at accept.
pub fn connecting_socket(peer: SocketAddr, local: SocketAddr) -> Option<u64> {
    let ours = rustix::process::geteuid().as_raw();
    kernel::connecting(peer, local).filter(|socket| socket.uid == ours).map(|socket| socket.inode)
}

/// Lets a request through, or refuses it; stamps every answer.
pub async fn check(request: Request, next: Next) -> Response {
    let refusal = request.extensions().get::<Connection>().map_or_else(
        || Err(forbidden("a connection of unknown origin", "connect to one of the broker's sockets")),
        |connection| admit(connection, request.headers(), request.uri().authority().map(|authority| authority.as_str())),
    );
    let path = request.uri().path().to_owned();
    let mut response = match refusal {
        Ok(()) => next.run(request).await,
        Err(error) => {
            tracing::warn!(path, code = ?error.code, "refused: {}", error.message);
            Refusal::on(&path, error).into_response()
        }
    };
    let headers = response.headers_mut();
    headers.insert(API_HEADER, HeaderValue::from(API));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

fn admit(connection: &Connection, headers: &HeaderMap, authority: Option<&str>) -> wire::Result<()> {
    // Browsers set these on every request a page makes and let no page leave them out; our clients never send them.
    for name in ["origin", "sec-fetch-site", "sec-fetch-mode", "sec-fetch-dest"] {
        if headers.contains_key(name) {
            return Err(forbidden(
                "requests from web pages are refused",
                "use the claude-peers programs, or leave out the browser's headers",
            ));
        }
    }
    if let Connection::Tcp { port, token, .. } = connection {
        let mut hosts = headers.get_all(header::HOST).iter();
        let host = hosts.next().and_then(|host| host.to_str().ok());
        let ours = |host: &str| {
            ["127.0.0.1", "localhost", "[::1]"].iter().any(|name| host.eq_ignore_ascii_case(&format!("{name}:{port}")))
        };
        if !host.is_some_and(ours) || hosts.next().is_some() || authority.is_some_and(|authority| !ours(authority)) {
            return Err(forbidden("the Host header is not this broker's", &format!("use http://127.0.0.1:{port}")));
        }
        if let Some(token) = token {
            let shown = headers.get(TOKEN_HEADER).map(HeaderValue::as_bytes);
            if !shown.is_some_and(|shown| same(shown, token.as_bytes())) {
                let help = "send the content of the token file beside the Unix socket in the header claude-peers-token, or use the Unix socket";
                return Err(forbidden("TCP requests need the machine token here", help));
            }
        }
    }
    if let Some(asked) = headers.get(API_HEADER) {
        let version: Option<u32> = asked.to_str().ok().and_then(|asked| asked.parse().ok());
        if !version.is_some_and(|version| (API_MIN..=API).contains(&version)) {
            let asked = String::from_utf8_lossy(asked.as_bytes()).chars().take(20).collect::<String>();
            let what = format!("this broker ({VERSION}) speaks protocol {API_MIN} to {API}, not {asked:?}");
            return Err(Error::new(Code::VersionMismatch, what)
                .help("upgrade the older of the two, and restart the broker after an upgrade"));
        }
    }
    Ok(())
}

fn forbidden(what: &str, help: &str) -> Error {
    Error::new(Code::Forbidden, what).help(help)
}

/// Compares without telling by its time where the first difference is.
fn same(a: &[u8], b: &[u8]) -> bool {
    a.len() == b.len() && a.iter().zip(b).fold(0, |difference, (a, b)| difference | (a ^ b)) == 0
}

/// Who asks, by the request's secret: without one, the user.
impl FromRequestParts<Arc<super::App>> for Caller {
    type Rejection = Refusal;
    async fn from_request_parts(parts: &mut Parts, app: &Arc<super::App>) -> Result<Self, Refusal> {
        caller(&app.broker, parts).map_err(|error| Refusal::on(parts.uri.path(), error))
    }
}

fn caller(broker: &Broker, parts: &Parts) -> wire::Result<Caller> {
    let Some(value) = parts.headers.get(header::AUTHORIZATION) else { return Ok(Caller::User) };
    match value.to_str().ok().and_then(|value| value.split_once(' ')) {
        Some((scheme, secret)) if scheme.eq_ignore_ascii_case("bearer") => broker.authenticate(secret.trim()).map(Caller::Peer),
        Some((scheme, pid)) if scheme.eq_ignore_ascii_case(PROCESS_SCHEME) => {
            let host = host(pid, parts)?;
            broker.peer_of(host).map(Caller::Peer).ok_or_else(|| {
                Error::new(Code::Unauthorized, format!("process {} runs no session that is registered here", host.pid))
                    .help("register, and send the secret")
            })
        }
        _ => Err(Error::new(Code::Unauthorized, "the Authorization header is not `Bearer SECRET`")
            .help("send the secret from the registration")),
    }
}

/// The agent process that a hook says it was started by, if the kernel shows that it was.
fn host(pid: &str, parts: &Parts) -> wire::Result<Process> {
    let connecting = parts.extensions.get::<Connection>().and_then(|connection| match connection {
        Connection::Unix { pid } => *pid,
        Connection::Tcp { .. } => None,
    });
    let named = pid.trim().parse().ok();
    let host = named.filter(|host| connecting.is_some_and(|connecting| process::descends_from(connecting, *host)));
    host.and_then(process::identify).ok_or_else(|| {
        Error::new(Code::Unauthorized, "the process named in `Authorization: Process PID` did not start the one that asks")
            .help("use the Unix socket, from a process of the session's")
    })
}

/// The session inside of which a program runs that shows no secret: by the kernel's word, whatever the program says or leaves out.
#[derive(Debug, Clone)]
pub struct Inside(pub Option<wire::PeerId>);

impl FromRequestParts<Arc<super::App>> for Inside {
    type Rejection = Refusal;
    async fn from_request_parts(parts: &mut Parts, app: &Arc<super::App>) -> Result<Self, Refusal> {
        if parts.headers.contains_key(header::AUTHORIZATION) {
            return Ok(Self(None));
        }
        let connection = Connection::from_request_parts(parts, app).await?;
        let broker = app.broker.clone();
        // Off the threads that serve requests: it looks at the process table.
        let look = tokio::task::spawn_blocking(move || broker.session_of(|| connection.owner())).await;
        let failed = |error| {
            let error = Error::new(Code::Internal, format!("looking for the session that asks: {error}"));
            Refusal::on(parts.uri.path(), error)
        };
        look.map(Self).map_err(failed)
    }
}

impl Inside {
    /// Who sends: what a session does through its shell is the session's.
    pub fn or(self, caller: Caller) -> Caller {
        self.0.map_or(caller, Caller::Peer)
    }
}

/// A caller that shows whose session it was started by: with the token that the session's client gives to what it starts, or by
/// naming the process that runs it.
#[derive(Debug, Clone, Copy)]
pub struct AsProcess(pub Process);

impl FromRequestParts<Arc<super::App>> for AsProcess {
    type Rejection = Refusal;
    async fn from_request_parts(parts: &mut Parts, app: &Arc<super::App>) -> Result<Self, Refusal> {
        let value = parts.headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok()?.split_once(' '));
        let token = value.filter(|(scheme, _)| scheme.eq_ignore_ascii_case(SESSION_SCHEME));
        if let Some(host) = token.and_then(|(_, token)| app.broker.agent_by_token(token.trim())) {
            return Ok(Self(host));
        }
        let pid = value.filter(|(scheme, _)| scheme.eq_ignore_ascii_case(PROCESS_SCHEME)).map(|(_, pid)| pid.to_owned());
        let pid = pid.ok_or_else(|| {
            Error::new(Code::Unauthorized, "this is for a session's hooks")
                .help("send `Authorization: Session TOKEN` or `Process PID`")
        });
        pid.and_then(|pid| host(&pid, parts)).map(Self).map_err(|error| Refusal::on(parts.uri.path(), error))
    }
}

/// A caller that must be a peer.
#[derive(Debug, Clone)]
pub struct AsPeer(pub wire::PeerId);

impl FromRequestParts<Arc<super::App>> for AsPeer {
    type Rejection = Refusal;
    async fn from_request_parts(parts: &mut Parts, app: &Arc<super::App>) -> Result<Self, Refusal> {
        match Caller::from_request_parts(parts, app).await? {
            Caller::Peer(id) => Ok(Self(id)),
            Caller::User => {
                let error = Error::new(Code::Unauthorized, "this is for registered peers")
                    .help("register, and send the secret as `Authorization: Bearer SECRET`");
                Err(Refusal::on(parts.uri.path(), error))
            }
        }
    }
}

/// The connection a request came by.
impl FromRequestParts<Arc<super::App>> for Connection {
    type Rejection = Refusal;
    async fn from_request_parts(parts: &mut Parts, _: &Arc<super::App>) -> Result<Self, Refusal> {
        let missing = || {
            Refusal::on(parts.uri.path(), forbidden("a connection of unknown origin", "connect to one of the broker's sockets"))
        };
        parts.extensions.get::<Self>().cloned().ok_or_else(missing)
    }
}

/// Keeps the state's type in one place for the router.
pub(super) type AppState = State<Arc<super::App>>;

#[cfg(test)]
mod tests {
    use super::*;

    fn tcp(token: Option<&str>) -> Connection {
        Connection::Tcp { inode: Some(1), port: 7899, token: token.map(Arc::from) }
    }

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (header::HeaderName::from_static(name), value.parse().unwrap())).collect()
    }

    #[test]
    fn only_the_loopback_names_of_this_port_are_hosts() {
        for host in ["127.0.0.1:7899", "localhost:7899", "LOCALHOST:7899", "[::1]:7899"] {
            assert!(admit(&tcp(None), &headers(&[("host", host)]), None).is_ok(), "{host}");
        }
        for host in ["127.0.0.1", "127.0.0.1:80", "evil.example:7899", "localhost.evil.example:7899", ""] {
            assert!(admit(&tcp(None), &headers(&[("host", host)]), None).is_err(), "{host}");
        }
        assert!(admit(&tcp(None), &headers(&[]), None).is_err());
        assert!(admit(&tcp(None), &headers(&[("host", "127.0.0.1:7899")]), Some("evil.example:7899")).is_err());
    }

    #[test]
    fn where_the_kernel_cannot_tell_every_tcp_request_needs_the_token() {
        let with = |token: &str| headers(&[("host", "127.0.0.1:7899"), (TOKEN_HEADER, token)]);
        assert!(admit(&tcp(Some("right")), &with("right"), None).is_ok());
        assert!(admit(&tcp(Some("right")), &with("wrong"), None).is_err());
        assert!(admit(&tcp(Some("right")), &headers(&[("host", "127.0.0.1:7899")]), None).is_err());
    }

    #[test]
    fn the_web_is_refused_on_both_sockets() {
        for connection in [tcp(None), Connection::Unix { pid: None }] {
            for name in ["origin", "sec-fetch-site"] {
                let error = admit(&connection, &headers(&[("host", "127.0.0.1:7899"), (name, "null")]), None).unwrap_err();
                assert_eq!(error.code, Code::Forbidden);
            }
        }
    }
}
