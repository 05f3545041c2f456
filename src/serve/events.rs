//! The event stream, as server-sent events. Holding it open is what makes a peer connected; it never polls and has no
//! heartbeat: over a Unix socket the kernel says at once when the other end is gone.

use super::{
    access::{AppState, AsPeer},
    body::Query,
    errors::{ErrorBody, Refusal},
};
use crate::{
    broker::{Stream, StreamItem},
    wire::Event,
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
    responses((status = 200, content_type = "text/event-stream", body = Event), (status = 401, body = ErrorBody)))]
pub(super) async fn events(
    State(app): AppState,
    AsPeer(id): AsPeer,
    Query(After { after }): Query<After>,
) -> Result<Sse<impl Events<Item = Result<sse::Event, Infallible>>>, Refusal> {
    let stream = app.broker.open_stream(&id, after)?;
    Ok(Sse::new(stream::unfold(stream, next)))
}

async fn next(mut stream: Stream) -> Option<(Result<sse::Event, Infallible>, Stream)> {
    let event = match stream.next().await {
        Ok(Some(StreamItem::Ready)) => sse::Event::default().event("ready").data("null"),
        Ok(Some(StreamItem::Event(Event::Waiting))) => sse::Event::default().event("waiting").data("null"),
        Ok(Some(StreamItem::Event(Event::Displaced))) => sse::Event::default().event("displaced").data("null"),
        Ok(Some(StreamItem::Event(Event::Ended))) => sse::Event::default().event("ended").data("null"),
        Ok(Some(StreamItem::Event(Event::Message(message)))) => {
            match sse::Event::default().event("message").json_data(&message) {
                Ok(event) => event,
                Err(error) => {
                    tracing::error!(message = %message.id, %error, "writing an event failed");
                    return None; // the client reconnects and asks again from its cursor
                }
            }
        }
        Ok(None) => return None,
        Err(error) => {
            tracing::error!(%error, "an event stream broke off");
            return None;
        }
    };
    Some((Ok(event), stream))
}
