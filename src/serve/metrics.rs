//! `/metrics`: the broker's numbers for Prometheus, as OpenMetrics text.
//!
//! The Unix socket and the TCP port of the protocol serve it to this user. The port of `CLAUDE_PEERS_METRICS` serves it to every user
//! of the machine, because Prometheus usually runs as a user of its own, and serves nothing else. Browsers are refused on every listener.

use super::{
    access,
    app::{App, AppState},
};
use crate::wire::{self, Code, Error};
use axum::{
    Router,
    extract::State,
    http::header,
    middleware,
    response::{IntoResponse, Response},
    routing::get,
};
use std::sync::Arc;

const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// The route, for the sockets of the protocol.
pub(super) fn routes() -> Router<Arc<App>> {
    Router::new().route("/metrics", get(metrics))
}

/// All that the port of the metrics serves.
pub(super) fn router(app: Arc<App>) -> Router {
    let other = || async { Error::new(Code::NotFound, "this port serves only /metrics") };
    let routes = routes().fallback(other).layer(middleware::from_fn_with_state(app.clone(), access::check));
    routes.with_state(app)
}

/// Reports an error by its code only, because its text may name paths.
async fn metrics(State(app): AppState) -> wire::Result<Response> {
    let text = app.broker.scrape().await.map_err(|error| {
        tracing::warn!(%error, "the metrics cannot be read: {error}");
        Error::new(error.code, "the metrics cannot be read").help("see `claude-peers logs`")
    })?;
    Ok(([(header::CONTENT_TYPE, OPEN_METRICS)], text).into_response())
}
