//! Reading a request's body, query and path: bounded in size and time, typed, with errors that name the fault.

use super::app::App;
use crate::wire::{self, Code, Error};
use axum::{
    extract::{FromRequest, FromRequestParts, Path, Request},
    http::{HeaderMap, header, request::Parts},
    response::{IntoResponse, Response},
};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use serde::{Serialize, de::DeserializeOwned};
use std::{sync::Arc, time::Duration};

/// How long a whole body may take to arrive.
const BODY_TIMEOUT: Duration = Duration::from_secs(10);
/// What a JSON string may grow to by escapes (`\u0001` for one byte), and room for the other fields.
const ESCAPES: usize = 6;
const OTHER_FIELDS: usize = 64 * 1024;
const HELP: &str = "see /v1/openapi.json for what this path takes";

/// A JSON body, of a request or of an answer.
#[derive(Debug)]
pub(super) struct Json<T>(pub T);

/// Query parameters.
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
        let limit = app.broker.limits().text_bytes.saturating_mul(ESCAPES).saturating_add(OTHER_FIELDS);
        read(request, limit).await.map(Self)
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

async fn read<T: DeserializeOwned>(request: Request, limit: usize) -> wire::Result<T> {
    if !is_json(request.headers()) {
        let error = Error::new(Code::UnsupportedMediaType, "the body is not application/json");
        return Err(error.help("send JSON with `Content-Type: application/json`"));
    }
    let too_large = || Error::new(Code::TooLarge, format!("the body has more than {limit} bytes")).help("send less at once");
    let announced = request.headers().get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
    if announced.is_some_and(|length| length > limit as u64) {
        return Err(too_large());
    }
    let body = match tokio::time::timeout(BODY_TIMEOUT, Limited::new(request.into_body(), limit).collect()).await {
        Ok(Ok(body)) => body.to_bytes(),
        Ok(Err(error)) if error.downcast_ref::<LengthLimitError>().is_some() => return Err(too_large()),
        Ok(Err(error)) => return Err(invalid(format!("the body broke off: {error}"))),
        Err(_) => {
            let what = format!("the body did not arrive within {} s", BODY_TIMEOUT.as_secs());
            return Err(Error::new(Code::RequestTimeout, what).help("send it faster"));
        }
    };
    serde_json::from_slice(&body).map_err(|error| invalid(format!("the body cannot be read: {error}")).help(HELP))
}

fn invalid(what: String) -> Error {
    Error::new(Code::InvalidRequest, what)
}

fn is_json(headers: &HeaderMap) -> bool {
    let Some(kind) = headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok()) else { return false };
    let essence = kind.split(';').next().unwrap_or_default().trim();
    essence.eq_ignore_ascii_case("application/json")
}
