//! The HTTP API of `louislva/claude-peers-mcp` for legacy clients, so that people can switch over one session at a time. Bodies
//! are `snake_case`, lists are bare arrays, and a message counts as offered until the next poll shows that the answer arrived.

use super::{
    access::Connection,
    app::{App, AppState},
    body::Json,
    caller::Inside,
};
use crate::{
    broker::{Caller, LegacyRegister},
    wire::{self, CLI_SENDER, Code, Error, ListPeers, PeerId, SendRequest, SetSummary, SummarySource},
};
use axum::{
    Extension, Router,
    extract::{FromRequest, Request, State},
    routing::{get, post},
};
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::{Value, json};
use std::sync::Arc;

pub(super) fn routes() -> Router<Arc<App>> {
    Router::new()
        .route("/register", post(register))
        .route("/heartbeat", post(heartbeat))
        .route("/set-summary", post(set_summary))
        .route("/list-peers", post(list_peers))
        .route("/send-message", post(send_message))
        .route("/poll-messages", post(poll_messages))
        .route("/unregister", post(unregister))
        .route("/health", get(health))
}

type Reply = wire::Result<Json<Value>>;

#[derive(Deserialize)]
struct Summary {
    summary: String,
}

#[derive(Deserialize)]
struct List {
    scope: String,
    cwd: String,
    git_root: Option<String>,
    exclude_id: Option<String>,
}

#[derive(Deserialize)]
struct SendMessage {
    from_id: String,
    to_id: String,
    text: String,
}

/// A request whose `id` names a legacy client's session, by the process that the session is bound to.
struct AsSession<T>(PeerId, T);

impl<T: DeserializeOwned> FromRequest<Arc<App>> for AsSession<T> {
    type Rejection = Error;
    async fn from_request(request: Request, app: &Arc<App>) -> wire::Result<Self> {
        #[derive(Deserialize)]
        struct Body<T> {
            id: String,
            #[serde(flatten)]
            rest: T,
        }
        let connection = Connection::of(request.extensions())?.clone();
        let Json(Body { id, rest }) = Json::from_request(request, app).await?;
        Ok(Self(known(app, &connection, &id)?, rest))
    }
}

async fn health(State(app): AppState) -> Json<Value> {
    Json(json!({"status": "ok", "peers": app.broker.peer_count().await, "version": wire::VERSION}))
}

async fn register(
    State(app): AppState,
    Extension(connection): Extension<Connection>,
    Json(request): Json<LegacyRegister>,
) -> Reply {
    // Reads the process table, so it runs off the threads that serve requests.
    let owner = tokio::task::spawn_blocking(move || connection.owner()).await.ok().flatten();
    Ok(Json(json!({"id": app.broker.legacy_register(request, owner).await?})))
}

/// A heartbeat: it only shows that the client is alive.
async fn heartbeat(_: AsSession<Value>) -> Reply {
    Ok(Json(json!({"ok": true})))
}

async fn set_summary(State(app): AppState, AsSession(id, Summary { summary }): AsSession<Summary>) -> Reply {
    app.broker.set_summary(&id, SetSummary { summary, source: SummarySource::Session }).await?;
    Ok(Json(json!({"ok": true})))
}

async fn list_peers(State(app): AppState, Json(request): Json<List>) -> Reply {
    let excluded = request.exclude_id.as_deref().filter(|id| !id.is_empty()).map(str::parse::<PeerId>).transpose()?;
    // The top of the worktree stands for the repository; our list finds the common directory from it.
    let cwd = if request.scope == "repo" { request.git_root.unwrap_or(request.cwd) } else { request.cwd };
    let asked = ListPeers { scope: request.scope, cwd: Some(cwd) };
    let peers = app.broker.list(&Caller::User, &asked).await?.peers;
    let git_roots = app.broker.git_roots(peers.iter()).await;
    let shown = peers.into_iter().filter(|peer| Some(&peer.id) != excluded.as_ref()).map(|peer| {
        json!({
            "id": peer.id, "pid": peer.pid, "cwd": peer.cwd, "git_root": git_roots.get(&peer.cwd).filter(|_| peer.container.is_none()), "tty": peer.tty,
            "summary": peer.summary, "registered_at": peer.registered_at, "last_seen": peer.last_seen,
        })
    });
    Ok(Json(shown.collect()))
}

async fn send_message(
    State(app): AppState,
    Extension(connection): Extension<Connection>,
    inside: Inside,
    Json(request): Json<SendMessage>,
) -> Reply {
    let caller = match request.from_id.as_str() {
        CLI_SENDER => inside.or(Caller::User),
        id => Caller::Peer(known(&app, &connection, id)?),
    };
    let send = SendRequest { to: request.to_id, text: request.text, reply_to: None, key: None, cwd: None, wake: false };
    match app.broker.send(&caller, send).await {
        Ok(receipt) => Ok(Json(json!({"ok": true, "message_id": receipt.message_id}))),
        // A legacy client reads `ok` of a 200 here.
        Err(error) if error.code == Code::PeerNotFound => Ok(Json(json!({"ok": false, "error": error.message}))),
        Err(error) => Err(error),
    }
}

async fn poll_messages(State(app): AppState, AsSession(id, _): AsSession<Value>) -> Reply {
    let shown = app.broker.poll(&id).await?.into_iter().map(|message| {
        json!({
            "id": message.receipt.message_id.seq(), "from_id": message.receipt.from, "to_id": message.receipt.to,
            "text": message.text, "sent_at": message.receipt.sent_at, "delivered": 0,
        })
    });
    Ok(Json(json!({"messages": shown.collect::<Value>()})))
}

async fn unregister(State(app): AppState, AsSession(id, _): AsSession<Value>) -> Reply {
    app.broker.unregister(&id).await?;
    Ok(Json(json!({"ok": true})))
}

fn known(app: &App, connection: &Connection, id: &str) -> wire::Result<PeerId> {
    app.broker.legacy_peer(id, |process| connection.belongs_to(process))
}
