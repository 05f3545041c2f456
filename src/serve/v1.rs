//! The table of our own API. Each row is a verb: its method and path, who may use it, what it takes, what it answers, and the one
//! method of the broker that it calls. The OpenAPI document is made from the same rows.

use super::{
    access::Connection,
    app::{App, AppState},
    body::{InPath, Json, Query},
    caller::{AsGateway, AsHook, AsPeer, Inside, Known},
    events,
};
use crate::{
    broker::{Caller, Origin},
    wire::{
        self, API, API_MIN, Acknowledge, Acknowledged, Announce, Asked, AwaitMail, AwaitReply, BrokerStatus, Code, Confirm,
        Container, Containers, Done, Error, Forwarded, Hello, History, HistoryEntry, HistoryPage, Hook, Hooked, ListPeers, Mail,
        Outgoing, Peer, Peers, Present, Receive, Received, Register, Registered, Search, SearchPage, SendRequest, Sent,
        SetSummary, Summary, Take, TakeOutgoing, Taken, VERSION, WhoAmI,
    },
};
use axum::{Extension, extract::State};
use serde_json::Value;
use std::sync::Arc;
use utoipa_axum::{router::OpenApiRouter, routes};

/// The only `POST`s that wait, however long.
pub(super) const TAKES: [&str; 2] = ["/v1/take", "/v1/gateway/take"];

/// Refuses a session: which containers may talk with the sessions here is up to the user.
fn check_opens_containers(caller: &Caller) -> wire::Result<()> {
    caller.must_be_user("a session, and containers are its user's", "leave that to the user: `claude-peers container`")
}

/// Makes a handler of each row, and the routes of all. A row's brackets hold more for its documentation.
macro_rules! verbs {
    ($app:ident; $(
        $(#[$doc:meta])*
        $method:ident $path:literal [$($more:tt)*] $name:ident($($arguments:tt)*) -> $answer:ident $call:block
    )*) => {
        $(
            $(#[$doc])*
            #[utoipa::path($method, path = $path, $($more)* responses((status = 200, body = $answer)))]
            #[allow(unused_braces, unused_variables, reason = "some rows have more than one line, and one needs no broker")]
            async fn $name(State($app): AppState, $($arguments)*) -> wire::Result<Json<$answer>> {
                Ok(Json($call))
            }
        )*

        pub(super) fn routes() -> OpenApiRouter<Arc<App>> {
            OpenApiRouter::new().routes(routes!(events::events)).routes(routes!(events::watch))$(.routes(routes!($name)))*
        }
    };
}

verbs! { app;
    /// Who answers, and which versions of the protocol it can serve. The first request on a connection.
    get "/v1/hello" []
    hello() -> Hello {
        Hello { server: "claude-peersd".to_owned(), version: VERSION.to_owned(), api: API, api_min: API_MIN, pid: std::process::id() }
    }

    /// A session presents itself and gets its id and secret. With the secret of an earlier registration it is that peer again;
    /// without, the broker recognises it by its agent process, or by its session id if that peer is gone, or makes a new peer.
    post "/v1/register" [request_body = Register, security((), ("secret" = [])),]
    register(known: Known, Extension(connection): Extension<Connection>, Json(request): Json<Register>) -> Registered {
        let origin = connection.container().map_or(Origin::Here(connection.unix_pid()), |name| Origin::Container(name.to_owned()));
        app.broker.register(request, known.0, origin).await?
    }

    /// The peer leaves the list at once. Its mailbox is kept.
    post "/v1/unregister" [security(("secret" = []), ("process" = [])),]
    unregister(AsPeer(id): AsPeer) -> Done {
        app.broker.unregister(&id).await?;
        Done { ok: true }
    }

    /// The live peers in a scope; a registered caller is left out and told who it is.
    get "/v1/peers" [security((), ("secret" = [])), params(ListPeers),]
    peers(caller: Caller, Query(request): Query<ListPeers>) -> Peers { app.broker.list(&caller, &request).await? }

    /// Waits until mail waits for a peer that is connected. The mail stays where it is. Not for sessions, nor for processes that they start.
    get "/v1/peers/{id}/mail" [params(("id" = String, Path, description = "the peer's id"), AwaitMail),]
    mail(caller: Caller, inside: Inside, InPath(id): InPath, Query(request): Query<AwaitMail>) -> Mail {
        app.broker.mail_for(&inside.or(caller), &id, request).await?
    }

    /// Which peer a process belongs to.
    get "/v1/whoami" [security((), ("secret" = [])), params(WhoAmI),]
    whoami(caller: Caller, Query(request): Query<WhoAmI>) -> Peer { app.broker.whoami(&caller, &request).await? }

    /// Accepts a message to one peer, or to everyone in a scope. Without a secret it comes from the session that started the asking
    /// process, or else from the command line. The answer comes after the commit: from then on the message is kept.
    post "/v1/send" [request_body = SendRequest, security((), ("secret" = [])),]
    send(caller: Caller, inside: Inside, Json(request): Json<SendRequest>) -> Sent {
        app.broker.send_to(&inside.or(caller), request).await?
    }

    /// Sets what the caller is working on; answers with the summary that stands.
    post "/v1/set-summary" [request_body = SetSummary, security(("secret" = [])),]
    set_summary(AsPeer(id): AsPeer, Json(request): Json<SetSummary>) -> Summary { app.broker.set_summary(&id, request).await? }

    /// Leases the caller's waiting messages to it, to be handed over and acknowledged.
    post "/v1/take" [request_body = Take, security(("secret" = []), ("process" = [])),]
    take(AsPeer(id): AsPeer, Json(request): Json<Take>) -> Taken { app.broker.take(&id, request).await? }

    /// Reports that the prompt hook of a session's client runs: which messages its prompt holds, and facts that only hooks know.
    post "/v1/hook" [request_body = Hook, security((), ("secret" = []), ("process" = [])),]
    hook(AsHook(of): AsHook, Json(request): Json<Hook>) -> Hooked {
        app.broker.hook(of, request).await?
    }

    /// Says what became of messages that were taken or pushed. Repeating it changes nothing.
    post "/v1/acknowledge" [request_body = Acknowledge, security(("secret" = []), ("process" = [])),]
    acknowledge(AsPeer(id): AsPeer, Json(request): Json<Acknowledge>) -> Acknowledged { app.broker.acknowledge(&id, request).await? }

    /// A message with its receipt. A peer may ask for what it sent or was sent.
    get "/v1/messages/{id}" [security((), ("secret" = [])), params(("id" = String, Path, description = "the message's id")),]
    message(caller: Caller, InPath(id): InPath) -> HistoryEntry { app.broker.message(&caller, &id).await? }

    /// Waits for the answer to a message. Tells the state of both when it comes, when the recipient is gone, or at the end.
    get "/v1/messages/{id}/reply" [
        security((), ("secret" = [])), params(("id" = String, Path, description = "the question's id"), AwaitReply),
    ]
    reply(caller: Caller, Inside(inside): Inside, InPath(id): InPath, Query(request): Query<AwaitReply>) -> Asked {
        app.broker.reply_to(&caller, inside.as_ref(), &id, request).await?
    }

    /// The user has read an answer to the command line: it is delivered.
    post "/v1/messages/{id}/read" [params(("id" = String, Path, description = "the answer's id")),]
    read(caller: Caller, Inside(inside): Inside, InPath(id): InPath, Json(_): Json<Value>) -> Acknowledged {
        app.broker.read_by_user(&caller, inside, &id).await?
    }

    /// The user lets a held message in. Not for sessions, nor for processes that they start.
    post "/v1/messages/{id}/release" [params(("id" = String, Path, description = "the message's id")),]
    release(caller: Caller, inside: Inside, InPath(id): InPath, Json(_): Json<Value>) -> Acknowledged {
        app.broker.release(&inside.or(caller), &id).await?
    }

    /// Messages, newest first. A peer sees its own; without a secret the user sees all.
    get "/v1/history" [security((), ("secret" = [])), params(History),]
    history(caller: Caller, Query(request): Query<History>) -> HistoryPage { app.broker.history(&caller, &request).await? }

    /// Messages by their words, best first. A peer finds its own; without a secret the user finds all.
    get "/v1/search" [security((), ("secret" = [])), params(Search),]
    search(caller: Caller, Query(request): Query<Search>) -> SearchPage { app.broker.search(&caller, &request).await? }

    /// The broker's state.
    get "/v1/status" []
    status() -> BrokerStatus { app.broker.status(app.listeners.clone()).await? }

    /// The containers whose sockets are open. Not for sessions.
    get "/v1/containers" []
    containers(caller: Caller) -> Containers {
        check_opens_containers(&caller)?;
        app.containers.list(&app.broker).await?
    }

    /// Opens the socket of a container, if it is not open yet: who comes through it is a session of that container. Not for sessions.
    post "/v1/containers/{name}/open" [params(("name" = String, Path, description = "a name for the container")),]
    open_container(caller: Caller, InPath(name): InPath, Json(_): Json<Value>) -> Container {
        check_opens_containers(&caller)?;
        app.containers.open(&app.broker, name.parse()?).await?
    }

    /// Closes the socket of a container and ends the connections through it. Not for sessions.
    post "/v1/containers/{name}/close" [params(("name" = String, Path, description = "the container's name")),]
    close_container(caller: Caller, InPath(name): InPath, Json(_): Json<Value>) -> Done {
        check_opens_containers(&caller)?;
        app.containers.close(name.parse()?).await?;
        Done { ok: true }
    }

    /// The live peers of this machine, as other machines are told of them. Not for sessions, as all of the gateway.
    get "/v1/gateway/peers" []
    present(_: AsGateway) -> Present { app.broker.announcement().await? }

    /// Learns which peers of another machine can be reached now.
    post "/v1/gateway/announce" [request_body = Announce,]
    announce(_: AsGateway, Json(request): Json<Announce>) -> Done { app.broker.announce(request).await? }

    /// What has to go to other machines: mail for their peers, and receipts for what came from there. It stays until it is acknowledged.
    post "/v1/gateway/take" [request_body = TakeOutgoing,]
    take_outgoing(_: AsGateway, Json(request): Json<TakeOutgoing>) -> Outgoing { app.broker.take_outgoing(request).await? }

    /// Says what is stored on its way to another machine. Repeating it changes nothing.
    post "/v1/gateway/acknowledge" [request_body = Forwarded,]
    acknowledge_outgoing(_: AsGateway, Json(request): Json<Forwarded>) -> Acknowledged { app.broker.forwarded(request).await? }

    /// Accepts a message from another machine. Its id there is its idempotency key.
    post "/v1/gateway/receive" [request_body = Receive,]
    receive(_: AsGateway, Json(request): Json<Receive>) -> Received { app.broker.receive(request).await? }

    /// Says what became of messages on the machine of their recipients. Repeating it changes nothing.
    post "/v1/gateway/confirm" [request_body = Confirm,]
    confirm(_: AsGateway, Json(request): Json<Confirm>) -> Acknowledged { app.broker.confirm(request).await? }

    /// Stops the broker: it finishes what it has accepted and ends. The user may; a peer may not.
    post "/v1/stop" []
    stop(caller: Caller, Json(_): Json<Value>) -> Done {
        if let Caller::Peer(id) = caller {
            let error = Error::new(Code::Forbidden, format!("peer {id} may not stop the broker"));
            return Err(error.help("leave that to the user: `claude-peers stop`"));
        }
        tracing::info!("asked to stop");
        app.broker.stop();
        Done { ok: true }
    }
}
