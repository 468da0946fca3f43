//! `clean`: the way back.

use anyhow::Result;

use crate::cli::Clean;
use crate::setup::Places;
use crate::workspace::Workspace;
use crate::{compile, run_tests};

/// Ends what earlier runs left behind and removes what set-up made; with `--all` also what is kept per machine.
/// Host packages stay: others may use them by now. Safe to repeat.
pub(crate) fn run(workspace: &Workspace, arguments: &Clean) -> Result<()> {
    let places = Places::of(workspace)?;
    run_tests::sweep(compile::built(workspace, run_tests::SWEEP).as_deref())?;
    places.remove_made()?;
    if arguments.all {
        places.forget()?;
    }
    Ok(())
}
