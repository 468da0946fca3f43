//! Telling the destination that a migration is off, or that the service is lost, for as long as it takes.
//!
//! The service runs here again before this begins, or never will, so nothing waits for it. It matters to a destination
//! that is HELD: it keeps the copy and its memory until it hears. It also asks by itself, but perhaps it cannot dial this
//! site. And that no copy is left is known here alone: unless it is told, the other site's history says that the service
//! went on.

use std::sync::Arc;

use ums_model::action::Word;
use ums_model::error::{ErrorCode, WireError};
use ums_model::facts::Answer;
use ums_model::message::{About, PeerMessage};
use ums_model::names::MigrationId;
use ums_model::phase::Outcome;
use ums_sites::adapter::SiteAdapter;
use ums_transfer::link::{Purpose, Version};

use crate::act::facts;
use crate::core::Core;
use crate::desk::Hold;
use crate::failure;
use crate::journal::{MigrationRow, Role};
use crate::settle::next_pause;

/// Tells the destination of `id` that it was aborted or lost, unless it knows. Returns when it has acknowledged it, or
/// cannot be told any more because it has gone past it or the sites are not paired; and when the daemon stops. Safe to
/// repeat. Nothing is told of a migration that came here: that is the source's to say.
pub(crate) async fn tell_end<S: SiteAdapter>(core: &Arc<Core<S>>, id: MigrationId) {
    let row = match core.journal.migration(id).await {
        Ok(Some(row)) if !row.told && row.role == Role::Source => row,
        Ok(_) => return,
        Err(error) => {
            tracing::warn!(migration = %id, error = failure::chain(&error), "cannot look for a migration");
            return;
        }
    };
    let mut pause = core.config.deadlines.retry_least;
    loop {
        let attempt = tokio::select! {
            biased;
            () = core.stopping.cancelled() => return,
            attempt = attempt(core, &row) => attempt,
        };
        match attempt {
            Ok((_, true)) => break,
            Ok((answer @ (Answer::Running | Answer::Granted), _)) => {
                contradicted(core, &row, answer).await;
                break;
            }
            Ok((answer, false)) => {
                tracing::info!(migration = %id, %answer, "the destination has not taken the end yet");
            }
            Err(_) if !core.peers.trusts(&row.peer) => break,
            Err(error) => {
                tracing::info!(migration = %id, %error, "the destination does not know of the end yet");
            }
        }
        tokio::select! {
            biased;
            () = core.stopping.cancelled() => return,
            () = tokio::time::sleep(pause) => pause = next_pause(pause, core.config.deadlines.retry_most),
        }
    }
    if let Err(error) = core.journal.mark_told(id).await {
        tracing::warn!(migration = %id, error = failure::chain(&error), "cannot note that a site was told");
    }
    core.close_peer(&row.peer).await;
}

/// `Ok` is the answer, and whether nothing is left to be told.
async fn attempt<S: SiteAdapter>(core: &Core<S>, row: &MigrationRow) -> Result<(Answer, bool), WireError> {
    let peer = core.peer_of(row)?;
    let mut link = core.dial(&peer, Purpose::Migration { id: row.id }).await?;
    let about = About { migration: row.id, service: row.service.clone(), epoch: row.epoch };
    let cut = |error| failure::cut(&row.peer_name, "telling it the end", &error);
    let reason = row.ended.as_ref().and_then(|ended| ended.report.error.clone()).unwrap_or_else(|| {
        WireError::new(
            ErrorCode::Aborted,
            format!("the migration of {} was ended before its commit", row.service),
        )
    });
    let is_lost = row.ended.as_ref().is_some_and(|ended| ended.report.outcome == Outcome::Lost);
    let said = word(is_lost, link.version, about.clone(), reason);
    link.frames.send(&said).await.map_err(cut)?;
    let message: PeerMessage = link.frames.expect(core.config.deadlines.commit).await.map_err(cut)?;
    let _ = tokio::time::timeout(core.config.deadlines.answer, link.close()).await;
    match (message.about(), message.word()) {
        (Some(again), Some(Word::State { answer })) if *again == about => {
            // It has given the id to another site since: there is nobody left to be told.
            let is_strange =
                matches!(&message, PeerMessage::Refused { error, .. } if error.code == ErrorCode::NotPaired);
            Ok((answer, is_strange || is_enough(&said, answer)))
        }
        _ => Err(WireError::new(
            ErrorCode::Internal,
            format!("site {} does not confirm the end", row.peer_name),
        )),
    }
}

/// What is said of an end. A site that does not know the word for a loss hears what matters for its own copy.
fn word(is_lost: bool, version: Version, about: About, reason: WireError) -> PeerMessage {
    if is_lost && version >= Version::LOST {
        PeerMessage::Lost { about, reason }
    } else {
        PeerMessage::Abort { about, reason }
    }
}

/// Whether the destination has heard what was said, or has gone past it.
fn is_enough(said: &PeerMessage, answer: Answer) -> bool {
    match answer {
        Answer::Lost | Answer::Over | Answer::NeverHeard => true,
        Answer::Aborted | Answer::Refused => matches!(said, PeerMessage::Abort { .. }),
        _ => false,
    }
}

/// The destination claims a right that this journal never gave away: this journal is older than the truth. The rules
/// say what becomes of the copy here.
async fn contradicted<S: SiteAdapter>(core: &Core<S>, row: &MigrationRow, answer: Answer) {
    tracing::error!(migration = %row.id, service = %row.service, %answer,
        "the destination of a migration that is off claims that it was committed");
    let holder = core.holder(Some(row.id), "being compared with the other site", Hold::Firm);
    let mut lane = core.desks.desk(&row.service).wait(holder).await;
    let seen = core.look(&row.service).await;
    let facts = facts(seen, Some(answer), row.spec.writes_outside());
    let actions = lane.standing().receive(facts, row.epoch, Word::State { answer }, 0);
    if let Err(error) = core.perform(&mut lane, Some(row.id), actions).await {
        tracing::error!(migration = %row.id, service = %row.service, %error, "cannot give way to the other site");
    }
}

#[cfg(test)]
mod tests {
    use ums_model::names::Epoch;

    use super::*;

    /// Nobody is told what he cannot read, or for ever.
    #[test]
    fn every_site_hears_of_a_loss_in_words_that_it_knows() {
        let id = MigrationId::new(uuid::Uuid::from_u128(1));
        let about = || About { migration: id, service: "web".parse().unwrap(), epoch: Epoch(1) };
        let reason = || WireError::new(ErrorCode::Lost, "gone".to_owned());
        let old = word(true, Version(1), about(), reason());
        assert!(matches!(old, PeerMessage::Abort { .. }));
        assert!(is_enough(&old, Answer::Refused));
        let new = word(true, Version::LOST, about(), reason());
        assert!(matches!(new, PeerMessage::Lost { .. }));
        assert!(!is_enough(&new, Answer::Refused) && is_enough(&new, Answer::Lost));
        assert!(matches!(word(false, Version::LOST, about(), reason()), PeerMessage::Abort { .. }));
    }
}
