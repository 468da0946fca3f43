//! What becomes of a service whose CRIU is killed in the middle of a dump: unharmed, cured, or lost.
//!
//! Nobody of UMS kills a CRIU that dumps, but the kernel may, for want of memory, or an operator. The kills are spread
//! evenly over the log of a dump, which CRIU writes most of while it has its code in a process: so they are harsher
//! than kills at moments that are spread over its time.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, ensure};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use serde::Serialize;
use ums_model::phase::Outcome;

use super::Options;
use super::own::{self, report};
use super::point::{ANSWER, MEMORY, Point};
use crate::cli;
use crate::histories::agreed;
use crate::interrupt;
use crate::lab::Lab;
use crate::net::{A, B};
use crate::processes;
use crate::service::Service;
use crate::site::Site;
use crate::text_table::render;

/// Kills if nobody says how many.
const KILLS: u32 = 60;

/// The service: enough processes that every stage of a dump is met in one with others before and behind it.
const POINT: Point = Point { scenario: MEMORY, memory_mib: 16, processes: 4 };

/// What a killed CRIU has left: see [`Fates`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Late,
    Unharmed,
    Cured,
    Lost,
}

/// How many trees met which fate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct Fates {
    /// CRIU had done already: the service moved.
    pub late: usize,
    /// Nothing had to be put right.
    pub unharmed: usize,
    /// What CRIU had changed was put right.
    pub cured: usize,
    /// It stands frozen, for good, and the migration says so.
    pub lost: usize,
}

/// Measures and prints one line.
pub(super) fn criu_kill(options: Options) -> Result<()> {
    let kills = options.runs.unwrap_or(if options.quick { 8 } else { KILLS });
    let fates = fates(kills)?;
    if options.json {
        let mut line = serde_json::to_value(fates)?;
        line["scenario"] = "criu-kill".into();
        line["kills"] = kills.into();
        println!("{line}");
    } else {
        let heading = ["kills", "late", "unharmed", "cured", "lost"];
        let Fates { late, unharmed, cured, lost } = fates;
        let counts = [late, unharmed, cured, lost].map(|count| count.to_string());
        print!("{}", render(&heading, &[[kills.to_string()].into_iter().chain(counts).collect()]));
    }
    Ok(())
}

/// Kills CRIU `kills` times, each time in a migration.
///
/// On `Ok` every service that was not lost went on at the source, whole and answering, and every lost one stood
/// still and was told as lost.
pub fn fates(kills: u32) -> Result<Fates> {
    let lab = Lab::two_sites()?;
    let mut service = own::start(&lab, &POINT)?;
    let whole = undisturbed(&service)?;
    let mut fates = Fates::default();
    for turn in 0..kills {
        let at = whole * u64::from(turn) / u64::from(kills);
        let fate =
            kill_at(&lab, &service, at).with_context(|| format!("CRIU killed at {at} of {whole} bytes"))?;
        interrupt::stop_here_if_interrupted();
        eprintln!("bench: CRIU killed when its log had {at} of {whole} bytes: {fate:?}");
        *match fate {
            Fate::Late => &mut fates.late,
            Fate::Unharmed => &mut fates.unharmed,
            Fate::Cured => &mut fates.cured,
            Fate::Lost => &mut fates.lost,
        } += 1;
        if fate == Fate::Lost {
            own::end(&service);
            drop(service);
            service = own::start(&lab, &POINT)?;
        }
    }
    own::end(&service);
    Ok(fates)
}

/// Bytes that the log of a whole dump has; moves the service to and fro.
fn undisturbed(service: &Service<'_>) -> Result<u64> {
    let mut length = 0;
    let outcome = beside(service, |log, _| length = length.max(log))?;
    outcome.success().context("the dump that nobody disturbs")?;
    service.settle()?;
    service.check()?;
    own::migrate(service).context("cannot take the service back")?;
    ensure!(length > 0, "the log of a dump was not found");
    Ok(length)
}

fn kill_at(lab: &Lab, service: &Service<'_>, at: u64) -> Result<Fate> {
    ensure!(service.site().index() == A, "the service should be at its first site");
    let probe = service.probe()?;
    let mut killed = false;
    let outcome = beside(service, |length, criu| {
        if length >= at && !killed {
            let Some(pid) = Pid::from_raw(criu) else { return };
            // One that has ended needs no kill, and its pid is nobody else's as long as its nest has not taken leave of it.
            if let Ok(process) = pidfd_open(pid, PidfdFlags::empty()) {
                killed = pidfd_send_signal(process, Signal::KILL).is_ok();
            }
        }
    })?;
    if outcome.code == Some(0) {
        drop(probe);
        service.settle()?;
        service.check()?;
        own::migrate(service).context("cannot take the service back")?;
        return Ok(Fate::Late);
    }
    let report = report(outcome.field("report").context("`ums migrate --json` printed no report")?)?;
    let error = report.error.context("a migration failed without an error")?;
    if report.outcome == Outcome::Lost {
        stands(lab, service)?;
        return Ok(Fate::Lost);
    }
    ensure!(report.outcome == Outcome::RolledBack, "{error}");
    probe.wait_for_answer(ANSWER)?;
    drop(probe);
    service.settle()?;
    service.check()?;
    // Its words are the only place that says what had to be done; this is where they are held to be so.
    match error.message.split_once(" cured").and_then(|(before, _)| before.rsplit(' ').next()) {
        Some("0") => Ok(Fate::Unharmed),
        Some(_) => Ok(Fate::Cured),
        // It had not touched the service yet.
        None if error.message.contains("lost CRIU while dumping") => Ok(Fate::Unharmed),
        None => Err(anyhow!("the migration failed for another reason: {error}")),
    }
}

/// A lost tree does nothing, and both sites say that it is lost.
fn stands(lab: &Lab, service: &Service<'_>) -> Result<()> {
    let told = agreed(lab, service.name(), ANSWER)?;
    ensure!(told == Outcome::Lost, "told as {told}");
    let records = || service.recorder().map(|recorder| recorder.records().len());
    let before = records()?;
    thread::sleep(Duration::from_millis(300));
    ensure!(records()? == before, "it is told to stand still, and runs");
    Ok(())
}

/// Migrates the service, and meanwhile tells `each` again and again how long the log of the source's CRIU is, and its pid.
fn beside(service: &Service<'_>, mut each: impl FnMut(u64, i32)) -> Result<cli::Outcome> {
    let source: &Site = service.site();
    let nest = source.nest_pid(service.name())?;
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        let migration = scope.spawn(|| {
            let outcome = service.try_migrate(B);
            over.store(true, Ordering::Relaxed);
            outcome
        });
        let mut found = None;
        while !over.load(Ordering::Relaxed) {
            match &found {
                None => found = criu_of(nest),
                Some((pid, log)) => match length(log) {
                    Some(length) => each(length, *pid),
                    None => found = None,
                },
            }
        }
        migration.join().map_err(|_| anyhow!("the migration's thread panicked"))?
    })
}

/// A CRIU below `nest` that has its log open, and that log.
fn criu_of(nest: i32) -> Option<(i32, PathBuf)> {
    let processes = processes::all().ok()?;
    let child = processes.iter().filter(|process| process.parent == nest);
    child.into_iter().find_map(|process| {
        let descriptors = fs::read_dir(format!("/proc/{}/fd", process.pid)).ok()?;
        let is_log = |path: &PathBuf| fs::read_link(path).is_ok_and(|to| to.ends_with("dump.log"));
        let log = descriptors.flatten().map(|entry| entry.path()).find(is_log)?;
        Some((process.pid, log))
    })
}

fn length(log: &Path) -> Option<u64> {
    fs::metadata(log).ok().map(|metadata| metadata.len())
}
