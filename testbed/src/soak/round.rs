//! One migration, with or without a fault: made, repaired, and held to the rules.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use ums_model::phase::Outcome;

use super::dice::Dice;
use super::inject::{Attempt, Road};
use super::plan::Fault;
use super::report::Violation;
use super::tenant::Tenant;
use crate::histories;
use crate::lab::Lab;
use crate::net::SiteIndex;
use crate::site::Site;

/// How long the sites may take, once link and daemons are whole again, until they agree and one copy is left. Also how
/// long a site may refuse whatever is offered to it.
const REPAIR: Duration = Duration::from_secs(150);
/// Between two looks.
const POLL: Duration = Duration::from_millis(20);
/// Between two offers to a site that refuses.
const AGAIN: Duration = Duration::from_millis(500);

/// What came of it.
#[derive(Debug)]
pub(super) struct Round {
    pub(super) ended: Outcome,
    /// Whether the fault happened.
    pub(super) met: bool,
    /// The longest silence of the database.
    pub(super) downtime: Option<Duration>,
    /// From freeze to resume, as the sites measured it, if the command that moved it was told.
    pub(super) frozen: Option<Duration>,
    /// How long every offer was refused.
    pub(super) refused: Option<Duration>,
    pub(super) violations: Vec<Violation>,
}

/// Moves a database, and waits until everything is well.
///
/// On `Err` something did not end.
pub(super) fn run(
    lab: &Lab,
    tenant: &Tenant<'_>,
    destination: SiteIndex,
    fault: Option<Fault>,
    dice: &mut Dice,
) -> Result<Round> {
    let service = &tenant.service;
    let source = service.site();
    let begin = Instant::now();
    let road = Road { lab, source, destination: lab.site(destination) };
    let (mut ended, missed, frozen) = attempt(&road, tenant, fault, dice)?;
    let mut refused = None;
    if ended == Outcome::RolledBack && (fault.is_none() || missed.is_some()) {
        // Nothing but an earlier fault can be the reason, and that must come to an end.
        ended = insist(&road, tenant, begin, missed.as_deref())?;
        refused = Some(begin.elapsed());
    }
    let mut round = Round {
        ended,
        met: fault.is_some() && missed.is_none(),
        downtime: None,
        frozen,
        refused,
        violations: Vec::new(),
    };
    let here = match service.settle() {
        Ok(here) if ended != Outcome::Lost => here,
        other => {
            round.ended = Outcome::Lost;
            if !fault.is_some_and(|fault| fault.kind.kills_a_copy()) {
                let what = format!("it ended as {ended:?}, and life is {other:?}");
                round.violations.push(violation("lost-service", tenant, what));
            }
            return Ok(round);
        }
    };
    let expected = if ended == Outcome::Done { destination } else { source.index() };
    if here != expected {
        let what = format!("told as {ended:?}, so it should be at {expected}, but it runs at {here}");
        round.violations.push(violation("wrong-place", tenant, what));
    }
    for site in lab.sites().iter().filter(|site| site.index() != here) {
        wait_until_gone(site, service.name())?;
    }
    if let Err(found) = service.recorder()?.check(&service.journey()) {
        let list: Vec<String> = found.iter().map(ToString::to_string).collect();
        round.violations.push(violation("double-run", tenant, list.join("; ")));
    }
    // It runs, but do its clients know already? Until one of them does, the downtime goes on.
    let settled = Instant::now();
    while !tenant.book.is_alive_since(settled) {
        ensure!(settled.elapsed() < REPAIR, "{} runs at {here}, and answers nobody", tenant.title());
        thread::sleep(POLL);
    }
    round.downtime = tenant.book.longest_silence(begin, Instant::now()).map(Duration::from_nanos);
    Ok(round)
}

/// Migrates once. Afterwards all sites have ended it and agree about it.
fn attempt(
    road: &Road<'_>,
    tenant: &Tenant<'_>,
    fault: Option<Fault>,
    dice: &mut Dice,
) -> Result<(Outcome, Option<String>, Option<Duration>)> {
    let (lab, service) = (road.lab, &tenant.service);
    let before = histories::newest(lab, service.name(), REPAIR)?.map(|memory| memory.migration);
    let Attempt { outcome, missed } = match fault {
        Some(fault) => road.migrate(service, fault, dice)?,
        None => Attempt { outcome: service.try_migrate(road.destination.index())?, missed: None },
    };
    lab.heal()?;
    ensure!(
        matches!(outcome.code, Some(0 | 1 | 3)),
        "`ums migrate` ended with an exit code that means something else: {outcome:?}"
    );
    let newest = histories::newest(lab, service.name(), REPAIR).context("after the repair")?;
    // One that was refused at once has no place in any history.
    let ended = newest.filter(|memory| Some(&memory.migration) != before.as_ref());
    let ended = ended.and_then(|memory| memory.outcome).unwrap_or(Outcome::RolledBack);
    ensure!(
        outcome.code != Some(0) || ended == Outcome::Done,
        "`ums migrate` said that it is done, the sites say {ended:?}: {outcome:?}"
    );
    let frozen = outcome.number("frozen_ms").ok().map(|ms| Duration::from_secs_f64(ms / 1e3));
    Ok((ended, missed.map(|why| format!("{why}; {}", last_words(&outcome))), frozen))
}

/// Migrates without a fault until it is done.
fn insist(road: &Road<'_>, tenant: &Tenant<'_>, begin: Instant, first: Option<&str>) -> Result<Outcome> {
    loop {
        let outcome = tenant.service.try_migrate(road.destination.index())?;
        let name = tenant.service.name();
        let newest = histories::newest(road.lab, name, REPAIR).context("a migration without a fault")?;
        if outcome.code == Some(0) {
            return newest.and_then(|memory| memory.outcome).context("it is done, and nobody knows");
        }
        if begin.elapsed() >= REPAIR {
            bail!(
                "no migration without a fault succeeded within {REPAIR:?}; first {}, now {}",
                first.unwrap_or("refused"),
                last_words(&outcome)
            );
        }
        thread::sleep(AGAIN);
    }
}

fn last_words(outcome: &crate::cli::Outcome) -> String {
    let last = outcome.lines.last().map(ToString::to_string).unwrap_or_default();
    format!("{} {last}", outcome.stderr.trim())
}

fn wait_until_gone(site: &Site, service: &str) -> Result<()> {
    let end = Instant::now() + REPAIR;
    while let Ok(pid) = site.service_pid(service) {
        ensure!(Instant::now() < end, "a copy of {service} is left at {}, process {pid}", site.name());
        thread::sleep(POLL);
    }
    Ok(())
}

fn violation(kind: &'static str, tenant: &Tenant<'_>, what: String) -> Violation {
    Violation { kind, service: tenant.title(), what, history: Vec::new() }
}
