//! `/v1/plan` and `/v1/migrations`

use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use serde::Deserialize;
use ums_model::names::{MigrationId, ServiceName, SiteName};
use ums_model::phase::Mode;
use ums_model::plan::Plan;
use ums_sites::adapter::SiteAdapter;

use super::extract::{Answer, Body, Failure, Named, Params, json};
use crate::core::Core;
use crate::migrations;
use crate::preflight::preflight;
use crate::services::migration_of;
use crate::source::{Wish, begin, must_be_home};
use crate::view::{MigrationStarted, MigrationView, StartMigration};

/// How many migrations a list shows if nobody says otherwise, and at most.
const SHOWN: usize = 50;
const SHOWN_MOST: usize = 1000;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct PlanFor {
    service: ServiceName,
    to: SiteName,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Which {
    service: Option<ServiceName>,
    limit: Option<usize>,
}

pub(super) async fn plan<S: SiteAdapter>(
    State(core): State<Arc<Core<S>>>,
    Params(PlanFor { service, to }): Params<PlanFor>,
) -> Answer<Plan> {
    if migration_of(&core, &service).is_none() {
        must_be_home(&core, &core.desks.desk(&service).standing(), &service).await?;
    }
    json(preflight(&core, &service, &to, None).await?.plan)
}

pub(super) async fn start<S: SiteAdapter>(
    State(core): State<Arc<Core<S>>>,
    Body(wanted): Body<StartMigration>,
) -> Result<(StatusCode, axum::Json<MigrationStarted>), Failure> {
    let wish = Wish { service: wanted.service, to: wanted.to, mode: wanted.mode.unwrap_or(Mode::Cold) };
    let migration = begin(&core, wish).await?;
    Ok((StatusCode::ACCEPTED, axum::Json(MigrationStarted { migration })))
}

pub(super) async fn list<S: SiteAdapter>(
    State(core): State<Arc<Core<S>>>,
    Params(which): Params<Which>,
) -> Answer<Vec<MigrationView>> {
    let limit = which.limit.unwrap_or(SHOWN).min(SHOWN_MOST);
    json(migrations::list(&core, which.service.as_ref(), limit).await?)
}

pub(super) async fn show<S: SiteAdapter>(
    State(core): State<Arc<Core<S>>>,
    Named(id): Named<MigrationId>,
) -> Answer<MigrationView> {
    json(migrations::show(&core, id).await?)
}

pub(super) async fn abort<S: SiteAdapter>(
    State(core): State<Arc<Core<S>>>,
    Named(id): Named<MigrationId>,
) -> Answer<MigrationView> {
    json(migrations::abort(&core, id).await?)
}

pub(super) async fn abort_of<S: SiteAdapter>(
    State(core): State<Arc<Core<S>>>,
    Named(name): Named<ServiceName>,
) -> Answer<MigrationView> {
    json(migrations::abort_of(&core, &name).await?)
}
