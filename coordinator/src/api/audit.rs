//! `/v1/audit`

use std::sync::Arc;

use axum::extract::State;
use serde::Deserialize;
use ums_sites::adapter::SiteAdapter;

use super::extract::{Answer, Params, json};
use crate::audit::{self, AuditCheck, AuditRecord};
use crate::core::Core;

/// How many records one answer has at most.
const SHOWN_MOST: usize = 1000;

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Which {
    after: u64,
    limit: Option<usize>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Known {
    head: Option<String>,
}

pub(super) async fn list<S: SiteAdapter>(
    State(core): State<Arc<Core<S>>>,
    Params(which): Params<Which>,
) -> Answer<Vec<AuditRecord>> {
    let limit = which.limit.unwrap_or(SHOWN_MOST).min(SHOWN_MOST);
    json(audit::list(&core, which.after, limit).await?)
}

pub(super) async fn verify<S: SiteAdapter>(
    State(core): State<Arc<Core<S>>>,
    Params(known): Params<Known>,
) -> Answer<AuditCheck> {
    json(audit::check(&core, known.head.as_deref()).await?)
}
