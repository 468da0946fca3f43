//! The daemons die, at every step, one or both: afterwards exactly one copy runs and both journals agree.

use ums_model::phase::Outcome;
use ums_sites::adapter::CopyState;

use super::lab::{Gate, Lab, wait_for, web};
use crate::fault::{Act, Step};
use crate::view::ResolvedView;

/// Who dies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Dies {
    Source,
    Destination,
    Both,
}

/// Brings a migration to `step`, lets `dies` die there and come back, and returns where the service is then.
fn crash(step: Step, dies: Dies) -> String {
    let dir = tempfile::tempdir().unwrap();
    let gate = Gate::new(&dir, "gate");
    let at_source = !step.as_str().starts_with("d-");
    let fault = [(step, gate.act())];
    let mut lab = if at_source { Lab::new(fault, []) } else { Lab::new([], fault) };
    lab.a.fake.write(&web(), b" with state");
    lab.a.migrate("web", "b").unwrap();
    gate.reached();
    match dies {
        Dies::Source => lab.a.crash(),
        Dies::Destination => lab.b.crash(),
        Dies::Both => {
            lab.a.crash();
            lab.b.crash();
        }
    }
    gate.open();
    if dies != Dies::Destination {
        lab.a.start([]);
    }
    if dies != Dies::Source {
        lab.b.start([]);
    }
    let at = lab.settled_at();
    lab.a.start([]);
    lab.b.start([]);
    let home = if at == "a" { &lab.a } else { &lab.b };
    assert_eq!(home.fake.memory(&web()).unwrap(), b"web with state", "{step:?} {dies:?}");
    // And the next one works.
    let (from, to) = if at == "a" { (&lab.a, &lab.b) } else { (&lab.b, &lab.a) };
    let ended = from.end_of(from.migrate("web", to.fake.name.as_str()).unwrap());
    assert_eq!(ended.outcome, Some(Outcome::Done), "{step:?} {dies:?}: {:?}", ended.report);
    assert_ne!(lab.settled_at(), at);
    at
}

/// Whether COMMIT is durable when `step` begins.
fn committed(step: Step) -> bool {
    use Step::{Committed, DestinationGranted, DestinationResumed, DestinationRunning, Release, Resume};
    [Committed, Resume, Release, DestinationGranted, DestinationResumed, DestinationRunning].contains(&step)
}

#[test]
fn the_source_dies() {
    for step in Step::ALL {
        let at = crash(*step, Dies::Source);
        assert_eq!(at == "b", committed(*step), "{step:?}");
    }
}

#[test]
fn the_destination_dies() {
    for step in Step::ALL {
        let at = crash(*step, Dies::Destination);
        // Before it has dialed, the source does not notice; at the gate of its commit it may still go on.
        let either = matches!(step, Step::Reserve | Step::Commit);
        assert!((at == "b") == committed(*step) || either, "{step:?}: {at}");
    }
}

#[test]
fn both_die() {
    for step in Step::ALL {
        let at = crash(*step, Dies::Both);
        assert_eq!(at == "b", committed(*step), "{step:?}");
    }
}

/// The destination is HELD and cannot be reached; it keeps the copy, asks, and lets go when it hears.
#[test]
fn a_held_copy_waits_for_the_source() {
    let dir = tempfile::tempdir().unwrap();
    let gate = Gate::new(&dir, "gate");
    let mut lab = Lab::new([(Step::Commit, gate.act())], []);
    lab.a.migrate("web", "b").unwrap();
    gate.reached();
    lab.a.crash();
    gate.open();
    // B's side of the link is closed by the kernel of the dead; nothing happens to the copy.
    lab.b.restart([]);
    assert_eq!(lab.b.fake.copy(&web()), CopyState::Held);
    lab.a.start([]);
    wait_for("the end of the held copy", || (lab.b.fake.copy(&web()) == CopyState::Absent).then_some(()));
    lab.settles_at("a", b"web");
}

/// The frozen original dies after COMMIT: the destination has the only copy, and runs it.
#[test]
fn the_original_dies_after_the_commit() {
    let dir = tempfile::tempdir().unwrap();
    let gate = Gate::new(&dir, "gate");
    let mut lab = Lab::new([(Step::Committed, gate.act())], []);
    lab.a.migrate("web", "b").unwrap();
    gate.reached();
    lab.a.fake.kill(&web());
    gate.open();
    lab.settles_at("b", b"web");
}

/// The held copy dies after COMMIT was written and before it was told: REFUSED, and the original runs again.
#[test]
fn the_held_copy_dies_before_the_commit_arrives() {
    let dir = tempfile::tempdir().unwrap();
    let gate = Gate::new(&dir, "gate");
    let mut lab = Lab::new([(Step::Committed, gate.act())], []);
    let id = lab.a.migrate("web", "b").unwrap();
    gate.reached();
    lab.b.fake.kill(&web());
    gate.open();
    let ended = lab.a.end_of(id);
    assert_eq!(ended.outcome, Some(Outcome::RolledBack));
    assert!(ended.report.unwrap().frozen_ms.is_some());
    lab.settles_at("a", b"web");
}

/// A daemon that is told to end rolls back what is not committed, and starts again where it was.
#[test]
fn an_orderly_end_rolls_back() {
    let dir = tempfile::tempdir().unwrap();
    let gate = Gate::new(&dir, "gate");
    let mut lab = Lab::new([], [(Step::DestinationRestore, gate.act())]);
    let id = lab.a.migrate("web", "b").unwrap();
    gate.reached();
    lab.a.stop();
    assert_eq!(lab.a.fake.memory(&web()).unwrap(), b"web");
    gate.open();
    lab.a.start([]);
    assert_eq!(lab.a.end_of(id).outcome, Some(Outcome::RolledBack));
    lab.settles_at("a", b"web");
}

#[test]
fn a_fault_that_never_happens_changes_nothing() {
    let mut lab = Lab::new([], []);
    lab.a.restart([(Step::Release, Act::Fail)]);
    lab.b.restart([]);
    assert_eq!(lab.a.fake.memory(&web()).unwrap(), b"web");
    lab.settles_at("a", b"web");
}

/// ABORT is durable, the nest notes the thaw and dies with the copy before it thaws. Whoever declares the copy dead must
/// have taken from the nests the right to start it again.
#[test]
fn what_was_declared_lost_no_later_nest_starts() {
    let mut lab = Lab::new([(Step::Commit, Act::Fail)], []);
    lab.a.fake.fail("thaw.half");
    let id = lab.a.migrate("web", "b").unwrap();
    assert_eq!(lab.a.end_of(id).outcome, Some(Outcome::Lost));
    lab.a.fake.next_nest(&web());
    assert_eq!(lab.a.fake.copy(&web()), CopyState::Dead, "it was declared lost");
    // An operator's word lets it be started from its files.
    let verdict = serde_json::json!({ "verdict": "run-here" });
    let resolved: ResolvedView = lab.a.client.post("/v1/services/web/resolve", &verdict).unwrap();
    assert_eq!(resolved.service.unwrap().status.copy, CopyState::Dead);
    lab.a.fake.next_nest(&web());
    assert_eq!(lab.settled_at(), "a");
}
