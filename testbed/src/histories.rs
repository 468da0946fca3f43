//! What the sites of a lab tell about the migrations of a service: they must tell the same.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;
use ums_model::phase::Outcome;

use crate::lab::Lab;
use crate::site::Site;

/// Between two looks: each costs a program per site.
const POLL: Duration = Duration::from_millis(20);

/// How one site remembers one migration.
#[derive(Debug, Clone, PartialEq)]
pub struct Memory {
    /// Its id: ids are ordered by time.
    pub migration: String,
    /// Its number among those of the service.
    pub epoch: u64,
    /// `source` or `destination`.
    pub role: String,
    /// From here.
    pub source: String,
    /// To there.
    pub destination: String,
    /// `None` while it goes on.
    pub outcome: Option<Outcome>,
}

/// All migrations of a service that a site remembers, oldest first.
pub fn history(site: &Site, service: &str) -> Result<Vec<Memory>> {
    let told = site.ums(&["history", service, "--limit", "1000"])?.success()?;
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

/// How the newest migration of a service ended: see [`newest`].
pub fn agreed(lab: &Lab, service: &str, patience: Duration) -> Result<Outcome> {
    let newest = newest(lab, service, patience)?.context("no site knows of any migration")?;
    newest.outcome.context("a migration goes on that had ended")
}

/// Waits at most `patience` until no migration of the service goes on anywhere, and proves that all sites tell the same
/// about each. Returns the newest, which has ended; `None` if there never was one.
///
/// A destination that was not reached, or that lost its memory of an offer before it promised anything, need not know
/// about a migration that was rolled back.
pub fn newest(lab: &Lab, service: &str, patience: Duration) -> Result<Option<Memory>> {
    let end = Instant::now() + patience;
    let all = loop {
        let all: Vec<(&Site, Vec<Memory>)> =
            lab.sites().iter().map(|site| Ok((site, history(site, service)?))).collect::<Result<_>>()?;
        // A stuck one ends when the other site is back.
        let goes_on = |memory: &&Memory| matches!(memory.outcome, None | Some(Outcome::Stuck));
        let every = || all.iter().flat_map(|(_, own)| own);
        // A destination that had rolled back hears from the source that no copy is left.
        let is_lost = |memory: &Memory| {
            every().any(|other| other.migration == memory.migration && other.outcome == Some(Outcome::Lost))
        };
        let unheard = |memory: &&Memory| {
            memory.role == "destination" && memory.outcome == Some(Outcome::RolledBack) && is_lost(memory)
        };
        let unended: Vec<&Memory> = every().filter(|memory| goes_on(memory) || unheard(memory)).collect();
        if unended.is_empty() {
            break all;
        }
        ensure!(
            Instant::now() < end,
            "a migration of {service} has not ended within {patience:?}: {unended:?}"
        );
        thread::sleep(POLL);
    };
    for (site, own) in &all {
        for memory in own {
            compare(site.name(), memory, &all)?;
        }
    }
    let every = all.into_iter().flat_map(|(_, own)| own);
    Ok(every.max_by(|one, other| one.migration.cmp(&other.migration)))
}

fn compare(site: &str, memory: &Memory, all: &[(&Site, Vec<Memory>)]) -> Result<()> {
    let (place, elsewhere) = match memory.role.as_str() {
        "source" => (&memory.source, &memory.destination),
        _ => (&memory.destination, &memory.source),
    };
    ensure!(place == site, "site {site} is not what it takes itself for: {memory:?}");
    let other = all.iter().find(|(site, _)| site.name() == elsewhere);
    let (_, others) = other.with_context(|| format!("a migration to or from nowhere: {memory:?}"))?;
    match others.iter().find(|other| other.migration == memory.migration) {
        Some(other) => {
            let roads = [memory, other].map(|memory| (&memory.source, &memory.destination));
            ensure!(roads[0] == roads[1], "from and to other sites: {memory:?} {other:?}");
            ensure!(other.outcome == memory.outcome, "two outcomes: {memory:?} {other:?}");
            ensure!(other.epoch == memory.epoch, "two epochs: {memory:?} {other:?}");
            Ok(())
        }
        None if memory.outcome == Some(Outcome::RolledBack) && memory.role == "source" => Ok(()),
        None => bail!("only one site knows of {memory:?}"),
    }
}
