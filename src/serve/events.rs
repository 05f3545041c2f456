//! Event streams, as server-sent events: each peer's own, and the one that people watch. Holding its own open is what makes a peer
//! connected. Streams never poll and have no heartbeat: over a Unix socket the kernel tells at once when the other end is gone.

use super::{app::AppState, body::Query, caller::AsPeer};
use crate::{
    broker::{Caller, Scene, Stream},
    wire::{self, Code, Error, Event, WatchEvent},
};
use axum::{
    extract::State,
    response::sse::{self, Sse},
};
use futures_util::stream::{self, Stream as Events, StreamExt};
use serde::Deserialize;
use std::convert::Infallible;

/// Where to go on.
#[derive(Debug, Deserialize)]
pub(super) struct After {
    #[serde(default)]
    after: i64,
}

/// The caller's events: `ready` first, then `message` (data: Inbound) for each message to push into its channel, `waiting`
/// (data: null) when mail waits that nothing pushes, `displaced` (data: null) when another process serves the session now,
/// `ended` (data: null) when the session has ended.
#[utoipa::path(get, path = "/v1/events", security(("secret" = [])),
    params(("after" = Option<i64>, Query, description = "the place (`m42-…` is 42) of the newest message this process has written into its channel")),
    responses((status = 200, content_type = "text/event-stream", body = Event)))]
pub(super) async fn events(
    State(app): AppState,
    AsPeer(id): AsPeer,
    Query(After { after }): Query<After>,
) -> wire::Result<Sse<impl Events<Item = Result<sse::Event, Infallible>>>> {
    let stream = app.broker.open_stream(&id, after)?;
    Ok(Sse::new(stream::iter([Ok(named("ready").data("null"))]).chain(stream::unfold(stream, next))))
}

/// Ends at an error: the client reconnects and goes on from its cursor.
async fn next(mut stream: Stream) -> Option<(Result<sse::Event, Infallible>, Stream)> {
    let item = stream.next().await.inspect_err(broke_off).ok()??;
    let event = written(item).inspect_err(|error| tracing::error!(%error, "an event cannot be written: {error}")).ok()?;
    Some((Ok(event), stream))
}

fn broke_off(error: &Error) {
    if error.code != Code::Stopping {
        tracing::error!(%error, "an event stream broke off: {error}");
    }
}

fn named(name: &str) -> sse::Event {
    sse::Event::default().event(name)
}

fn written(event: Event) -> Result<sse::Event, axum::Error> {
    match event {
        Event::Waiting => named("waiting").json_data(()),
        Event::Displaced => named("displaced").json_data(()),
        Event::Ended => named("ended").json_data(()),
        Event::Message(message) => named("message").json_data(message),
    }
}

/// What a person watches: `peer` (data: Peer) for each live peer, `ready` (data: null), then `peer` for each that comes or changes, `left`
/// (data: its id), `message` (data: HistoryEntry) for each that is accepted or changes its state, and `missed` (data: a number) for
/// changes that came too fast. Not for sessions.
#[utoipa::path(get, path = "/v1/watch", security(()), responses((status = 200, content_type = "text/event-stream", body = WatchEvent)))]
pub(super) async fn watch(
    State(app): AppState,
    caller: Caller,
) -> wire::Result<Sse<impl Events<Item = Result<sse::Event, Infallible>>>> {
    let place = app.watchers.clone().try_acquire_owned().map_err(|_| {
        Error::new(Code::Busy, "too many programs watch")
            .help("end a `claude-peers watch`, or another program that reads /v1/watch")
    })?;
    let scene = app.broker.open_scene(&caller).await?;
    Ok(Sse::new(stream::unfold((scene, place), async |(mut scene, place): (Scene, _)| {
        let event =
            scene.next().await.inspect_err(|error| tracing::error!(%error, "a watching stream broke off: {error}")).ok()??;
        let event = seen(event).inspect_err(|error| tracing::error!(%error, "an event cannot be written: {error}")).ok()?;
        Some((Ok(event), (scene, place)))
    })))
}

fn seen(event: WatchEvent) -> Result<sse::Event, axum::Error> {
    match event {
        WatchEvent::Peer(peer) => named("peer").json_data(peer),
        WatchEvent::Ready => named("ready").json_data(()),
        WatchEvent::Left(id) => named("left").json_data(id),
        WatchEvent::Message(entry) => named("message").json_data(entry),
        WatchEvent::Missed(count) => named("missed").json_data(count),
    }
}
