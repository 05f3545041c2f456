//! Reads a request's body, query and path: bounded in size and time, typed, with errors that name the fault.

use super::{access::Connection, app::App};
use crate::wire::{self, Code, Error};
use axum::{
    body::Body,
    extract::{FromRequest, FromRequestParts, Path, Request},
    http::{HeaderMap, header, request::Parts},
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use futures_util::stream;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::{Body as _, Incoming};
use serde::{Serialize, de::DeserializeOwned};
use std::{
    sync::{Arc, OnceLock},
    time::Duration,
};
use tokio::{
    runtime::Handle,
    sync::{OwnedSemaphorePermit, Semaphore},
    time::timeout,
};

/// How long a whole body may take to arrive.
const BODY_TIMEOUT: Duration = Duration::from_secs(10);
/// Bodies up to this size, which nearly all requests have, need no share of the memory for bodies.
const SMALL: usize = 4 * 1024;
/// How long a larger body waits for its share of memory before the broker reports that it is busy.
const SHARE_TIMEOUT: Duration = Duration::from_secs(2);
/// How much of an unread body is discarded, and for how long, before the connection closes.
const REST: usize = 8 * 1024 * 1024;
const REST_TIMEOUT: Duration = Duration::from_secs(2);
const HELP: &str = "see /v1/openapi.json for what this path takes";

/// A JSON body, of a request or of an answer.
#[derive(Debug)]
pub(super) struct Json<T>(pub T);

#[derive(Debug)]
pub(super) struct Query<T>(pub T);

/// The message id in a path, as it was written.
#[derive(Debug)]
pub(super) struct InPath(pub String);

impl<T: Serialize> IntoResponse for Json<T> {
    fn into_response(self) -> Response {
        axum::Json(self.0).into_response()
    }
}

impl<T: DeserializeOwned> FromRequest<Arc<App>> for Json<T> {
    type Rejection = Error;
    async fn from_request(request: Request, app: &Arc<App>) -> wire::Result<Self> {
        if !is_json(request.headers()) {
            let error = Error::new(Code::UnsupportedMediaType, "the body is not application/json");
            return Err(error.help("send JSON with `Content-Type: application/json`"));
        }
        let share = request.extensions().get::<Share>().cloned().unwrap_or_default();
        let is_contained = Connection::of(request.extensions())?.container().is_some();
        let bodies = if is_contained { &app.bodies_of_containers } else { &app.bodies };
        let body = timeout(BODY_TIMEOUT, read(request, app.largest_body, bodies, &share)).await.unwrap_or_else(|_| {
            let what = format!("the body did not arrive within {} s", BODY_TIMEOUT.as_secs());
            Err(Error::new(Code::RequestTimeout, what).help("send it faster"))
        })?;
        let parsed =
            serde_json::from_slice(&body).map_err(|error| invalid(format!("the body cannot be read: {error}")).help(HELP));
        parsed.map(Self)
    }
}

impl<T: DeserializeOwned> FromRequestParts<Arc<App>> for Query<T> {
    type Rejection = Error;
    async fn from_request_parts(parts: &mut Parts, app: &Arc<App>) -> wire::Result<Self> {
        match axum::extract::Query::from_request_parts(parts, app).await {
            Ok(axum::extract::Query(query)) => Ok(Self(query)),
            Err(rejection) => Err(invalid(format!("the query cannot be read: {}", rejection.body_text())).help(HELP)),
        }
    }
}

impl FromRequestParts<Arc<App>> for InPath {
    type Rejection = Error;
    async fn from_request_parts(parts: &mut Parts, app: &Arc<App>) -> wire::Result<Self> {
        match Path::from_request_parts(parts, app).await {
            Ok(Path(id)) => Ok(Self(id)),
            Err(rejection) => Err(Error::new(Code::InvalidId, format!("the path cannot be read: {}", rejection.body_text()))),
        }
    }
}

/// Reads a body of at most `limit` bytes; a larger one takes its share of `bodies`.
async fn read(request: Request, limit: usize, bodies: &Arc<Semaphore>, share: &Share) -> wire::Result<Vec<u8>> {
    let too_large = || Error::new(Code::TooLarge, format!("the body has more than {limit} bytes")).help("send less at once");
    let announced = request.headers().get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok());
    let size = announced.unwrap_or(limit);
    if size > limit {
        return Err(too_large());
    }
    let (mut stream, mut body) = (request.into_body(), Vec::new());
    while let Some(frame) = stream.frame().await {
        let frame = frame.map_err(|error| invalid(format!("the body broke off: {error}")))?;
        let Ok(data) = frame.into_data() else { continue };
        let length = body.len() + data.len();
        if length > limit {
            return Err(too_large());
        }
        if length > SMALL && share.0.get().is_none() {
            share.take(bodies, size).await?;
        }
        body.extend_from_slice(&data);
    }
    Ok(body)
}

/// A request's share of the memory for bodies, returned when its last clone is dropped.
#[derive(Debug, Clone, Default)]
pub(super) struct Share(Arc<OnceLock<OwnedSemaphorePermit>>);

impl Share {
    async fn take(&self, bodies: &Arc<Semaphore>, bytes: usize) -> wire::Result<()> {
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
        let waiting = timeout(SHARE_TIMEOUT, bodies.clone().acquire_many_owned(bytes));
        let Ok(Ok(permit)) = waiting.await else {
            let error = Error::new(Code::Busy, "too many large requests are under way");
            return Err(error.help("try again").retry_after(SHARE_TIMEOUT));
        };
        self.0.get_or_init(|| permit);
        Ok(())
    }
}

/// A request's body. If it is not read to its end, for example because the request is refused, the rest is read and discarded. A
/// client that is still writing then gets its answer instead of a broken connection.
pub(super) fn arriving(body: Incoming) -> Body {
    let frames = stream::unfold(Arriving(Some(body)), |mut arriving| async {
        let frame = arriving.0.as_mut()?.frame().await?;
        Some((frame, arriving))
    });
    Body::new(StreamBody::new(frames))
}

struct Arriving(Option<Incoming>);

impl Drop for Arriving {
    fn drop(&mut self) {
        if let Some(body) = self.0.take().filter(|body| !body.is_end_stream())
            && let Ok(runtime) = Handle::try_current()
        {
            runtime.spawn(timeout(REST_TIMEOUT, throw_away(body)));
        }
    }
}

async fn throw_away(mut body: Incoming) {
    let mut left = REST;
    while let Some(Ok(frame)) = body.frame().await
        && let Some(rest) = left.checked_sub(frame.data_ref().map_or(0, Bytes::len))
    {
        left = rest;
    }
}

fn invalid(what: String) -> Error {
    Error::new(Code::InvalidRequest, what)
}

fn is_json(headers: &HeaderMap) -> bool {
    let Some(kind) = headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok()) else { return false };
    let essence = kind.split(';').next().unwrap_or_default().trim();
    essence.eq_ignore_ascii_case("application/json")
}
