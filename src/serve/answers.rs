//! The memory for large answers. A few are made at once, and each keeps its place until its client has read it. A client that stops
//! reading loses the rest of its answer.

use super::{access::Connection, app::AppState};
use crate::wire::{Code, Error};
use axum::{
    body::Body,
    extract::{MatchedPath, Request, State},
    middleware::Next,
    response::{IntoResponse, Response},
};
use bytes::{Buf, Bytes};
use http_body_util::BodyExt;
use hyper::body::{Body as Bodies, Frame, SizeHint};
use std::{
    io,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError, Weak},
    task::{Context, Poll},
    time::Duration,
};
use tokio::{
    sync::OwnedSemaphorePermit,
    time::{sleep, timeout},
};

/// The paths whose answers can be large and come without a wait.
const LARGE: [&str; 5] = ["/v1/history", "/v1/search", "/v1/peers", "/v1/messages/{id}", "/v1/openapi.json"];
/// How long a request waits for a place before the broker reports that it is busy.
const PLACE_TIMEOUT: Duration = Duration::from_secs(2);
/// How long a client may read nothing.
const READ_TIMEOUT: Duration = Duration::from_secs(10);
/// How much of an answer is on its way at once. A shorter answer needs no place.
const PART: usize = 16 * 1024;

/// Gives requests for large answers a place, or refuses them.
pub(super) async fn bound(State(app): AppState, request: Request, next: Next) -> Response {
    if !request.extensions().get::<MatchedPath>().is_some_and(|path| LARGE.contains(&path.as_str())) {
        return next.run(request).await;
    }
    let is_contained = Connection::of(request.extensions()).is_ok_and(|connection| connection.container().is_some());
    let places = if is_contained { &app.answers_of_containers } else { &app.answers };
    let Ok(Ok(place)) = timeout(PLACE_TIMEOUT, places.clone().acquire_owned()).await else {
        let error = Error::new(Code::Busy, "too many large answers are under way");
        return error.help("try again").retry_after(PLACE_TIMEOUT).into_response();
    };
    let (head, body) = next.run(request).await.into_parts();
    let body = match body.collect().await.map(|body| body.to_bytes()) {
        Ok(body) if body.len() > PART => Body::new(Unread::new(body, place)),
        Ok(body) => Body::from(body),
        Err(error) => return Error::new(Code::Internal, format!("the answer was not made: {error}")).into_response(),
    };
    Response::from_parts(head, body)
}

/// The part of an answer that its client has not read.
struct Unread {
    rest: Arc<Mutex<Option<Rest>>>,
    length: usize,
}

struct Rest {
    bytes: Bytes,
    /// Whether a part was read since the last look.
    moves: bool,
    _place: OwnedSemaphorePermit,
}

impl Unread {
    fn new(bytes: Bytes, place: OwnedSemaphorePermit) -> Self {
        let length = bytes.len();
        let rest = Arc::new(Mutex::new(Some(Rest { bytes, moves: true, _place: place })));
        tokio::spawn(give_up(Arc::downgrade(&rest)));
        Self { rest, length }
    }
}

/// Drops the rest of an answer once its client reads no more. While a client does not read, nobody asks for the next part, so the answer
/// cannot see that itself.
async fn give_up(rest: Weak<Mutex<Option<Rest>>>) {
    loop {
        sleep(READ_TIMEOUT).await;
        let Some(rest) = rest.upgrade() else { return };
        let mut rest = rest.lock().unwrap_or_else(PoisonError::into_inner);
        if !rest.as_mut().is_some_and(|rest| std::mem::take(&mut rest.moves)) {
            *rest = None;
            return;
        }
    }
}

impl Bodies for Unread {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        if self.length == 0 {
            return Poll::Ready(None);
        }
        let part = {
            let mut unread = self.rest.lock().unwrap_or_else(PoisonError::into_inner);
            let Some(rest) = unread.as_mut() else {
                return Poll::Ready(Some(Err(io::Error::new(io::ErrorKind::TimedOut, "the client has not read its answer"))));
            };
            // A copy: a slice would keep the memory of the whole answer.
            let part = Bytes::copy_from_slice(&rest.bytes[..PART.min(rest.bytes.len())]);
            rest.bytes.advance(part.len());
            rest.moves = true;
            if rest.bytes.is_empty() {
                *unread = None;
            }
            part
        };
        self.length -= part.len();
        Poll::Ready(Some(Ok(Frame::data(part))))
    }

    fn is_end_stream(&self) -> bool {
        self.length == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.length as u64)
    }
}
