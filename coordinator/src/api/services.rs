//! `/v1/services`

use std::sync::Arc;
use std::time::Duration;

use axum::Extension;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use ums_model::error::{ErrorCode, WireError};
use ums_model::names::ServiceName;
use ums_sites::adapter::{ImageRequest, SiteAdapter};

use super::auth::{Granted, forbidden};
use super::extract::{Answer, Body, Failure, Named, Params, json};
use crate::core::Core;
use crate::services;
use crate::view::{
    CreateService, ResolveService, ResolvedView, ServiceView, SignalService, StopService, TokenRole,
};

/// Milliseconds between SIGTERM and SIGKILL if nobody says otherwise.
const GRACE_MS: u64 = 10_000;

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Remove {
    force: bool,
}

pub(super) async fn list<S: SiteAdapter>(State(core): State<Arc<Core<S>>>) -> Answer<Vec<ServiceView>> {
    json(services::list(&core).await?)
}

pub(super) async fn create<S: SiteAdapter>(
    State(core): State<Arc<Core<S>>>,
    Extension(Granted(role)): Extension<Granted>,
    Body(wanted): Body<CreateService>,
) -> Result<Response, Failure> {
    if let Some(what) = reaches_the_host(&wanted).filter(|_| role < TokenRole::Admin) {
        return Ok(forbidden(role.as_str(), TokenRole::Admin, what));
    }
    // In a task of its own: a client that goes away must not leave half a service behind.
    let create = core.tasks.clone().spawn(async move { services::create(&core, wanted).await });
    let view = create.await.map_err(|_| gone())??;
    Ok((StatusCode::CREATED, axum::Json(view)).into_response())
}

/// What about a new service would give its maker more than the service: an operator must not become the host's root.
fn reaches_the_host(wanted: &CreateService) -> Option<&'static str> {
    match &wanted.image {
        ImageRequest::Rootfs(_) => Some("a service from a directory of the host"),
        ImageRequest::Image(image) if image.starts_with(['/', '.']) => {
            Some("a service from a file of the host")
        }
        ImageRequest::Image(_) if wanted.user_namespace == Some(false) => {
            Some("a service without a user namespace")
        }
        ImageRequest::Image(_) => None,
    }
}

pub(super) async fn show<S: SiteAdapter>(
    State(core): State<Arc<Core<S>>>,
    Named(name): Named<ServiceName>,
) -> Answer<ServiceView> {
    json(services::show(&core, &name).await?)
}

pub(super) async fn remove<S: SiteAdapter>(
    State(core): State<Arc<Core<S>>>,
    Named(name): Named<ServiceName>,
    Params(params): Params<Remove>,
) -> Result<StatusCode, Failure> {
    let remove = core.tasks.clone().spawn(async move { services::remove(&core, &name, params.force).await });
    remove.await.map_err(|_| gone())??;
    Ok(StatusCode::NO_CONTENT)
}

pub(super) async fn stop<S: SiteAdapter>(
    State(core): State<Arc<Core<S>>>,
    Named(name): Named<ServiceName>,
    Body(wanted): Body<StopService>,
) -> Answer<ServiceView> {
    let grace = Duration::from_millis(wanted.grace_ms.unwrap_or(GRACE_MS));
    let stop = core.tasks.clone().spawn(async move { services::stop(&core, &name, grace).await });
    json(stop.await.map_err(|_| gone())??)
}

pub(super) async fn start<S: SiteAdapter>(
    State(core): State<Arc<Core<S>>>,
    Named(name): Named<ServiceName>,
) -> Answer<ServiceView> {
    let start = core.tasks.clone().spawn(async move { services::start(&core, &name).await });
    json(start.await.map_err(|_| gone())??)
}

pub(super) async fn signal<S: SiteAdapter>(
    State(core): State<Arc<Core<S>>>,
    Named(name): Named<ServiceName>,
    Body(wanted): Body<SignalService>,
) -> Result<StatusCode, Failure> {
    services::signal(&core, &name, wanted.signal).await?;
    Ok(StatusCode::NO_CONTENT)
}

pub(super) async fn resolve<S: SiteAdapter>(
    State(core): State<Arc<Core<S>>>,
    Named(name): Named<ServiceName>,
    Body(wanted): Body<ResolveService>,
) -> Answer<ResolvedView> {
    // Recorded is recorded, whether or not somebody waits for the answer.
    let resolve =
        core.tasks.clone().spawn(async move { crate::resolve::resolve(&core, &name, wanted.verdict).await });
    json(resolve.await.map_err(|_| gone())??)
}

/// The task that did the work is gone, and with it the answer.
fn gone() -> Failure {
    Failure(WireError::new(ErrorCode::Internal, "the request was not brought to its end".to_owned()))
}
