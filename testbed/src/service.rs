//! A service of a lab: moved, faulted, and checked.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};
use ums_model::names::Epoch;

use crate::cli::Outcome;
use crate::dial::Dialer;
use crate::fault::{At, Fault, Role, kill_at};
use crate::lab::Lab;
use crate::memhog;
use crate::net::SiteIndex;
use crate::probe::Probe;
use crate::rootfs::WITNESS;
use crate::shaper::Cut;
use crate::site::{MIGRATION, Site, WITNESS_MOUNT};
use crate::witness::{Recorder, Verdict};
use crate::workload::Workload;

/// How long a service may take to show life where it should run.
const LIFE: Duration = Duration::from_secs(60);
/// A probe's connection that does not answer so long is made anew.
const STALL: Duration = Duration::from_secs(1);
/// Between two looks at a condition.
const POLL: Duration = Duration::from_millis(2);

/// A running service and the record of where it has been.
#[derive(Debug)]
pub struct Service<'a> {
    lab: &'a Lab,
    name: String,
    workload: Workload,
    /// Published ports, in the order of [`Workload::ports`].
    ports: Vec<u16>,
    path: Mutex<Vec<SiteIndex>>,
    recorder: Option<Recorder>,
}

impl<'a> Service<'a> {
    pub(crate) fn start(
        lab: &'a Lab,
        site: SiteIndex,
        workload: &Workload,
        options: &[&str],
    ) -> Result<Self> {
        let ports: Vec<u16> = workload.ports().iter().map(|_| lab.fresh_port()).collect();
        let name = format!("{site}-{}", ports.first().copied().unwrap_or_else(|| lab.fresh_port()));
        let files = |site: &Site| (site.index(), site.witness_directory().join(&name));
        let recorder = match workload.has_witness() {
            true => Some(Recorder::start(&lab.sites().iter().map(files).collect::<Vec<_>>())?),
            false => None,
        };
        let service =
            Self { lab, ports, recorder, workload: workload.clone(), path: Mutex::new(vec![site]), name };
        service.run(options).with_context(|| format!("cannot start {workload:?}"))?;
        Ok(service)
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Where it is, as far as the test knows.
    pub fn site(&self) -> &'a Site {
        let last = *self.path().last().expect("a path begins where the service was started");
        self.lab.site(last)
    }

    /// Moves it; the result line of `ums migrate` is in the outcome.
    ///
    /// On `Err` the migration did not end with exit code 0, and the service is taken to be where it was.
    pub fn migrate(&self, destination: SiteIndex) -> Result<Outcome> {
        let outcome = self.try_migrate(destination)?.success()?;
        self.arrived(destination);
        Ok(outcome)
    }

    /// Tries to move it, whatever comes of it. Afterwards [`Service::settle`] finds out where it is.
    pub fn try_migrate(&self, destination: SiteIndex) -> Result<Outcome> {
        self.site().ums(&["migrate", &self.name, "--to", destination.name()])
    }

    /// Tries to move it, and lets `fault` happen on the way. Afterwards the lab is as the fault left it: see
    /// [`Lab::heal`] and [`Service::settle`].
    ///
    /// On `Err` the fault did not happen.
    pub fn migrate_with(&self, destination: SiteIndex, fault: Fault, At(step): At) -> Result<Outcome> {
        let (source, destination) = (self.site(), self.lab.site(destination));
        let daemon = match step.role() {
            Role::Source => source,
            Role::Destination => destination,
        };
        let kills_itself = matches!(
            (fault, step.role()),
            (Fault::KillSourceDaemon, Role::Source) | (Fault::KillDestinationDaemon, Role::Destination)
        );
        if kills_itself {
            daemon.restart_with(&[kill_at(step)])?;
            let outcome = self.try_migrate(destination.index())?;
            let end = Instant::now() + LIFE;
            while daemon.is_alive() {
                ensure!(
                    Instant::now() < end,
                    "the migration did not come to step {}: {outcome:?}",
                    step.word()
                );
                thread::sleep(POLL);
            }
            return Ok(outcome);
        }
        let pause = self.lab.pause(step)?;
        daemon.restart_with(&[pause.environment()])?;
        thread::scope(|scope| {
            let migration = scope.spawn(|| self.try_migrate(destination.index()));
            let injected = pause
                .wait(MIGRATION, || migration.is_finished())
                .and_then(|()| self.inject(fault, source, destination));
            // Whatever happened, the daemon must not wait for ever, nor this scope for it.
            drop(pause);
            let Ok(outcome) = migration.join() else { bail!("the migration's thread panicked") };
            injected.with_context(|| format!("{fault:?} did not happen ({outcome:?})"))?;
            outcome
        })
    }

    /// Waits until the service shows life somewhere, and returns where. For after a fault: the answer is believed,
    /// and [`Service::check`] holds the whole journey to it.
    pub fn settle(&self) -> Result<SiteIndex> {
        let here = self.recorder()?.wait_for_any_life(LIFE)?.site;
        if self.site().index() != here {
            self.arrived(here);
        }
        Ok(here)
    }

    /// Proves that it is well where it should be: it shows life there, one copy ran at all times (by its witness), and
    /// its memory is what it must be (if it is a memhog).
    pub fn check(&self) -> Result<Option<Verdict>> {
        let here = self.site().index();
        if let Workload::Memhog(_) = self.workload {
            memhog::check(&self.dialer()?, LIFE)?;
        }
        let Some(recorder) = &self.recorder else { return Ok(None) };
        recorder.wait_for_life(here, LIFE)?;
        match recorder.check(&self.path()) {
            Ok(verdict) => Ok(Some(verdict)),
            Err(violations) => {
                let list: Vec<String> = violations.iter().map(|violation| format!("- {violation}")).collect();
                bail!("{} violates the rules of one copy:\n{}", self.name, list.join("\n"))
            }
        }
    }

    /// A client in the client's namespace that looks for the first port of the service at every site.
    pub fn dialer(&self) -> Result<Dialer> {
        self.dialer_to(self.ports.first())
    }

    /// Starts a probe of its downtime.
    pub fn probe(&self) -> Result<Probe> {
        let question =
            self.workload.question().with_context(|| format!("{:?} answers no probe", self.workload))?;
        Probe::start(&self.dialer_to(self.ports.last())?, question, STALL, LIFE)
    }

    /// The record of its witness.
    pub fn recorder(&self) -> Result<&Recorder> {
        self.recorder.as_ref().with_context(|| format!("{:?} has no witness", self.workload))
    }

    /// The sites it has been at, in order.
    pub fn journey(&self) -> Vec<SiteIndex> {
        self.path().clone()
    }

    fn run(&self, options: &[&str]) -> Result<()> {
        let rootfs = self.lab.image(self.workload.image())?.display().to_string();
        let published = self.ports.iter().zip(self.workload.ports());
        let published: Vec<String> = published.map(|(outer, inner)| format!("{outer}:{inner}")).collect();
        let witness = format!("{WITNESS_MOUNT}:{WITNESS}");
        let command = self.workload.command(&self.name);
        let mut args = vec!["run", "--name", &self.name, "--rootfs", &rootfs];
        args.extend(published.iter().flat_map(|port| ["-p", port]));
        if self.recorder.is_some() {
            args.extend(["--site-mount", &witness]);
        }
        args.extend(self.workload.user().into_iter().flat_map(|user| ["--user", user]));
        args.extend(options);
        args.extend(["-d", "--"]);
        args.extend(command.iter().map(String::as_str));
        self.site().ums(&args)?.success()?;
        if let Some(recorder) = &self.recorder {
            recorder.wait_for_life(self.site().index(), LIFE)?;
        }
        if self.workload.question().is_some() {
            drop(self.probe()?);
        }
        Ok(())
    }

    fn inject(&self, fault: Fault, source: &Site, destination: &Site) -> Result<()> {
        let link = self.lab.net().link(source.index(), destination.index());
        match fault {
            Fault::KillSourceDaemon => source.kill9(),
            Fault::KillDestinationDaemon => destination.kill9(),
            Fault::KillSourceNest => kill(source.nest_pid(&self.name)?),
            Fault::KillDestinationNest => kill(destination.nest_pid(&self.name)?),
            Fault::KillSourceKeeper => kill(source.keeper_pid(&self.name)?),
            Fault::KillDestinationKeeper => kill(destination.keeper_pid(&self.name)?),
            Fault::CutBoth => link.cut(Cut::Both),
            Fault::CutToDestination => link.cut(Cut::To(destination.index())),
            Fault::CutToSource => link.cut(Cut::To(source.index())),
            Fault::Abort => source.ums(&["abort", &self.name]).map(drop),
        }
    }

    fn arrived(&self, destination: SiteIndex) {
        let mut path = self.path();
        path.push(destination);
        if let Some(recorder) = &self.recorder {
            recorder.set_epoch(Epoch(path.len() as u64 - 1));
        }
    }

    fn dialer_to(&self, port: Option<&u16>) -> Result<Dialer> {
        let port = port.with_context(|| format!("{:?} has no port", self.workload))?;
        Ok(Dialer::inside(self.lab.net().client(), self.lab.net().everywhere(*port)))
    }

    fn path(&self) -> MutexGuard<'_, Vec<SiteIndex>> {
        self.path.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// SIGKILL. On `Ok` it was sent.
pub fn kill(pid: i32) -> Result<()> {
    let pid = Pid::from_raw(pid).context("a pid of 0")?;
    kill_process(pid, Signal::KILL).with_context(|| format!("cannot kill {}", pid.as_raw_nonzero()))
}
