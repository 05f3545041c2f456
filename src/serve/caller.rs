//! Identifies the caller from the header `Authorization` and the kernel's facts about the connecting process.

use super::{access::Connection, app::App};
use crate::{
    broker::{Caller, HookOf},
    platform::process,
    wire::{self, Code, Error, PROCESS_SCHEME, PeerId, Process, SESSION_SCHEME},
};
use axum::{
    extract::FromRequestParts,
    http::{header, request::Parts},
};
use std::sync::Arc;

/// The credentials in the header `Authorization`.
enum Shown<'a> {
    Nothing,
    Secret(&'a str),
    Process(&'a str),
    SessionToken(&'a str),
    Other,
}

fn shown(parts: &Parts) -> Shown<'_> {
    let Some(value) = parts.headers.get(header::AUTHORIZATION) else { return Shown::Nothing };
    let Some((scheme, value)) = value.to_str().ok().and_then(|value| value.split_once(' ')) else { return Shown::Other };
    let is = |name: &str| scheme.eq_ignore_ascii_case(name);
    match value.trim() {
        secret if is("Bearer") => Shown::Secret(secret),
        pid if is(PROCESS_SCHEME) => Shown::Process(pid),
        token if is(SESSION_SCHEME) => Shown::SessionToken(token),
        _ => Shown::Other,
    }
}

fn unauthorized(what: impl Into<String>, help: &str) -> Error {
    Error::new(Code::Unauthorized, what).help(help)
}

/// The caller is the user if the request carries no secret, except in a container: its user is not ours.
impl FromRequestParts<Arc<App>> for Caller {
    type Rejection = Error;
    async fn from_request_parts(parts: &mut Parts, app: &Arc<App>) -> wire::Result<Self> {
        let container = Connection::of(&parts.extensions)?.container();
        match (shown(parts), container) {
            (Shown::Nothing, None) => Ok(Self::User),
            (Shown::Nothing, Some(container)) => {
                let what = format!("only sessions may do this from the container {container}, and which one asks is not known");
                Err(unauthorized(what, "let the session use its own tools, or run the command outside of the container"))
            }
            (Shown::Secret(secret), _) => app.broker.authenticate(secret, container).map(Self::Peer),
            (Shown::Process(pid), _) => {
                let agent = agent(pid, parts)?;
                app.broker.peer_of(agent).map(Self::Peer).ok_or_else(|| {
                    let what = format!("process {} runs no session that is registered here", agent.pid);
                    unauthorized(what, "register, and send the secret")
                })
            }
            (Shown::SessionToken(_) | Shown::Other, _) => {
                Err(unauthorized("the Authorization header is not `Bearer SECRET`", "send the secret from the registration"))
            }
        }
    }
}

/// The agent process that a hook names, if the kernel shows that the hook descends from it.
fn agent(pid: &str, parts: &Parts) -> wire::Result<Process> {
    let connecting = Connection::of(&parts.extensions)?.unix_pid();
    let named = pid.parse().ok().filter(|agent| connecting.is_some_and(|pid| process::descends_from(pid, *agent)));
    named.and_then(process::identify).ok_or_else(|| {
        let what = "the process named in `Authorization: Process PID` did not start the one that asks";
        unauthorized(what, "use the Unix socket, from a process of the session's")
    })
}

/// The session in which a program without a secret runs. The kernel decides this, whatever the program claims.
#[derive(Debug, Clone)]
pub(super) struct Inside(pub Option<PeerId>);

impl FromRequestParts<Arc<App>> for Inside {
    type Rejection = Error;
    async fn from_request_parts(parts: &mut Parts, app: &Arc<App>) -> wire::Result<Self> {
        if !matches!(shown(parts), Shown::Nothing) {
            return Ok(Self(None));
        }
        let (connection, broker) = (Connection::of(&parts.extensions)?.clone(), app.broker.clone());
        if connection.container().is_some() {
            return Ok(Self(None));
        }
        // Reads the process table, so it runs off the threads that serve requests.
        let look = tokio::task::spawn_blocking(move || broker.session_of(|| connection.owner())).await;
        look.map(Self).map_err(|error| Error::new(Code::Internal, format!("looking for the session that asks: {error}")))
    }
}

impl Inside {
    /// The sender. A session's shell sends in the session's name.
    pub fn or(self, caller: Caller) -> Caller {
        self.0.map_or(caller, Caller::Peer)
    }
}

/// A caller that speaks for other machines. Who does is up to the user, so it is no session, and no process that one has started.
pub(super) struct AsGateway;

impl FromRequestParts<Arc<App>> for AsGateway {
    type Rejection = Error;
    async fn from_request_parts(parts: &mut Parts, app: &Arc<App>) -> wire::Result<Self> {
        let caller = Caller::from_request_parts(parts, app).await?;
        let caller = Inside::from_request_parts(parts, app).await?.or(caller);
        let why = "a session, and only the user's own programs speak for other machines";
        caller.must_be_user(why, "leave that to claude-peers-link").map(|()| Self)
    }
}

/// The caller of a hook, which proves the session that started it: the hook shows the token that the session's client gives to its child
/// processes, or names the agent process. None if it shows neither. A session with a door calls itself.
#[derive(Debug, Clone)]
pub(super) struct AsHook(pub Option<HookOf>);

impl FromRequestParts<Arc<App>> for AsHook {
    type Rejection = Error;
    async fn from_request_parts(parts: &mut Parts, app: &Arc<App>) -> wire::Result<Self> {
        let container = Connection::of(&parts.extensions)?.container();
        Ok(Self(match shown(parts) {
            Shown::SessionToken(token) => app.broker.hook_by_token(token, container),
            Shown::Process(pid) => agent(pid, parts).ok().map(HookOf::Agent),
            Shown::Secret(secret) => Some(HookOf::Peer(app.broker.authenticate(secret, container)?)),
            _ => None,
        }))
    }
}

/// Who registers: the peer whose secret the request carries, or nobody yet.
#[derive(Debug, Clone)]
pub(super) struct Known(pub Option<PeerId>);

impl FromRequestParts<Arc<App>> for Known {
    type Rejection = Error;
    async fn from_request_parts(parts: &mut Parts, app: &Arc<App>) -> wire::Result<Self> {
        match shown(parts) {
            Shown::Nothing => Ok(Self(None)),
            _ => Ok(Self(Caller::from_request_parts(parts, app).await?.peer().cloned())),
        }
    }
}

/// A caller that must be a peer.
#[derive(Debug, Clone)]
pub(super) struct AsPeer(pub PeerId);

impl FromRequestParts<Arc<App>> for AsPeer {
    type Rejection = Error;
    async fn from_request_parts(parts: &mut Parts, app: &Arc<App>) -> wire::Result<Self> {
        match Caller::from_request_parts(parts, app).await? {
            Caller::Peer(id) => Ok(Self(id)),
            Caller::User => {
                let help = "register, and send the secret as `Authorization: Bearer SECRET`";
                Err(unauthorized("this is for registered peers", help))
            }
        }
    }
}
