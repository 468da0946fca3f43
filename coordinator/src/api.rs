//! The API: REST and server-sent events, over a Unix socket and over TLS.
//!
//! On the Unix socket whoever may open it may do everything; over TLS every request needs a token. What is taken and
//! given stands in [`crate::view`] and in `openapi.json`. Every error is a [`ums_model::error::WireError`] in JSON,
//! under its own HTTP status.

mod auth;
mod events;
mod exec;
mod extract;
mod logs;
mod migrations;
mod serve;
mod services;
mod sites;
mod tokens;

use std::sync::Arc;

use axum::Router;
use axum::http::{StatusCode, Uri};
use axum::middleware::from_fn_with_state;
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, delete, get, post, put};
use ums_model::error::{ErrorCode, WireError};
use ums_sites::adapter::SiteAdapter;

use crate::core::Core;
use extract::Failure;
pub(crate) use serve::serve;

/// The document that describes the API.
const OPENAPI: &str = include_str!("../openapi.json");

/// Method, path, handler.
type Route<S> = (&'static str, &'static str, MethodRouter<Arc<Core<S>>>);

/// Every route. `openapi.json` lists the same, which a test makes sure of.
fn routes<S: SiteAdapter>() -> Vec<Route<S>> {
    vec![
        ("GET", "/v1/openapi.json", get(openapi)),
        ("GET", "/v1/site", get(sites::own::<S>)),
        ("GET", "/v1/doctor", get(sites::doctor::<S>)),
        ("GET", "/v1/services", get(services::list::<S>)),
        ("POST", "/v1/services", post(services::create::<S>)),
        ("GET", "/v1/services/{name}", get(services::show::<S>)),
        ("DELETE", "/v1/services/{name}", delete(services::remove::<S>)),
        ("POST", "/v1/services/{name}/stop", post(services::stop::<S>)),
        ("POST", "/v1/services/{name}/start", post(services::start::<S>)),
        ("POST", "/v1/services/{name}/signal", post(services::signal::<S>)),
        ("POST", "/v1/services/{name}/abort", post(migrations::abort_of::<S>)),
        ("POST", "/v1/services/{name}/resolve", post(services::resolve::<S>)),
        ("GET", "/v1/services/{name}/logs", get(logs::logs::<S>)),
        ("POST", "/v1/services/{name}/exec", post(exec::exec::<S>)),
        ("GET", "/v1/plan", get(migrations::plan::<S>)),
        ("GET", "/v1/migrations", get(migrations::list::<S>)),
        ("POST", "/v1/migrations", post(migrations::start::<S>)),
        ("GET", "/v1/migrations/{id}", get(migrations::show::<S>)),
        ("DELETE", "/v1/migrations/{id}", delete(migrations::abort::<S>)),
        ("GET", "/v1/migrations/{id}/events", get(events::events::<S>)),
        ("GET", "/v1/sites", get(sites::list::<S>)),
        ("POST", "/v1/sites/invite", post(sites::invite::<S>)),
        ("POST", "/v1/sites/accept", post(sites::accept::<S>)),
        ("DELETE", "/v1/sites/{name}", delete(sites::remove::<S>)),
        ("GET", "/v1/sites/{name}/policy", get(sites::policy::<S>)),
        ("PUT", "/v1/sites/{name}/policy", put(sites::set_policy::<S>)),
        ("GET", "/v1/tokens", get(tokens::list::<S>)),
        ("POST", "/v1/tokens", post(tokens::create::<S>)),
        ("DELETE", "/v1/tokens/{name}", delete(tokens::remove::<S>)),
    ]
}

/// The API as the local socket serves it.
pub(crate) fn local<S: SiteAdapter>(core: Arc<Core<S>>) -> Router {
    router().with_state(core)
}

/// The API as the TLS port serves it: nothing without a token.
pub(crate) fn remote<S: SiteAdapter>(core: Arc<Core<S>>) -> Router {
    router().layer(from_fn_with_state(Arc::clone(&core), auth::require_token::<S>)).with_state(core)
}

fn router<S: SiteAdapter>() -> Router<Arc<Core<S>>> {
    let router =
        routes().into_iter().fold(Router::new(), |router, (_, path, handler)| router.route(path, handler));
    router.fallback(no_such_path).method_not_allowed_fallback(no_such_method)
}

async fn openapi() -> Response {
    ([("content-type", "application/json")], OPENAPI).into_response()
}

async fn no_such_path(uri: Uri) -> Response {
    let error = WireError::new(ErrorCode::BadRequest, format!("there is no {} in this API", uri.path()));
    (StatusCode::NOT_FOUND, Failure(error)).into_response()
}

async fn no_such_method(uri: Uri) -> Response {
    let error = WireError::new(ErrorCode::BadRequest, format!("{} is not asked for in this way", uri.path()));
    (StatusCode::METHOD_NOT_ALLOWED, Failure(error)).into_response()
}

#[cfg(test)]
mod tests;
