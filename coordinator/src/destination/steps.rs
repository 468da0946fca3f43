//! From the offer to HELD: the straight part, with one failure branch.

use std::sync::Arc;

use tokio::sync::OwnedSemaphorePermit;
use tokio_util::sync::CancellationToken;
use ums_model::action::{Action, Word};
use ums_model::error::{ErrorCode, WireError};
use ums_model::message::{About, Offer, PeerMessage};
use ums_model::names::{Bytes, Digest, Epoch, Fingerprint};
use ums_model::phase::{Mode, Outcome, Phase};
use ums_model::plan::{Blocker, ServiceFacts, SiteFacts, plan};
use ums_model::policy::{SpecialFiles, Wish};
use ums_model::standing::Role as Half;
use ums_model::{destination, source};
use ums_sites::adapter::{Blob, SiteAdapter};
use ums_transfer::link::Link;

use super::words::alive_through;
use crate::act::facts;
use crate::chronicle::Chronicle;
use crate::clock::unix_ms;
use crate::core::Core;
use crate::desk::{Hold, Lane};
use crate::failure;
use crate::fault::Step;
use crate::journal::{MigrationRow, Role};
use crate::settle::{Settled, conclude, settle};

/// How far the epoch of an offer may be ahead of what was seen. A site that asks for more wants to use the numbers up.
pub(super) const EPOCHS_AHEAD: u64 = 1 << 32;

/// One service on its way in. Its task owns it, and through the lane the service.
pub(super) struct Arrival<'a, S> {
    pub(super) core: Arc<Core<S>>,
    pub(super) link: &'a mut Link,
    pub(super) lane: Lane,
    pub(super) stop: CancellationToken,
    pub(super) about: About,
    pub(super) offer: Offer,
    pub(super) chronicle: Arc<Chronicle>,
    pub(super) missing: Vec<Blob>,
    _permit: OwnedSemaphorePermit,
}

/// An offer arrived: takes the service in as far as HELD, or says why not. `Err` only if the link is of no further use.
pub(super) async fn offered<S: SiteAdapter>(
    core: &Arc<Core<S>>,
    link: &mut Link,
    about: About,
    offer: Offer,
) -> Result<(), WireError> {
    let name = link.peer.site.clone();
    let entered = match alive_through(
        &mut link.frames.writer,
        enter(core, &link.peer.fingerprint, &about, &offer),
    )
    .await
    {
        Ok(entered) => entered,
        Err(error) => {
            tracing::info!(service = %about.service, migration = %about.migration, from = %name, %error, "an offer is rejected");
            core.desks.tidy(&about.service);
            let highest = core.desks.find(&about.service).map_or(Epoch::ZERO, |desk| desk.standing().epoch());
            let reject = PeerMessage::Reject { about, error, highest };
            return link
                .frames
                .send(&reject)
                .await
                .map_err(|error| failure::cut(&name, "rejecting its offer", &error));
        }
    };
    let Entered { lane, stop, chronicle, missing, permit } = entered;
    let core = Arc::clone(core);
    let arrival = Arrival { core, link, lane, stop, about, offer, chronicle, missing, _permit: permit };
    arrival.run().await
}

/// What an accepted offer leads to.
struct Entered {
    lane: Lane,
    stop: CancellationToken,
    chronicle: Arc<Chronicle>,
    missing: Vec<Blob>,
    permit: OwnedSemaphorePermit,
}

/// Whether the service is welcome; if it is, the reservation is durable. `Err`: nothing has happened.
async fn enter<S: SiteAdapter>(
    core: &Arc<Core<S>>,
    peer: &Fingerprint,
    about: &About,
    offer: &Offer,
) -> Result<Entered, WireError> {
    core.config.faults.at(Step::DestinationReserve).await?;
    let peer = core.peers.by_fingerprint(peer).ok_or_else(|| {
        WireError::new(ErrorCode::NotPaired, "the site that offers is not paired any more".to_owned())
    })?;
    check(about, offer)?;
    let wish = wish_of(offer);
    refuse_by_policy(&core.against_arrival(&peer, &wish))?;
    must_be_its_own(core, about, &peer.fingerprint).await?;
    let holder = core.holder(Some(about.migration), "arriving", Hold::Yielding);
    let stop = holder.stop.clone();
    let mut lane = core.take(&about.service, holder).await?;
    name_must_be_free(core, &lane, about).await?;
    core.room_for_decisions().await?;
    let permit = Arc::clone(&core.arrivals).try_acquire_owned().map_err(|_| {
        WireError::new(
            ErrorCode::Busy,
            format!("site {} has as many arrivals as it allows", core.config.name),
        )
    })?;
    let blobs: Vec<Blob> =
        offer.image.blobs.iter().map(|blob| Blob { digest: blob.digest, size: blob.size }).collect();
    let look = core.site.missing_blobs(&blobs);
    let missing = core.within(core.config.deadlines.facts, "look at an image", look).await?;
    let has = core.facts().await?;
    room_for(offer, &missing, &has)?;
    // Once more, now together with taking the place: another offer may have come at the same time.
    refuse_by_policy(&core.admit(&peer, &wish).await?)?;
    core.promises.make(&about.service, &offer.needs, &has)?;

    let row = MigrationRow {
        id: about.migration,
        service: about.service.clone(),
        epoch: about.epoch,
        role: Role::Destination,
        peer: peer.fingerprint,
        peer_name: peer.name,
        mode: offer.mode,
        approach: offer.approach,
        spec: offer.spec.clone(),
        started_unix_ms: unix_ms(),
        told: false,
        ended: None,
    };
    match accept(core, &mut lane, row.clone()).await {
        Ok(()) => {
            let chronicle = core.chronicles.begin(row, core.config.name.clone(), std::time::Duration::ZERO);
            chronicle.enter(&core.journal, Phase::Reserve).await;
            chronicle.leave(&core.journal, Phase::Reserve, None).await;
            if !offer.spec.user_namespace {
                let text = "without a user namespace: the policy for the source allows it".to_owned();
                chronicle.note(&core.journal, text).await;
            }
            Ok(Entered { lane, stop, chronicle, missing, permit })
        }
        Err(error) => {
            core.promises.release(&about.service);
            Err(error)
        }
    }
}

/// Asks the rules, which know the epochs, and records the reservation.
async fn accept<S: SiteAdapter>(core: &Core<S>, lane: &mut Lane, row: MigrationRow) -> Result<(), WireError> {
    let facts = facts(core.look(&row.service).await, None, row.spec.writes_outside());
    let lease_ms = u64::try_from(core.config.deadlines.lease.as_millis()).unwrap_or(u64::MAX);
    let actions = lane.standing().receive(facts, row.epoch, Word::Offer, lease_ms);
    let rejected = actions.iter().find_map(|action| match action {
        Action::Tell { word: Word::Reject { highest }, .. } => Some(*highest),
        _ => None,
    });
    if let Some(highest) = rejected {
        let message =
            format!("cannot take {} with epoch {}: {highest} was seen here", row.service, row.epoch);
        return Err(WireError::new(ErrorCode::EpochTooOld, message));
    }
    // The row first: with no record it means nothing, while a record without it would not know its source.
    let id = row.id;
    core.begin(lane, row, Vec::new()).await?;
    core.perform(lane, Some(id), actions).await.map(drop)
}

fn check(about: &About, offer: &Offer) -> Result<(), WireError> {
    let invalid = |message: String| Err(WireError::new(ErrorCode::InvalidSpec, message));
    if let Err(error) = offer.spec.check() {
        return invalid(format!("the description of {} is invalid: {error}", about.service));
    }
    if offer.spec.name != about.service || offer.spec.image.digest != offer.image.digest {
        return invalid(format!("the offer of {} describes another service or image", about.service));
    }
    if offer.needs.ports != offer.spec.ports {
        return invalid(format!("the offer of {} asks for other ports than it publishes", about.service));
    }
    if offer.mode != Mode::Cold {
        let message =
            format!("cannot take {} in mode {}: this version knows only cold", about.service, offer.mode);
        return Err(WireError::new(ErrorCode::Unsupported, message));
    }
    Ok(())
}

/// What the service would take of this site: what the offer asks for, and no less than it says that there is.
fn wish_of(offer: &Offer) -> Wish {
    let (needs, sizes) = (&offer.needs, &offer.sizes);
    Wish::of(&offer.spec, needs.memory.max(sizes.memory), needs.disk.max(sizes.files))
}

fn refuse_by_policy(blockers: &[Blocker]) -> Result<(), WireError> {
    let Some((first, others)) = blockers.split_first() else { return Ok(()) };
    let mut error = WireError::from(first.clone());
    for other in others {
        error.message = format!("{}; and {}", error.message, other.message);
        error.hint = format!("{}; and {}", error.hint, other.remedy);
    }
    Err(error)
}

/// A migration belongs to the two sites and the service that it began with: its id opens nothing to anybody else, and is
/// never used again.
async fn must_be_its_own<S: SiteAdapter>(
    core: &Core<S>,
    about: &About,
    peer: &Fingerprint,
) -> Result<(), WireError> {
    let row = core.journal.migration(about.migration).await.map_err(|error| failure::journal(&error))?;
    let Some(row) = row else { return Ok(()) };
    let own = core.peers.are_one(&row.peer, peer)
        && row.role == Role::Destination
        && row.service == about.service
        && row.ended.is_none();
    if own {
        return Ok(());
    }
    let message = format!("migration {} is another one, or has ended", about.migration);
    Err(WireError::new(ErrorCode::NotPaired, message).with_hint("begin a new migration: ums migrate"))
}

/// A service of this name that lives here, comes from elsewhere or waits for an operator is not to be disturbed.
async fn name_must_be_free<S: SiteAdapter>(
    core: &Core<S>,
    lane: &Lane,
    about: &About,
) -> Result<(), WireError> {
    let standing = lane.standing();
    if about.epoch.0.saturating_sub(standing.epoch().0) > EPOCHS_AHEAD {
        let message = format!("epoch {} is too far ahead of {}", about.epoch, standing.epoch());
        return Err(WireError::new(ErrorCode::BadRequest, message));
    }
    let role = match standing.role() {
        Half::Destination(half) if half.is_resting() => return Ok(()),
        Half::Source(half) if half.stage() == source::Stage::Released => return Ok(()),
        Half::Destination(half) if half.stage() == destination::Stage::Running => None,
        Half::Source(half) if half.stage() == source::Stage::Idle => None,
        Half::Destination(_) => Some(Role::Destination),
        Half::Source(_) => Some(Role::Source),
    };
    let taken = || {
        let message = format!("site {} has a service named {} already", core.config.name, about.service);
        WireError::new(ErrorCode::NameTaken, message)
    };
    let Some(role) = role else { return Err(taken()) };
    let row = core.journal.migration_of(&about.service, standing.epoch(), role).await;
    match row.map_err(|error| failure::journal(&error))? {
        Some(row) => Err(crate::desk::already_migrating(&about.service, row.id)),
        None => Err(taken()),
    }
}

/// The plan's own checks of a destination, made on what the offer says. The source has made those of its half: it is
/// stood in for by a site that has everything.
fn room_for(offer: &Offer, missing: &[Blob], has: &SiteFacts) -> Result<(), WireError> {
    let service = ServiceFacts {
        running: true,
        migrating: None,
        approach: offer.approach,
        memory: offer.sizes.memory,
        files: offer.sizes.files,
        tasks: offer.restore.tasks,
        threads: offer.restore.tasks,
        image_at_source: true,
        image_at_destination: missing.is_empty(),
        image_bytes: missing.iter().map(|blob| blob.size).sum::<Bytes>(),
        special_files: SpecialFiles::default(),
        blockers: Vec::new(),
    };
    let mut other = has.clone();
    other.fingerprint.0[0] ^= 1;
    match plan(&offer.spec, &service, &other, has, None).blockers.into_iter().next() {
        Some(blocker) => Err(blocker.into()),
        None => Ok(()),
    }
}

impl<S: SiteAdapter> Arrival<'_, S> {
    async fn run(mut self) -> Result<(), WireError> {
        match self.attempt().await {
            Ok(()) => Ok(()),
            Err(cause) => self.give_up(cause).await,
        }
    }

    /// The course from the reservation to HELD. `Err`: the copy is not HELD, and what there is of it has to go.
    async fn attempt(&mut self) -> Result<(), WireError> {
        self.accept().await?;
        self.image().await?;
        self.arm().await?;
        self.restore().await
    }

    async fn accept(&mut self) -> Result<(), WireError> {
        let missing: Vec<Digest> = self.missing.iter().map(|blob| blob.digest).collect();
        let lease_ms = u64::try_from(self.core.config.deadlines.lease.as_millis()).unwrap_or(u64::MAX);
        if self.core.config.faults.again(Step::DestinationReserve) {
            let missing = missing.clone();
            self.say(PeerMessage::Accept { about: self.about.clone(), missing, lease_ms }).await?;
        }
        self.say(PeerMessage::Accept { about: self.about.clone(), missing, lease_ms }).await
    }

    /// Everything that can be started before the freeze is.
    async fn arm(&mut self) -> Result<(), WireError> {
        let core = Arc::clone(&self.core);
        match self.hear().await? {
            PeerMessage::Arm { .. } => {}
            other => return Err(self.out_of_turn(&other)),
        }
        self.chronicle.enter(&core.journal, Phase::Arm).await;
        core.config.faults.at(Step::DestinationArm).await?;
        let times = if core.config.faults.twice(Step::DestinationArm) { 2 } else { 1 };
        // As the policy is now: an operator may have changed it since the offer.
        let files = core.policies.of(&self.chronicle.row().peer).files(&self.offer.spec);
        if !files.set_uid {
            let text =
                "set-uid bits and file capabilities of the image are taken off: the policy for the source";
            self.chronicle.note(&core.journal, text.to_owned()).await;
        }
        let arm = async {
            for _ in 0..times {
                core.site.arm(&self.offer.spec, self.about.epoch, &self.offer.restore, files).await?;
            }
            Ok(())
        };
        let arm = core.within(core.config.deadlines.arm, "prepare for the service", arm);
        let Self { link, stop, .. } = self;
        alive_unless(link, stop, arm).await?;
        self.chronicle.leave(&core.journal, Phase::Arm, None).await;
        if core.config.faults.again(Step::DestinationArm) {
            self.say(PeerMessage::Armed { about: self.about.clone() }).await?;
        }
        self.say(PeerMessage::Armed { about: self.about.clone() }).await
    }

    /// REFUSED or ABORTED, the copy proven gone, the source told why. Always `Err`: the link has had its last word.
    async fn give_up(self, cause: WireError) -> Result<(), WireError> {
        let core = Arc::clone(&self.core);
        let row = self.chronicle.row();
        tracing::warn!(service = %row.service, migration = %row.id, %cause, "the service cannot be taken in");
        self.chronicle.blame(cause.clone()).await;
        let Self { link, mut lane, about, .. } = self;
        let undo = settle(&core, &mut lane, &row, None, &core.stopping);
        if alive_through(&mut link.frames.writer, undo).await == Settled::NotYet {
            return Ok(());
        }
        conclude(&core, lane, &row, Outcome::RolledBack, Some(cause.clone()), false).await;
        let refused = PeerMessage::Refused { about, error: cause };
        let told = async {
            link.frames.send(&refused).await?;
            link.frames.writer.close().await?;
            // What the source has sent meanwhile is read and thrown away until it hangs up: closing a connection with
            // unread bytes in it would make the kernel reset it, and the reset may overtake the refusal.
            while link.frames.reader.read().await?.is_some() {}
            Ok::<_, ums_transfer::frame::FrameError>(())
        };
        // A source that is gone is told when it asks.
        let _ = tokio::time::timeout(core.config.deadlines.answer, told).await;
        Err(WireError::new(ErrorCode::Refused, "the attempt ended here".to_owned()))
    }

    pub(super) async fn say(&mut self, message: PeerMessage) -> Result<(), WireError> {
        let name = &self.link.peer.site;
        self.link.frames.send(&message).await.map_err(|error| failure::cut(name, "answering it", &error))
    }

    /// The next message of the source, for as long as the reservation holds.
    pub(super) async fn hear(&mut self) -> Result<PeerMessage, WireError> {
        let lease = self.core.config.deadlines.lease;
        let name = self.link.peer.site.clone();
        let message = tokio::select! {
            biased;
            () = self.stop.cancelled() => return Err(replaced()),
            message = self.link.frames.expect::<PeerMessage>(lease) => message,
        };
        let message = message.map_err(|error| failure::cut(&name, "waiting for its next step", &error))?;
        match message {
            PeerMessage::Abort { about, reason } if about == self.about => Err(reason),
            message if message.about() == Some(&self.about) => Ok(message),
            _ => {
                Err(WireError::new(ErrorCode::BadRequest, format!("site {name} speaks of another migration")))
            }
        }
    }

    pub(super) fn out_of_turn(&self, message: &PeerMessage) -> WireError {
        let name = &self.link.peer.site;
        let word =
            message.word().map_or("something that means nothing here".to_owned(), |word| format!("{word:?}"));
        WireError::new(
            ErrorCode::BadRequest,
            format!("site {name} said {word} where another message was due"),
        )
    }
}

/// Awaits work of this site while the source hears that it is alive. Given up if the link breaks or the migration is
/// not to go on; dropping `work` in the middle must do no harm.
pub(super) async fn alive_unless<T>(
    link: &mut Link,
    stop: &CancellationToken,
    work: impl Future<Output = Result<T, WireError>>,
) -> Result<T, WireError> {
    let name = &link.peer.site;
    tokio::select! {
        biased;
        () = stop.cancelled() => Err(replaced()),
        done = link.frames.writer.alive_while(work) => {
            done.unwrap_or_else(|error| Err(failure::cut(name, "keeping it alive", &error)))
        }
    }
}

/// The source came back over another link, or the daemon shuts down: this attempt is over.
pub(super) fn replaced() -> WireError {
    WireError::new(ErrorCode::Aborted, "the attempt was ended before the service was held".to_owned())
}
