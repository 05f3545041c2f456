//! Which error codes each path may answer with. The OpenAPI document is made from this table; `docs/protocol.md` shows the same,
//! and the tests compare the two. A debug build does not let a path answer with a code that it lacks.

use super::errors::{ErrorBody, status};
use crate::wire::Code::{self, *};
use std::collections::BTreeMap;
use utoipa::{
    ToSchema,
    openapi::{Content, OpenApi, Ref, Response, path::Operation},
};

/// On every path.
const EVERYWHERE: &[Code] = &[Forbidden, VersionMismatch, Busy, Stopping, DatabaseMoved, Internal];
/// Wherever somebody may present a secret.
const CALLER: &[Code] = &[Unauthorized];
/// Wherever there is a body.
const BODY: &[Code] = &[InvalidRequest, UnsupportedMediaType, TooLarge, RequestTimeout];
/// Wherever there is a query.
const QUERY: &[Code] = &[InvalidRequest];

/// Each path of `/v1` with its groups of codes.
const TABLE: &[(&str, &[&[Code]])] = &[
    ("/v1/hello", &[]),
    ("/v1/register", &[CALLER, BODY, &[InvalidPath]]),
    ("/v1/unregister", &[CALLER, &[PeerNotFound]]),
    ("/v1/peers", &[CALLER, QUERY, &[UnknownScope, InvalidPath]]),
    ("/v1/whoami", &[CALLER, QUERY, &[PeerNotFound]]),
    ("/v1/events", &[CALLER, QUERY, &[PeerNotFound]]),
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
    ("/v1/hook", &[BODY, &[InvalidPath]]),
    ("/v1/messages/{id}", &[CALLER, &[InvalidId, MessageNotFound]]),
    ("/v1/messages/{id}/reply", &[CALLER, QUERY, &[InvalidId, MessageNotFound]]),
    ("/v1/messages/{id}/read", &[CALLER, BODY, &[InvalidId]]),
    ("/v1/messages/{id}/release", &[CALLER, BODY, &[InvalidId, MessageNotFound]]),
    ("/v1/history", &[CALLER, QUERY, &[InvalidId]]),
    ("/v1/status", &[]),
    ("/v1/stop", &[CALLER, BODY]),
];

fn codes(path: &str) -> Option<impl Iterator<Item = Code>> {
    let (_, groups) = TABLE.iter().find(|(known, _)| *known == path)?;
    Some(groups.iter().chain([&EVERYWHERE]).flat_map(|codes| codes.iter().copied()))
}

/// Whether the table lets `path`, as it is routed, answer with `code`. Another method than the path's is not in the table.
pub(super) fn allows(path: &str, code: Code) -> bool {
    code == MethodNotAllowed || codes(path).is_none_or(|mut codes| codes.any(|known| known == code))
}

/// Adds the answers that the table names to the document.
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
        let response = Response::builder().description(codes.join(", ")).content("application/json", content);
        operation.responses.responses.insert(status, response.build().into());
    }
}
