//! The one place where an error becomes an HTTP status and a body.

use crate::wire::{Code, Error};
use axum::{
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};
use serde::Serialize;

/// The body of an error under `/v1`.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub struct ErrorBody {
    /// What went wrong.
    pub error: Error,
}

/// The body of an error on the reference's paths: its clients read a text.
#[derive(Debug, Serialize)]
struct LegacyErrorBody {
    error: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    code: Option<Code>,
}

/// An error, on its way to a client of our API or of the reference's.
#[derive(Debug)]
pub struct Refusal {
    error: Error,
    legacy: bool,
}

impl Refusal {
    /// An error in the form that clients of `path` understand.
    pub fn on(path: &str, error: Error) -> Self {
        Self { error, legacy: !path.starts_with("/v1/") }
    }

    /// An error on one of the reference's paths.
    pub fn legacy(error: Error) -> Self {
        Self { error, legacy: true }
    }
}

impl From<Error> for Refusal {
    fn from(error: Error) -> Self {
        Self { error, legacy: false }
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let status = status(self.error.code);
        if status.is_server_error() {
            tracing::error!(code = ?self.error.code, "{}", self.error.message);
        }
        let retry = self.error.retry_after_ms.map(|ms| ms.div_ceil(1_000).max(1));
        let mut response = if self.legacy {
            let body = match self.error.code {
                // An unknown path is answered to the letter as the reference does.
                Code::NotFound => LegacyErrorBody { error: "not found".to_owned(), code: None },
                code => LegacyErrorBody { error: self.error.to_string(), code: Some(code) },
            };
            (status, axum::Json(body)).into_response()
        } else {
            (status, axum::Json(ErrorBody { error: self.error })).into_response()
        };
        if let Some(seconds) = retry {
            response.headers_mut().insert(header::RETRY_AFTER, seconds.into());
        }
        response
    }
}

fn status(code: Code) -> StatusCode {
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
        Code::Busy | Code::Stopping => StatusCode::SERVICE_UNAVAILABLE,
        _ => StatusCode::INTERNAL_SERVER_ERROR,
    }
}
