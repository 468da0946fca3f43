//! Bringing a migration to its end when the straight course has ended, well or badly.
//!
//! From COMMIT on there is no straight course any more: the link may be cut, either daemon may die, and still exactly
//! one copy has to run in the end. So the rest of a migration is a loop that may be entered at any point, also after
//! a restart: *look at the copy, ask the other site if its word is needed, ask the rules, do what they say*, until
//! they have nothing more to say. A migration that fails before COMMIT is rolled back by the same loop.

use std::time::Duration;

use tokio_util::sync::CancellationToken;
use ums_model::action::{Action, Word};
use ums_model::error::{ErrorCode, WireError};
use ums_model::facts::Answer;
use ums_model::message::{About, PeerMessage};
use ums_model::names::Fingerprint;
use ums_model::phase::{Outcome, Phase};
use ums_model::standing::{Role as Half, Standing};
use ums_model::{destination, source};
use ums_sites::adapter::SiteAdapter;
use ums_transfer::link::{Link, Purpose};

use crate::act::facts;
use crate::control;
use crate::core::{Core, Seen};
use crate::desk::Lane;
use crate::failure;
use crate::fault::Step;
use crate::journal::{MigrationRow, Role};

/// How the loop ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Settled {
    /// The rules have nothing more to say.
    Yes,
    /// It was asked to stop before that.
    NotYet,
}

/// Runs the loop for the migration of `row`, over `link` as long as that works. Returns early only if `stop` is
/// cancelled, never in the middle of a deed, and not before the first turn if that needs no other site: what a daemon
/// that ends can still undo, it undoes. Safe to run again.
pub(crate) async fn settle<S: SiteAdapter>(
    core: &Core<S>,
    lane: &mut Lane,
    row: &MigrationRow,
    mut link: Option<Link>,
    stop: &CancellationToken,
) -> Settled {
    let mut pause = core.config.deadlines.retry_least;
    let chronicle = core.chronicles.of(row.id);
    loop {
        let standing = lane.standing();
        let other = if needs_word(&standing) {
            tokio::select! {
                biased;
                () = stop.cancelled() => return Settled::NotYet,
                other = ask(core, &standing, row, &mut link) => other,
            }
        } else {
            None
        };
        let arrived = other == Some(Answer::Running) && row.role == Role::Source;
        if let Some(chronicle) = chronicle.as_deref().filter(|_| arrived) {
            chronicle.runs_again().await;
            chronicle.leave(&core.journal, Phase::Resume, None).await;
            chronicle.enter(&core.journal, Phase::Release).await;
        }
        match advance(core, lane, Some(row), other).await {
            Ok(()) if is_settled(&lane.standing()) => {
                if let Some(chronicle) = chronicle.as_deref() {
                    chronicle.runs_again().await;
                    if arrived {
                        chronicle.leave(&core.journal, Phase::Release, None).await;
                    }
                }
                close(core, row, link).await;
                return Settled::Yes;
            }
            Ok(()) => {}
            Err(error) => {
                tracing::warn!(service = %row.service, migration = %row.id, %error, "a step has to be tried again");
                if error.code == ErrorCode::Stuck {
                    core.blocked(lane, row.id, &error).await;
                }
            }
        }
        tokio::select! {
            biased;
            () = stop.cancelled() => return Settled::NotYet,
            () = tokio::time::sleep(pause) => {}
        }
        pause = next_pause(pause, core.config.deadlines.retry_most);
    }
}

/// One turn: what the rules say, done. `row` is the migration that the service is in, if it is in one.
pub(crate) async fn advance<S: SiteAdapter>(
    core: &Core<S>,
    lane: &mut Lane,
    row: Option<&MigrationRow>,
    other: Option<Answer>,
) -> Result<(), WireError> {
    let seen = core.look(lane.service()).await;
    let standing = lane.standing();
    if seen.epoch > standing.epoch() {
        return core.overtaken(lane, row.map(|row| row.id), seen.epoch).await;
    }
    let writes_outside = row.is_some_and(|row| row.spec.writes_outside());
    let mut actions = standing.recover(facts(seen, other, writes_outside));
    clear_remains(&standing, seen, &mut actions);
    // Words are not handed on: who needs one asks for it, and the source says COMMIT anew in the next turn.
    core.perform(lane, row.map(|row| row.id), actions).await.map(drop)
}

/// Whether nothing is left to be done, as far as the journal knows.
pub(crate) fn is_settled(standing: &Standing) -> bool {
    match standing.role() {
        Half::Source(half) => matches!(
            half.stage(),
            source::Stage::Idle | source::Stage::Released | source::Stage::Lost | source::Stage::Superseded
        ),
        Half::Destination(half) => matches!(
            half.stage(),
            destination::Stage::Idle
                | destination::Stage::Running
                | destination::Stage::Refused
                | destination::Stage::Aborted
                | destination::Stage::Lost
                | destination::Stage::Stuck
        ),
    }
}

/// What the migration of `row` came to, by where its last record left the service.
pub(crate) fn outcome(row: &MigrationRow, standing: &Standing) -> Outcome {
    match standing.role() {
        // By a newer epoch, perhaps.
        Half::Source(half) if half.stage() == source::Stage::Superseded => Outcome::Stuck,
        // It was revoked and thawed, or never began and has left the service as an earlier one brought it here.
        _ if standing.epoch() != row.epoch => Outcome::RolledBack,
        Half::Source(half) => match half.stage() {
            source::Stage::Released => Outcome::Done,
            source::Stage::Lost => Outcome::Lost,
            _ => Outcome::RolledBack,
        },
        Half::Destination(half) => match half.stage() {
            destination::Stage::Running => Outcome::Done,
            destination::Stage::Stuck => Outcome::Stuck,
            destination::Stage::Lost => Outcome::Lost,
            _ => Outcome::RolledBack,
        },
    }
}

/// The pause after `pause`: twice as long, up to `most`.
pub(crate) fn next_pause(pause: Duration, most: Duration) -> Duration {
    (pause * 2).min(most)
}

/// A nest without tasks is no copy, so the rules do not see it; but where nothing of the service may stay, it has to
/// go as well.
fn clear_remains(standing: &Standing, seen: Seen, actions: &mut Vec<Action>) {
    if !seen.remains {
        return;
    }
    let deed = match standing.role() {
        Half::Source(half) if half.stage() == source::Stage::Released => Action::Release,
        Half::Destination(half)
            if matches!(
                half.stage(),
                destination::Stage::Refused | destination::Stage::Aborted | destination::Stage::Lost
            ) =>
        {
            Action::Discard
        }
        _ => return,
    };
    if !actions.contains(&deed) {
        actions.insert(0, deed);
    }
}

/// Whether the rules cannot go on without a word of the other site.
fn needs_word(standing: &Standing) -> bool {
    match standing.role() {
        Half::Source(half) => matches!(half.stage(), source::Stage::Committed { .. } | source::Stage::Stuck),
        Half::Destination(half) => matches!(half.stage(), destination::Stage::Held { .. }),
    }
}

/// Asks the other site for its word; `None` if it does not answer.
async fn ask<S: SiteAdapter>(
    core: &Core<S>,
    standing: &Standing,
    row: &MigrationRow,
    link: &mut Option<Link>,
) -> Option<Answer> {
    let about = About { migration: row.id, service: row.service.clone(), epoch: standing.epoch() };
    let answer = match standing.role() {
        Half::Source(half) if matches!(half.stage(), source::Stage::Committed { .. }) => {
            tell_commit(core, row, about, link).await
        }
        Half::Source(_) | Half::Destination(_) => query(core, row, about).await,
    };
    match answer {
        Ok(answer) => Some(answer),
        Err(error) => {
            tracing::info!(service = %row.service, migration = %row.id, %error, "the other site does not answer");
            None
        }
    }
}

/// The word of the other site for a source that comes back: without a COMMIT it may thaw by itself, unless an operator has
/// let the copy at the destination run meanwhile, or the journal was put back to an older copy. `None`: it is no such source,
/// or nobody answers in time.
pub(crate) async fn word_for_returning<S: SiteAdapter>(
    core: &Core<S>,
    standing: &Standing,
    row: &MigrationRow,
) -> Option<Answer> {
    if !standing.asks_on_return() {
        return None;
    }
    let about = About { migration: row.id, service: row.service.clone(), epoch: standing.epoch() };
    tokio::time::timeout(core.config.deadlines.word, query(core, row, about)).await.ok()?.ok()
}

async fn query<S: SiteAdapter>(
    core: &Core<S>,
    row: &MigrationRow,
    about: About,
) -> Result<Answer, WireError> {
    let peer = core.peer_of(row)?;
    control::ask_state(core, &peer, about).await
}

/// Says COMMIT and hears what became of it. The link is kept if it works and given up if not.
async fn tell_commit<S: SiteAdapter>(
    core: &Core<S>,
    row: &MigrationRow,
    about: About,
    slot: &mut Option<Link>,
) -> Result<Answer, WireError> {
    let mut link = match slot.take() {
        Some(link) => link,
        None => core.dial(&core.peer_of(row)?, Purpose::Migration { id: row.id }).await?,
    };
    let cut = |error| failure::cut(&row.peer_name, "telling it the commit", &error);
    let (sent, received) = (link.frames.writer.sent(), link.frames.reader.received());
    link.frames.send(&PeerMessage::Commit { about: about.clone() }).await.map_err(cut)?;
    core.config.faults.at(Step::Resume).await?;
    if core.config.faults.again(Step::Resume) {
        link.frames.send(&PeerMessage::Commit { about: about.clone() }).await.map_err(cut)?;
    }
    let message: PeerMessage = link.frames.expect(core.config.deadlines.commit).await.map_err(cut)?;
    if let Some(chronicle) = core.chronicles.of(row.id) {
        let moved = link.frames.writer.sent() - sent + link.frames.reader.received() - received;
        chronicle.add_sent(moved).await;
        if let PeerMessage::Refused { error, .. } = &message {
            chronicle.blame(error.clone()).await;
        }
    }
    match (message.about(), message.word()) {
        (Some(again), Some(Word::State { answer })) if *again == about => {
            *slot = Some(link);
            Ok(answer)
        }
        _ => {
            let message = format!("site {} answered COMMIT with something else", row.peer_name);
            Err(WireError::new(ErrorCode::Internal, message))
        }
    }
}

/// A courtesy: the other side sees an end instead of a cut.
async fn close<S: SiteAdapter>(core: &Core<S>, row: &MigrationRow, link: Option<Link>) {
    if let Some(link) = link
        && tokio::time::timeout(core.config.deadlines.answer, link.close()).await.is_err()
    {
        tracing::debug!(migration = %row.id, "the link did not close in time");
    }
}

/// Ends a settled migration: its report, its last event. `cause` is why it failed, if it did and nobody knows better;
/// `told` says that the other site need not be told. The lane is given back first: who hears that a migration has
/// ended may begin the next one at once. Tried until the journal takes it; `NotYet` only if the daemon stops first.
pub(crate) async fn conclude<S: SiteAdapter>(
    core: &Core<S>,
    mut lane: Lane,
    row: &MigrationRow,
    outcome: Outcome,
    cause: Option<WireError>,
    told: bool,
) -> Settled {
    let Some(chronicle) = core.chronicles.of(row.id).filter(|chronicle| chronicle.claim_end()) else {
        return Settled::Yes;
    };
    if row.role == Role::Destination {
        core.promises.release(&row.service);
    }
    let error = match outcome {
        Outcome::Done => None,
        _ => {
            let cause = chronicle.blamed().await.or(cause).unwrap_or_else(|| unexplained(row, outcome));
            let is_lost = outcome == Outcome::Lost;
            Some(if is_lost { failure::no_copy_left(&row.service, cause) } else { cause })
        }
    };
    // Only an abort and a loss have to be told: of any other end the other site knows, or cannot be told by this one.
    let told = told || !matches!(outcome, Outcome::RolledBack | Outcome::Lost);
    if matches!(outcome, Outcome::Done | Outcome::RolledBack)
        && lane.desk().alarm().is_some_and(|(epoch, _)| epoch <= row.epoch)
    {
        lane.raise(None);
    }
    drop(lane);
    let mut pause = core.config.deadlines.retry_least;
    let keep = core.config.limits.history.get();
    while let Err(error) =
        core.chronicles.end(&chronicle, &core.journal, outcome, error.clone(), told, keep).await
    {
        tracing::error!(migration = %row.id, error = failure::chain(&error), "cannot note the end of a migration");
        tokio::select! {
            biased;
            () = core.stopping.cancelled() => return Settled::NotYet,
            () = tokio::time::sleep(pause) => pause = next_pause(pause, core.config.deadlines.retry_most),
        }
    }
    core.close_peer(&row.peer).await;
    tracing::info!(service = %row.service, migration = %row.id, %outcome, "migration ended");
    Settled::Yes
}

/// What is said about a migration whose cause of failure was lost with a restart.
fn unexplained(row: &MigrationRow, outcome: Outcome) -> WireError {
    let code = match outcome {
        Outcome::Stuck => ErrorCode::Stuck,
        Outcome::Done | Outcome::RolledBack | Outcome::Lost => ErrorCode::Aborted,
    };
    WireError::new(
        code,
        format!("the migration of {} was interrupted by a restart of a site's daemon", row.service),
    )
}

impl<S: SiteAdapter> Core<S> {
    /// A revoked site has perhaps heard the last word that it was to hear.
    pub(crate) async fn close_peer(&self, key: &Fingerprint) {
        if self.peers.is_closing(key)
            && let Err(error) = self.peers.reload(&self.journal).await
        {
            tracing::warn!(error = failure::chain(&error), "cannot look for what is left of a revoked site");
        }
    }

    /// The other site of a migration, if it is still paired, or was revoked while this migration was under way.
    pub(crate) fn peer_of(&self, row: &MigrationRow) -> Result<crate::journal::PairedRow, WireError> {
        self.peers.party(&row.peer).ok_or_else(|| {
            let message = format!("site {} ({}) is not paired any more", row.peer_name, row.peer.short());
            WireError::new(ErrorCode::NotPaired, message)
        })
    }
}
