//! Reading a request's body and query: bounded in size and time, typed, with errors that name what is wrong.

use super::errors::Refusal;
use crate::wire::{Code, Error, Result};
use axum::{
    extract::{FromRequest, FromRequestParts, Request},
    http::{HeaderMap, header, request::Parts},
};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use serde::de::DeserializeOwned;
use std::{sync::Arc, time::Duration};

/// How long a whole body may take to arrive.
const BODY_TIMEOUT: Duration = Duration::from_secs(10);
/// What a JSON string may grow to by escapes (`\u0001` for one byte), and room for the other fields.
const ESCAPES: usize = 6;
const OTHER_FIELDS: usize = 64 * 1024;

/// A JSON body.
#[derive(Debug)]
pub struct Json<T>(pub T);

/// Query parameters.
#[derive(Debug)]
pub struct Query<T>(pub T);

impl<T: DeserializeOwned> FromRequest<Arc<super::App>> for Json<T> {
    type Rejection = Refusal;
    async fn from_request(request: Request, app: &Arc<super::App>) -> Result<Self, Refusal> {
        let path = request.uri().path().to_owned();
        let limit = app.broker.limits().text_bytes.saturating_mul(ESCAPES).saturating_add(OTHER_FIELDS);
        read(request, limit).await.map(Self).map_err(|error| Refusal::on(&path, error))
    }
}

impl<T: DeserializeOwned> FromRequestParts<Arc<super::App>> for Query<T> {
    type Rejection = Refusal;
    async fn from_request_parts(parts: &mut Parts, app: &Arc<super::App>) -> Result<Self, Refusal> {
        match axum::extract::Query::<T>::from_request_parts(parts, app).await {
            Ok(axum::extract::Query(query)) => Ok(Self(query)),
            Err(rejection) => {
                let error = Error::new(Code::InvalidRequest, format!("the query cannot be read: {}", rejection.body_text()));
                Err(Refusal::on(parts.uri.path(), error.help("see /v1/openapi.json for what this path takes")))
            }
        }
    }
}

async fn read<T: DeserializeOwned>(request: Request, limit: usize) -> Result<T> {
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
        Ok(Err(error)) => return Err(Error::new(Code::InvalidRequest, format!("the body broke off: {error}"))),
        Err(_) => {
            let what = format!("the body did not arrive within {} s", BODY_TIMEOUT.as_secs());
            return Err(Error::new(Code::RequestTimeout, what).help("send it faster"));
        }
    };
    serde_json::from_slice(&body).map_err(|error| {
        Error::new(Code::InvalidRequest, format!("the body cannot be read: {error}"))
            .help("see /v1/openapi.json for what this path takes")
    })
}

fn is_json(headers: &HeaderMap) -> bool {
    let Some(kind) = headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok()) else { return false };
    let essence = kind.split(';').next().unwrap_or_default().trim();
    essence.eq_ignore_ascii_case("application/json")
}
