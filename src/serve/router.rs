//! The dull table: which path is which handler. Access is checked around all of it, unknown paths included.

use super::{App, access, errors::Refusal, legacy, v1};
use crate::wire::{Code, Error, VERSION};
use axum::{Router, http::Uri, middleware, routing::get};
use std::sync::Arc;
use utoipa::openapi::{
    Components, InfoBuilder, LicenseBuilder, OpenApi, OpenApiBuilder,
    security::{ApiKey, ApiKeyValue, HttpAuthScheme, HttpBuilder, SecurityScheme},
};
use utoipa_axum::router::OpenApiRouter;

/// Every route of the broker.
pub(super) fn router(app: Arc<App>) -> Router {
    let (routes, document) = documented();
    routes
        .route("/v1/openapi.json", get(|| async { axum::Json(document) }))
        .merge(legacy::routes())
        .fallback(|uri: Uri| async move {
            let error =
                Error::new(Code::NotFound, format!("there is no path {}", uri.path().chars().take(100).collect::<String>()));
            Refusal::on(uri.path(), error.help("see /v1/openapi.json for the paths there are"))
        })
        .method_not_allowed_fallback(|uri: Uri| async move {
            let error = Error::new(Code::MethodNotAllowed, "this path is not for this HTTP method");
            Refusal::on(uri.path(), error.help("see /v1/openapi.json for the method it takes"))
        })
        .layer(middleware::from_fn(access::check))
        .with_state(app)
}

/// The OpenAPI document of `/v1`, made from the handlers.
pub fn openapi() -> OpenApi {
    documented().1
}

fn documented() -> (Router<Arc<App>>, OpenApi) {
    let secret =
        SecurityScheme::Http(HttpBuilder::new().scheme(HttpAuthScheme::Bearer).description(Some("a peer's secret")).build());
    let process = SecurityScheme::ApiKey(ApiKey::Header(ApiKeyValue::with_description(
        "Authorization",
        "`Process PID`: the process that runs the session, from which the kernel shows the asking one to descend",
    )));
    let mut components = Components::new();
    components.add_security_scheme("secret", secret);
    components.add_security_scheme("process", process);
    let info = InfoBuilder::new()
        .title("claude-peers")
        .version(VERSION)
        .description(Some("The broker's own API. The reference's paths are served beside it; see docs/protocol.md."))
        .license(Some(LicenseBuilder::new().name("MIT").identifier(Some("MIT")).build()));
    let base = OpenApiBuilder::new().info(info.build()).components(Some(components)).build();
    OpenApiRouter::with_openapi(base).merge(v1::routes()).split_for_parts()
}
