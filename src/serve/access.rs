//! Access control. It runs before any part of a request is acted on, on every listener and every path.
//!
//! | who | gets | how |
//! |---|---|---|
//! | another user | nothing but the metrics, where a setting opens a port for them | the Unix socket's peer credentials; for TCP the owner of the connecting socket, from the kernel; where the kernel cannot tell, a token from a file only we can read |
//! | a web page | 403 | any `Origin` or `Sec-Fetch-Site`, any `Host` but this port's loopback names |
//! | a container | what sessions do | the socket that is mounted into it; its user and process ids count for nothing |
//! | a session's shell | the session's name on what it sends | the kernel shows that the connecting process descends from its agent |
//! | a liar | 401, 403 | a peer is who its secret says; a hook belongs to the session whose process the kernel shows it to descend from; a legacy client is bound to its process |

use super::{app::AppState, errors, refusals};
use crate::{
    platform::{kernel, process},
    wire::{self, API, API_HEADER, API_MIN, Code, Error, Process, TOKEN_HEADER, VERSION, text::printable_line},
};
use axum::{
    extract::{MatchedPath, Request, State},
    http::{Extensions, HeaderMap, HeaderValue, header, uri::Authority},
    middleware::Next,
    response::{IntoResponse, Response},
};
use std::sync::Arc;

/// Facts about the connection that a request came by.
#[derive(Debug, Clone)]
pub(super) enum Connection {
    /// The Unix socket, with the process at the other end if this process can see it.
    Unix { pid: Option<u32> },
    Tcp {
        /// The connecting socket, if the kernel can tell.
        inode: Option<u64>,
        port: u16,
        /// The token that every request must carry if the kernel cannot tell who connects.
        token: Option<Arc<str>>,
    },
    /// The socket of a container. Nothing else is known of the other end.
    Container { name: Arc<str> },
}

/// The paths that a container's socket serves: what sessions do.
const FOR_CONTAINERS: [&str; 13] = [
    "/v1/hello",
    "/v1/register",
    "/v1/unregister",
    "/v1/events",
    "/v1/peers",
    "/v1/whoami",
    "/v1/send",
    "/v1/set-summary",
    "/v1/take",
    "/v1/acknowledge",
    "/v1/hook",
    "/v1/messages/{id}",
    "/v1/messages/{id}/reply",
];

impl Connection {
    /// The connection that a request came by.
    pub fn of(request: &Extensions) -> wire::Result<&Self> {
        request.get().ok_or_else(|| forbidden("a connection of unknown origin", "connect to one of the broker's sockets"))
    }

    /// The process at the other end of the Unix socket. Costs nothing, unlike [`Connection::owner`].
    pub fn unix_pid(&self) -> Option<u32> {
        match self {
            Self::Unix { pid } => *pid,
            Self::Tcp { .. } | Self::Container { .. } => None,
        }
    }

    /// The container whose socket it came by.
    pub fn container(&self) -> Option<&str> {
        match self {
            Self::Container { name } => Some(name),
            Self::Unix { .. } | Self::Tcp { .. } => None,
        }
    }

    /// The process at the other end, if the kernel can tell. Reads the process table.
    pub fn owner(&self) -> Option<u32> {
        match self {
            Self::Unix { pid } => *pid,
            Self::Tcp { inode, .. } => kernel::owner((*inode)?),
            Self::Container { .. } => None,
        }
    }

    /// Whether `process`, or a process it started, is at the other end; none if the kernel cannot tell.
    pub fn belongs_to(&self, process: Process) -> Option<bool> {
        let from_tree = |pid: u32| process::descends_from(pid, process.pid);
        match self {
            Self::Unix { pid } => pid.map(from_tree),
            Self::Tcp { inode: None, .. } | Self::Container { .. } => None,
            Self::Tcp { inode: Some(inode), .. } => match kernel::holds(process.pid, *inode) {
                Some(true) => Some(true),
                // Its files do not show the socket, or it has ended. So the socket's holder must belong to its process tree.
                _ => Some(kernel::owner(*inode).is_some_and(from_tree)),
            },
        }
    }
}

/// Admits or refuses a request, stamps every answer, and puts errors into the form that the client reads. Errors are counted.
pub(super) async fn check(State(app): AppState, request: Request, next: Next) -> Response {
    let path = request.uri().path().to_owned();
    let routed = request.extensions().get::<MatchedPath>().cloned();
    let mut response = match admit(&request) {
        Ok(()) => next.run(request).await,
        Err(error) => {
            if refusals::may_log() {
                tracing::warn!(path = %printable_line(&path), code = %error.code, "refused {}: {}", printable_line(&path), error.message);
            }
            error.into_response()
        }
    };
    if let Some(error) = response.extensions().get::<Error>() {
        app.broker.refused_request(error.code);
        debug_assert!(
            routed.is_none_or(|routed| errors::allows(routed.as_str(), error.code)),
            "{path} answers with {}, which is not in its table",
            error.code
        );
        // The daemon reports once that the database is no longer its own, and that it stops.
        if response.status().is_server_error() && ![Code::DatabaseMoved, Code::Stopping].contains(&error.code) {
            tracing::error!(code = %error.code, "{}", error.message);
        }
    }
    if !path.starts_with("/v1/") {
        response = errors::for_legacy(response);
    }
    let headers = response.headers_mut();
    headers.insert(API_HEADER, HeaderValue::from(API));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

fn admit(request: &Request) -> wire::Result<()> {
    let (connection, headers) = (Connection::of(request.extensions())?, request.headers());
    refuse_web_pages(headers)?;
    if let Connection::Tcp { port, token, .. } = connection {
        check_host(*port, headers, request.uri().authority())?;
        check_token(token.as_deref(), headers)?;
    }
    if let Some(container) = connection.container() {
        check_container(container, request.extensions().get())?;
    }
    check_version(headers)
}

/// Nothing that is the user's can be had from inside a container.
fn check_container(container: &str, path: Option<&MatchedPath>) -> wire::Result<()> {
    if path.is_some_and(|path| FOR_CONTAINERS.contains(&path.as_str())) {
        return Ok(());
    }
    let what = format!("this is for the user, and the socket of the container {container} is for sessions alone");
    Err(forbidden(&what, "do it outside of the container"))
}

/// Browsers set these headers on every request of a page, and pages cannot omit them. Our clients never send them.
fn refuse_web_pages(headers: &HeaderMap) -> wire::Result<()> {
    if ["origin", "sec-fetch-site", "sec-fetch-mode", "sec-fetch-dest"].iter().any(|name| headers.contains_key(*name)) {
        let help = "use the claude-peers programs, or leave out the browser's headers";
        return Err(forbidden("requests from web pages are refused", help));
    }
    Ok(())
}

/// With DNS rebinding, a page's own host name resolves to this machine; that name appears here.
fn check_host(port: u16, headers: &HeaderMap, authority: Option<&Authority>) -> wire::Result<()> {
    let mut hosts = headers.get_all(header::HOST).iter();
    let host = hosts.next().and_then(|host| host.to_str().ok());
    let ours =
        |host: &str| ["127.0.0.1", "localhost", "[::1]"].iter().any(|name| host.eq_ignore_ascii_case(&format!("{name}:{port}")));
    if host.is_some_and(ours) && hosts.next().is_none() && authority.is_none_or(|authority| ours(authority.as_str())) {
        return Ok(());
    }
    Err(forbidden("the Host header is not this broker's", &format!("use http://127.0.0.1:{port}")))
}

fn check_token(token: Option<&str>, headers: &HeaderMap) -> wire::Result<()> {
    let Some(token) = token else { return Ok(()) };
    if headers.get(TOKEN_HEADER).is_some_and(|shown| same(shown.as_bytes(), token.as_bytes())) {
        return Ok(());
    }
    let help =
        "send the content of the token file beside the Unix socket in the header claude-peers-token, or use the Unix socket";
    Err(forbidden("TCP requests need the machine token here", help))
}

fn check_version(headers: &HeaderMap) -> wire::Result<()> {
    let Some(asked) = headers.get(API_HEADER) else { return Ok(()) };
    let version: Option<u32> = asked.to_str().ok().and_then(|asked| asked.parse().ok());
    if version.is_some_and(|version| (API_MIN..=API).contains(&version)) {
        return Ok(());
    }
    let asked = String::from_utf8_lossy(asked.as_bytes()).chars().take(20).collect::<String>();
    let what = format!("this broker ({VERSION}) speaks protocol {API_MIN} to {API}, not {asked:?}");
    Err(Error::new(Code::VersionMismatch, what).help("upgrade the older of the two, and restart the broker after an upgrade"))
}

fn forbidden(what: &str, help: &str) -> Error {
    Error::new(Code::Forbidden, what).help(help)
}

/// Compares in constant time, so that timing does not reveal the first difference.
fn same(a: &[u8], b: &[u8]) -> bool {
    a.len() == b.len() && a.iter().zip(b).fold(0, |difference, (a, b)| difference | (a ^ b)) == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tcp_requests_show_the_machine_token() {
        for (shown, is_admitted) in [(Some("right"), true), (Some("wrong"), false), (None, false)] {
            let shown = shown.map(|token| (header::HeaderName::from_static(TOKEN_HEADER), HeaderValue::from_static(token)));
            assert_eq!(check_token(Some("right"), &shown.into_iter().collect()).is_ok(), is_admitted);
        }
    }
}
