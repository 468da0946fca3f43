//! Giving a service away: one migration, as seen from the site that it leaves.
//!
//! Everything before COMMIT is a straight list of steps with one failure branch: whatever goes wrong, ABORT is
//! recorded, the service is thawed, the destination is told, and the outcome is `rolled-back` with the cause. From
//! COMMIT on [`crate::settle`] goes on, for as long as it takes.

mod image;
mod steps;
mod talk;
mod tell;

use std::sync::Arc;
use std::time::Instant;

use tokio_util::sync::CancellationToken;
use ums_model::error::{ErrorCode, WireError};
use ums_model::message::About;
use ums_model::names::{Digest, Epoch, MigrationId, ServiceName, SiteName};
use ums_model::phase::{Mode, Phase};
use ums_model::standing::{Role as Half, Standing};
use ums_sites::adapter::SiteAdapter;
use ums_transfer::link::Link;

use crate::chronicle::Chronicle;
use crate::clock::{ms, unix_ms};
use crate::core::Core;
use crate::desk::{Hold, Lane};
use crate::failure;
use crate::fault::Step;
use crate::journal::{MigrationRow, Role};
use crate::preflight::{Preflight, preflight};
use crate::queue::Place;
use crate::recovery::attend;
use crate::settle::{Settled, conclude, outcome, settle};
use talk::unless;
pub(crate) use tell::tell_end;

/// What a user wants.
#[derive(Debug, Clone)]
pub(crate) struct Wish {
    /// Which service.
    pub(crate) service: ServiceName,
    /// To which paired site.
    pub(crate) to: SiteName,
    /// How its state shall travel.
    pub(crate) mode: Mode,
}

/// Begins a migration if nothing is in its way. `Ok`: it is under way and will end by itself. `Err`: nothing was
/// touched, at neither site.
pub(crate) async fn begin<S: SiteAdapter>(core: &Arc<Core<S>>, wish: Wish) -> Result<MigrationId, WireError> {
    let wished = Instant::now();
    let Wish { service, to, mode } = wish;
    if mode != Mode::Cold {
        let message = format!("cannot migrate {service} in mode {mode}: this version knows only cold");
        return Err(WireError::new(ErrorCode::Unsupported, message)
            .with_hint(format!("ums migrate {service} --to {to}")));
    }
    let id = MigrationId::new(uuid::Uuid::now_v7());
    let holder = core.holder(Some(id), "being migrated", Hold::Firm);
    let stop = holder.stop.clone();
    let lane = core.take(&service, holder).await?;
    must_be_home(core, &lane.standing(), &service).await?;
    core.room_for_decisions().await.map_err(|error| cannot(&service, &to, error))?;
    // Before the look at the service: whoever wished first is first.
    let place = core.departures.join(id).map_err(|error| cannot(&service, &to, error))?;
    let preflight =
        preflight(core, &service, &to, Some(id)).await.map_err(|error| cannot(&service, &to, error))?;
    if let Some(refusal) = Preflight::refusal(&preflight.plan, &service, &to) {
        return Err(cannot(&service, &to, refusal));
    }
    let row = MigrationRow {
        id,
        service,
        epoch: lane.standing().epoch().next(),
        role: Role::Source,
        peer: preflight.peer.fingerprint,
        peer_name: preflight.peer.name.clone(),
        mode,
        approach: preflight.service.approach,
        spec: preflight.spec.clone(),
        started_unix_ms: unix_ms().saturating_sub(ms(wished.elapsed()) as u64),
        told: false,
        ended: None,
    };
    // With no record yet, the row means nothing but that somebody may ask for it.
    core.journal.begin(row.clone(), Vec::new()).await.map_err(|error| failure::journal(&error))?;
    let planned = wished.elapsed();
    let chronicle = core.chronicles.begin(row, core.config.name.clone(), planned);
    let migration = Migration {
        core: Arc::clone(core),
        lane,
        place,
        chronicle,
        preflight,
        stop,
        link: None,
        missing: Vec::new(),
        offered: false,
        blobs: Vec::new(),
    };
    core.tasks.spawn(migration.run(planned));
    Ok(id)
}

/// The error with what was tried before what went wrong.
fn cannot(service: &ServiceName, to: &SiteName, mut error: WireError) -> WireError {
    error.message = format!("cannot migrate {service} to {to}: {}", error.message);
    error
}

/// Why a service that is not at home here cannot leave.
pub(crate) async fn must_be_home<S: SiteAdapter>(
    core: &Core<S>,
    standing: &Standing,
    service: &ServiceName,
) -> Result<(), WireError> {
    if standing.is_home() {
        return Ok(());
    }
    let role = match standing.role() {
        Half::Source(_) => Role::Source,
        Half::Destination(_) => Role::Destination,
    };
    let found = core.journal.migration_of(service, standing.epoch(), role).await;
    let row = found.map_err(|error| failure::journal(&error))?;
    match (standing.role(), row) {
        (Half::Source(half), _) if half.stage() == ums_model::source::Stage::Lost => Err(WireError::new(
            ErrorCode::Lost,
            format!("the state of service {service} was lost in a migration"),
        )),
        (Half::Source(half), _) if half.stage() == ums_model::source::Stage::Superseded => {
            let message =
                format!("service {service} may run at another site: the copy here is kept for you to decide");
            Err(WireError::new(ErrorCode::Stuck, message)
                .with_hint(format!(
                    "if it runs there, remove the copy here: ums rm --force {service}; if it certainly does not: ums \
                     resolve {service} --run-here"
                )))
        }
        (Half::Source(half), Some(row)) if half.stage() == ums_model::source::Stage::Released => {
            let message = format!(
                "service {service} is not at site {} any more: it moved to {}",
                core.config.name, row.peer_name
            );
            Err(WireError::new(ErrorCode::ServiceNotFound, message))
        }
        (Half::Destination(half), _) if half.is_resting() => {
            Err(failure::no_service(service, &core.config.name))
        }
        (_, Some(row)) => Err(crate::desk::already_migrating(service, row.id)),
        (_, None) => Err(WireError::new(
            ErrorCode::Stuck,
            format!("service {service} is not at home here: {standing}"),
        )),
    }
}

/// One migration under way. Its task owns it, and through the lane the service.
struct Migration<S> {
    core: Arc<Core<S>>,
    lane: Lane,
    place: Place,
    chronicle: Arc<Chronicle>,
    preflight: Preflight,
    /// The user's wish that it should not go on, or the daemon's end. Honoured before COMMIT.
    stop: CancellationToken,
    link: Option<Link>,
    missing: Vec<Digest>,
    /// Whether the destination may have heard of it.
    offered: bool,
    blobs: Vec<ums_sites::adapter::Blob>,
}

impl<S: SiteAdapter> Migration<S> {
    async fn run(mut self, planned: std::time::Duration) {
        let journal = self.core.journal.clone();
        self.chronicle.enter(&journal, Phase::Plan).await;
        self.chronicle.leave_after(&journal, Phase::Plan, ms(planned), None).await;
        self.chronicle.predicted(self.preflight.plan.predicted).await;
        let cause = match self.attempt().await {
            Ok(()) => None,
            Err(cause) => {
                let row = self.chronicle.row();
                let cause = cannot(&row.service, &row.peer_name, cause);
                tracing::warn!(migration = %row.id, %cause, "the migration fails, the service stays here");
                self.chronicle.note(&journal, format!("rolling back: {}", cause.message)).await;
                self.hang_up().await;
                Some(cause)
            }
        };
        self.settle(cause).await;
    }

    /// The course of a migration up to COMMIT. `Err`: COMMIT is not decided, and the service has to be thawed.
    async fn attempt(&mut self) -> Result<(), WireError> {
        self.turn().await?;
        self.reserve().await?;
        self.image().await?;
        self.arm().await?;
        self.look_again().await?;
        let dump = self.freeze().await?;
        let dumped = self.transfer(dump).await?;
        self.held(&dumped).await?;
        self.commit().await
    }

    /// Waits until fewer migrations leave this site than may.
    async fn turn(&mut self) -> Result<(), WireError> {
        let core = Arc::clone(&self.core);
        let row = self.chronicle.row();
        if let Some(before) = core.departures.before(row.id) {
            self.chronicle.note(&core.journal, format!("queued: {before} before it")).await;
        }
        let within = core.config.deadlines.turn;
        let Self { stop, place, .. } = self;
        let late = |_| failure::late("see fewer migrations leave this site", within);
        let turn = async { tokio::time::timeout(within, place.turn()).await.map_err(late) };
        unless(stop, turn).await
    }

    /// From COMMIT to the release, or back to a running service.
    async fn settle(mut self, cause: Option<WireError>) {
        let core = Arc::clone(&self.core);
        if cause.is_none() {
            self.chronicle.enter(&core.journal, Phase::Resume).await;
            if core.config.faults.at(Step::Committed).await.is_err() {
                self.hang_up().await;
            }
        }
        // From here on nobody can stop it but the end of the daemon; an operator who resolves it takes over.
        let row = self.chronicle.row();
        // What goes over it from here on is counted where it is sent.
        if let Some(link) = &self.link {
            self.chronicle.add_sent(link.frames.writer.sent() + link.frames.reader.received()).await;
        }
        let holder = core.holder(Some(row.id), "being migrated", Hold::Firm);
        let stop = holder.stop.clone();
        self.lane.relabel(holder);
        if settle(&core, &mut self.lane, &row, self.link.take(), &stop).await == Settled::NotYet {
            if !core.stopping.is_cancelled() {
                // Behind whoever waits for the lane now; if he leaves something to be done, it is done.
                attend(&core, row);
            }
            return;
        }
        let standing = self.lane.standing();
        let outcome = outcome(&row, &standing);
        let Self { lane, offered, place, .. } = self;
        // The next migration need not wait until the other site has heard of the end of this one.
        drop(place);
        let settled = conclude(&core, lane, &row, outcome, cause, !offered).await;
        if settled == Settled::Yes {
            tell_end(&core, row.id).await;
        }
    }

    /// Gives the link up: the destination sees a cut, and discards what it has unless it is HELD.
    async fn hang_up(&mut self) {
        if let Some(link) = self.link.take() {
            self.chronicle.add_sent(link.frames.writer.sent() + link.frames.reader.received()).await;
        }
    }

    fn about(&self) -> About {
        let row = self.chronicle.row();
        About { migration: row.id, service: row.service, epoch: row.epoch }
    }

    fn epoch(&self) -> Epoch {
        self.chronicle.epoch()
    }
}
