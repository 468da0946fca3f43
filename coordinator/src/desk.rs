//! One desk per service: where it stands, and who may act on it.
//!
//! Whoever holds the [`Lane`] of a service, and nobody else, writes its records and touches its copy: a migration in
//! either direction, the settling of one that was interrupted, a user's start, stop or remove. Everybody may look at
//! what the last durable record made of it ([`Desk::standing`]); questions of other sites are answered from that,
//! without the lane.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::OwnedMutexGuard;
use tokio_util::sync::CancellationToken;
use ums_model::action::Alarm;
use ums_model::error::{ErrorCode, WireError};
use ums_model::names::{Epoch, MigrationId, ServiceName};
use ums_model::standing::Standing;

use crate::failure;

/// All desks of a site.
#[derive(Debug, Default)]
pub(crate) struct Desks {
    all: Mutex<BTreeMap<ServiceName, Arc<Desk>>>,
}

/// One service's.
#[derive(Debug)]
pub(crate) struct Desk {
    name: ServiceName,
    lane: Arc<tokio::sync::Mutex<()>>,
    shown: Mutex<Shown>,
}

/// What everybody may see.
#[derive(Debug, Default)]
struct Shown {
    standing: Standing,
    holder: Option<Holder>,
    alarm: Option<(Epoch, Alarm)>,
}

/// Who has the lane.
#[derive(Debug, Clone)]
pub(crate) struct Holder {
    /// The migration for which it is held; `None` for what a user does to the service.
    pub(crate) migration: Option<MigrationId>,
    /// What is being done, for people: `being started`.
    pub(crate) doing: &'static str,
    /// How it is held.
    pub(crate) hold: Hold,
    /// Asks the holder to come to an end.
    pub(crate) stop: CancellationToken,
}

/// How a lane is held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Hold {
    /// Until it is done, and it will be done soon without another site: who comes waits.
    Brief,
    /// For a link of a migration, or to wait for the other site: a new link of the same migration may take it over.
    Yielding,
    /// Until it is done; who comes is told by whom.
    Firm,
}

/// The right to act on one service. Given back when it is dropped.
#[derive(Debug)]
pub(crate) struct Lane {
    desk: Arc<Desk>,
    _right: OwnedMutexGuard<()>,
}

impl Desks {
    /// The desk of `service`; a new one if nobody asked before.
    pub(crate) fn desk(&self, service: &ServiceName) -> Arc<Desk> {
        let mut all = self.all.lock().unwrap_or_else(PoisonError::into_inner);
        let desk = all.entry(service.clone()).or_insert_with(|| {
            Arc::new(Desk { name: service.clone(), lane: Arc::default(), shown: Mutex::default() })
        });
        Arc::clone(desk)
    }

    /// The desk of `service`, if there is one. For names that others make up: asking makes no desk.
    pub(crate) fn find(&self, service: &ServiceName) -> Option<Arc<Desk>> {
        self.all.lock().unwrap_or_else(PoisonError::into_inner).get(service).cloned()
    }

    /// How many there are.
    pub(crate) fn count(&self) -> usize {
        self.all.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// Takes away the desk of a name of which nothing is known: an offer that was rejected has left nothing else.
    pub(crate) fn tidy(&self, service: &ServiceName) {
        let mut all = self.all.lock().unwrap_or_else(PoisonError::into_inner);
        let is_bare = all.get(service).is_some_and(|desk| {
            let shown = desk.shown();
            // Whoever has it in hand may be about to use it.
            Arc::strong_count(desk) == 1
                && shown.standing == Standing::default()
                && shown.holder.is_none()
                && shown.alarm.is_none()
        });
        if is_bare {
            all.remove(service);
        }
    }

    /// All that were ever asked for.
    pub(crate) fn all(&self) -> Vec<Arc<Desk>> {
        self.all.lock().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }
}

impl Desk {
    /// The service.
    pub(crate) fn name(&self) -> &ServiceName {
        &self.name
    }

    /// What the last durable record made of it.
    pub(crate) fn standing(&self) -> Standing {
        self.shown().standing.clone()
    }

    /// What the journal said when it was opened.
    pub(crate) fn restore(&self, standing: Standing) {
        self.shown().standing = standing;
    }

    /// Who has the lane.
    pub(crate) fn holder(&self) -> Option<Holder> {
        self.shown().holder.clone()
    }

    /// What people must be told about it.
    pub(crate) fn alarm(&self) -> Option<(Epoch, Alarm)> {
        self.shown().alarm
    }

    /// Takes the lane if it is free. `Err` says who has it.
    pub(crate) fn try_take(self: &Arc<Self>, holder: Holder) -> Result<Lane, Holder> {
        match Arc::clone(&self.lane).try_lock_owned() {
            Ok(right) => Ok(self.enter(right, holder)),
            // Between lock and label there is a moment in which a holder has no name yet.
            Err(_) => Err(self.holder().unwrap_or(Holder {
                migration: None,
                doing: "being looked at",
                hold: Hold::Brief,
                stop: CancellationToken::new(),
            })),
        }
    }

    /// Takes the lane. A brief hold is waited for, a yielding one of the same migration is asked to end, for at most
    /// `within`. `Err`: what is in the way, as the user is told.
    pub(crate) async fn take(self: &Arc<Self>, holder: Holder, within: Duration) -> Result<Lane, WireError> {
        let wait = async {
            loop {
                let present = match self.try_take(holder.clone()) {
                    Ok(lane) => return Ok(lane),
                    Err(present) => present,
                };
                match present.hold {
                    Hold::Brief => {}
                    Hold::Yielding if present.migration == holder.migration => present.stop.cancel(),
                    Hold::Yielding | Hold::Firm => return Err(self.taken(&present)),
                }
                // Whoever gets it in between is asked again.
                drop(self.lane.lock().await);
            }
        };
        tokio::time::timeout(within, wait)
            .await
            .unwrap_or_else(|_| Err(failure::late(&format!("get hold of service {}", self.name), within)))
    }

    /// Waits for the lane.
    pub(crate) async fn wait(self: &Arc<Self>, holder: Holder) -> Lane {
        let right = Arc::clone(&self.lane).lock_owned().await;
        self.enter(right, holder)
    }

    fn enter(self: &Arc<Self>, right: OwnedMutexGuard<()>, holder: Holder) -> Lane {
        self.shown().holder = Some(holder);
        Lane { desk: Arc::clone(self), _right: right }
    }

    fn taken(&self, holder: &Holder) -> WireError {
        match holder.migration {
            Some(migration) => already_migrating(&self.name, migration),
            None => WireError::new(ErrorCode::Busy, format!("service {} is {}", self.name, holder.doing)),
        }
    }

    fn shown(&self) -> MutexGuard<'_, Shown> {
        self.shown.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Lane {
    /// The desk that it belongs to.
    pub(crate) fn desk(&self) -> &Arc<Desk> {
        &self.desk
    }

    /// The service.
    pub(crate) fn service(&self) -> &ServiceName {
        &self.desk.name
    }

    /// Where the service stands.
    pub(crate) fn standing(&self) -> Standing {
        self.desk.standing()
    }

    /// The records that lead to `standing` are durable.
    pub(crate) fn advance(&mut self, standing: Standing) {
        self.desk.shown().standing = standing;
    }

    /// From now on something else is being done.
    pub(crate) fn relabel(&mut self, holder: Holder) {
        self.desk.shown().holder = Some(holder);
    }

    /// Says something to people until it is taken back.
    pub(crate) fn raise(&mut self, alarm: Option<(Epoch, Alarm)>) {
        self.desk.shown().alarm = alarm;
    }
}

impl Drop for Lane {
    fn drop(&mut self) {
        self.desk.shown().holder = None;
    }
}

/// The service is in a migration.
pub(crate) fn already_migrating(service: &ServiceName, migration: MigrationId) -> WireError {
    WireError::new(
        ErrorCode::AlreadyMigrating,
        format!("service {service} is already in migration {migration}"),
    )
    .with_hint(format!("watch it: ums watch {migration}"))
}
