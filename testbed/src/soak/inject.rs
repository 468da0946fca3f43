//! One migration with one fault in it: made, let be for a while, and undone.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};
use rustix::process::{Pid, Signal, kill_process};

use super::dice::Dice;
use super::plan::{Fault, Kind};
use crate::cli::Outcome;
use crate::fault::Role;
use crate::lab::Lab;
use crate::service::Service;
use crate::shaper::{BitRate, Cut, Shape};
use crate::site::{MIGRATION, Site};
use crate::tracer::Tracer;

/// Between two looks.
const POLL: Duration = Duration::from_millis(5);
/// What the slow link is like: a home's uplink.
const SLOW: (BitRate, Duration) = (BitRate::mbit(40), Duration::from_millis(10));
/// Longest cut: longer than the daemons' patience with a silent link.
const LONGEST_CUT_MS: u64 = 12_000;
/// Longest absence of a daemon, and longest pause.
const LONGEST_ABSENCE_MS: u64 = 4_000;
/// Longest time with a slow link or a tracer; the migration has usually ended before.
const LONGEST_NUISANCE: Duration = Duration::from_secs(30);

/// What became of it.
#[derive(Debug)]
pub(super) struct Attempt {
    /// What `ums migrate` said.
    pub(super) outcome: Outcome,
    /// Why the fault did not happen, if it did not.
    pub(super) missed: Option<String>,
}

/// The two sites of a migration.
#[derive(Debug, Clone, Copy)]
pub(super) struct Road<'a> {
    pub(super) lab: &'a Lab,
    pub(super) source: &'a Site,
    pub(super) destination: &'a Site,
}

/// What a fault leaves to be undone.
struct Harm<'a> {
    road: Road<'a>,
    tracer: Option<Tracer>,
    /// How long it lasts if the migration does not end before.
    lasts: Duration,
}

impl<'a> Road<'a> {
    /// Moves the service and lets `fault` happen on the way. Afterwards links and daemons are whole again.
    ///
    /// On `Err` the lab is not in a known state.
    pub(super) fn migrate(&self, service: &Service<'_>, fault: Fault, dice: &mut Dice) -> Result<Attempt> {
        let daemon = match fault.step.role() {
            Role::Source => self.source,
            Role::Destination => self.destination,
        };
        let pause = self.lab.pause(fault.step)?;
        let (variable, mut value) = pause.environment();
        if fault.kind == Kind::StepFails {
            value = format!("{value},{}:fail", fault.step.word());
        }
        daemon.restart_with(&[(variable, value)])?;
        thread::scope(|scope| {
            let migration = scope.spawn(|| service.try_migrate(self.destination.index()));
            let over = || migration.is_finished();
            let harm = pause.wait(MIGRATION, over).and_then(|()| self.begin(service, fault.kind, dice));
            let abort = match (fault.kind, &harm) {
                (Kind::Abort, Ok(_)) => Some(scope.spawn(|| self.source.ums(&["abort", service.name()]))),
                _ => None,
            };
            if let (Kind::Pause | Kind::Abort, Ok(harm)) = (fault.kind, &harm) {
                wait(harm.lasts, || abort.as_ref().is_some_and(thread::ScopedJoinHandle::is_finished));
            }
            drop(pause);
            let missed = match harm {
                Ok(harm) => {
                    wait(harm.lasts, over);
                    harm.undo()?;
                    None
                }
                Err(error) => {
                    self.lab.heal()?;
                    Some(format!("{error:#}"))
                }
            };
            let joined = migration.join().map_err(|_| anyhow!("the migration's thread panicked"))?;
            // Whether it was refused depends on the step; that it answers is the point.
            abort
                .map(|abort| abort.join().map_err(|_| anyhow!("the abort's thread panicked"))?)
                .transpose()?;
            Ok(Attempt { outcome: joined.context("ums migrate")?, missed })
        })
    }

    fn begin(&self, service: &Service<'_>, kind: Kind, dice: &mut Dice) -> Result<Harm<'a>> {
        let link = self.lab.net().link(self.source.index(), self.destination.index());
        let mut within = |longest| Duration::from_millis(dice.below(longest));
        let mut harm = Harm { road: *self, tracer: None, lasts: Duration::ZERO };
        match kind {
            Kind::KillSourceDaemon => {
                self.source.kill9()?;
                harm.lasts = within(LONGEST_ABSENCE_MS);
            }
            Kind::KillDestinationDaemon => {
                self.destination.kill9()?;
                harm.lasts = within(LONGEST_ABSENCE_MS);
            }
            Kind::KillSourceNest => kill(self.source.nest_pid(service.name())?)?,
            Kind::KillDestinationNest => kill(self.destination.nest_pid(service.name())?)?,
            Kind::KillSourceKeeper => kill(self.source.keeper_pid(service.name())?)?,
            Kind::KillDestinationKeeper => kill(self.destination.keeper_pid(service.name())?)?,
            Kind::CriuFails => {
                harm.tracer = Some(Tracer::attach(self.source.service_pid(service.name())?)?);
                harm.lasts = LONGEST_NUISANCE;
            }
            Kind::CutBoth => {
                link.cut(Cut::Both)?;
                harm.lasts = within(LONGEST_CUT_MS);
            }
            Kind::CutToDestination => {
                link.cut(Cut::To(self.destination.index()))?;
                harm.lasts = within(LONGEST_CUT_MS);
            }
            Kind::CutToSource => {
                link.cut(Cut::To(self.source.index()))?;
                harm.lasts = within(LONGEST_CUT_MS);
            }
            Kind::SlowLink => {
                let (rate, delay) = SLOW;
                link.shape(Shape { rate: Some(rate), delay, ..Shape::open() })?;
                harm.lasts = LONGEST_NUISANCE;
            }
            Kind::Pause | Kind::Abort => harm.lasts = within(LONGEST_ABSENCE_MS),
            Kind::StepFails => {}
        }
        Ok(harm)
    }
}

impl Harm<'_> {
    fn undo(self) -> Result<()> {
        let Road { lab, source, destination } = self.road;
        drop(self.tracer);
        lab.net().link(source.index(), destination.index()).shape(Shape::open())?;
        lab.heal()
    }
}

/// Waits so long, or until it is over.
fn wait(longest: Duration, over: impl Fn() -> bool) {
    let end = Instant::now() + longest;
    while Instant::now() < end && !over() {
        thread::sleep(POLL);
    }
}

fn kill(pid: i32) -> Result<()> {
    let pid = Pid::from_raw(pid).context("a pid of 0")?;
    kill_process(pid, Signal::KILL).with_context(|| format!("cannot kill {}", pid.as_raw_nonzero()))
}
