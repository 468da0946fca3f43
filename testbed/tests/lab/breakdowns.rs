//! What fails on the way, after the plan found nothing: the service runs on at the source, and the error says why.

use std::fs;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use ums_model::error::ErrorCode;
use ums_model::names::Bytes;
use ums_model::phase::Outcome;
use ums_testbed::net::{A, B};
use ums_testbed::tracer::Tracer;
use ums_testbed::workload::Workload;

use crate::POLL;
use crate::gate::Gate;
use crate::histories::{agreed, error, report};
use crate::rig::{Rig, processes_of};
use crate::traces::Traces;
use crate::verdict::{failed, failed_with};

#[test]
fn a_dump_that_criu_finds_to_be_impossible() {
    let rig = &Rig::new().unwrap();
    let service = &rig.start(A, &Workload::memhog(Bytes::mib(4))).unwrap();
    let clean = Traces::of(rig).unwrap();
    // Both looks at the service are over when this step begins.
    let gate = Gate::close(rig, A, "dump").unwrap();
    let tracer = thread::scope(|scope| {
        let migration = scope.spawn(|| service.try_migrate(B));
        let tracer = gate.wait(|| migration.is_finished()).and_then(|()| {
            let processes = processes_of(rig.a(), service.name())?;
            Tracer::attach(*processes.first().context("a service without processes")?)
        });
        gate.open().unwrap();
        let outcome = migration.join().unwrap().unwrap();
        let tracer = tracer.unwrap();
        failed(&outcome, 1, ErrorCode::DumpFailed, &[service.name(), "traced"]).unwrap();
        assert_eq!(report(&outcome).unwrap().outcome, Outcome::RolledBack);
        tracer
    });
    service.check().unwrap();
    assert_eq!(agreed(rig, service.name()).unwrap(), Outcome::RolledBack);
    Traces::wait_for(rig, &clean).unwrap();
    drop(tracer);
    service.migrate(B).unwrap();
    service.check().unwrap();
}

#[test]
fn a_restore_for_which_a_file_is_missing() {
    let rig = &Rig::new().unwrap();
    let service = &rig.start(A, &Workload::memhog(Bytes::mib(4))).unwrap();
    let clean = Traces::of(rig).unwrap();
    let gate = Gate::close(rig, B, "d-restore").unwrap();
    thread::scope(|scope| {
        let migration = scope.spawn(|| service.try_migrate(B));
        let sabotage = gate.wait(|| migration.is_finished()).and_then(|()| hide_the_program(rig));
        gate.open().unwrap();
        let outcome = migration.join().unwrap();
        let hidden = sabotage.unwrap();
        let outcome = outcome.unwrap();
        failed(&outcome, 1, ErrorCode::RestoreFailed, &[service.name()]).unwrap();
        hidden.iter().for_each(|(path, aside)| fs::rename(aside, path).unwrap());
    });
    service.check().unwrap();
    assert_eq!(agreed(rig, service.name()).unwrap(), Outcome::RolledBack);
    Traces::wait_for(rig, &clean).unwrap();

    // The destination is as good as before.
    service.migrate(B).unwrap();
    service.check().unwrap();
}

/// Takes the program away from under the service that is about to be restored at B.
fn hide_the_program(rig: &Rig) -> Result<Vec<(PathBuf, PathBuf)>> {
    let mut found = Vec::new();
    find(&rig.b().state(), "ums-workload", &mut found);
    ensure!(!found.is_empty(), "the destination has unpacked no program");
    let hide = |path: PathBuf| {
        let aside = path.with_file_name("hidden");
        fs::rename(&path, &aside).with_context(|| path.display().to_string())?;
        Ok((path, aside))
    };
    found.into_iter().map(hide).collect()
}

fn find(directory: &Path, name: &str, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        match entry.file_type() {
            Ok(kind) if kind.is_dir() => find(&entry.path(), name, found),
            Ok(kind) if kind.is_file() && entry.file_name() == name => found.push(entry.path()),
            _ => {}
        }
    }
}

/// Long enough for a request to arrive.
const MOMENT: Duration = Duration::from_secs(2);

/// What may be said where the daemon was told to fail.
const INJECTED: [ErrorCode; 7] = [
    ErrorCode::Internal,
    ErrorCode::Refused,
    ErrorCode::DumpFailed,
    ErrorCode::RestoreFailed,
    ErrorCode::LinkCut,
    ErrorCode::Aborted,
    ErrorCode::Timeout,
];
/// Steps whose failure ends a migration, in the order in which they come.
const BEFORE_THE_COMMIT: [&str; 7] = ["reserve", "image", "arm", "freeze", "dump", "transfer", "commit"];
const AT_THE_DESTINATION: [&str; 5] = ["d-reserve", "d-image", "d-arm", "d-restore", "d-held"];

/// A daemon's environment in which every one of `steps` fails once.
fn fail_at(steps: &[&str]) -> [(&'static str, String); 1] {
    let faults: Vec<String> = steps.iter().map(|step| format!("{step}:fail")).collect();
    [(ums_testbed::fault::VARIABLE, faults.join(","))]
}

#[test]
fn a_step_that_fails_ends_the_attempt_and_not_the_service() {
    let rig = &Rig::new().unwrap();
    let service = &rig.start(A, &Workload::memhog(Bytes::mib(4))).unwrap();
    let clean = Traces::of(rig).unwrap();
    // Each attempt comes one step further than the one before it.
    for (site, steps) in [(A, &BEFORE_THE_COMMIT[..]), (B, &AT_THE_DESTINATION)] {
        rig.site(site).restart_with(&fail_at(steps)).unwrap();
        for step in steps {
            let outcome = service.try_migrate(B).unwrap();
            let told = error(&outcome).unwrap();
            assert!(outcome.code == Some(1) && INJECTED.contains(&told.code), "step {step}: {outcome:?}");
            assert!(told.message.contains(&format!("step {step} ")), "the cause is passed on: {told:?}");
            assert_eq!(report(&outcome).unwrap().outcome, Outcome::RolledBack, "step {step}");
            service.check().with_context(|| format!("after step {step}")).unwrap();
            assert_eq!(agreed(rig, service.name()).unwrap(), Outcome::RolledBack, "step {step}");
            Traces::wait_for(rig, &clean).with_context(|| format!("after step {step}")).unwrap();
        }
        rig.site(site).restart().unwrap();
    }
    // After the commit there is only one way: on.
    rig.a().restart_with(&fail_at(&["committed", "resume", "release"])).unwrap();
    rig.b().restart_with(&fail_at(&["d-granted", "d-resumed", "d-running"])).unwrap();
    let outcome = service.try_migrate(B).unwrap();
    assert!(matches!(outcome.code, Some(0 | 3)), "{outcome:?}");
    assert_eq!(agreed(rig, service.name()).unwrap(), Outcome::Done);
    assert_eq!(service.settle().unwrap(), B);
    service.check().unwrap();
}

#[test]
fn an_abort_before_the_commit_thaws_and_after_it_is_refused() {
    let rig = &Rig::new().unwrap();
    let service = &rig.start(A, &Workload::memhog(Bytes::mib(4))).unwrap();
    let name = service.name();
    // "transfer": the service is stopped. "arm": it still runs.
    for step in ["arm", "transfer"] {
        let gate = Gate::close(rig, A, step).unwrap();
        thread::scope(|scope| {
            let migration = scope.spawn(|| service.try_migrate(B));
            let aborted = gate.wait(|| migration.is_finished()).and_then(|()| {
                let abort = scope.spawn(|| rig.a().ums(&["abort", name]));
                // Whether an abort interrupts what the daemon does or waits for its end is the daemon's choice.
                let end = Instant::now() + MOMENT;
                while !abort.is_finished() && Instant::now() < end {
                    thread::sleep(POLL);
                }
                gate.open()?;
                abort.join().map_err(|_| anyhow::anyhow!("the abort panicked"))??.success()
            });
            gate.open().unwrap();
            let outcome = migration.join().unwrap().unwrap();
            aborted.unwrap();
            failed(&outcome, 1, ErrorCode::Aborted, &[name]).unwrap();
        });
        service.check().unwrap();
        assert_eq!(agreed(rig, name).unwrap(), Outcome::RolledBack);
    }

    let gate = Gate::close(rig, A, "committed").unwrap();
    thread::scope(|scope| {
        let migration = scope.spawn(|| service.try_migrate(B));
        let refused = gate.wait(|| migration.is_finished()).and_then(|()| rig.a().ums(&["abort", name]));
        gate.open().unwrap();
        let outcome = migration.join().unwrap();
        failed_with(&refused.unwrap(), 1, &[ErrorCode::Refused], &[name]).unwrap();
        outcome.unwrap().success().unwrap();
    });
    assert_eq!(service.settle().unwrap(), B);
    service.check().unwrap();
    assert_eq!(agreed(rig, name).unwrap(), Outcome::Done);

    // Nothing is under way any more.
    let outcome = rig.b().ums(&["abort", name]).unwrap();
    assert_eq!(outcome.code, Some(1), "{outcome:?}");
}

#[test]
fn a_nest_that_dies_during_a_migration_takes_only_the_attempt_with_it() {
    let rig = &Rig::new().unwrap();
    let service = &rig.start(A, &Workload::memhog(Bytes::mib(4))).unwrap();
    for (gated, step, victim) in [(A, "arm", A), (A, "transfer", A), (A, "transfer", B), (B, "d-restore", B)]
    {
        let gate = Gate::close(rig, gated, step).unwrap();
        thread::scope(|scope| {
            let migration = scope.spawn(|| service.try_migrate(B));
            let killed = gate.wait(|| migration.is_finished()).and_then(|()| {
                let nest = rig.site(victim).nest_pid(service.name())?;
                let nest = rustix::process::Pid::from_raw(nest).context("a pid of 0")?;
                Ok(rustix::process::kill_process(nest, rustix::process::Signal::KILL)?)
            });
            gate.open().unwrap();
            let outcome = migration.join().unwrap();
            killed.unwrap();
            let outcome = outcome.unwrap();
            assert!(matches!(outcome.code, Some(0 | 1)), "{step} {victim}: {outcome:?}");
        });
        // A source that is armed has not begun; its nest comes back in time, or not.
        let ended = agreed(rig, service.name()).unwrap();
        let here = service.settle().unwrap();
        assert_eq!(here == B, ended == Outcome::Done, "{step} {victim}");
        service.check().with_context(|| format!("nest of {victim} killed at {step}")).unwrap();
        if here == B {
            service.migrate(A).unwrap();
        }
    }
}
