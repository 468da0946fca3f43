//! Doing what the rules say: the one place where records are written and copies are touched for a migration.
//!
//! [`ums_model::standing`] decides, this module obeys, in order, each action to its end before the next: the journal
//! first, then the deed. Whatever is to be said to the other site is handed back and said afterwards.

use ums_model::action::{Action, Alarm, Word};
use ums_model::error::{ErrorCode, WireError};
use ums_model::facts::{Answer, CopyState};
use ums_model::names::{Epoch, MigrationId};
use ums_model::source;
use ums_model::standing::{Facts, Record, Role, Standing};
use ums_model::{IllegalEvent, destination};
use ums_sites::adapter::SiteAdapter;

use crate::core::{Core, Seen};
use crate::desk::Lane;
use crate::failure;
use crate::fault::Step;
use crate::journal::MigrationRow;

/// What is to be said to the other site, in order.
pub(crate) type Tells = Vec<(Epoch, Word)>;

impl<S: SiteAdapter> Core<S> {
    /// Does `actions`. `Ok`: all are done; what remains is to say the words that are returned. `Err`: they were done
    /// up to the one that failed, and the rest was dropped; the rules have to be asked again.
    ///
    /// Not to be dropped before it is ready: what was done would not be known.
    pub(crate) async fn perform(
        &self,
        lane: &mut Lane,
        migration: Option<MigrationId>,
        actions: Vec<Action>,
    ) -> Result<Tells, WireError> {
        let mut tells = Tells::new();
        let mut actions = actions.into_iter().peekable();
        while let Some(action) = actions.next() {
            match action {
                Action::Write { record } => {
                    // Neighbouring records share one transaction, and one wait for the disk.
                    let mut records = vec![record];
                    while let Some(Action::Write { record }) = actions.peek() {
                        records.push(*record);
                        actions.next();
                    }
                    self.write(lane, migration, records).await?;
                }
                Action::Tell { epoch, word } => tells.push((epoch, word)),
                Action::Report { epoch, alarm } => self.raise(lane, migration, epoch, alarm).await,
                Action::Freeze => self.freeze(lane, &[CopyState::Frozen, CopyState::Gone]).await?,
                Action::Bury => self.freeze(lane, &[CopyState::Gone]).await?,
                Action::Thaw => self.thaw(lane).await?,
                Action::Open => self.open(lane, migration).await?,
                Action::Discard => {
                    let doing = format!("discard the copy of {}", lane.service());
                    let epoch = lane.standing().epoch();
                    let discard = self.site.discard(lane.service(), epoch);
                    self.within(self.config.deadlines.act, &doing, discard).await?;
                }
                Action::Release => {
                    self.config.faults.at(Step::Release).await?;
                    if self.config.faults.twice(Step::Release) {
                        self.release(lane).await?;
                    }
                    self.release(lane).await?;
                }
            }
        }
        Ok(tells)
    }

    /// Appends records about the service of `lane`, after checking them against the rules.
    pub(crate) async fn write(
        &self,
        lane: &mut Lane,
        migration: Option<MigrationId>,
        records: Vec<Record>,
    ) -> Result<(), WireError> {
        let after = after(&lane.standing(), &records).map_err(|error| failure::illegal(&error))?;
        if records.iter().any(is_running) {
            self.config.faults.at(Step::DestinationResumed).await?;
        }
        self.journal
            .append(lane.service(), migration, records.clone())
            .await
            .map_err(|error| failure::journal(&error))?;
        tracing::debug!(service = %lane.service(), standing = %after, "recorded");
        lane.advance(after);
        Ok(())
    }

    /// Appends the records with which a migration begins, together with its row.
    pub(crate) async fn begin(
        &self,
        lane: &mut Lane,
        row: MigrationRow,
        records: Vec<Record>,
    ) -> Result<(), WireError> {
        let after = after(&lane.standing(), &records).map_err(|error| failure::illegal(&error))?;
        self.journal.begin(row, records).await.map_err(|error| failure::journal(&error))?;
        lane.advance(after);
        Ok(())
    }

    /// Ends the frozen original and clears its nest away. Safe to repeat.
    pub(crate) async fn release(&self, lane: &Lane) -> Result<(), WireError> {
        let doing = format!("release the original of {}", lane.service());
        let release = self.site.release(lane.service(), lane.standing().epoch());
        self.within(self.config.deadlines.act, &doing, release).await
    }

    async fn thaw(&self, lane: &Lane) -> Result<(), WireError> {
        let (service, standing) = (lane.service(), lane.standing());
        let doing = format!("thaw service {service}");
        match standing.role() {
            Role::Source(_) => {
                let thaw = self.site.thaw(service, standing.epoch());
                self.within(self.config.deadlines.act, &doing, thaw).await
            }
            Role::Destination(_) => {
                self.config.faults.at(Step::DestinationGranted).await?;
                if self.config.faults.twice(Step::DestinationGranted) {
                    let resume = self.site.resume(service, standing.epoch());
                    self.within(self.config.deadlines.act, &doing, resume).await?;
                }
                let resume = self.site.resume(service, standing.epoch());
                self.within(self.config.deadlines.act, &doing, resume).await
            }
        }
    }

    /// Opens the fence. At the source the site has done so with the thaw.
    async fn open(&self, lane: &Lane, migration: Option<MigrationId>) -> Result<(), WireError> {
        let (service, standing) = (lane.service(), lane.standing());
        if matches!(standing.role(), Role::Source(_)) {
            return Ok(());
        }
        // It is repeated for every service that has arrived whenever a daemon starts, and is no step of a migration then.
        if migration.is_some() {
            self.config.faults.at(Step::DestinationRunning).await?;
        }
        let doing = format!("open the ports of service {service}");
        if self.config.faults.twice(Step::DestinationRunning) {
            let open = self.site.open(service, standing.epoch());
            self.within(self.config.deadlines.act, &doing, open).await?;
        }
        self.within(self.config.deadlines.act, &doing, self.site.open(service, standing.epoch())).await
    }

    /// Takes the right to run or to start the copy here from its nest, also where it stands still or is dead: what its
    /// nest may do is written in the nest's own record, of which a look at the copy says nothing. Ok = it is taken, and
    /// afterwards the copy was in one of `wanted`.
    async fn freeze(&self, lane: &Lane, wanted: &[CopyState]) -> Result<(), WireError> {
        let (service, epoch) = (lane.service(), lane.standing().epoch());
        if self.look(service).await.copy == CopyState::Running {
            tracing::error!(%service, %epoch, "a copy runs without the right to: it is stopped");
        }
        let doing = format!("take the right to run from the copy of {service}");
        self.within(self.config.deadlines.act, &doing, self.site.freeze(service, epoch)).await?;
        let state = self.look(service).await.copy;
        if wanted.contains(&state) {
            return Ok(());
        }
        let message = format!("the copy of service {service} must not run here, but it is {state}");
        Err(WireError::new(ErrorCode::Stuck, message).with_hint(format!("ums status {service}")))
    }

    /// Says to people, once, that trying again alone will not do, and why.
    pub(crate) async fn blocked(&self, lane: &mut Lane, migration: MigrationId, error: &WireError) {
        let alarm = (lane.standing().epoch(), Alarm::Blocked);
        if lane.desk().alarm() == Some(alarm) {
            return;
        }
        self.raise(lane, Some(migration), alarm.0, alarm.1).await;
        if let Some(chronicle) = self.chronicles.of(migration) {
            chronicle.note(&self.journal, format!("{}; {}", error.message, error.hint)).await;
        }
    }

    async fn raise(&self, lane: &mut Lane, migration: Option<MigrationId>, epoch: Epoch, alarm: Alarm) {
        if lane.desk().alarm() == Some((epoch, alarm)) {
            return;
        }
        lane.raise(Some((epoch, alarm)));
        let (service, text) = (lane.service(), words(alarm));
        tracing::error!(%service, %epoch, %alarm, "{text}");
        if let Some(chronicle) = migration.and_then(|id| self.chronicles.of(id)) {
            chronicle.note(&self.journal, format!("{alarm}: {text}")).await;
        }
    }
}

/// The facts by which the rules decide.
pub(crate) fn facts(seen: Seen, other: Option<Answer>, writes_outside: bool) -> Facts {
    Facts { copy: seen.copy, other, writes_outside }
}

/// The standing after `records`.
pub(crate) fn after(standing: &Standing, records: &[Record]) -> Result<Standing, IllegalEvent> {
    records.iter().try_fold(standing.clone(), |standing, record| standing.apply(*record))
}

fn is_running(record: &Record) -> bool {
    matches!(record, Record::Destination(event) if event.step == destination::Step::RunningWritten)
}

/// Whether COMMIT is among `actions`: from there on there is no way back.
pub(crate) fn commits(actions: &[Action]) -> bool {
    actions.iter().any(|action| {
        matches!(
            action,
            Action::Write { record: Record::Source(event) } if event.step == source::Step::CommitDecided
        )
    })
}

/// An alarm, in a sentence.
pub(crate) fn words(alarm: Alarm) -> &'static str {
    match alarm {
        Alarm::InDoubt => "the commit is decided and the destination has not answered yet; it is asked again",
        Alarm::Stuck => "nobody may run the service before the other site answers or an operator decides",
        Alarm::Blocked => "what has to be done here fails, and is tried again",
        Alarm::Lost => "the state of the service exists nowhere any more",
        Alarm::Superseded => "the other site has a newer decision; the copy here was frozen and is kept",
        Alarm::Contradiction => "the other site said what cannot be; nothing was done about it",
    }
}
