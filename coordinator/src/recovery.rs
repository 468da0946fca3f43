//! What is done before a site serves anybody: read the journal, look at every copy, ask the rules, do what they say.
//!
//! Everything that was under way when the daemon ended is gone; only the journal and the facts count. What can be
//! decided here is decided now. What needs the other site, or fails, goes on in the background.

use std::collections::BTreeMap;
use std::sync::Arc;

use ums_model::error::WireError;
use ums_model::names::{Epoch, MigrationId, ServiceName};
use ums_model::standing::Record;
use ums_sites::adapter::{CopyState, ServiceStatus, SiteAdapter};

use crate::core::Core;
use crate::desk::{Desk, Hold, Lane};
use crate::destination::correct_after_restart;
use crate::failure;
use crate::journal::{JournalError, MigrationRow, Role};
use crate::settle::{
    Settled, advance, conclude, is_settled, next_pause, outcome, settle, word_for_returning,
};
use crate::source::tell_end;

/// Brings every service to where the journal says that it stands. `Err`: the journal cannot be read, and no service
/// may be touched. Safe to repeat.
pub(crate) async fn recover<S: SiteAdapter>(core: &Arc<Core<S>>) -> Result<(), JournalError> {
    for (service, standing) in core.journal.standings().await? {
        core.desks.desk(&service).restore(standing);
    }
    let mut under_way = BTreeMap::<ServiceName, MigrationRow>::new();
    let mut stale = Vec::new();
    for row in core.journal.unfinished().await? {
        core.chronicles.resume(row.clone(), core.config.name.clone(), &core.journal).await?;
        if core.desks.desk(&row.service).standing().epoch() == row.epoch {
            under_way.insert(row.service.clone(), row);
        } else {
            stale.push(row);
        }
    }
    // Those that end below are told by whoever ends them.
    let untold = core.journal.untold().await?;
    adopt_strangers(core).await;
    for desk in core.desks.all() {
        match under_way.remove(desk.name()) {
            Some(row) => recover_migration(core, &desk, row).await,
            None => recover_resting(core, &desk).await,
        }
    }
    for row in stale {
        let ended = Arc::clone(core);
        end(core, async move { conclude_stale(&ended, row).await }).await;
    }
    untold.into_iter().for_each(|row| tell(core, row.id));
    Ok(())
}

/// Brings a migration to its end in the background: for ever, if need be.
pub(crate) fn attend<S: SiteAdapter>(core: &Arc<Core<S>>, row: MigrationRow) {
    let core = Arc::clone(core);
    core.tasks.clone().spawn(async move {
        let hold = if row.role == Role::Destination { Hold::Yielding } else { Hold::Firm };
        let holder = core.holder(Some(row.id), "waiting for the other site", hold);
        let stop = holder.stop.clone();
        let mut lane = core.desks.desk(&row.service).wait(holder).await;
        // Somebody else may have brought it to its end meanwhile. Whoever wants to begin the next migration at once must
        // not be told that this one is under way.
        let has_ended = core.chronicles.of(row.id).is_none_or(|chronicle| chronicle.is_ending());
        if has_ended || lane.standing().epoch() != row.epoch {
            return;
        }
        if settle(&core, &mut lane, &row, None, &stop).await == Settled::Yes {
            finish(&core, lane, &row).await;
        }
    });
}

/// Ends a migration before the site serves; on a full disk the end waits for space, and the site does not.
async fn end<S: SiteAdapter>(core: &Core<S>, ending: impl Future<Output = ()> + Send + 'static) {
    if core.journal.takes_writes().await {
        ending.await;
    } else {
        core.tasks.spawn(ending);
    }
}

async fn finish<S: SiteAdapter>(core: &Arc<Core<S>>, lane: Lane, row: &MigrationRow) {
    let outcome = outcome(row, &lane.standing());
    if conclude(core, lane, row, outcome, None, false).await == Settled::Yes {
        tell(core, row.id);
    }
}

/// Nobody waits for the other site to hear of an end.
fn tell<S: SiteAdapter>(core: &Arc<Core<S>>, id: MigrationId) {
    let core = Arc::clone(core);
    core.tasks.clone().spawn(async move { tell_end(&core, id).await });
}

/// Services that the site has and the journal never heard of. One that never migrated is nobody else's and was
/// started before the journal was; it is at home here. Of any other it is not known who may run it.
async fn adopt_strangers<S: SiteAdapter>(core: &Core<S>) {
    let list = core.within(core.config.deadlines.act, "list the services", core.site.list()).await;
    let services = match list {
        Ok(services) => services,
        Err(error) => return tracing::error!(%error, "cannot list the services of this site"),
    };
    for ServiceStatus { spec, copy, epoch, .. } in services {
        let desk = core.desks.desk(&spec.name);
        if desk.standing() != ums_model::standing::Standing::default() || copy == CopyState::Absent {
            continue;
        }
        if epoch != Epoch::ZERO {
            // Stopped below, if it is one that may run.
            tracing::error!(service = %spec.name, %epoch, "a service is here that has migrated, and the journal does not know it");
            continue;
        }
        let mut lane = desk.wait(core.holder(None, "being adopted", Hold::Brief)).await;
        if let Err(error) = core.write(&mut lane, None, vec![Record::Created]).await {
            tracing::error!(service = %spec.name, %error, "cannot adopt a service");
        }
    }
}

/// One turn now; if it is not enough, more in the background.
async fn recover_migration<S: SiteAdapter>(core: &Arc<Core<S>>, desk: &Arc<Desk>, row: MigrationRow) {
    tracing::info!(service = %row.service, migration = %row.id, standing = %desk.standing(), "recovering a migration");
    if row.role == Role::Destination {
        core.promises.only_ports(&row.service, &row.spec.ports);
    }
    let mut lane = desk.wait(core.holder(Some(row.id), "recovering", Hold::Brief)).await;
    let other = word_for_returning(core, &lane.standing(), &row).await;
    match advance(core, &mut lane, Some(&row), other).await {
        Ok(()) if is_settled(&lane.standing()) => {
            if let Some(chronicle) = core.chronicles.of(row.id) {
                chronicle.runs_again().await;
            }
            let ended = Arc::clone(core);
            return end(core, async move { finish(&ended, lane, &row).await }).await;
        }
        Ok(()) => {}
        Err(error) => {
            tracing::warn!(service = %row.service, %error, "a step of the recovery has to be tried again");
        }
    }
    drop(lane);
    attend(core, row);
}

/// A service in no migration: what its standing says holds, and leftovers are cleared away.
async fn recover_resting<S: SiteAdapter>(core: &Arc<Core<S>>, desk: &Arc<Desk>) {
    if !is_settled(&desk.standing()) {
        tracing::error!(service = %desk.name(), standing = %desk.standing(), "a service in a migration that has no row");
    }
    if let Err(error) = correct_after_restart(core, desk.name(), &desk.standing()).await {
        tracing::warn!(service = %desk.name(), %error, "cannot correct the end of a migration; its source says it again");
    }
    if let Err(error) = turn(core, desk).await {
        tracing::warn!(service = %desk.name(), %error, "a step of the recovery has to be tried again");
        let (core, desk) = (Arc::clone(core), Arc::clone(desk));
        core.tasks.clone().spawn(async move {
            let mut pause = core.config.deadlines.retry_least;
            loop {
                tokio::select! {
                    biased;
                    () = core.stopping.cancelled() => return,
                    () = tokio::time::sleep(pause) => pause = next_pause(pause, core.config.deadlines.retry_most),
                }
                // In a migration again: whoever leads it does what is to be done.
                if !is_settled(&desk.standing()) || turn(&core, &desk).await.is_ok() {
                    return;
                }
            }
        });
    }
}

async fn turn<S: SiteAdapter>(core: &Core<S>, desk: &Arc<Desk>) -> Result<(), WireError> {
    let mut lane = desk.wait(core.holder(None, "recovering", Hold::Brief)).await;
    advance(core, &mut lane, None, None).await
}

/// A migration that ended in the records but not in its row, and after which the service has gone on.
async fn conclude_stale<S: SiteAdapter>(core: &Arc<Core<S>>, row: MigrationRow) {
    let standing = match core.journal.standing_after(&row).await {
        Ok(standing) => standing,
        Err(error) => {
            return tracing::error!(error = failure::chain(&error), "cannot end an interrupted migration");
        }
    };
    let lane = core.desks.desk(&row.service).wait(core.holder(Some(row.id), "recovering", Hold::Brief)).await;
    match conclude(core, lane, &row, outcome(&row, &standing), None, false).await {
        Settled::Yes => tell(core, row.id),
        Settled::NotYet => {
            tracing::warn!(error = failure::chain(&JournalError::Closed), "the recovery was interrupted");
        }
    }
}
