//! All routes. Access is checked around all of them, including unknown paths.

use super::{
    access, answers,
    app::App,
    errors::{self, ErrorBody},
    legacy, metrics, v1,
};
use crate::wire::{Code, Error, VERSION};
use axum::{Router, http::Uri, middleware, routing::get};
use std::sync::Arc;
use utoipa::openapi::{
    ComponentsBuilder, InfoBuilder, LicenseBuilder, OpenApi, OpenApiBuilder,
    security::{ApiKey, ApiKeyValue, HttpAuthScheme, HttpBuilder, SecurityScheme},
};
use utoipa_axum::router::OpenApiRouter;

pub(super) fn router(app: Arc<App>) -> Router {
    let (routes, _) = documented();
    routes
        // Made for each request: it would take a megabyte of memory.
        .route("/v1/openapi.json", get(|| async { axum::Json(documented().1) }))
        .merge(legacy::routes())
        .merge(metrics::routes())
        .fallback(|uri: Uri| async move {
            let path: String = uri.path().chars().take(100).collect();
            Error::new(Code::NotFound, format!("there is no path {path}")).help("see /v1/openapi.json for the paths there are")
        })
        .method_not_allowed_fallback(|| async {
            Error::new(Code::MethodNotAllowed, "this path is not for this HTTP method")
                .help("see /v1/openapi.json for the method it takes")
        })
        .layer(middleware::from_fn_with_state(app.clone(), answers::bound))
        .layer(middleware::from_fn_with_state(app.clone(), access::check))
        .with_state(app)
}

/// The routes of `/v1` and their OpenAPI document, which is generated from the handlers.
fn documented() -> (Router<Arc<App>>, OpenApi) {
    let secret =
        SecurityScheme::Http(HttpBuilder::new().scheme(HttpAuthScheme::Bearer).description(Some("a peer's secret")).build());
    let process = SecurityScheme::ApiKey(ApiKey::Header(ApiKeyValue::with_description(
        "Authorization",
        "`Process PID`: the process that runs the session, from which the kernel shows the asking one to descend",
    )));
    let components = ComponentsBuilder::new().schema_from::<ErrorBody>();
    let components = components.security_scheme("secret", secret).security_scheme("process", process).build();
    let info = InfoBuilder::new()
        .title("claude-peers")
        .version(VERSION)
        .description(Some("The broker's own API. Paths for legacy clients are served beside it; see docs/protocol.md."))
        .license(Some(LicenseBuilder::new().name("MIT").identifier(Some("MIT")).build()));
    let base = OpenApiBuilder::new().info(info.build()).components(Some(components)).build();
    let (router, mut document) = OpenApiRouter::with_openapi(base).merge(v1::routes()).split_for_parts();
    errors::describe(&mut document);
    (router, document)
}
