//! The source's word that no copy is left: `lost` is said by both sites, or by none.
//!
//! A destination that refused or gave up has ended its half as `rolled-back` by then, because it could not know better:
//! only the source knows whether the original was there to go back to. Its history is corrected, once. The source says
//! the word again until the answer is that record and history have it.

use std::sync::Arc;

use ums_model::action::Word;
use ums_model::destination::Stage;
use ums_model::error::{ErrorCode, WireError};
use ums_model::facts::Answer;
use ums_model::message::{About, PeerMessage};
use ums_model::names::{Fingerprint, ServiceName};
use ums_model::phase::Outcome;
use ums_model::standing::{Role as Half, Standing};
use ums_sites::adapter::SiteAdapter;

use super::words::{state, take_in};
use crate::core::Core;
use crate::failure;
use crate::journal::{MigrationRow, Role};

/// The source of `about` says that no copy is left. `Ok` is the answer: [`Answer::Lost`] or [`Answer::Over`] only where
/// the history says it too. Safe to repeat.
pub(super) async fn heard<S: SiteAdapter>(
    core: &Arc<Core<S>>,
    peer: &Fingerprint,
    about: &About,
    message: &PeerMessage,
) -> Result<PeerMessage, WireError> {
    let PeerMessage::Lost { reason, .. } = message else { return Ok(state(about, Answer::Undecided)) };
    let answer = take_in(core, peer, about, Word::Lost, message).await?;
    let Some(Word::State { answer: Answer::Lost | Answer::Over }) = answer.word() else { return Ok(answer) };
    let found = core.journal.migration(about.migration).await.map_err(|error| failure::journal(&error))?;
    let row = found.filter(|row| {
        core.peers.are_one(&row.peer, peer) && row.service == about.service && row.epoch == about.epoch
    });
    let has_it = match row {
        Some(row) => correct(core, row, Some(reason)).await?,
        None => true,
    };
    Ok(if has_it { answer } else { state(about, Answer::Undecided) })
}

/// A daemon that died between the record and the history: the record counts.
pub(crate) async fn correct_after_restart<S: SiteAdapter>(
    core: &Core<S>,
    service: &ServiceName,
    standing: &Standing,
) -> Result<(), WireError> {
    if !matches!(standing.role(), Half::Destination(half) if half.stage() == Stage::Lost) {
        return Ok(());
    }
    let found = core.journal.migration_of(service, standing.epoch(), Role::Destination).await;
    match found.map_err(|error| failure::journal(&error))? {
        Some(row) => correct(core, row, None).await.map(drop),
        None => Ok(()),
    }
}

/// `false`: the end is being written, and has to be looked at again.
async fn correct<S: SiteAdapter>(
    core: &Core<S>,
    row: MigrationRow,
    reason: Option<&WireError>,
) -> Result<bool, WireError> {
    let Some(ended) = row.ended else { return Ok(false) };
    if matches!(ended.report.outcome, Outcome::Done | Outcome::Lost) {
        return Ok(true);
    }
    let unknown = || WireError::new(ErrorCode::Aborted, "its source said so".to_owned());
    let error = failure::no_copy_left(&row.service, reason.cloned().unwrap_or_else(unknown));
    let corrected = core.journal.correct_end(row.id, Outcome::Lost, error).await;
    corrected.map_err(|error| failure::journal(&error))?;
    tracing::error!(service = %row.service, migration = %row.id, "migration ended as lost after all: no copy is left");
    Ok(true)
}
