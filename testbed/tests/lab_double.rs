//! The lab itself, with a stand-in for the product: that tests pass when all is well, and fail when it is not.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::Result;
use ums_testbed::fault::{At, Fault, Step};
use ums_testbed::lab::Lab;
use ums_testbed::net::{A, B};
use ums_testbed::shaper::{Cut, Shape};
use ums_testbed::workload::Workload;

struct Double {
    lab: Lab,
    _directory: tempfile::TempDir,
}

/// A lab whose sites run the stand-in; its file name says how it misbehaves.
fn lab(name: &str) -> Result<Double> {
    let directory = tempfile::tempdir()?;
    let program: PathBuf = directory.path().join(name);
    fs::copy(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/double/ums.sh"), &program)?;
    fs::set_permissions(&program, Permissions::from_mode(0o755))?;
    Ok(Double { lab: Lab::with(2, Shape::open(), &program)?, _directory: directory })
}

#[test]
fn a_journey_there_and_back_is_proved() {
    let Double { lab, .. } = &lab("ums").unwrap();
    let counter = lab.start(A, &Workload::counter()).unwrap();
    let outcome = counter.migrate(B).unwrap();
    assert_eq!(outcome.number("frozen_ms").unwrap(), 12.5);
    assert_eq!(counter.check().unwrap().unwrap().moves, 1);
    counter.migrate(A).unwrap();
    let verdict = counter.check().unwrap().unwrap();
    assert_eq!(verdict.moves, 2);
    assert_eq!(counter.journey(), [A, B, A]);
    assert!(lab.a().service_pid(counter.name()).unwrap() > 1);
}

#[test]
fn two_running_copies_fail_the_check() {
    let Double { lab, .. } = &lab("ums-that-splits").unwrap();
    let counter = lab.start(A, &Workload::counter()).unwrap();
    counter.migrate(B).unwrap();
    // Both sides must have written something, else there is nothing to see yet.
    counter.recorder().unwrap().wait_for_life(A, std::time::Duration::from_secs(20)).unwrap();
    let error = counter.check().unwrap_err().to_string();
    assert!(error.contains("written twice"), "{error}");
}

#[test]
fn a_fault_happens_while_the_daemon_waits_and_the_lab_heals() {
    let Double { lab, .. } = &lab("ums").unwrap();
    let counter = lab.start(A, &Workload::counter()).unwrap();
    let outcome = counter.migrate_with(B, Fault::CutBoth, At(Step::Transfer)).unwrap();
    outcome.failure(1, "the link is cut").unwrap();
    assert_eq!(fs::read_to_string(lab.a().state().join("fault")).unwrap(), pause_of(lab));
    lab.heal().unwrap();
    lab.net().link(A, B).cut(Cut::Nothing).unwrap();
    assert_eq!(counter.settle().unwrap(), A);
    assert_eq!(counter.check().unwrap().unwrap().moves, 0);
}

fn pause_of(lab: &Lab) -> String {
    format!("transfer:pause:{}\n", lab.net().tag().directory().join("pause-0").display())
}

#[test]
fn a_daemon_that_kills_itself_is_started_again() {
    let Double { lab, .. } = &lab("ums").unwrap();
    let counter = lab.start(A, &Workload::counter()).unwrap();
    counter.migrate_with(B, Fault::KillSourceDaemon, At(Step::Commit)).unwrap();
    assert!(!lab.a().is_alive());
    lab.heal().unwrap();
    assert!(lab.a().is_alive());
    assert_eq!(fs::read_to_string(lab.a().state().join("fault")).unwrap(), "\n", "the fault is gone");
    assert_eq!(counter.settle().unwrap(), A);
    counter.migrate(B).unwrap();
    counter.check().unwrap();
}

#[test]
fn a_killed_daemon_leaves_its_services() {
    let Double { lab, .. } = &lab("ums").unwrap();
    let counter = lab.start(B, &Workload::counter()).unwrap();
    lab.b().kill9().unwrap();
    assert!(!lab.b().is_alive());
    counter.check().unwrap();
    lab.b().restart().unwrap();
    counter.check().unwrap();
}

#[test]
fn an_error_says_what_the_program_said() {
    let Double { lab, .. } = &lab("ums").unwrap();
    let error = lab.a().ums(&["nonsense"]).unwrap().success().unwrap_err().to_string();
    assert!(error.contains("`ums nonsense` ended with exit code 2: no such command"), "{error}");
}

#[test]
fn nothing_of_a_lab_stays_behind() {
    let Double { lab, _directory } = lab("ums").unwrap();
    let counter = lab.start(A, &Workload::counter()).unwrap();
    let pid = lab.a().service_pid(counter.name()).unwrap();
    let directory = lab.net().tag().directory();
    assert!(directory.exists());
    drop(lab);
    assert!(!directory.exists());
    let gone = fs::read_to_string(format!("/proc/{pid}/stat")).map_or(true, |stat| stat.contains(") Z "));
    assert!(gone, "the service {pid} still runs");
}
