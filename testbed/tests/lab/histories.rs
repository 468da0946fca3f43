//! What two sites tell about one migration.

use anyhow::{Context, Result};
use serde_json::Value;
use ums_model::error::WireError;
use ums_model::event::{EventKind, MigrationEvent};
use ums_model::phase::Outcome;
use ums_model::report::Report;
pub(crate) use ums_testbed::histories::history;
use ums_testbed::{cli, histories};

use crate::PATIENCE;
use crate::rig::Rig;

/// [`ums_testbed::histories::agreed`], with the patience of these tests.
pub(crate) fn agreed(rig: &Rig, service: &str) -> Result<Outcome> {
    histories::agreed(rig, service, PATIENCE)
}

/// The report with which a migration's last event ends.
pub(crate) fn report(outcome: &cli::Outcome) -> Result<Report> {
    let ended = events(outcome)?.into_iter().rev().find_map(|event| match event.kind {
        EventKind::Ended { report, .. } => Some(*report),
        _ => None,
    });
    ended.with_context(|| format!("no last event: {:?}", outcome.lines))
}

/// All events that a migration printed.
pub(crate) fn events(outcome: &cli::Outcome) -> Result<Vec<MigrationEvent>> {
    let event = |line: &Value| {
        serde_json::from_value(line.clone()).with_context(|| format!("a line that is no event: {line}"))
    };
    outcome.lines.iter().filter(|line| line.get("event").is_some()).map(event).collect()
}

/// The error that a command ended with, wherever it stands.
pub(crate) fn error(outcome: &cli::Outcome) -> Result<WireError> {
    let found = outcome.lines.iter().rev().find_map(|line| {
        let places = [&line["error"], &line["report"]["error"]];
        places.into_iter().find(|error| error.is_object()).cloned()
    });
    let found = found.with_context(|| format!("no error in the answer: {outcome:?}"))?;
    serde_json::from_value(found.clone()).with_context(|| format!("a strange error: {found}"))
}
