//! One cell: a migration, a fault on its way, and the proof that nothing worse came of it.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail, ensure};

use super::faults::Fault;
use super::sense::{End, may_end, senseless};
use super::stage::Stage;
use super::steps::Moment;
use super::verdict::judge;
use super::{memory, steps};
use crate::cli::Outcome;
use crate::fault::{Role, Step};
use crate::net::{A, B, SiteIndex};
use crate::patience::eventually;
use crate::processes::is_ending;
use crate::service::{Service, kill};
use crate::shaper::{BitRate, Cut, Shape};
use crate::site::Site;

/// How long a fault lasts at most that ends nothing by itself: longer than every deadline of a rig's daemons.
const LONGEST: Duration = Duration::from_secs(12);
const POLL: Duration = Duration::from_millis(5);

/// A step and a fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cell {
    /// Where a daemon waits.
    pub step: Step,
    /// What happens meanwhile.
    pub fault: Fault,
}

impl Cell {
    /// All that make sense, step by step.
    pub fn all() -> Vec<Self> {
        let cells = Step::ALL.into_iter().flat_map(|step| Fault::ALL.map(|fault| Self { step, fault }));
        cells.filter(|cell| senseless(cell.step, cell.fault).is_none()).collect()
    }

    /// Its name: `STEP/FAULT`.
    pub fn name(&self) -> String {
        format!("{}/{}", self.step.word(), self.fault)
    }

    /// The cell of this name, if it makes sense.
    pub fn named(name: &str) -> Option<Self> {
        Self::all().into_iter().find(|cell| cell.name() == name)
    }

    /// Runs it. On `Ok` everything holds that the matrix asserts, all is mended, and the end is one of those that
    /// [`may_end`] names. On `Err` something does not hold, or the fault did not happen; the sites are not to be used
    /// again.
    pub(crate) fn run(&self, stage: &Stage, service: &Service<'_>) -> Result<End> {
        let source = service.site().index();
        let destination = if source == A { B } else { A };
        let outcome = self.migrate(stage, service, source, destination)?;
        ensure!(
            matches!(outcome.code, Some(0 | 1 | 3)),
            "an exit code that means something else: {outcome:?}"
        );
        let end = judge(stage, service, source, destination)?;
        let allowed = may_end(self.step, self.fault);
        ensure!(allowed.contains(&end), "it ended as {end:?}, expected one of {allowed:?}: {outcome:?}");
        Ok(end)
    }

    fn migrate(
        &self,
        stage: &Stage,
        service: &Service<'_>,
        source: SiteIndex,
        destination: SiteIndex,
    ) -> Result<Outcome> {
        let waits = if self.step.role() == Role::Source { source } else { destination };
        let act = self.fault.act();
        stage.lay(waits, self.step, act.unwrap_or("pause"))?;
        thread::scope(|scope| {
            let migration = scope.spawn(|| service.try_migrate(destination));
            let is_over = || migration.is_finished();
            let happened = match act {
                Some(_) => stage.wait_for_act(waits, self.step, is_over),
                None => stage
                    .wait_for_pause(waits, self.step, is_over)
                    .and_then(|()| self.inject(stage, service, source, destination)),
            };
            // Whatever happened, the daemon must not wait for ever, nor this scope for it.
            let lifted = stage.lift(waits, self.step);
            if happened.is_ok() && self.fault.lasts() {
                let end = Instant::now() + LONGEST;
                while !migration.is_finished() && Instant::now() < end {
                    thread::sleep(POLL);
                }
            }
            let spoils = matches!(
                self.fault,
                Fault::FailDump | Fault::KillDump | Fault::FailRestore | Fault::KillRestore
            );
            let repaired = if spoils { Ok(()) } else { stage.repair() };
            let outcome = migration.join().map_err(|_| anyhow!("the migration's thread panicked"));
            happened.with_context(|| format!("the fault did not happen: {outcome:?}"))?;
            lifted?;
            repaired?;
            if spoils {
                let at = if matches!(self.fault, Fault::FailDump | Fault::KillDump) {
                    source
                } else {
                    destination
                };
                ensure!(stage.mend_criu(at), "no CRIU was started: {outcome:?}");
            }
            outcome?
        })
    }

    fn inject(
        &self,
        stage: &Stage,
        service: &Service<'_>,
        source: SiteIndex,
        destination: SiteIndex,
    ) -> Result<()> {
        let (rig, name) = (&stage.rig, service.name());
        let (from, to) = (rig.site(source), rig.site(destination));
        let link = rig.net().link(A, B);
        match self.fault {
            Fault::KillSourceDaemon => from.kill9(),
            Fault::KillDestinationDaemon => to.kill9(),
            Fault::KillBothDaemons => from.kill9().and(to.kill9()),
            Fault::KillSourceNest => kill(from.nest_pid(name)?),
            Fault::KillDestinationNest => kill(to.nest_pid(name)?),
            Fault::KillSourceKeeper => kill_keeper(from.keeper_pid(name)?),
            Fault::KillDestinationKeeper => kill_keeper(to.keeper_pid(name)?),
            Fault::FailDump => stage.spoil_criu(source, "fail"),
            Fault::KillDump => stage.spoil_criu(source, "kill"),
            Fault::FailRestore => stage.spoil_criu(destination, "fail"),
            Fault::KillRestore => stage.spoil_criu(destination, "kill"),
            Fault::CutBoth => link.cut(Cut::Both),
            Fault::CutToDestination => link.cut(Cut::To(destination)),
            Fault::CutToSource => link.cut(Cut::To(source)),
            Fault::Slow => {
                let slow = Shape { rate: Some(BitRate::mbit(20)), ..Shape::open() };
                link.shape(slow.with_delay(Duration::from_millis(20)))
            }
            Fault::FullSource => from.disk()?.fill(),
            Fault::FullDestination => to.disk()?.fill(),
            Fault::NoMemory => memory::take(rig.net().tag(), to),
            Fault::Restarted => self.restart(stage, name, from, to),
            Fault::SourceHostDies => from.lose_power(),
            Fault::DestinationHostDies => to.lose_power(),
            Fault::Again | Fault::Twice | Fault::ClockForward | Fault::ClockBack => {
                bail!("{} is done by the daemon itself", self.fault)
            }
        }
    }

    /// What an orchestrator does that knows of no migration: it starts the service at both sites.
    fn restart(&self, stage: &Stage, name: &str, from: &Site, to: &Site) -> Result<()> {
        let start = |site: &Site| site.ums(&["start", name]);
        let is_refused = |site: &Site, started: &Outcome| {
            let refused = started.code == Some(1);
            ensure!(refused, "a second copy may be started at {}: {started:?}", site.name());
            Ok(())
        };
        let moment = steps::moment(self.step);
        is_refused(from, &start(from)?)?;
        if moment < Moment::Committed {
            // The lock says no, or nothing is known of it.
            return is_refused(to, &start(to)?);
        }
        let started = match self.step.role() {
            Role::Source => start(to)?,
            // The destination does what was decided in one go, and a start waits for it. So it has to go on.
            Role::Destination => thread::scope(|scope| {
                let start = scope.spawn(|| start(to));
                thread::sleep(POLL);
                stage.lift(to.index(), self.step)?;
                start.join().map_err(|_| anyhow!("the start's thread panicked"))?
            })?,
        };
        // It was being decided, or it runs already: then there is nothing to start, and it is the one copy.
        ensure!(matches!(started.code, Some(0 | 1)), "neither started nor refused: {started:?}");
        ensure!(
            moment >= Moment::Told || self.step.role() == Role::Destination || started.code == Some(1),
            "started before it was told to: {started:?}"
        );
        ensure!(
            started.code == Some(1) || started.text("copy")? == "running",
            "started, and yet it does not run: {started:?}"
        );
        Ok(())
    }
}

/// Kills a keeper, and waits until that has taken hold: whoever asks from then on sees that it is dead. Above a frozen
/// copy it does not end before that is thawed.
fn kill_keeper(pid: i32) -> Result<()> {
    kill(pid)?;
    eventually("the death of a keeper", || Ok(is_ending(pid).then_some(())))
}
