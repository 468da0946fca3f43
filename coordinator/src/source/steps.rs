//! The steps of a migration at its source, one function each, in their order.
//!
//! Each step writes before it acts, and waits only in ways that may be given up at any moment: the wish to stop and
//! the deadlines end a step in the middle, and the failure branch takes it from there.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use ums_model::action::Word;
use ums_model::error::{ErrorCode, WireError};
use ums_model::facts::Answer;
use ums_model::message::{BlobInfo, ImageOffer, Needs, Offer, PeerMessage, Sizes};
use ums_model::names::{Bytes, Epoch};
use ums_model::phase::Phase;
use ums_model::plan::HEADROOM_PERCENT;
use ums_model::source;
use ums_model::standing::Record;
use ums_sites::adapter::{Dump, Dumped, SiteAdapter};
use ums_transfer::archive::{self, relay};
use ums_transfer::frame::FrameReader;
use ums_transfer::link::Purpose;

use super::Migration;
use super::talk::{hung_up, last_word, still_whole, stopped, unless, while_alive, while_listening};
use crate::act::{commits, facts};
use crate::clock::boot_ms;
use crate::failure;
use crate::fault::Step;
use crate::preflight::Preflight;
use crate::settle::next_pause;

/// How often a migration begins again because the destination has seen a newer epoch.
const RENEWALS: usize = 3;
/// How far a destination's epoch may be ahead. A site that claims more wants to use the numbers up.
const EPOCHS_AHEAD: u64 = 1 << 32;

impl<S: SiteAdapter> Migration<S> {
    /// Both journals know the epoch, and the destination has promised what the service needs.
    pub(super) async fn reserve(&mut self) -> Result<(), WireError> {
        let core = self.core.clone();
        self.chronicle.enter(&core.journal, Phase::Reserve).await;
        let offer = Box::new(self.offer().await?);
        for _ in 0..RENEWALS {
            let started = Record::Source(source::Step::Started.at(self.epoch()));
            core.begin(&mut self.lane, self.chronicle.row(), vec![started]).await?;
            core.config.faults.at(Step::Reserve).await?;
            if core.peers.by_fingerprint(&self.preflight.peer.fingerprint).is_none() {
                let message = format!("site {} is not paired any more", self.preflight.peer.name);
                return Err(WireError::new(ErrorCode::NotPaired, message));
            }
            if self.link.is_none() {
                let purpose = Purpose::Migration { id: self.chronicle.row().id };
                let link = core.dial(&self.preflight.peer, purpose);
                self.link = Some(unless(&self.stop, link).await?);
            }
            self.offered = true;
            let offer = PeerMessage::Offer { about: self.about(), offer: offer.clone() };
            match self.make_offer(&offer).await? {
                PeerMessage::Accept { missing, .. } => {
                    self.missing = missing;
                    self.chronicle.leave(&core.journal, Phase::Reserve, None).await;
                    return Ok(());
                }
                PeerMessage::Reject { error, highest, .. } => self.renew(error, highest).await?,
                _ => return Err(self.not_expected("the offer")),
            }
        }
        Err(WireError::new(ErrorCode::EpochTooOld, "the destination always knows a newer epoch".to_owned()))
    }

    /// Offers, and again where the destination only has too much to do.
    async fn make_offer(&mut self, offer: &PeerMessage) -> Result<PeerMessage, WireError> {
        let core = self.core.clone();
        let row = self.chronicle.row();
        let (mut pause, asked) = (core.config.deadlines.retry_least, Instant::now());
        loop {
            let within = core.config.deadlines.answer;
            let answer = self.ask(Step::Reserve, offer, "offering the service", within).await?;
            match &answer {
                PeerMessage::Reject { error, .. }
                    if error.code == ErrorCode::Busy && asked.elapsed() < core.config.deadlines.turn =>
                {
                    self.chronicle.note(&core.journal, format!("waits: {}", error.message)).await;
                }
                _ => return Ok(answer),
            }
            let Self { link, stop, .. } = self;
            let link = link.as_mut().ok_or_else(hung_up)?;
            let wait = async {
                tokio::time::sleep(pause).await;
                Ok(())
            };
            unless(stop, while_alive(&mut link.frames.writer, &row.peer_name, wait)).await?;
            pause = next_pause(pause, core.config.deadlines.retry_most);
        }
    }

    /// Prepares to begin again behind the newest epoch that the destination has seen, if that was all it minded.
    async fn renew(&mut self, error: WireError, highest: Epoch) -> Result<(), WireError> {
        let old = self.epoch();
        let ahead = highest.0.saturating_sub(old.0);
        if error.code != ErrorCode::EpochTooOld || highest < old || ahead > EPOCHS_AHEAD {
            return Err(error);
        }
        let row = self.chronicle.row();
        let facts = facts(self.core.look(&row.service).await, None, row.spec.writes_outside());
        let actions = self.lane.standing().receive(facts, old, Word::Reject { highest }, 0);
        if actions.is_empty() {
            return Err(error);
        }
        self.core.perform(&mut self.lane, Some(row.id), actions).await?;
        self.chronicle.renew(self.lane.standing().epoch().next());
        Ok(())
    }

    async fn offer(&mut self) -> Result<Offer, WireError> {
        let core = self.core.clone();
        let (spec, facts) = (self.preflight.spec.clone(), self.preflight.service.clone());
        let within = core.config.deadlines.facts;
        let image = spec.image.digest;
        if facts.image_at_source {
            self.blobs = core.within(within, "look at an image", core.site.image_blobs(&image)).await?;
        }
        let requirements = core.site.restore_requirements(&spec.name);
        let restore = core.within(within, "look at what a restore needs", requirements).await?;
        let blobs = self.blobs.iter().map(|blob| BlobInfo { digest: blob.digest, size: blob.size }).collect();
        let image_bytes = if facts.image_at_destination { Bytes::ZERO } else { facts.image_bytes };
        Ok(Offer {
            needs: Needs {
                ports: spec.ports.clone(),
                memory: facts.memory.plus_percent(HEADROOM_PERCENT),
                disk: (facts.files + image_bytes).plus_percent(HEADROOM_PERCENT),
            },
            mode: self.chronicle.row().mode,
            approach: facts.approach,
            image: ImageOffer { digest: image, blobs },
            sizes: Sizes { memory: facts.memory, files: facts.files },
            restore,
            spec,
        })
    }

    /// The destination has started everything that it can start before the freeze.
    pub(super) async fn arm(&mut self) -> Result<(), WireError> {
        let core = self.core.clone();
        self.chronicle.enter(&core.journal, Phase::Arm).await;
        core.config.faults.at(Step::Arm).await?;
        let arm = PeerMessage::Arm { about: self.about() };
        match self.ask(Step::Arm, &arm, "having it prepare", core.config.deadlines.arm).await? {
            PeerMessage::Armed { .. } => {
                self.chronicle.leave(&core.journal, Phase::Arm, None).await;
                Ok(())
            }
            _ => Err(self.not_expected("the wish to prepare")),
        }
    }

    /// What the service has opened since the plan counts too, and is found before anything is stopped.
    pub(super) async fn look_again(&mut self) -> Result<(), WireError> {
        let row = self.chronicle.row();
        let Self { link, stop, preflight, core, .. } = self;
        let link = link.as_mut().ok_or_else(hung_up)?;
        let plan =
            unless(stop, while_alive(&mut link.frames.writer, &row.peer_name, preflight.again(core, row.id)))
                .await?;
        match Preflight::refusal(&plan, &row.service, &row.peer_name) {
            Some(refusal) => Err(refusal),
            None => Ok(()),
        }
    }

    /// The service is stopped and cut off, and the first of it can be read.
    pub(super) async fn freeze(&mut self) -> Result<Dump, WireError> {
        let core = self.core.clone();
        core.config.faults.at(Step::Freeze).await?;
        self.not_stopped()?;
        let row = self.chronicle.row();
        let begun = Record::Source(source::Step::FreezeBegun.at(row.epoch));
        core.write(&mut self.lane, Some(row.id), vec![begun]).await?;
        self.chronicle.enter(&core.journal, Phase::Freeze).await;
        self.chronicle.frozen_since(boot_ms()).await;
        core.config.faults.at(Step::Dump).await?;
        let doing = format!("freeze service {}", row.service);
        if core.config.faults.twice(Step::Dump) {
            // Dropped where it has begun, and asked for anew.
            core.within(core.config.deadlines.freeze, &doing, core.site.dump(&row.service, row.epoch))
                .await?;
        }
        let dump = core.within(core.config.deadlines.freeze, &doing, core.site.dump(&row.service, row.epoch));
        let Self { link, stop, .. } = self;
        let link = link.as_mut().ok_or_else(hung_up)?;
        let dump = unless(stop, while_alive(&mut link.frames.writer, &row.peer_name, dump)).await?;
        self.chronicle.leave(&core.journal, Phase::Freeze, None).await;
        Ok(dump)
    }

    /// All of the stopped service has been sent.
    pub(super) async fn transfer(&mut self, dump: Dump) -> Result<Dumped, WireError> {
        let core = self.core.clone();
        let (journal, deadlines) = (&core.journal, core.config.deadlines);
        let Dump { stream, done } = dump;
        self.chronicle.enter(journal, Phase::Dump).await;
        self.chronicle.enter(journal, Phase::Transfer).await;
        core.config.faults.at(Step::Transfer).await?;
        let expected = self.preflight.service.memory + self.preflight.service.files;
        let chronicle = self.chronicle.clone();
        let Self { link, stop, preflight, .. } = self;
        let link = link.as_mut().ok_or_else(hung_up)?;
        let mut stream = FrameReader::new(stream, &deadlines.link());
        let moved = AtomicU64::new(0);
        let observe = |stats: archive::RelayStats| moved.store(stats.bytes, Ordering::Relaxed);
        let relaying = relay(&mut stream, &mut link.frames.writer, archive::Limits::default(), observe);
        let relaying = chronicle.while_moving(journal, Phase::Transfer, &moved, expected, relaying);
        let sending = async {
            let late = |_| failure::late("send the dump", deadlines.transfer);
            let relayed = tokio::time::timeout(deadlines.transfer, relaying).await.map_err(late)?;
            relayed.map_err(|error| {
                failure::relay("sending the dump", &error, ErrorCode::DumpFailed, ErrorCode::LinkCut)
            })
        };
        let (reader, site) = (&mut link.frames.reader, &preflight.peer.name);
        let sent = unless(stop, while_listening(reader, site, deadlines.keep_alive, sending)).await;
        drop(stream);
        // The nest knows why a dump failed; the broken stream is only what that looks like from here.
        let done = core.within(deadlines.act, "end the dump", done);
        let (stats, dumped) = match sent {
            Ok(stats) => (stats, while_alive(&mut link.frames.writer, site, done).await?),
            Err(error) if error.code == ErrorCode::DumpFailed => {
                return Err(done.await.err().unwrap_or(error));
            }
            Err(error) => return Err(error),
        };
        self.chronicle.frozen_since(dumped.frozen_at_boot_ms).await;
        self.chronicle.add_raw(Bytes(dumped.memory_bytes) + Bytes(dumped.file_bytes)).await;
        self.chronicle.leave_after(journal, Phase::Dump, dumped.dump_ms, None).await;
        self.chronicle.leave(journal, Phase::Transfer, Some(Bytes(stats.bytes))).await;
        Ok(dumped)
    }

    /// The copy stands frozen and complete at the destination.
    pub(super) async fn held(&mut self, dumped: &Dumped) -> Result<(), WireError> {
        let core = self.core.clone();
        self.chronicle.enter(&core.journal, Phase::Restore).await;
        core.config.faults.at(Step::Restore).await?;
        let bytes = Bytes(dumped.memory_bytes) + Bytes(dumped.file_bytes);
        let complete = PeerMessage::DumpComplete { about: self.about(), bytes, tasks: dumped.tasks };
        match self.ask(Step::Restore, &complete, "restoring", core.config.deadlines.held).await? {
            PeerMessage::Held { tasks, .. } if tasks == dumped.tasks => {
                self.chronicle.leave(&core.journal, Phase::Restore, None).await;
                Ok(())
            }
            PeerMessage::Held { tasks, .. } => {
                let message =
                    format!("{} tasks were dumped, {tasks} are held at the destination", dumped.tasks);
                Err(WireError::new(ErrorCode::RestoreFailed, message))
            }
            _ => Err(self.not_expected("the end of the dump")),
        }
    }

    /// COMMIT is durable: there is no way back. `Err`: it is not.
    pub(super) async fn commit(&mut self) -> Result<(), WireError> {
        let core = self.core.clone();
        self.chronicle.enter(&core.journal, Phase::Commit).await;
        core.config.faults.at(Step::Commit).await?;
        self.not_stopped()?;
        let row = self.chronicle.row();
        let Self { link, lane, .. } = self;
        let link = link.as_mut().ok_or_else(hung_up)?;
        // A commit over a link that is known to be cut would only begin with doubt.
        still_whole(&mut link.frames.reader, &row.peer_name)?;
        let look = async { Ok(core.look(&row.service).await) };
        let seen = while_alive(&mut link.frames.writer, &row.peer_name, look).await?;
        let facts = facts(seen, None, row.spec.writes_outside());
        let held = Word::State { answer: Answer::Held };
        let actions = lane.standing().receive(facts, row.epoch, held, 0);
        if !commits(&actions) {
            let message = format!("the original of {} is {} instead of frozen", row.service, facts.copy);
            return Err(WireError::new(ErrorCode::DumpFailed, message));
        }
        core.perform(lane, Some(row.id), actions).await?;
        if core.config.faults.twice(Step::Commit) {
            let held = Word::State { answer: Answer::Held };
            let actions = lane.standing().receive(facts, row.epoch, held, 0);
            core.perform(lane, Some(row.id), actions).await?;
        }
        self.chronicle.leave(&core.journal, Phase::Commit, None).await;
        Ok(())
    }

    /// Says something to the destination and hears its answer; a refusal is an error.
    async fn ask(
        &mut self,
        step: Step,
        message: &PeerMessage,
        doing: &str,
        within: Duration,
    ) -> Result<PeerMessage, WireError> {
        let patience = self.core.config.deadlines.keep_alive;
        let again = self.core.config.faults.again(step);
        let Self { link, stop, preflight, .. } = self;
        let link = link.as_mut().ok_or_else(hung_up)?;
        let name = &preflight.peer.name;
        let ask = async {
            let cut = |error| failure::cut(name, doing, &error);
            if let Err(error) = link.frames.send(message).await {
                return Err(last_word(&mut link.frames.reader, patience).await.unwrap_or_else(|| cut(error)));
            }
            if again {
                link.frames.send(message).await.map_err(cut)?;
            }
            match link.frames.expect(within).await.map_err(cut)? {
                PeerMessage::Refused { error, .. } => Err(error),
                answer if answer.about() == message.about() => Ok(answer),
                _ => Err(WireError::new(
                    ErrorCode::Internal,
                    format!("site {name} speaks of another migration"),
                )),
            }
        };
        unless(stop, ask).await
    }

    fn not_stopped(&self) -> Result<(), WireError> {
        if self.stop.is_cancelled() { Err(stopped()) } else { Ok(()) }
    }

    fn not_expected(&self, to: &str) -> WireError {
        let name = &self.preflight.peer.name;
        WireError::new(
            ErrorCode::Internal,
            format!("site {name} gave no answer to {to} that this site understands"),
        )
    }
}
