//! The handlers of our own API: each parses its request and calls one method of the broker.

use super::{
    access::Connection,
    app::{App, AppState},
    body::{InPath, Json, Query},
    caller::{AsPeer, AsProcess, Inside},
    events,
};
use crate::{
    broker::Caller,
    wire::{
        self, API, API_MIN, Acknowledge, Acknowledged, Asked, AwaitReply, BrokerStatus, Code, Done, Error, Hello, History,
        HistoryEntry, HistoryPage, Hook, Hooked, ListPeers, Peer, Peers, Register, Registered, SendRequest, Sent, SetSummary,
        Summary, Take, Taken, VERSION, WhoAmI,
    },
};
use axum::{Extension, extract::State};
use std::sync::Arc;
use utoipa_axum::{router::OpenApiRouter, routes};

/// The one `POST` that waits, however long.
pub(super) const TAKE: &str = "/v1/take";

/// The routes of `/v1`, with their documentation.
pub(super) fn routes() -> OpenApiRouter<Arc<App>> {
    OpenApiRouter::new()
        .routes(routes!(hello))
        .routes(routes!(register))
        .routes(routes!(unregister))
        .routes(routes!(peers))
        .routes(routes!(whoami))
        .routes(routes!(send))
        .routes(routes!(set_summary))
        .routes(routes!(take))
        .routes(routes!(acknowledge))
        .routes(routes!(hook))
        .routes(routes!(message))
        .routes(routes!(reply))
        .routes(routes!(read))
        .routes(routes!(release))
        .routes(routes!(history))
        .routes(routes!(status))
        .routes(routes!(stop))
        .routes(routes!(events::events))
}

type Reply<T> = wire::Result<Json<T>>;

/// Who answers, and which versions of the protocol it can serve. The first request on a connection.
#[utoipa::path(get, path = "/v1/hello", responses((status = 200, body = Hello)))]
async fn hello() -> Json<Hello> {
    Json(Hello {
        server: "claude-peersd".to_owned(),
        version: VERSION.to_owned(),
        api: API,
        api_min: API_MIN,
        pid: std::process::id(),
    })
}

/// A session presents itself and gets its id and secret. With the secret of an earlier registration it is that peer again;
/// without, the broker recognises it by its agent process, or by its session id if that peer is gone, or makes a new peer.
#[utoipa::path(post, path = "/v1/register", request_body = Register, security((), ("secret" = [])),
    responses((status = 200, body = Registered)))]
async fn register(
    State(app): AppState,
    caller: Caller,
    Extension(connection): Extension<Connection>,
    Json(request): Json<Register>,
) -> Reply<Registered> {
    let peer = match caller {
        Caller::Peer(id) => Some(id),
        Caller::User => None,
    };
    Ok(Json(app.broker.register(request, peer, connection.unix_pid()).await?))
}

/// The peer leaves the list at once. Its mailbox is kept.
#[utoipa::path(post, path = "/v1/unregister", security(("secret" = []), ("process" = [])), responses((status = 200, body = Done)))]
async fn unregister(State(app): AppState, AsPeer(id): AsPeer) -> Reply<Done> {
    app.broker.unregister(&id).await?;
    Ok(Json(Done { ok: true }))
}

/// The live peers in a scope; a registered caller is left out and told who it is.
#[utoipa::path(get, path = "/v1/peers", security((), ("secret" = [])), params(ListPeers),
    responses((status = 200, body = Peers)))]
async fn peers(State(app): AppState, caller: Caller, Query(request): Query<ListPeers>) -> Reply<Peers> {
    Ok(Json(app.broker.list(&caller, &request).await?))
}

/// Which peer a process belongs to.
#[utoipa::path(get, path = "/v1/whoami", security((), ("secret" = [])), params(WhoAmI),
    responses((status = 200, body = Peer)))]
async fn whoami(State(app): AppState, caller: Caller, Query(request): Query<WhoAmI>) -> Reply<Peer> {
    Ok(Json(app.broker.whoami(&caller, &request).await?))
}

/// Accepts a message to one peer, or to everyone in a scope. Without a secret it comes from the session that started the asking
/// process, or else from the command line. The answer comes after the commit: from then on the message is kept.
#[utoipa::path(post, path = "/v1/send", request_body = SendRequest, security((), ("secret" = [])),
    responses((status = 200, body = Sent)))]
async fn send(State(app): AppState, caller: Caller, inside: Inside, Json(request): Json<SendRequest>) -> Reply<Sent> {
    Ok(Json(app.broker.send_to(&inside.or(caller), request).await?))
}

/// Sets what the caller is working on; answers with the summary that stands.
#[utoipa::path(post, path = "/v1/set-summary", request_body = SetSummary, security(("secret" = [])),
    responses((status = 200, body = Summary)))]
async fn set_summary(State(app): AppState, AsPeer(id): AsPeer, Json(request): Json<SetSummary>) -> Reply<Summary> {
    Ok(Json(app.broker.set_summary(&id, request).await?))
}

/// Leases the caller's waiting messages to it, to be handed over and acknowledged.
#[utoipa::path(post, path = "/v1/take", request_body = Take, security(("secret" = []), ("process" = [])),
    responses((status = 200, body = Taken)))]
async fn take(State(app): AppState, AsPeer(id): AsPeer, Json(request): Json<Take>) -> Reply<Taken> {
    Ok(Json(app.broker.take(&id, request).await?))
}

/// Reports that the prompt hook of a session's client runs: which messages its prompt holds, and facts that only hooks know.
#[utoipa::path(post, path = "/v1/hook", request_body = Hook, security((), ("process" = [])),
    responses((status = 200, body = Hooked)))]
async fn hook(State(app): AppState, process: wire::Result<AsProcess>, Json(request): Json<Hook>) -> Reply<Hooked> {
    let agent = process.ok().map(|AsProcess(agent)| agent);
    Ok(Json(app.broker.hook(agent, request).await?))
}

/// Says what became of messages that were taken or pushed. Repeating it changes nothing.
#[utoipa::path(post, path = "/v1/acknowledge", request_body = Acknowledge, security(("secret" = []), ("process" = [])),
    responses((status = 200, body = Acknowledged)))]
async fn acknowledge(State(app): AppState, AsPeer(id): AsPeer, Json(request): Json<Acknowledge>) -> Reply<Acknowledged> {
    Ok(Json(app.broker.acknowledge(&id, request).await?))
}

/// A message with its receipt. A peer may ask for what it sent or was sent.
#[utoipa::path(get, path = "/v1/messages/{id}", security((), ("secret" = [])), params(("id" = String, Path, description = "the message's id")),
    responses((status = 200, body = HistoryEntry)))]
async fn message(State(app): AppState, caller: Caller, InPath(id): InPath) -> Reply<HistoryEntry> {
    Ok(Json(app.broker.message(&caller, &id).await?))
}

/// Waits for the answer to a message. Tells the state of both when it comes, when the recipient is gone, or at the end.
#[utoipa::path(get, path = "/v1/messages/{id}/reply", security((), ("secret" = [])),
    params(("id" = String, Path, description = "the question's id"), AwaitReply),
    responses((status = 200, body = Asked)))]
async fn reply(
    State(app): AppState,
    caller: Caller,
    Inside(inside): Inside,
    InPath(id): InPath,
    Query(request): Query<AwaitReply>,
) -> Reply<Asked> {
    Ok(Json(app.broker.reply_to(&caller, inside.as_ref(), &id, request).await?))
}

/// The user has read an answer to the command line: it is delivered.
#[utoipa::path(post, path = "/v1/messages/{id}/read", params(("id" = String, Path, description = "the answer's id")),
    responses((status = 200, body = Acknowledged)))]
async fn read(
    State(app): AppState,
    caller: Caller,
    Inside(inside): Inside,
    InPath(id): InPath,
    Json(_): Json<serde_json::Value>,
) -> Reply<Acknowledged> {
    Ok(Json(app.broker.read_by_user(&caller, inside, &id).await?))
}

/// The user lets a held message in. Not for sessions, nor for processes that they start.
#[utoipa::path(post, path = "/v1/messages/{id}/release", params(("id" = String, Path, description = "the message's id")),
    responses((status = 200, body = Acknowledged)))]
async fn release(
    State(app): AppState,
    caller: Caller,
    inside: Inside,
    InPath(id): InPath,
    Json(_): Json<serde_json::Value>,
) -> Reply<Acknowledged> {
    Ok(Json(app.broker.release(&inside.or(caller), &id).await?))
}

/// Messages, newest first. A peer sees its own; without a secret the user sees all.
#[utoipa::path(get, path = "/v1/history", security((), ("secret" = [])), params(History),
    responses((status = 200, body = HistoryPage)))]
async fn history(State(app): AppState, caller: Caller, Query(request): Query<History>) -> Reply<HistoryPage> {
    Ok(Json(app.broker.history(&caller, &request).await?))
}

/// The broker's state.
#[utoipa::path(get, path = "/v1/status", responses((status = 200, body = BrokerStatus)))]
async fn status(State(app): AppState) -> Reply<BrokerStatus> {
    Ok(Json(app.broker.status(app.listeners.clone()).await?))
}

/// Stops the broker: it finishes what it has accepted and ends. The user may; a peer may not.
#[utoipa::path(post, path = "/v1/stop", responses((status = 200, body = Done)))]
async fn stop(State(app): AppState, caller: Caller, Json(_): Json<serde_json::Value>) -> Reply<Done> {
    if let Caller::Peer(id) = caller {
        let error = Error::new(Code::Forbidden, format!("peer {id} may not stop the broker"));
        return Err(error.help("leave that to the user: `claude-peers stop`"));
    }
    tracing::info!("asked to stop");
    app.broker.stop();
    Ok(Json(Done { ok: true }))
}
