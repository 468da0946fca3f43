//! Words of a source about a migration that this site knows, or never heard of: COMMIT, ABORT, LOST, QUERY.
//!
//! Each is answered with what the journal says after it was taken in, so it may be repeated at will. A word counts
//! only from the site that the migration is bound to.

use std::cmp::Ordering;
use std::pin::pin;
use std::sync::Arc;

use ums_model::action::Word;
use ums_model::error::{ErrorCode, WireError};
use ums_model::facts::Answer;
use ums_model::message::{About, PeerMessage};
use ums_model::names::Fingerprint;
use ums_model::phase::Phase;
use ums_model::source;
use ums_model::standing::{Role as Half, Standing};
use ums_sites::adapter::SiteAdapter;
use ums_transfer::link::{Link, LinkWriter};

use super::lost;
use super::steps::EPOCHS_AHEAD;
use crate::act::{Tells, facts};
use crate::clock::unix_ms;
use crate::control::{in_words_of, journal_says};
use crate::core::Core;
use crate::desk::{Hold, Lane};
use crate::failure;
use crate::fault::Step;
use crate::journal::{MigrationRow, Role};
use crate::recovery::attend;
use crate::settle::{Settled, conclude, is_settled, outcome, settle};

/// Most names of which anything is known here before words about others leave no tombstones any more: above what any
/// site has of services, and small enough that nobody can fill the journal.
const NAMES: usize = 10_000;

/// The source said something that is no offer. `Err` only if the link is of no further use.
pub(super) async fn told<S: SiteAdapter>(
    core: &Arc<Core<S>>,
    link: &mut Link,
    message: &PeerMessage,
) -> Result<(), WireError> {
    let name = link.peer.site.clone();
    let (Some(about), Some(word)) = (message.about(), message.word()) else {
        return Err(WireError::new(
            ErrorCode::BadRequest,
            format!("site {name} asks for a step without an offer"),
        ));
    };
    let peer = link.peer.fingerprint;
    let take_in = async {
        match word {
            Word::Commit | Word::Abort => take_in(core, &peer, about, word, message).await,
            Word::Lost => lost::heard(core, &peer, about, message).await,
            _ => Ok(state(about, journal_says(core, &peer, about).await?)),
        }
    };
    let answer = alive_through(&mut link.frames.writer, take_in).await.unwrap_or_else(|error| {
        tracing::warn!(service = %about.service, migration = %about.migration, %error, "cannot follow a word of the source");
        // Nothing final: the source asks again.
        state(about, Answer::Undecided)
    });
    let answer = match answer {
        PeerMessage::State { about, answer } => {
            PeerMessage::State { about, answer: in_words_of(link.version, answer) }
        }
        answer => answer,
    };
    let cut = |error| failure::cut(&name, "answering it", &error);
    if matches!(answer, PeerMessage::Running { .. }) && core.config.faults.again(Step::DestinationRunning) {
        link.frames.send(&answer).await.map_err(cut)?;
    }
    link.frames.send(&answer).await.map_err(cut)
}

/// COMMIT, ABORT or LOST. `Ok` is the answer.
pub(super) async fn take_in<S: SiteAdapter>(
    core: &Arc<Core<S>>,
    peer: &Fingerprint,
    about: &About,
    word: Word,
    message: &PeerMessage,
) -> Result<PeerMessage, WireError> {
    let standing = || core.desks.find(&about.service).map(|desk| desk.standing()).unwrap_or_default();
    let found = core.journal.migration(about.migration).await.map_err(|error| failure::journal(&error))?;
    let row = match found {
        Some(row)
            if core.peers.are_one(&row.peer, peer)
                && row.service == about.service
                && row.role == Role::Destination =>
        {
            Some(row)
        }
        Some(_) => {
            let message = format!("migration {} is bound to another site", about.migration);
            return Ok(PeerMessage::Refused {
                about: about.clone(),
                error: WireError::new(ErrorCode::NotPaired, message),
            });
        }
        None => None,
    };
    let taken_in = may_be_taken_in(&standing(), row.as_ref(), about);
    match (taken_in && (row.is_some() || may_leave_a_tombstone(core, peer, about)), &row) {
        (true, _) => {}
        (false, Some(_)) => return Ok(state(about, journal_says(core, peer, about).await?)),
        (false, None) => return Ok(state(about, of_the_unknown(&standing(), about))),
    }
    let holder = core.holder(Some(about.migration), "being decided", Hold::Brief);
    let Ok(mut lane) = core.take(&about.service, holder).await else {
        // Somebody works on the service, so it is at home here or somebody else's: the journal has the answer.
        return Ok(state(about, journal_says(core, peer, about).await?));
    };
    let chronicle = core.chronicles.of(about.migration);
    if let Some(chronicle) = &chronicle {
        match message {
            PeerMessage::Abort { reason, .. } | PeerMessage::Lost { reason, .. } => {
                chronicle.blame(reason.clone()).await;
            }
            _ => chronicle.enter(&core.journal, Phase::Resume).await,
        }
    }
    let writes_outside = row.as_ref().is_some_and(|row| row.spec.writes_outside());
    let seen = core.look(&about.service).await;
    if seen.epoch > lane.standing().epoch() {
        core.overtaken(&mut lane, Some(about.migration), seen.epoch).await?;
    }
    let facts = facts(seen, None, writes_outside);
    let actions = lane.standing().receive(facts, about.epoch, word, 0);
    let done = core.perform(&mut lane, Some(about.migration), actions).await;
    let Some(row) = row else {
        return Ok(answer(about, done?, &lane.standing(), None));
    };
    match done {
        Ok(tells) => {
            if let Some(chronicle) = &chronicle {
                chronicle.leave(&core.journal, Phase::Resume, None).await;
            }
            let blamed = match &chronicle {
                Some(chronicle) => chronicle.blamed().await,
                None => None,
            };
            let answer = answer(about, tells, &lane.standing(), blamed);
            finish(core, lane, row);
            Ok(answer)
        }
        Err(error) => {
            tracing::warn!(service = %row.service, migration = %row.id, %error, "a step has to be tried again");
            let says = lane.standing().answer(about.epoch);
            drop(lane);
            attend(core, row);
            Ok(state(about, says))
        }
    }
}

/// What has to follow the answer, which must not wait for it: a decision may be recorded while its deed has still to
/// be done, and the end of the migration has to be written.
fn finish<S: SiteAdapter>(core: &Arc<Core<S>>, mut lane: Lane, row: MigrationRow) {
    if !is_settled(&lane.standing()) {
        return;
    }
    let core = Arc::clone(core);
    core.tasks.clone().spawn(async move {
        if settle(&core, &mut lane, &row, None, &core.stopping).await == Settled::Yes {
            let outcome = outcome(&row, &lane.standing());
            conclude(&core, lane, &row, outcome, None, false).await;
        }
    });
}

/// Whether the rules are to hear it. They know epochs, but not sites: a word about an epoch that is under way counts
/// only if it is about this very migration, and one about an unknown migration can only leave a tombstone.
fn may_be_taken_in(standing: &Standing, row: Option<&MigrationRow>, about: &About) -> bool {
    let resting = is_resting(standing);
    match (about.epoch.cmp(&standing.epoch()), row) {
        (Ordering::Equal, Some(row)) => row.epoch == about.epoch,
        (Ordering::Greater, None) => {
            resting && about.epoch.0.saturating_sub(standing.epoch().0) <= EPOCHS_AHEAD
        }
        (Ordering::Greater, Some(_)) => resting,
        (Ordering::Equal | Ordering::Less, _) => false,
    }
}

/// Whether a word about a migration that was never heard of may leave a record: for a name that could have come from
/// that site, and not for ever more names.
fn may_leave_a_tombstone<S: SiteAdapter>(core: &Core<S>, peer: &Fingerprint, about: &About) -> bool {
    let policy = core.peers.by_fingerprint(peer).map(|peer| core.policies.of(&peer.fingerprint));
    let name = about.service.as_str();
    policy.is_some_and(|policy| policy.incoming.iter().any(|glob| glob.matches(name)))
        && (core.desks.find(&about.service).is_some() || core.desks.count() < NAMES)
}

/// What a source hears about a migration that is not known here and leaves no tombstone any more. Where the epoch is
/// past and never ran here, it never will; anything else is for people to sort out.
fn of_the_unknown(standing: &Standing, about: &About) -> Answer {
    match standing.answer(about.epoch) {
        Answer::Refused | Answer::Aborted | Answer::Over | Answer::Lost if is_resting(standing) => {
            Answer::Over
        }
        Answer::NeverHeard => Answer::NeverHeard,
        _ => Answer::Stuck,
    }
}

fn is_resting(standing: &Standing) -> bool {
    match standing.role() {
        Half::Destination(half) => half.is_resting(),
        Half::Source(half) => half.stage() == source::Stage::Released,
    }
}

/// The message that says what the rules want said about this epoch.
fn answer(about: &About, tells: Tells, standing: &Standing, blamed: Option<WireError>) -> PeerMessage {
    let said = tells.into_iter().rev().find_map(|(epoch, word)| match word {
        Word::State { answer } if epoch == about.epoch => Some(answer),
        _ => None,
    });
    match said.unwrap_or_else(|| standing.answer(about.epoch)) {
        Answer::Running => PeerMessage::Running { about: about.clone(), resumed_at_unix_ms: Some(unix_ms()) },
        Answer::Aborted => PeerMessage::Aborted { about: about.clone() },
        Answer::Refused => {
            let error = blamed.unwrap_or_else(|| {
                let message = format!("the copy of {} at the destination is gone", about.service);
                WireError::new(ErrorCode::RestoreFailed, message)
            });
            PeerMessage::Refused { about: about.clone(), error }
        }
        answer => state(about, answer),
    }
}

pub(super) fn state(about: &About, answer: Answer) -> PeerMessage {
    PeerMessage::State { about: about.clone(), answer }
}

/// Awaits work to its end, whatever becomes of the link; while the link works, the source hears that this site is
/// alive.
pub(super) async fn alive_through<F: Future>(writer: &mut LinkWriter, work: F) -> F::Output {
    let mut work = pin!(work);
    match writer.alive_while(&mut work).await {
        Ok(output) => output,
        // The next send tells of the broken link.
        Err(_) => work.await,
    }
}
