//! The dump comes in and becomes a copy that stands frozen.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use ums_model::destination;
use ums_model::error::{ErrorCode, WireError};
use ums_model::message::{Offer, PeerMessage};
use ums_model::names::{Bytes, SiteName};
use ums_model::phase::Phase;
use ums_model::policy::FilePolicy;
use ums_model::standing::Record;
use ums_sites::adapter::{Restore, Restored, SiteAdapter};
use ums_transfer::archive::{self, relay};
use ums_transfer::frame::FrameWriter;

use super::steps::{Arrival, alive_unless, replaced};
use crate::failure;
use crate::fault::Step;

/// How much more than it was said to need a service may bring: it grows until it is frozen, and its images come on top.
const SLACK: Bytes = Bytes::gib(1);

/// What a dump may come to. The other site has said how much it needs, and that much was found to be there; a stream
/// without an end would fill memory that was promised to nobody.
fn limits(offer: &Offer) -> archive::Limits {
    let (needs, sizes) = (&offer.needs, &offer.sizes);
    let said = needs.memory.max(sizes.memory) + needs.disk.max(sizes.files);
    let most = (said.plus_percent(100) + SLACK).get();
    let default = archive::Limits::default();
    archive::Limits { bytes: default.bytes.min(most), item_bytes: default.item_bytes.min(most), ..default }
}

/// The nest knows which option of a policy allows a file, and this site for whom.
fn by_policy(error: WireError, peer: &SiteName, here: &SiteName) -> WireError {
    match FilePolicy::remedy(&error.hint, peer, here) {
        Some(remedy) => error.with_hint(remedy),
        None => error,
    }
}

impl<S: SiteAdapter> Arrival<'_, S> {
    /// HELD is durable, and was told.
    pub(super) async fn restore(&mut self) -> Result<(), WireError> {
        let core = Arc::clone(&self.core);
        let id = Some(self.about.migration);
        core.config.faults.at(Step::DestinationRestore).await?;
        let begun = Record::Destination(destination::Step::RestoreBegun.at(self.about.epoch));
        core.write(&mut self.lane, id, vec![begun]).await?;
        let restored = self.feed().await?;
        core.config.faults.at(Step::DestinationHeld).await?;
        let held = Record::Destination(destination::Step::HeldReached.at(self.about.epoch));
        core.write(&mut self.lane, id, vec![held]).await?;
        core.promises.only_ports(&self.about.service, &self.offer.spec.ports);
        self.chronicle.leave(&core.journal, Phase::Restore, None).await;
        if core.config.faults.again(Step::DestinationHeld) {
            self.say(PeerMessage::Held { about: self.about.clone(), tasks: restored.tasks }).await?;
        }
        // From here on a broken link ends nothing: HELD is durable, and is said again when it is asked for.
        if let Err(error) =
            self.say(PeerMessage::Held { about: self.about.clone(), tasks: restored.tasks }).await
        {
            tracing::info!(service = %self.about.service, %error, "the source has not heard HELD");
        }
        Ok(())
    }

    async fn feed(&mut self) -> Result<Restored, WireError> {
        let core = Arc::clone(&self.core);
        let (journal, deadlines) = (&core.journal, core.config.deadlines);
        let (chronicle, about) = (Arc::clone(&self.chronicle), self.about.clone());
        let Self { link, stop, .. } = self;
        let site = link.peer.site.clone();
        let open = core.site.restore(&about.service, about.epoch);
        let Restore { stream, done } =
            alive_unless(link, stop, core.within(deadlines.arm, "begin the restore", open)).await?;
        let mut nest = FrameWriter::new(stream, &deadlines.link());

        chronicle.enter(journal, Phase::Transfer).await;
        let expected = self.offer.sizes.memory + self.offer.sizes.files;
        let moved = AtomicU64::new(0);
        let observe = |stats: archive::RelayStats| moved.store(stats.bytes, Ordering::Relaxed);
        let frames = &mut self.link.frames;
        frames.reader.demand(Some(deadlines.lease));
        let relaying = relay(&mut frames.reader, &mut nest, limits(&self.offer), observe);
        let relaying = chronicle.while_moving(journal, Phase::Transfer, &moved, expected, relaying);
        let relayed = tokio::select! {
            biased;
            () = self.stop.cancelled() => return Err(replaced()),
            relayed = tokio::time::timeout(deadlines.transfer, frames.writer.alive_while(relaying)) => relayed,
        };
        frames.reader.demand(None);
        let relayed = relayed
            .map_err(|_| failure::late("receive the dump", deadlines.transfer))?
            .map_err(|error| failure::cut(&site, "receiving the dump", &error))?;
        let relayed = relayed.map_err(|error| {
            failure::relay("receiving the dump", &error, ErrorCode::LinkCut, ErrorCode::RestoreFailed)
        });
        let done = core.within(deadlines.held, "restore the service", done);
        let here = &core.config.name;
        let done = async { done.await.map_err(|error| by_policy(error, &site, here)) };
        let stats = match relayed {
            Ok(stats) => stats,
            // The nest knows why a restore failed; the broken stream is only what that looks like from here.
            Err(error) if error.code == ErrorCode::RestoreFailed => {
                drop(nest);
                return Err(done.await.err().unwrap_or(error));
            }
            Err(error) => return Err(error),
        };
        drop(nest);
        chronicle.add_raw(Bytes(stats.bytes)).await;
        chronicle.leave(journal, Phase::Transfer, Some(Bytes(stats.bytes))).await;
        chronicle.enter(journal, Phase::Restore).await;
        self.count(done).await
    }

    /// Waits for the restore and for the source's word on how many tasks there must be, whichever comes first.
    async fn count(
        &mut self,
        done: impl Future<Output = Result<Restored, WireError>>,
    ) -> Result<Restored, WireError> {
        tokio::pin!(done);
        let mut restored = None;
        let tasks = loop {
            let said = tokio::select! {
                biased;
                result = &mut done, if restored.is_none() => {
                    restored = Some(result?);
                    continue;
                }
                said = self.hear() => said?,
            };
            match said {
                PeerMessage::DumpComplete { tasks, .. } => break tasks,
                other => return Err(self.out_of_turn(&other)),
            }
        };
        let restored = match restored {
            Some(restored) => restored,
            None => {
                let Self { link, stop, .. } = self;
                alive_unless(link, stop, done).await?
            }
        };
        if restored.tasks == tasks {
            return Ok(restored);
        }
        let message = format!("{tasks} tasks were dumped, {} were restored", restored.tasks);
        Err(WireError::new(ErrorCode::RestoreFailed, message))
    }
}
