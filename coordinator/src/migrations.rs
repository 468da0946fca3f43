//! What users ask about migrations, and the one thing that they can do to one.

use ums_model::action::Alarm;
use ums_model::error::{ErrorCode, WireError};
use ums_model::names::{MigrationId, ServiceName};
use ums_model::phase::Outcome;
use ums_model::standing::Role as Half;
use ums_model::{destination, source};
use ums_sites::adapter::SiteAdapter;

use crate::core::Core;
use crate::failure;
use crate::journal::{MigrationRow, Role};
use crate::view::{MigrationState, MigrationView, SideView};

/// One migration.
pub(crate) async fn show<S: SiteAdapter>(
    core: &Core<S>,
    id: MigrationId,
) -> Result<MigrationView, WireError> {
    Ok(view(core, find(core, id).await?).await)
}

/// The newest `limit` migrations, newest first, of one service or of all.
pub(crate) async fn list<S: SiteAdapter>(
    core: &Core<S>,
    service: Option<&ServiceName>,
    limit: usize,
) -> Result<Vec<MigrationView>, WireError> {
    let rows = core.journal.history(service, limit).await.map_err(|error| failure::journal(&error))?;
    let mut views = Vec::with_capacity(rows.len());
    for row in rows {
        views.push(view(core, row).await);
    }
    Ok(views)
}

/// Ends a migration before its COMMIT, and waits until the service runs as before. `Err` after COMMIT: nothing was
/// done. Safe to repeat.
pub(crate) async fn abort<S: SiteAdapter>(
    core: &Core<S>,
    id: MigrationId,
) -> Result<MigrationView, WireError> {
    let row = find(core, id).await?;
    if row.ended.is_none() {
        let desk = core.desks.desk(&row.service);
        may_be_aborted(&row, &desk.standing())?;
        if let Some(holder) = desk.holder().filter(|holder| holder.migration == Some(id)) {
            holder.stop.cancel();
        }
        wait_for_end(core, id).await?;
    }
    let view = show(core, id).await?;
    match view.outcome {
        Some(Outcome::RolledBack) => Ok(view),
        outcome => {
            let how = outcome.map_or("under way", Outcome::as_str);
            let message = format!("cannot abort migration {id} of {}: it is {how}", row.service);
            Err(WireError::new(ErrorCode::Refused, message)
                .with_hint(format!("see how it went: ums watch {id}")))
        }
    }
}

/// Ends the migration that a service is in.
pub(crate) async fn abort_of<S: SiteAdapter>(
    core: &Core<S>,
    service: &ServiceName,
) -> Result<MigrationView, WireError> {
    match core.chronicles.of_service(service) {
        Some(id) => abort(core, id).await,
        None => {
            let message = format!("service {service} is in no migration");
            Err(WireError::new(ErrorCode::MigrationNotFound, message))
        }
    }
}

fn may_be_aborted(row: &MigrationRow, standing: &ums_model::standing::Standing) -> Result<(), WireError> {
    use destination::Stage as D;
    use source::Stage as S;
    let too_late = match standing.role() {
        _ if standing.epoch() != row.epoch => None,
        Half::Source(half) => match half.stage() {
            S::Stuck | S::Held { own: source::Own::Dead } => {
                Some("the original is dead, and the copy at the destination may be the only one")
            }
            S::Committed { .. } | S::Refused { .. } | S::Moved => Some("it is committed"),
            _ => None,
        },
        Half::Destination(half) => match half.stage() {
            D::Held { .. } => Some("the copy here is held, and only the source decides"),
            D::CommitSeen { .. } | D::Granted { .. } | D::Running => Some("it is committed"),
            _ => None,
        },
    };
    match too_late {
        None => Ok(()),
        Some(why) => {
            let message = format!("cannot abort migration {} of {}: {why}", row.id, row.service);
            Err(WireError::new(ErrorCode::Refused, message)
                .with_hint(format!("watch it: ums watch {}", row.id)))
        }
    }
}

async fn wait_for_end<S: SiteAdapter>(core: &Core<S>, id: MigrationId) -> Result<(), WireError> {
    let within = core.config.deadlines.act;
    let wait = async {
        while let Some(chronicle) = core.chronicles.of(id) {
            let mut follow = chronicle.follow();
            drop(chronicle);
            if core.chronicles.of(id).is_some() && follow.changed().await.is_err() {
                tokio::task::yield_now().await;
            }
        }
    };
    let late = |_| failure::late(&format!("see the end of migration {id}"), within);
    tokio::time::timeout(within, wait).await.map_err(late)
}

async fn find<S: SiteAdapter>(core: &Core<S>, id: MigrationId) -> Result<MigrationRow, WireError> {
    // One that has not written its first record yet is known all the same.
    if let Some(chronicle) = core.chronicles.of(id) {
        return Ok(chronicle.row());
    }
    let row = core.journal.migration(id).await.map_err(|error| failure::journal(&error))?;
    row.ok_or_else(|| {
        WireError::new(ErrorCode::MigrationNotFound, format!("no migration {id} is known here"))
    })
}

async fn view<S: SiteAdapter>(core: &Core<S>, row: MigrationRow) -> MigrationView {
    let here = core.config.name.clone();
    let peer = row.peer_name;
    let (role, source, destination) = match row.role {
        Role::Source => (SideView::Source, here, peer.clone()),
        Role::Destination => (SideView::Destination, peer.clone(), here),
    };
    let desk = core.desks.desk(&row.service);
    let alarm = desk.alarm().filter(|(epoch, _)| *epoch == row.epoch).map(|(_, alarm)| alarm);
    let state = match (&row.ended, alarm) {
        (None, None) if core.departures.before(row.id).is_some() => MigrationState::Queued,
        (Some(_), _) => MigrationState::Ended,
        (None, Some(Alarm::InDoubt)) => MigrationState::InDoubt,
        (None, Some(_)) => MigrationState::Stuck,
        (None, None) => MigrationState::Active,
    };
    let phase = match core.chronicles.of(row.id) {
        Some(chronicle) => chronicle.phase().await,
        None => None,
    };
    let (ended_unix_ms, report) = row.ended.map(|ended| (ended.at_unix_ms, ended.report)).unzip();
    MigrationView {
        migration: row.id,
        service: row.service,
        epoch: row.epoch,
        role,
        peer,
        source,
        destination,
        mode: row.mode,
        approach: row.approach,
        user_namespace: row.spec.user_namespace,
        state,
        phase,
        alarm,
        started_unix_ms: row.started_unix_ms,
        ended_unix_ms,
        outcome: report.as_ref().map(|report| report.outcome),
        report,
    }
}
