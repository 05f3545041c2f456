//! The event stream, as server-sent events. Holding it open is what makes a peer connected; it never polls and has no
//! heartbeat: over a Unix socket the kernel tells at once when the other end is gone.

use super::{app::AppState, body::Query, caller::AsPeer};
use crate::{
    broker::{Stream, StreamItem},
    wire::{self, Code, Error, Event},
};
use axum::{
    extract::State,
    response::sse::{self, Sse},
};
use futures_util::stream::{self, Stream as Events};
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
    Ok(Sse::new(stream::unfold(stream, next)))
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

fn written(item: StreamItem) -> Result<sse::Event, axum::Error> {
    let (name, message) = match item {
        StreamItem::Ready => ("ready", None),
        StreamItem::Event(Event::Waiting) => ("waiting", None),
        StreamItem::Event(Event::Displaced) => ("displaced", None),
        StreamItem::Event(Event::Ended) => ("ended", None),
        StreamItem::Event(Event::Message(message)) => ("message", Some(message)),
    };
    sse::Event::default().event(name).json_data(message)
}
