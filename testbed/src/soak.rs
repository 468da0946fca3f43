//! The soak: databases under load move to and fro between sites, almost every migration meets a fault, and everything
//! that clients were told must be explained.
//!
//! Read in this order: this file (the course of it), `round` (one migration and its repair), `plan` and `inject` (what
//! goes wrong), `tenant` (one database), `session` (its clients), `store` with `redis_store` and `postgres_store` (what
//! they ask), `book` and [`history`] (what they did), [`register`] and [`collection`] (whether that can be), `report`.
//!
//! A soak never asserts on time, but nothing may last for ever: a repair that does not end is a violation.

mod book;
pub mod collection;
mod dice;
pub mod history;
mod inject;
mod plan;
mod postgres_store;
mod redis_store;
pub mod register;
mod report;
mod round;
mod session;
mod store;
mod surroundings;
mod tenant;
mod watchdog;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use ums_model::phase::Outcome;

use self::book::Tally;
use self::dice::Dice;
use self::plan::Plan;
pub use self::plan::{Fault, Kind};
pub use self::report::{Operations, Outcomes, Report, Spread, Violation};
use self::round::Round;
use self::surroundings::Surroundings;
use self::tenant::Tenant;
use self::watchdog::Watchdog;
use crate::interrupt;
use crate::lab::Lab;
use crate::net::SiteIndex;
use crate::shaper::Shape;
use crate::traces::Traces;
use crate::workload::Database;

/// Longest time between two signs of life of a soak: every wait in a round is shorter.
const HANG: Duration = Duration::from_mins(12);

/// How to soak.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Options {
    /// It ends after the first round that ends after so long.
    pub time: Duration,
    /// Or after so many rounds.
    pub rounds: u64,
    /// What is chosen at random follows from it.
    pub seed: u64,
    /// How many sites, at least two.
    pub sites: usize,
    /// Also kill keepers, whereby services are lost.
    pub keepers: bool,
}

/// Soaks.
///
/// On `Ok` it ran to its end, or to the first round with a violation; which ones there were is in the report, their
/// evidence in a file that stderr names. On `Err` it could not be started. Either way nothing of it is left on the machine.
pub fn run(options: Options) -> Result<Report> {
    say(&format!("seed {}", options.seed));
    let watchdog = Watchdog::start(HANG, options.seed)?;
    let surroundings = Surroundings::new()?;
    let lab = Lab::with(options.sites, Shape::open(), surroundings.program())?;
    let report = Course::start(&lab, options, &watchdog)?.run();
    interrupt::stop_here_if_interrupted();
    let (report, violations) = report;
    if !violations.is_empty() {
        for Violation { kind, service, what, .. } in &violations {
            say(&format!("VIOLATION {kind} at {service}: {what}"));
        }
        for site in lab.sites() {
            eprintln!("=== site {} ===\n{}", site.name(), site.logs());
        }
        let path = report::write_evidence(options.seed, &violations)?;
        say(&format!("seed {}; the evidence is in {}", options.seed, path.display()));
    }
    watchdog.feed("stopping everything".to_owned());
    drop(lab);
    Ok(report)
}

/// A soak under way.
struct Course<'a> {
    lab: &'a Lab,
    options: Options,
    watchdog: &'a Watchdog,
    begin: Instant,
    dice: Dice,
    plan: Plan,
    clean: Traces,
    tenants: Vec<Tenant<'a>>,
    outcomes: Outcomes,
    missed: u64,
    downtimes: [Vec<Duration>; 2],
    frozen: Vec<Duration>,
    refused: Vec<Duration>,
    sums: Sums,
}

/// What the clients of services did that are gone.
#[derive(Debug, Default)]
struct Sums {
    operations: Operations,
    reconnects: u64,
    checked: u64,
}

impl<'a> Course<'a> {
    fn start(lab: &'a Lab, options: Options, watchdog: &'a Watchdog) -> Result<Self> {
        let mut dice = Dice::new(options.seed);
        let clean = Traces::of(lab)?;
        let mut tenants = Vec::new();
        for database in [Database::Redis, Database::Postgres] {
            let site = any_site(lab, &mut dice, None)?;
            say(&format!("starting {database:?} at site {site}"));
            tenants.push(Tenant::start(lab, site, database, &dice.branch(database as u64))?);
        }
        Ok(Self {
            lab,
            options,
            watchdog,
            begin: Instant::now(),
            dice,
            plan: Plan::new(options.keepers),
            clean,
            tenants,
            outcomes: Outcomes::default(),
            missed: 0,
            downtimes: Default::default(),
            frozen: Vec::new(),
            refused: Vec::new(),
            sums: Sums::default(),
        })
    }

    fn run(mut self) -> (Report, Vec<Violation>) {
        let mut violations = Vec::new();
        while violations.is_empty() && !self.is_over() {
            violations = self.round().unwrap_or_else(|error| vec![unended(&error)]);
            interrupt::stop_here_if_interrupted();
        }
        if violations.is_empty() {
            self.watchdog.feed("reading everything back".to_owned());
            violations = self.finish().unwrap_or_else(|error| vec![unended(&error)]);
        }
        (self.report(&violations), violations)
    }

    fn is_over(&self) -> bool {
        self.tried() >= self.options.rounds || self.begin.elapsed() >= self.options.time
    }

    fn tried(&self) -> u64 {
        let Outcomes { done, rolled_back, lost } = self.outcomes;
        done + rolled_back + lost
    }

    fn round(&mut self) -> Result<Vec<Violation>> {
        let begin = Instant::now();
        let index = if self.dice.below(2) == 0 { 0 } else { self.tenants.len() - 1 };
        let fault = self.plan.next(&mut self.dice);
        let tenant = &self.tenants[index];
        let source = tenant.service.site().index();
        let destination = any_site(self.lab, &mut self.dice, Some(source))?;
        let planned = fault
            .map_or("no fault".to_owned(), |Fault { step, kind }| format!("{} {}", step.word(), kind.word()));
        let what = format!("{:>4} {:<8} {source}>{destination} {planned}", self.tried() + 1, tenant.title());
        self.watchdog.feed(what.clone());
        let round =
            round::run(self.lab, tenant, destination, fault, &mut self.dice).with_context(|| what.clone())?;
        let Round { ended, met, downtime, frozen, refused, mut violations } = round;
        match ended {
            Outcome::Done => self.outcomes.done += 1,
            Outcome::RolledBack => self.outcomes.rolled_back += 1,
            _ => self.outcomes.lost += 1,
        }
        match fault {
            Some(fault) if met => self.plan.count(fault),
            Some(_) => self.missed += 1,
            None => {}
        }
        self.refused.extend(refused);
        if ended == Outcome::Done {
            self.downtimes[usize::from(met)].extend(downtime);
            self.frozen.extend(frozen.filter(|_| !met));
        }
        let ms = |time: Option<Duration>| {
            time.map_or("-".to_owned(), |time| format!("{:.0} ms", time.as_secs_f64() * 1e3))
        };
        say(&format!(
            "{what:<60} {}{} {}, downtime {}, frozen {}{}",
            if fault.is_some() && !met { "(not met) " } else { "" },
            serde_json::to_value(ended)
                .ok()
                .and_then(|word| Some(word.as_str()?.to_owned()))
                .unwrap_or_default(),
            ms(Some(begin.elapsed())),
            ms(downtime),
            ms(frozen),
            refused.map_or(String::new(), |refused| format!(", refused for {}", ms(Some(refused))))
        ));
        if violations.is_empty() && !matches!(ended, Outcome::Done | Outcome::RolledBack) {
            self.replace(index)?;
        }
        for tenant in &mut self.tenants {
            if violations.is_empty() {
                violations = tenant.check_generation().with_context(|| what.clone())?;
            }
        }
        Ok(violations)
    }

    /// A service was lost, as it may be when its keeper was killed: another takes its place.
    fn replace(&mut self, index: usize) -> Result<()> {
        let database = self.retire(index)?;
        let site = any_site(self.lab, &mut self.dice, None)?;
        let branch = self.dice.branch(self.tried() + 16);
        self.tenants.push(Tenant::start(self.lab, site, database, &branch)?);
        Ok(())
    }

    /// Ends the clients of a service and removes it from every site.
    fn retire(&mut self, index: usize) -> Result<Database> {
        let tenant = self.tenants.remove(index);
        let (name, database) = (tenant.service.name().to_owned(), tenant.database());
        self.sums.add(&tenant.book.tally, tenant.checked());
        // Its clients end here; what they do until then is of no interest.
        drop(tenant);
        for site in self.lab.sites() {
            let known =
                site.ums(&["ps"])?.success()?.lines.iter().any(|line| line.to_string().contains(&name));
            if known {
                site.ums(&["rm", "--force", &name])?.success()?;
            }
        }
        Ok(database)
    }

    fn finish(&mut self) -> Result<Vec<Violation>> {
        let mut violations = Vec::new();
        for tenant in &mut self.tenants {
            violations.extend(tenant.finish()?);
        }
        while !self.tenants.is_empty() {
            self.retire(0)?;
        }
        if let Err(left) = Traces::wait_for(self.lab, &self.clean) {
            let what = format!("{left:#}");
            violations.push(Violation { kind: "leftovers", service: "the sites", what, history: Vec::new() });
        }
        Ok(violations)
    }

    fn report(mut self, violations: &[Violation]) -> Report {
        for tenant in std::mem::take(&mut self.tenants) {
            self.sums.add(&tenant.book.tally, tenant.checked());
        }
        let mut by_kind = BTreeMap::new();
        for violation in violations {
            *by_kind.entry(violation.kind).or_insert(0) += 1;
        }
        let [without, with] = &self.downtimes;
        Report {
            seed: self.options.seed,
            minutes: (self.begin.elapsed().as_secs_f64() / 6.0).round() / 10.0,
            migrations: self.tried(),
            faults: self.plan.total(),
            violations: violations.len() as u64,
            outcomes: self.outcomes,
            faults_missed: self.missed,
            violations_by_kind: by_kind,
            operations_checked: self.sums.checked,
            operations: self.sums.operations,
            reconnects: self.sums.reconnects,
            downtime_ms: Spread::of(without),
            downtime_with_fault_ms: Spread::of(with),
            frozen_ms: Spread::of(&self.frozen),
            refused_ms: Spread::of(&self.refused),
            faults_by_step: self.plan.by_step,
            faults_by_kind: self.plan.by_kind,
        }
    }
}

impl Sums {
    fn add(&mut self, tally: &Tally, checked: u64) {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        self.operations.acknowledged += read(&tally.acknowledged);
        self.operations.refused += read(&tally.refused);
        self.operations.unknown += read(&tally.unknown);
        self.reconnects += read(&tally.connections).saturating_sub(u64::from(tenant::SESSIONS));
        self.checked += checked;
    }
}

/// A site other than `not`.
fn any_site(lab: &Lab, dice: &mut Dice, not: Option<SiteIndex>) -> Result<SiteIndex> {
    let all: Vec<SiteIndex> = lab.net().sites().filter(|site| Some(*site) != not).collect();
    dice.pick(&all).context("a lab has two sites at least")
}

/// Something did not end, or an answer was none: the soak cannot go on.
fn unended(error: &anyhow::Error) -> Violation {
    Violation { kind: "unended", service: "the sites", what: format!("{error:#}"), history: Vec::new() }
}

/// Progress, for people: on stderr, so that stdout holds the result alone.
fn say(text: &str) {
    eprintln!("soak: {text}");
}
