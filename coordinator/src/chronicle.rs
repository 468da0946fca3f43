//! What a migration tells about itself while it goes on, and the report at its end.
//!
//! # What the numbers mean
//!
//! * `frozen_ms` is measured on the source's CLOCK_BOOTTIME alone; clocks of two hosts are never compared. It begins
//!   when the nest stopped the first task. For a service that moved it ends when RUNNING arrives at the source: it
//!   includes the destination's thaw, its records, the opening of the fence and half a round trip, so it is never too
//!   short. For one that was rolled back it ends when the thaw is done.
//! * A phase is measured from its begin to its end at the site that tells it. Phases overlap: a dump travels while
//!   it is written. `dump` is what the source's nest measured, `restore` is the time from the last byte to HELD.
//! * `bytes_sent` counts the frames on the migration's own links, both directions, without TLS and TCP.
//! * After a restart of the daemon the phases told before it are kept, and times that span the restart are taken from
//!   the wall clock.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::watch;
use ums_model::error::WireError;
use ums_model::event::{EventKind, MigrationEvent};
use ums_model::names::{Bytes, Epoch, MigrationId, ServiceName, SiteName};
use ums_model::phase::{Outcome, Phase};
use ums_model::plan::Prediction;
use ums_model::report::{PhaseTime, Report};

use crate::clock::{boot_ms, ms, unix_ms};
use crate::journal::{Journal, JournalError, MigrationRow, Role};

/// Pause between two events that only tell how many bytes have moved.
const PROGRESS: Duration = Duration::from_millis(250);

/// The chronicles of all migrations that have not ended.
#[derive(Debug, Clone, Default)]
pub(crate) struct Chronicles {
    open: Arc<Mutex<BTreeMap<MigrationId, Arc<Chronicle>>>>,
}

/// One migration's.
#[derive(Debug)]
pub(crate) struct Chronicle {
    row: MigrationRow,
    /// The row's, or a newer one: a destination that has seen a newer epoch makes the migration begin again.
    epoch: AtomicU64,
    here: SiteName,
    /// Whether somebody is writing its end.
    ending: AtomicBool,
    begun: Instant,
    /// What had passed before `begun`, if the daemon was restarted.
    before: Duration,
    /// Number of the last event that was kept.
    last: watch::Sender<u64>,
    story: tokio::sync::Mutex<Story>,
}

#[derive(Debug, Default)]
struct Story {
    phases: Vec<PhaseTime>,
    entered: Vec<(Phase, Instant)>,
    bytes_raw: u64,
    bytes_sent: u64,
    frozen_since_boot_ms: Option<f64>,
    frozen_ms: Option<f64>,
    predicted: Option<Prediction>,
    blamed: Option<WireError>,
}

impl Chronicles {
    /// Begins a chronicle, `before` after the wish for the migration was uttered.
    pub(crate) fn begin(&self, row: MigrationRow, here: SiteName, before: Duration) -> Arc<Chronicle> {
        self.insert(Chronicle {
            epoch: AtomicU64::new(row.epoch.0),
            row,
            here,
            ending: AtomicBool::new(false),
            begun: Instant::now(),
            before,
            last: watch::Sender::new(0),
            story: tokio::sync::Mutex::default(),
        })
    }

    /// Continues one after a restart, from what the journal has kept of it.
    pub(crate) async fn resume(
        &self,
        row: MigrationRow,
        here: SiteName,
        journal: &Journal,
    ) -> Result<Arc<Chronicle>, JournalError> {
        let (mut story, mut last) = (Story::default(), 0);
        loop {
            let page = journal.events(row.id, last).await?;
            let Some(newest) = page.last() else { break };
            last = newest.seq;
            page.iter().for_each(|event| story.recall(event));
        }
        let before = Duration::from_millis(unix_ms().saturating_sub(row.started_unix_ms));
        let story = tokio::sync::Mutex::new(story);
        let (epoch, last) = (AtomicU64::new(row.epoch.0), watch::Sender::new(last));
        let (ending, begun) = (AtomicBool::new(false), Instant::now());
        Ok(self.insert(Chronicle { row, epoch, here, ending, begun, before, last, story }))
    }

    /// The chronicle of a migration that has not ended.
    pub(crate) fn of(&self, id: MigrationId) -> Option<Arc<Chronicle>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner).get(&id).cloned()
    }

    /// The migrations that have not ended.
    pub(crate) fn under_way(&self) -> Vec<MigrationRow> {
        let open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.values().map(|chronicle| chronicle.row.clone()).collect()
    }

    /// How many migrations have not ended.
    pub(crate) fn count(&self) -> usize {
        self.open.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// The newest migration of `service` that has not ended.
    pub(crate) fn of_service(&self, service: &ServiceName) -> Option<MigrationId> {
        let open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.values()
            .rev()
            .find(|chronicle| chronicle.row.service == *service)
            .map(|chronicle| chronicle.row.id)
    }

    /// Ends a chronicle: the report and the last event in the journal, in one step; then whoever follows it hears of
    /// it, and finds a migration that has ended.
    ///
    /// `Err`: the end is not durable; safe to repeat.
    pub(crate) async fn end(
        &self,
        chronicle: &Chronicle,
        journal: &Journal,
        outcome: Outcome,
        error: Option<WireError>,
        told: bool,
        keep: usize,
    ) -> Result<Report, JournalError> {
        let id = chronicle.row.id;
        let report = chronicle.report(outcome, error).await;
        // Nothing else may be told from here on, so nobody else takes the number.
        let story = chronicle.story.lock().await;
        let event = chronicle.next_event(EventKind::Ended { outcome, report: Box::new(report.clone()) });
        journal.end(event, report.clone(), told, keep).await?;
        self.open.lock().unwrap_or_else(PoisonError::into_inner).remove(&id);
        chronicle.last.send_modify(|last| *last += 1);
        drop(story);
        Ok(report)
    }

    fn insert(&self, chronicle: Chronicle) -> Arc<Chronicle> {
        let chronicle = Arc::new(chronicle);
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.insert(chronicle.row.id, Arc::clone(&chronicle));
        chronicle
    }
}

impl Chronicle {
    /// What it is about.
    pub(crate) fn row(&self) -> MigrationRow {
        MigrationRow { epoch: self.epoch(), ..self.row.clone() }
    }

    /// The epoch that it has reached.
    pub(crate) fn epoch(&self) -> Epoch {
        Epoch(self.epoch.load(Ordering::SeqCst))
    }

    /// It begins again with a newer epoch.
    pub(crate) fn renew(&self, epoch: Epoch) {
        self.epoch.store(epoch.0, Ordering::SeqCst);
    }

    /// Whether the caller is the first who wants to end it, and therefore the one who does.
    pub(crate) fn claim_end(&self) -> bool {
        !self.ending.swap(true, Ordering::SeqCst)
    }

    /// Whether somebody ends it, or has.
    pub(crate) fn is_ending(&self) -> bool {
        self.ending.load(Ordering::SeqCst)
    }

    /// The number of the last event that was kept, now and whenever it changes.
    pub(crate) fn follow(&self) -> watch::Receiver<u64> {
        self.last.subscribe()
    }

    /// The phase that was entered last and has not ended.
    pub(crate) async fn phase(&self) -> Option<Phase> {
        self.story.lock().await.entered.last().map(|(phase, _)| *phase)
    }

    /// A phase begins.
    pub(crate) async fn enter(&self, journal: &Journal, phase: Phase) {
        self.story.lock().await.entered.push((phase, Instant::now()));
        self.tell(journal, EventKind::PhaseStarted { phase }).await;
    }

    /// A phase ended well; nothing if it was not entered.
    pub(crate) async fn leave(&self, journal: &Journal, phase: Phase, bytes: Option<Bytes>) {
        let entered = self.story.lock().await.entered.iter().find(|(entered, _)| *entered == phase).copied();
        if let Some((_, since)) = entered {
            self.leave_after(journal, phase, ms(since.elapsed()), bytes).await;
        }
    }

    /// A phase ended well that took as long as somebody else measured.
    pub(crate) async fn leave_after(
        &self,
        journal: &Journal,
        phase: Phase,
        took_ms: f64,
        bytes: Option<Bytes>,
    ) {
        {
            let mut story = self.story.lock().await;
            story.entered.retain(|(entered, _)| *entered != phase);
            story.phases.push(PhaseTime { phase, ms: took_ms });
        }
        self.tell(journal, EventKind::PhaseDone { phase, ms: took_ms, bytes }).await;
    }

    /// Awaits `work` and tells now and then how far `moved` is, out of about `expected`.
    pub(crate) async fn while_moving<F: Future>(
        &self,
        journal: &Journal,
        phase: Phase,
        moved: &AtomicU64,
        expected: Bytes,
        work: F,
    ) -> F::Output {
        tokio::select! {
            biased;
            output = work => output,
            never = self.tell_progress(journal, phase, moved, expected) => match never {},
        }
    }

    async fn tell_progress(
        &self,
        journal: &Journal,
        phase: Phase,
        moved: &AtomicU64,
        expected: Bytes,
    ) -> Infallible {
        let mut told = 0;
        loop {
            tokio::time::sleep(PROGRESS).await;
            let done = moved.load(Ordering::Relaxed);
            if done != told {
                told = done;
                let (done, total) = (Bytes(done), Bytes(done.max(expected.get())));
                self.tell(journal, EventKind::Progress { phase, done, total }).await;
            }
        }
    }

    /// Something worth telling.
    pub(crate) async fn note(&self, journal: &Journal, text: impl Into<String>) {
        self.tell(journal, EventKind::Note { text: text.into() }).await;
    }

    /// What the plan said.
    pub(crate) async fn predicted(&self, predicted: Option<Prediction>) {
        self.story.lock().await.predicted = predicted;
    }

    /// The service was stopped at this CLOCK_BOOTTIME of this host.
    pub(crate) async fn frozen_since(&self, boot_ms: f64) {
        self.story.lock().await.frozen_since_boot_ms = Some(boot_ms);
    }

    /// The service runs again, here or there, as far as this site can know. Only the first word counts.
    pub(crate) async fn runs_again(&self) {
        let mut story = self.story.lock().await;
        if let (Some(since), None) = (story.frozen_since_boot_ms, story.frozen_ms) {
            story.frozen_ms = Some((boot_ms() - since).max(0.0));
        }
    }

    /// Why it does not succeed, in the words of whoever knows best.
    pub(crate) async fn blame(&self, error: WireError) {
        self.story.lock().await.blamed.get_or_insert(error);
    }

    /// What was blamed first.
    pub(crate) async fn blamed(&self) -> Option<WireError> {
        self.story.lock().await.blamed.clone()
    }

    /// State that had to be moved.
    pub(crate) async fn add_raw(&self, bytes: Bytes) {
        self.story.lock().await.bytes_raw += bytes.get();
    }

    /// What went over a link.
    pub(crate) async fn add_sent(&self, bytes: u64) {
        self.story.lock().await.bytes_sent += bytes;
    }

    async fn report(&self, outcome: Outcome, error: Option<WireError>) -> Report {
        let story = self.story.lock().await;
        let (source, destination) = match self.row.role {
            Role::Source => (self.here.clone(), self.row.peer_name.clone()),
            Role::Destination => (self.row.peer_name.clone(), self.here.clone()),
        };
        let mut phases = story.phases.clone();
        // A phase that failed was entered all the same, and took until now.
        phases.extend(
            story.entered.iter().map(|(phase, since)| PhaseTime { phase: *phase, ms: ms(since.elapsed()) }),
        );
        phases.sort_by_key(|time| time.phase);
        phases.dedup_by_key(|time| time.phase);
        Report {
            migration: self.row.id,
            service: self.row.service.clone(),
            epoch: self.epoch(),
            source,
            destination,
            mode: self.row.mode,
            approach: self.row.approach,
            phases,
            bytes_raw: Bytes(story.bytes_raw),
            bytes_sent: Bytes(story.bytes_sent),
            frozen_ms: story.frozen_ms,
            downtime_ms: None,
            total_ms: ms(self.before + self.begun.elapsed()),
            predicted_frozen_ms: story.predicted.map(|predicted| predicted.frozen_ms),
            predicted_total_ms: story.predicted.map(|predicted| predicted.total_ms),
            outcome,
            error,
        }
    }

    /// Numbers an event and hands it on. The lock is held so that events are kept in the order of their numbers.
    async fn tell(&self, journal: &Journal, kind: EventKind) {
        let story = self.story.lock().await;
        journal.keep_event(self.next_event(kind)).await;
        self.last.send_modify(|last| *last += 1);
        drop(story);
    }

    fn next_event(&self, kind: EventKind) -> MigrationEvent {
        MigrationEvent {
            seq: *self.last.borrow() + 1,
            migration: self.row.id,
            service: self.row.service.clone(),
            epoch: self.epoch(),
            at_unix_ms: unix_ms(),
            kind,
        }
    }
}

impl Story {
    /// Takes in an event that was told before a restart.
    fn recall(&mut self, event: &MigrationEvent) {
        let ago_ms = unix_ms().saturating_sub(event.at_unix_ms) as f64;
        match &event.kind {
            EventKind::PhaseStarted { phase } => {
                let since = Instant::now().checked_sub(Duration::from_secs_f64(ago_ms / 1e3));
                self.entered.push((*phase, since.unwrap_or_else(Instant::now)));
                if *phase == Phase::Freeze {
                    self.frozen_since_boot_ms = Some(boot_ms() - ago_ms);
                }
            }
            EventKind::PhaseDone { phase, ms, .. } => {
                self.entered.retain(|(entered, _)| entered != phase);
                self.phases.push(PhaseTime { phase: *phase, ms: *ms });
            }
            EventKind::Progress { .. }
            | EventKind::Note { .. }
            | EventKind::Ended { .. }
            | EventKind::Unknown => {}
        }
    }
}
