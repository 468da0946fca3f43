//! Everything that can go wrong once, at every step: afterwards exactly one copy runs, both journals agree, and the
//! next migration works.

use ums_model::error::ErrorCode;
use ums_model::names::MigrationId;
use ums_model::phase::Outcome;

use super::lab::{Gate, Lab, wait_for, web};
use crate::fault::{Act, Step};
use crate::view::{MigrationState, MigrationView};

/// The steps of the source that come before COMMIT, in order.
const BEFORE: &[Step] = &[
    Step::Reserve,
    Step::Image,
    Step::Arm,
    Step::Freeze,
    Step::Dump,
    Step::Transfer,
    Step::Restore,
    Step::Commit,
];
/// Those after it.
const AFTER: &[Step] = &[Step::Committed, Step::Resume, Step::Release];
/// The steps of the destination before and after it has the run-right.
const BEFORE_GRANT: &[Step] = &[
    Step::DestinationReserve,
    Step::DestinationImage,
    Step::DestinationArm,
    Step::DestinationRestore,
    Step::DestinationHeld,
];
const AFTER_GRANT: &[Step] = &[Step::DestinationGranted, Step::DestinationResumed, Step::DestinationRunning];

fn is_at_source(step: Step) -> bool {
    !step.as_str().starts_with("d-")
}

/// A lab in which `act` happens at `step`.
fn lab_with(step: Step, act: Act) -> Lab {
    if is_at_source(step) { Lab::new([(step, act)], []) } else { Lab::new([], [(step, act)]) }
}

/// Where the service has to be after trouble at `step`, if that is for certain.
fn expected(step: Step) -> &'static str {
    if BEFORE.contains(&step) || BEFORE_GRANT.contains(&step) { "a" } else { "b" }
}

fn started(lab: &Lab) -> MigrationId {
    lab.a.fake.write(&web(), b" with state");
    lab.a.migrate("web", "b").unwrap()
}

const MEMORY: &[u8] = b"web with state";

#[test]
fn the_tables_name_every_step() {
    let named: Vec<_> = [BEFORE, AFTER, BEFORE_GRANT, AFTER_GRANT].concat();
    assert_eq!(named, Step::ALL);
}

fn every_step_fails_once(steps: &[Step]) {
    for step in steps {
        let mut lab = lab_with(*step, Act::Fail);
        let id = started(&lab);
        let ended = lab.a.end_of(id);
        let outcome = if expected(*step) == "a" { Outcome::RolledBack } else { Outcome::Done };
        assert_eq!(ended.outcome, Some(outcome), "{step:?}: {:?}", ended.report);
        let report = ended.report.unwrap();
        assert_eq!(report.error.is_some(), outcome == Outcome::RolledBack, "{step:?}");
        if let Some(error) = report.error {
            assert!(error.message.contains(step.as_str()), "{step:?}: {error}");
        }
        lab.settles_at(expected(*step), MEMORY);
    }
}

#[test]
fn every_step_before_the_commit_fails_once() {
    every_step_fails_once(BEFORE);
}

#[test]
fn every_step_after_the_commit_fails_once() {
    every_step_fails_once(AFTER);
}

#[test]
fn every_step_of_the_destination_fails_once() {
    every_step_fails_once(&[BEFORE_GRANT, AFTER_GRANT].concat());
}

/// Every call to a site, with whether the service ends up at the source.
const SOURCE_CALLS: &[(&str, &str)] = &[
    ("facts", "a"),
    ("service_facts", "a"),
    ("image_blobs", "a"),
    ("restore_requirements", "a"),
    ("read_blob", "a"),
    ("dump", "a"),
    ("dump.stream", "a"),
    ("dump.done", "a"),
    ("release", "b"),
];
const DESTINATION_CALLS: &[(&str, &str)] = &[
    ("facts", "a"),
    ("missing_blobs", "a"),
    ("write_blob", "a"),
    ("register_image", "a"),
    ("arm", "a"),
    ("restore", "a"),
    ("restore.stream", "a"),
    ("restore.done", "a"),
    ("restore.count", "a"),
    ("resume", "b"),
    ("open", "b"),
];

#[test]
fn every_call_to_the_source_fails_once() {
    for (call, at) in SOURCE_CALLS {
        let mut lab = Lab::new([], []);
        lab.a.fake.write(&web(), b" with state");
        lab.a.fake.fail(call);
        let error = match lab.a.migrate("web", "b") {
            Ok(id) => lab.a.end_of(id).report.unwrap().error,
            Err(error) => Some(error),
        };
        assert_eq!(error.is_some(), *at == "a", "{call}");
        if let Some(error) = error.filter(|_| *call != "dump.stream") {
            assert!(error.message.contains(call), "{call}: {error}");
        }
        assert!(lab.a.fake.has_failed(), "{call} was not called");
        lab.settles_at(at, MEMORY);
    }
}

#[test]
fn every_call_to_the_destination_fails_once() {
    for (call, at) in DESTINATION_CALLS {
        let mut lab = Lab::new([], []);
        lab.a.fake.write(&web(), b" with state");
        // More than fits into all buffers on the way: the source is still sending when it is told.
        lab.a.fake.dump_size(16 << 20);
        lab.b.fake.fail(call);
        let error = match lab.a.migrate("web", "b") {
            Ok(id) => lab.a.end_of(id).report.unwrap().error,
            Err(error) => Some(error),
        };
        assert_eq!(error.is_some(), *at == "a", "{call}");
        if let Some(error) = error.filter(|_| *call != "restore.count") {
            assert!(error.message.contains(call), "{call}: {error}");
        }
        assert!(lab.b.fake.has_failed(), "{call} was not called");
        lab.settles_at(at, MEMORY);
    }
}

/// What undoes a failed migration may fail as well, and is tried until it works.
#[test]
fn undoing_fails_at_first() {
    for (undo, at_source) in [("thaw", true), ("status", true), ("discard", false), ("status", false)] {
        eprintln!("{undo} fails at first");
        let mut lab = Lab::new([(Step::Commit, Act::Fail)], []);
        let id = started(&lab);
        let fake = if at_source { &lab.a.fake } else { &lab.b.fake };
        (0..3).for_each(|_| fake.fail(undo));
        assert_eq!(lab.a.end_of(id).outcome, Some(Outcome::RolledBack), "{undo}");
        lab.settles_at("a", MEMORY);
    }
}

fn the_link_is_cut(steps: &[Step]) {
    for step in steps {
        let dir = tempfile::tempdir().unwrap();
        let gate = Gate::new(&dir, "gate");
        let mut lab = lab_with(*step, gate.act());
        let id = started(&lab);
        gate.reached();
        lab.cut();
        gate.open();
        eprintln!("cut at {step:?}");
        if *step == Step::Commit {
            // HELD has arrived: it commits unless it has noticed the cut. Either is fine.
            lab.heal();
            let at = if lab.a.end_of(id).outcome == Some(Outcome::Done) { "b" } else { "a" };
            lab.settles_at(at, MEMORY);
            continue;
        }
        if expected(*step) == "a" {
            // Nobody has to wait for the link.
            let ended = lab.a.end_of(id);
            assert_eq!(ended.outcome, Some(Outcome::RolledBack), "{step:?}");
            let code = ended.report.unwrap().error.unwrap().code;
            let told = [ErrorCode::LinkCut, ErrorCode::Unreachable, ErrorCode::Timeout].contains(&code);
            assert!(told || *step == Step::Reserve, "{step:?}: {code}");
            assert_eq!(lab.a.fake.memory(&web()).unwrap(), MEMORY);
        }
        lab.heal();
        lab.settles_at(expected(*step), MEMORY);
    }
}

#[test]
fn the_link_is_cut_before_the_commit() {
    the_link_is_cut(BEFORE);
}

#[test]
fn the_link_is_cut_after_the_commit() {
    the_link_is_cut(AFTER);
}

#[test]
fn the_link_is_cut_at_the_destination() {
    the_link_is_cut(&[BEFORE_GRANT, AFTER_GRANT].concat());
}

/// From COMMIT to the answer the source says so, and goes on by itself.
#[test]
fn a_commit_without_an_answer_is_in_doubt() {
    let dir = tempfile::tempdir().unwrap();
    let gate = Gate::new(&dir, "gate");
    let mut lab = Lab::new([(Step::Committed, gate.act())], []);
    let id = started(&lab);
    gate.reached();
    lab.cut();
    gate.open();
    wait_for("doubt", || Some(lab.a.migration(id)).filter(|view| view.state == MigrationState::InDoubt));
    let error = lab.a.client.delete(&format!("/v1/migrations/{id}")).unwrap_err();
    assert_eq!(error.code, ErrorCode::Refused);
    assert!(error.message.contains("committed"), "{error}");
    lab.heal();
    assert_eq!(lab.a.end_of(id).outcome, Some(Outcome::Done));
    lab.settles_at("b", MEMORY);
}

#[test]
fn a_user_aborts() {
    for step in Step::ALL {
        let dir = tempfile::tempdir().unwrap();
        let gate = Gate::new(&dir, "gate");
        let mut lab = lab_with(*step, gate.act());
        let id = started(&lab);
        gate.reached();
        let path = "/v1/services/web/abort";
        if AFTER.contains(step) || AFTER_GRANT.contains(step) {
            let error = lab.a.client.post::<MigrationView>(path, &serde_json::json!({})).unwrap_err();
            assert_eq!(error.code, ErrorCode::Refused, "{step:?}: {error}");
            gate.open();
        } else {
            let aborting = std::thread::scope(|scope| {
                let aborting =
                    scope.spawn(|| lab.a.client.post::<MigrationView>(path, &serde_json::json!({})));
                gate.open();
                aborting.join().unwrap()
            });
            // At the last moment it may be too late after all; but it is never half of each.
            if let Err(error) = aborting {
                assert!(
                    matches!(error.code, ErrorCode::Refused | ErrorCode::MigrationNotFound),
                    "{step:?}: {error}"
                );
            }
        }
        let outcome = lab.a.end_of(id).outcome.unwrap();
        lab.settles_at(if outcome == Outcome::Done { "b" } else { "a" }, MEMORY);
    }
}

/// With the gate closed an abort is in time for certain.
#[test]
fn an_abort_in_time_rolls_back() {
    for step in
        [Step::DestinationImage, Step::DestinationArm, Step::DestinationRestore, Step::DestinationHeld]
    {
        let dir = tempfile::tempdir().unwrap();
        let gate = Gate::new(&dir, "gate");
        let mut lab = lab_with(step, gate.act());
        let id = started(&lab);
        gate.reached();
        let view: MigrationView =
            lab.a.client.post("/v1/services/web/abort", &serde_json::json!({})).unwrap();
        assert_eq!((view.outcome, view.migration), (Some(Outcome::RolledBack), id), "{step:?}");
        assert_eq!(view.report.unwrap().error.unwrap().code, ErrorCode::Aborted);
        assert_eq!(lab.a.fake.memory(&web()).unwrap(), MEMORY);
        gate.open();
        lab.settles_at("a", MEMORY);
    }
}
