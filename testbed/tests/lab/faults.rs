//! Every step of a migration, once with a link that is cut there and once with a daemon that is killed there.
//!
//! Whatever happens, when link and daemons are back: one copy runs, never two ran (the witness counts), no number is
//! missing, both sites tell the same end, and nothing is left when the service is removed.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use ums_model::names::Bytes;
use ums_model::phase::Outcome;
use ums_testbed::fault::VARIABLE;
use ums_testbed::net::{A, B, SiteIndex};
use ums_testbed::service::Service;
use ums_testbed::shaper::Cut;
use ums_testbed::workload::Workload;

use crate::eventually;
use crate::gate::Gate;
use crate::histories::agreed;
use crate::rig::Rig;
use crate::traces::Traces;

/// How a migration must end that met a fault at a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    RolledBack,
    Done,
    /// Both are right: which comes first, the source's decision or its knowledge of the fault, is a matter of timing.
    Either,
}

/// One step and how it must end.
type Row = (&'static str, End);

/// Steps at the source, all of them. The image is first: it has to travel only while the destination lacks it.
const SOURCE: [Row; 10] = [
    ("image", End::RolledBack),
    ("reserve", End::RolledBack),
    ("arm", End::RolledBack),
    ("freeze", End::RolledBack),
    ("dump", End::RolledBack),
    ("transfer", End::RolledBack),
    // HELD has arrived, COMMIT is not written: a source that dies forgets it, one whose link is cut may still decide.
    ("commit", End::Either),
    ("committed", End::Done),
    ("resume", End::Done),
    ("release", End::Done),
];
/// Steps at the destination, all of them.
const DESTINATION: [Row; 8] = [
    ("d-image", End::RolledBack),
    ("d-reserve", End::RolledBack),
    ("d-arm", End::RolledBack),
    ("d-restore", End::RolledBack),
    ("d-held", End::RolledBack),
    ("d-granted", End::Done),
    ("d-resumed", End::Done),
    ("d-running", End::Done),
];

/// How long a cut lasts at most where nothing tells from outside that it was noticed: longer than every deadline of a
/// rig's daemons.
const LONGEST_CUT: Duration = Duration::from_secs(12);

type Fault = fn(&Rig, &Service<'_>, &'static str, SiteIndex) -> Result<()>;

/// Runs rows one after the other on one lab: one service, to and fro.
fn run(rows: &[Row], fault: Fault) {
    let rig = &Rig::new().expect("a rig");
    // Failing here and not in a caller: the lab prints its logs when it is dropped by a panic.
    if let Err(error) = all(rig, rows, fault) {
        panic!("{error:#}");
    }
}

fn all(rig: &Rig, rows: &[Row], fault: Fault) -> Result<()> {
    let clean = Traces::of(rig)?;
    let service = &rig.start(A, &Workload::memhog(Bytes::mib(4)))?;
    for (step, end) in rows {
        row(rig, service, step, *end, fault).with_context(|| format!("step {step}"))?;
    }
    // After all that it is a service as any other.
    let other = if service.site().index() == A { B } else { A };
    service.migrate(other)?;
    service.check()?;
    service.site().ums(&["rm", "--force", service.name()])?.success()?;
    Traces::wait_for(rig, &clean)
}

fn row(rig: &Rig, service: &Service<'_>, step: &'static str, end: End, fault: Fault) -> Result<()> {
    let source = service.site().index();
    let destination = if source == A { B } else { A };
    fault(rig, service, step, destination)?;
    // Mended and started again, without the fault.
    rig.heal()?;
    let outcome = agreed(rig, service.name())?;
    let expected = match end {
        End::RolledBack => outcome == Outcome::RolledBack,
        End::Done => outcome == Outcome::Done,
        End::Either => matches!(outcome, Outcome::RolledBack | Outcome::Done),
    };
    ensure!(expected, "it ended as {outcome:?} instead of {end:?}");
    let here = service.settle()?;
    let there = if outcome == Outcome::Done { destination } else { source };
    ensure!(here == there, "told as {outcome:?}, but it runs at {here}");
    service.check()?;
    let left = if here == source { destination } else { source };
    ensure!(rig.site(left).service_pid(service.name()).is_err(), "a copy is left at {left}");
    Ok(())
}

/// Whose daemon comes to a step.
fn whose(step: &str, service: &Service<'_>, destination: SiteIndex) -> SiteIndex {
    if step.starts_with("d-") { destination } else { service.site().index() }
}

/// The daemon kills itself at the step, and is started again.
fn kill(rig: &Rig, service: &Service<'_>, step: &'static str, destination: SiteIndex) -> Result<()> {
    let daemon = rig.site(whose(step, service, destination));
    daemon.restart_with(&[(VARIABLE, format!("{step}:kill"))])?;
    thread::scope(|scope| {
        let migration = scope.spawn(|| service.try_migrate(destination));
        let died = eventually("the daemon's death", || match daemon.is_alive() {
            false => Ok(Some(())),
            true if migration.is_finished() && daemon.is_alive() => {
                bail!("the migration ended before {step}")
            }
            true => Ok(None),
        });
        // In any case: somebody may be waiting for it.
        daemon.restart()?;
        let outcome = migration.join().map_err(|_| anyhow::anyhow!("the migration's thread panicked"))?;
        died.with_context(|| format!("{outcome:?}"))?;
        let outcome = outcome?;
        ensure!(
            matches!(outcome.code, Some(0 | 1 | 3)),
            "an exit code that means something else: {outcome:?}"
        );
        Ok(())
    })
}

/// The link is cut while a daemon waits at the step, which then goes on into the silence.
fn cut(rig: &Rig, service: &Service<'_>, step: &'static str, destination: SiteIndex) -> Result<()> {
    let link = rig.net().link(A, B);
    let source = service.site().index();
    let gate = Gate::close(rig, whose(step, service, destination), step)?;
    let outcome = thread::scope(|scope| {
        let migration = scope.spawn(|| service.try_migrate(destination));
        let reached = gate.wait(|| migration.is_finished()).and_then(|()| link.cut(Cut::Both));
        gate.open()?;
        if reached.is_ok() {
            let end = Instant::now() + LONGEST_CUT;
            eventually("the end of the cut", || {
                let over = migration.is_finished() || Instant::now() >= end;
                Ok(over.then_some(()))
            })?;
            if migration.is_finished() {
                // The source has decided by itself: it must already run there, not only when the link is back.
                let outcome = migration.join().map_err(|_| anyhow::anyhow!("the migration panicked"))??;
                if outcome.code == Some(1) {
                    service.recorder()?.wait_for_life(source, crate::PATIENCE)?;
                }
                link.cut(Cut::Nothing)?;
                return Ok(outcome);
            }
        }
        link.cut(Cut::Nothing)?;
        let outcome = migration.join().map_err(|_| anyhow::anyhow!("the migration panicked"))?;
        reached.with_context(|| format!("{outcome:?}"))?;
        outcome
    })?;
    ensure!(matches!(outcome.code, Some(0 | 1 | 3)), "an exit code that means something else: {outcome:?}");
    Ok(())
}

/// Labs are independent, and most of a lab's time is waiting: rows are spread over several at the same time.
fn spread(lanes: &[&[Row]], fault: Fault) {
    let failed = thread::scope(|scope| {
        let lanes: Vec<_> = lanes.iter().map(|rows| scope.spawn(|| run(rows, fault))).collect();
        lanes.into_iter().filter_map(|lane| lane.join().err()).count()
    });
    assert_eq!(failed, 0, "lanes failed; each has said why");
}

#[test]
fn the_source_daemon_is_killed_at_every_step() {
    spread(&[&SOURCE[..5], &SOURCE[5..]], kill);
}

#[test]
fn the_destination_daemon_is_killed_at_every_step() {
    spread(&[&DESTINATION[..4], &DESTINATION[4..]], kill);
}

#[test]
fn the_link_is_cut_at_every_step_of_the_source() {
    spread(&[&SOURCE[..4], &SOURCE[4..7], &SOURCE[7..]], cut);
}

#[test]
fn the_link_is_cut_at_every_step_of_the_destination() {
    spread(&[&DESTINATION[..3], &DESTINATION[3..5], &DESTINATION[5..]], cut);
}
