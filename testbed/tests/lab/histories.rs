//! What two sites tell about one migration.

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;
use ums_model::error::WireError;
use ums_model::event::{EventKind, MigrationEvent};
use ums_model::phase::Outcome;
use ums_model::report::Report;
use ums_testbed::cli;
use ums_testbed::site::Site;

use crate::eventually;
use crate::rig::Rig;

/// How one site remembers one migration.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Memory {
    /// Its id: ids are ordered by time.
    pub(crate) migration: String,
    pub(crate) epoch: u64,
    pub(crate) role: String,
    pub(crate) source: String,
    pub(crate) destination: String,
    /// `None` while it goes on.
    pub(crate) outcome: Option<Outcome>,
}

/// All migrations of a service that a site remembers, oldest first.
pub(crate) fn history(site: &Site, service: &str) -> Result<Vec<Memory>> {
    let told = site.ums(&["history", service])?.success()?;
    let mut memories = told.lines.iter().map(memory).collect::<Result<Vec<_>>>()?;
    memories.sort_by(|one, other| one.migration.cmp(&other.migration));
    Ok(memories)
}

fn memory(line: &Value) -> Result<Memory> {
    let text = |field: &str| {
        let found = line[field].as_str().map(str::to_owned);
        found.with_context(|| format!("no {field} in the history: {line}"))
    };
    let outcome = match &line["outcome"] {
        Value::Null => None,
        word => Some(serde_json::from_value(word.clone()).with_context(|| format!("outcome {word}"))?),
    };
    Ok(Memory {
        migration: text("migration")?,
        epoch: line["epoch"].as_u64().with_context(|| format!("no epoch in the history: {line}"))?,
        role: text("role")?,
        source: text("source")?,
        destination: text("destination")?,
        outcome,
    })
}

/// Waits until no migration of the service goes on anywhere, and proves that both sites tell the same about each.
/// Returns how the newest ended.
///
/// A destination that was not reached, or that lost its memory of an offer before it promised anything, need not know
/// about a migration that was rolled back.
pub(crate) fn agreed(rig: &Rig, service: &str) -> Result<Outcome> {
    let (at_a, at_b) = eventually("the end of all migrations at both sites", || {
        let both = (history(rig.a(), service)?, history(rig.b(), service)?);
        let ended = both.0.iter().chain(&both.1).all(|memory| memory.outcome.is_some());
        Ok(ended.then_some(both))
    })
    .with_context(|| format!("{:?} {:?}", history(rig.a(), service), history(rig.b(), service)))?;
    for (site, own, others) in [("a", &at_a, &at_b), ("b", &at_b, &at_a)] {
        for memory in own {
            let place = if memory.role == "source" { &memory.source } else { &memory.destination };
            ensure!(place == site, "site {site} is not what it takes itself for: {memory:?}");
            match others.iter().find(|other| other.migration == memory.migration) {
                Some(other) => {
                    let roads = [memory, other].map(|memory| (&memory.source, &memory.destination));
                    ensure!(roads[0] == roads[1], "from and to other sites: {memory:?} {other:?}");
                    ensure!(other.outcome == memory.outcome, "two outcomes: {memory:?} {other:?}");
                    ensure!(other.epoch == memory.epoch, "two epochs: {memory:?} {other:?}");
                }
                None if memory.outcome == Some(Outcome::RolledBack) && memory.role == "source" => {}
                None => bail!("only one site knows of {memory:?}"),
            }
        }
    }
    let all = at_a.iter().chain(&at_b);
    let newest = all.max_by(|one, other| one.migration.cmp(&other.migration));
    newest.and_then(|memory| memory.outcome).context("no site knows of any migration")
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
