//! Error answers: the one place that turns an error into an HTTP status and a body, and the table of each path's error codes. The
//! OpenAPI document is generated from this table; `docs/protocol.md` shows the same, and the tests compare the two. A debug build
//! does not let a path answer with a code outside its row.

use crate::wire::{
    Code::{self, *},
    Error,
};
use axum::{
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};
use serde::Serialize;
use serde_json::json;
use std::collections::BTreeMap;
use utoipa::{
    ToSchema,
    openapi::{Content, OpenApi, Ref, ResponseBuilder, path::Operation},
};

/// On every path.
const EVERYWHERE: &[Code] = &[Forbidden, VersionMismatch, Busy, Stopping, DatabaseMoved, DatabaseLocked, Internal];
/// On paths that accept a secret.
const CALLER: &[Code] = &[Unauthorized];
/// On paths with a body.
const BODY: &[Code] = &[InvalidRequest, UnsupportedMediaType, TooLarge, RequestTimeout];
/// On paths with a query.
const QUERY: &[Code] = &[InvalidRequest];

/// Each path of `/v1` with its groups of codes.
const TABLE: &[(&str, &[&[Code]])] = &[
    ("/v1/hello", &[]),
    ("/v1/register", &[CALLER, BODY, &[InvalidPath]]),
    ("/v1/unregister", &[CALLER, &[PeerNotFound]]),
    ("/v1/peers", &[CALLER, QUERY, &[UnknownScope, InvalidPath]]),
    ("/v1/peers/{id}/mail", &[CALLER, QUERY, &[InvalidId, PeerNotFound]]),
    ("/v1/whoami", &[CALLER, QUERY, &[PeerNotFound]]),
    ("/v1/events", &[CALLER, QUERY, &[PeerNotFound]]),
    ("/v1/watch", &[CALLER]),
    (
        "/v1/send",
        &[
            CALLER,
            BODY,
            &[InvalidId, UnknownScope, InvalidPath, EmptyMessage, PeerNotFound, AmbiguousPeer, MessageNotFound],
            &[NoMailbox, IdempotencyConflict, RateLimited, RepeatLimited, MailboxFull],
        ],
    ),
    ("/v1/set-summary", &[CALLER, BODY, &[PeerNotFound]]),
    ("/v1/take", &[CALLER, BODY, &[PeerNotFound]]),
    ("/v1/acknowledge", &[CALLER, BODY, &[PeerNotFound]]),
    ("/v1/hook", &[CALLER, BODY, &[InvalidPath, PeerNotFound]]),
    ("/v1/messages/{id}", &[CALLER, &[InvalidId, MessageNotFound]]),
    ("/v1/messages/{id}/reply", &[CALLER, QUERY, &[InvalidId, MessageNotFound]]),
    ("/v1/messages/{id}/read", &[CALLER, BODY, &[InvalidId, MessageNotFound]]),
    ("/v1/messages/{id}/release", &[CALLER, BODY, &[InvalidId, MessageNotFound]]),
    ("/v1/history", &[CALLER, QUERY, &[InvalidId, PeerNotFound]]),
    ("/v1/search", &[CALLER, QUERY, &[InvalidId]]),
    ("/v1/status", &[]),
    ("/v1/containers", &[CALLER]),
    ("/v1/containers/{name}/open", &[CALLER, BODY, &[InvalidId]]),
    ("/v1/containers/{name}/close", &[CALLER, BODY, &[InvalidId, ContainerNotFound]]),
    ("/v1/gateway/peers", &[CALLER]),
    ("/v1/gateway/announce", &[CALLER, BODY, &[InvalidId, InvalidPath, MailboxFull]]),
    ("/v1/gateway/take", &[CALLER, BODY]),
    ("/v1/gateway/acknowledge", &[CALLER, BODY]),
    (
        "/v1/gateway/receive",
        &[
            CALLER,
            BODY,
            &[InvalidId, InvalidPath, EmptyMessage, PeerNotFound, MessageNotFound, NoMailbox, IdempotencyConflict, MailboxFull],
        ],
    ),
    ("/v1/gateway/confirm", &[CALLER, BODY]),
    ("/v1/stop", &[CALLER, BODY]),
];

pub(super) fn status(code: Code) -> StatusCode {
    match code {
        InvalidRequest | InvalidId | UnknownScope | InvalidPath | EmptyMessage => StatusCode::BAD_REQUEST,
        Unauthorized => StatusCode::UNAUTHORIZED,
        Forbidden => StatusCode::FORBIDDEN,
        NotFound | PeerNotFound | MessageNotFound | ContainerNotFound => StatusCode::NOT_FOUND,
        MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
        RequestTimeout => StatusCode::REQUEST_TIMEOUT,
        AmbiguousPeer | IdempotencyConflict | NoMailbox => StatusCode::CONFLICT,
        TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
        UnsupportedMediaType => StatusCode::UNSUPPORTED_MEDIA_TYPE,
        VersionMismatch => StatusCode::UPGRADE_REQUIRED,
        RateLimited | RepeatLimited | MailboxFull => StatusCode::TOO_MANY_REQUESTS,
        Busy | Stopping | DatabaseMoved | DatabaseLocked => StatusCode::SERVICE_UNAVAILABLE,
        Internal | Unreachable | Unknown => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

/// The body of an error under `/v1`.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct ErrorBody {
    pub error: Error,
}

/// The form for clients of `/v1`. The response also carries the error itself: see [`for_legacy`].
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

/// The form for legacy clients. Unknown paths get exactly the answer of the legacy broker.
pub(super) fn for_legacy(response: Response) -> Response {
    let Some(error) = response.extensions().get::<Error>() else { return response };
    let body = match error.code {
        NotFound => json!({"error": "not found"}),
        code => json!({"error": error.to_string(), "code": code}),
    };
    let mut rewritten = (response.status(), axum::Json(body)).into_response();
    rewritten.headers_mut().extend(response.headers().get(header::RETRY_AFTER).map(|wait| (header::RETRY_AFTER, wait.clone())));
    rewritten
}

fn codes(path: &str) -> Option<impl Iterator<Item = Code>> {
    let (_, groups) = TABLE.iter().find(|(known, _)| *known == path)?;
    Some(groups.iter().chain([&EVERYWHERE]).flat_map(|codes| codes.iter().copied()))
}

/// Whether the table lets `path`, as routed, answer with `code`. Methods that the path does not have are not in the table.
pub(super) fn allows(path: &str, code: Code) -> bool {
    code == MethodNotAllowed || codes(path).is_none_or(|mut codes| codes.any(|known| known == code))
}

/// Adds the table's error answers to the document.
pub(super) fn describe(document: &mut OpenApi) {
    for (path, item) in &mut document.paths.paths {
        let operations = [&mut item.get, &mut item.post].into_iter().flatten();
        operations.for_each(|operation| describe_operation(path, operation));
    }
}

fn describe_operation(path: &str, operation: &mut Operation) {
    let mut by_status: BTreeMap<String, Vec<&str>> = BTreeMap::new();
    for code in codes(path).into_iter().flatten() {
        by_status.entry(status(code).as_str().to_owned()).or_default().push(code.as_str());
    }
    for (status, mut codes) in by_status {
        codes.sort_unstable();
        codes.dedup();
        let content = Content::new(Some(Ref::from_schema_name(ErrorBody::name())));
        let response = ResponseBuilder::new().description(codes.join(", ")).content("application/json", content);
        operation.responses.responses.insert(status, response.build().into());
    }
}
