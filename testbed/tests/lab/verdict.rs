//! What an error must say: what was tried, on what, why it failed, and the next command.

use anyhow::{Result, ensure};
use ums_model::error::{ErrorCode, WireError};
use ums_testbed::cli::Outcome;

use crate::histories::error;

/// Proves that a command failed with `exit` and `code`, that its message contains every one of `parts` (whatever their
/// case), and that its hint names a command to type.
pub(crate) fn failed(outcome: &Outcome, exit: i32, code: ErrorCode, parts: &[&str]) -> Result<WireError> {
    failed_with(outcome, exit, &[code], parts)
}

/// [`failed`], where more than one code is right.
pub(crate) fn failed_with(
    outcome: &Outcome,
    exit: i32,
    codes: &[ErrorCode],
    parts: &[&str],
) -> Result<WireError> {
    let error = error(outcome)?;
    ensure!(outcome.code == Some(exit), "exit code {:?} instead of {exit}: {error:?}", outcome.code);
    ensure!(codes.contains(&error.code), "code {} instead of {codes:?}: {error:?}", error.code);
    complete(&error, parts)?;
    Ok(error)
}

/// Proves that an error is complete in itself.
pub(crate) fn complete(error: &WireError, parts: &[&str]) -> Result<()> {
    let message = error.message.to_lowercase();
    for part in parts {
        ensure!(message.contains(&part.to_lowercase()), "the message says nothing about `{part}`: {error:?}");
    }
    ensure!(!message.ends_with('.'), "a message is no sentence with a full stop: {error:?}");
    ensure!(error.hint.contains("ums "), "the hint names no command: {error:?}");
    Ok(())
}
