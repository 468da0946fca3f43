//! Telling the destination that a migration is off, for as long as it takes.
//!
//! The service runs here again before this begins, so nothing waits for it. It matters to a destination that is HELD:
//! it keeps the copy and its memory until it hears. It also asks by itself, but perhaps it cannot dial this site.

use std::sync::Arc;

use ums_model::action::Word;
use ums_model::error::{ErrorCode, WireError};
use ums_model::facts::Answer;
use ums_model::message::{About, PeerMessage};
use ums_model::names::MigrationId;
use ums_sites::adapter::SiteAdapter;
use ums_transfer::link::Purpose;

use crate::act::facts;
use crate::core::Core;
use crate::desk::Hold;
use crate::failure;
use crate::journal::MigrationRow;
use crate::settle::next_pause;

/// Tells the destination of `id` that it was aborted, unless it knows. Returns when it has acknowledged it, when the
/// daemon stops, or when the sites are not paired any more. Safe to repeat.
pub(crate) async fn tell_abort<S: SiteAdapter>(core: &Arc<Core<S>>, id: MigrationId) {
    let row = match core.journal.migration(id).await {
        Ok(Some(row)) if !row.told => row,
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
            Ok(answer @ (Answer::Running | Answer::Granted)) => {
                contradicted(core, &row, answer).await;
                break;
            }
            Ok(Answer::Aborted | Answer::Refused | Answer::Over | Answer::NeverHeard) => break,
            Ok(answer) => {
                tracing::info!(migration = %id, %answer, "the destination has not taken the abort yet");
            }
            Err(_) if !core.peers.trusts(&row.peer) => break,
            Err(error) => {
                tracing::info!(migration = %id, %error, "the destination does not know of the abort yet");
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

async fn attempt<S: SiteAdapter>(core: &Core<S>, row: &MigrationRow) -> Result<Answer, WireError> {
    let peer = core.peer_of(row)?;
    let mut link = core.dial(&peer, Purpose::Migration { id: row.id }).await?;
    let about = About { migration: row.id, service: row.service.clone(), epoch: row.epoch };
    let cut = |error| failure::cut(&row.peer_name, "telling it the abort", &error);
    let reason = row.ended.as_ref().and_then(|ended| ended.report.error.clone()).unwrap_or_else(|| {
        WireError::new(
            ErrorCode::Aborted,
            format!("the migration of {} was ended before its commit", row.service),
        )
    });
    link.frames.send(&PeerMessage::Abort { about: about.clone(), reason }).await.map_err(cut)?;
    let message: PeerMessage = link.frames.expect(core.config.deadlines.commit).await.map_err(cut)?;
    let _ = tokio::time::timeout(core.config.deadlines.answer, link.close()).await;
    match (message.about(), message.word()) {
        (Some(again), Some(Word::State { answer })) if *again == about => Ok(answer),
        _ => Err(WireError::new(
            ErrorCode::Internal,
            format!("site {} does not confirm the abort", row.peer_name),
        )),
    }
}

/// The destination claims a right that this journal never gave away: this journal is older than the truth. The rules
/// say what becomes of the copy here.
async fn contradicted<S: SiteAdapter>(core: &Core<S>, row: &MigrationRow, answer: Answer) {
    tracing::error!(migration = %row.id, service = %row.service, %answer,
        "the destination of an aborted migration claims that it was committed");
    let holder = core.holder(Some(row.id), "being compared with the other site", Hold::Firm);
    let mut lane = core.desks.desk(&row.service).wait(holder).await;
    let seen = core.look(&row.service).await;
    let facts = facts(seen, Some(answer), row.spec.writes_outside());
    let actions = lane.standing().receive(facts, row.epoch, Word::State { answer }, 0);
    if let Err(error) = core.perform(&mut lane, Some(row.id), actions).await {
        tracing::error!(migration = %row.id, service = %row.service, %error, "cannot give way to the other site");
    }
}
