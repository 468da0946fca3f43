//! The API: REST and server-sent events, over a Unix socket and over TLS.
//!
//! Every route needs a role, and [`routes`] says which. On a Unix socket the role is the socket's; over TLS it is that of
//! the token, without which there is nothing. What is taken and given stands in [`crate::view`] and in `openapi.json`. Every error is a [`ums_model::error::WireError`] in JSON,
//! under its own HTTP status.

mod audit;
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

use axum::http::{StatusCode, Uri};
use axum::middleware::{from_fn, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, delete, get, post, put};
use axum::{Extension, Router};
use ums_model::error::{ErrorCode, WireError};
use ums_sites::adapter::SiteAdapter;

use crate::core::Core;
use crate::view::TokenRole;
use extract::Failure;
pub(crate) use serve::serve;

/// The document that describes the API.
const OPENAPI: &str = include_str!("../openapi.json");

/// Method, path, who may, handler.
type Route<S> = (&'static str, &'static str, TokenRole, MethodRouter<Arc<Core<S>>>);

/// Every route, with the role that it needs. `openapi.json` lists the same, which a test makes sure of.
fn routes<S: SiteAdapter>() -> Vec<Route<S>> {
    use TokenRole::{Admin, Operator, Viewer};
    vec![
        ("GET", "/v1/openapi.json", Viewer, get(openapi)),
        ("GET", "/v1/site", Viewer, get(sites::own::<S>)),
        ("POST", "/v1/site/rotate", Admin, post(sites::rotate::<S>)),
        ("GET", "/v1/doctor", Viewer, get(sites::doctor::<S>)),
        ("GET", "/v1/services", Viewer, get(services::list::<S>)),
        ("POST", "/v1/services", Operator, post(services::create::<S>)),
        ("GET", "/v1/services/{name}", Viewer, get(services::show::<S>)),
        ("DELETE", "/v1/services/{name}", Operator, delete(services::remove::<S>)),
        ("POST", "/v1/services/{name}/stop", Operator, post(services::stop::<S>)),
        ("POST", "/v1/services/{name}/start", Operator, post(services::start::<S>)),
        ("POST", "/v1/services/{name}/signal", Operator, post(services::signal::<S>)),
        ("POST", "/v1/services/{name}/abort", Operator, post(migrations::abort_of::<S>)),
        ("POST", "/v1/services/{name}/resolve", Admin, post(services::resolve::<S>)),
        ("GET", "/v1/services/{name}/logs", Viewer, get(logs::logs::<S>)),
        ("POST", "/v1/services/{name}/exec", Operator, post(exec::exec::<S>)),
        ("GET", "/v1/plan", Viewer, get(migrations::plan::<S>)),
        ("GET", "/v1/migrations", Viewer, get(migrations::list::<S>)),
        ("POST", "/v1/migrations", Operator, post(migrations::start::<S>)),
        ("GET", "/v1/migrations/{id}", Viewer, get(migrations::show::<S>)),
        ("DELETE", "/v1/migrations/{id}", Operator, delete(migrations::abort::<S>)),
        ("GET", "/v1/migrations/{id}/events", Viewer, get(events::events::<S>)),
        ("GET", "/v1/audit", Viewer, get(audit::list::<S>)),
        ("GET", "/v1/audit/verify", Viewer, get(audit::verify::<S>)),
        ("GET", "/v1/sites", Viewer, get(sites::list::<S>)),
        ("POST", "/v1/sites/invite", Admin, post(sites::invite::<S>)),
        ("POST", "/v1/sites/accept", Admin, post(sites::accept::<S>)),
        ("DELETE", "/v1/sites/{name}", Admin, delete(sites::remove::<S>)),
        ("POST", "/v1/sites/{name}/revoke", Admin, post(sites::revoke::<S>)),
        ("GET", "/v1/sites/{name}/policy", Viewer, get(sites::policy::<S>)),
        ("PUT", "/v1/sites/{name}/policy", Admin, put(sites::set_policy::<S>)),
        ("GET", "/v1/tokens", Admin, get(tokens::list::<S>)),
        ("POST", "/v1/tokens", Admin, post(tokens::create::<S>)),
        ("DELETE", "/v1/tokens/{name}", Admin, delete(tokens::remove::<S>)),
    ]
}

/// Every route with the role that it needs, for tests from outside.
#[cfg(test)]
pub(crate) fn table<S: SiteAdapter>() -> Vec<(&'static str, &'static str, TokenRole)> {
    routes::<S>().into_iter().map(|(method, path, role, _)| (method, path, role)).collect()
}

/// The API as a local socket serves it, to users who may do what `role` says.
pub(crate) fn local<S: SiteAdapter>(core: Arc<Core<S>>, role: TokenRole) -> Router {
    router().layer(Extension(auth::Granted(role))).with_state(core)
}

/// The API as the TLS port serves it: nothing without a token.
pub(crate) fn remote<S: SiteAdapter>(core: Arc<Core<S>>) -> Router {
    router().layer(from_fn_with_state(Arc::clone(&core), auth::require_token::<S>)).with_state(core)
}

fn router<S: SiteAdapter>() -> Router<Arc<Core<S>>> {
    let router = routes().into_iter().fold(Router::new(), |router, (_, path, role, handler)| {
        let gate = from_fn(move |request, next| auth::gate(role, request, next));
        router.route(path, handler.route_layer(gate))
    });
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
