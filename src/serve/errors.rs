//! The one place where an error becomes an HTTP status and a body.

use crate::wire::{Code, Error};
use axum::{
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};
use serde::Serialize;

/// The body of an error under `/v1`.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(super) struct ErrorBody {
    pub error: Error,
}

/// The body of an error for a legacy client, which reads a text.
#[derive(Debug, Serialize)]
struct LegacyErrorBody<'a> {
    error: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    code: Option<&'a str>,
}

/// As a client of `/v1` reads it. The response carries the error on: see [`for_legacy`].
impl IntoResponse for Error {
    fn into_response(self) -> Response {
        let mut response = (status(self.code), axum::Json(ErrorBody { error: self.clone() })).into_response();
        if let Some(ms) = self.retry_after_ms {
            response.headers_mut().insert(header::RETRY_AFTER, ms.div_ceil(1_000).max(1).into());
        }
        response.extensions_mut().insert(self);
        response
    }
}

/// An answer as a legacy client reads it. An unknown path is answered to the letter as its own broker does.
pub(super) fn for_legacy(response: Response) -> Response {
    let Some(error) = response.extensions().get::<Error>() else { return response };
    let body = match error.code {
        Code::NotFound => LegacyErrorBody { error: "not found".to_owned(), code: None },
        code => LegacyErrorBody { error: error.to_string(), code: Some(code.as_str()) },
    };
    let mut rewritten = (response.status(), axum::Json(body)).into_response();
    rewritten.headers_mut().extend(response.headers().get(header::RETRY_AFTER).map(|wait| (header::RETRY_AFTER, wait.clone())));
    rewritten
}

pub(super) fn status(code: Code) -> StatusCode {
    match code {
        Code::InvalidRequest | Code::InvalidId | Code::UnknownScope | Code::InvalidPath | Code::EmptyMessage => {
            StatusCode::BAD_REQUEST
        }
        Code::Unauthorized => StatusCode::UNAUTHORIZED,
        Code::Forbidden => StatusCode::FORBIDDEN,
        Code::NotFound | Code::PeerNotFound | Code::MessageNotFound => StatusCode::NOT_FOUND,
        Code::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
        Code::RequestTimeout => StatusCode::REQUEST_TIMEOUT,
        Code::AmbiguousPeer | Code::IdempotencyConflict | Code::NoMailbox => StatusCode::CONFLICT,
        Code::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
        Code::UnsupportedMediaType => StatusCode::UNSUPPORTED_MEDIA_TYPE,
        Code::VersionMismatch => StatusCode::UPGRADE_REQUIRED,
        Code::RateLimited | Code::RepeatLimited | Code::MailboxFull => StatusCode::TOO_MANY_REQUESTS,
        Code::Busy | Code::Stopping | Code::DatabaseMoved => StatusCode::SERVICE_UNAVAILABLE,
        Code::Internal | Code::Unreachable | Code::Unknown => StatusCode::INTERNAL_SERVER_ERROR,
    }
}
