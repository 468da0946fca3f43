//! What an operator can say when the other site is gone, and what becomes of it when that site comes back after all.

use serde_json::json;
use ums_model::error::{ErrorCode, WireError};
use ums_model::phase::Outcome;
use ums_sites::adapter::CopyState;

use super::lab::{Gate, Lab, Node, wait_for, web};
use crate::fault::Step;
use crate::view::{ResolvedView, ServiceView};

fn resolve(node: &Node, verdict: &str) -> Result<ResolvedView, WireError> {
    node.client.post("/v1/services/web/resolve", &json!({ "verdict": verdict }))
}

/// A lab in which A has committed and B, which holds the copy, is gone; or the other way round.
fn in_doubt(gone: &str) -> (Lab, tempfile::TempDir) {
    let dir = tempfile::tempdir().unwrap();
    let gate = Gate::new(&dir, "gate");
    let step = if gone == "b" { Step::Committed } else { Step::Commit };
    let mut lab = Lab::new([(step, gate.act())], []);
    lab.a.migrate("web", "b").unwrap();
    gate.reached();
    match gone {
        "b" => lab.b.crash(),
        _ => lab.a.crash(),
    }
    gate.open();
    (lab, dir)
}

#[test]
fn a_source_in_doubt_runs_its_original_again_and_the_held_copy_gives_way() {
    let (mut lab, _dir) = in_doubt("b");
    assert_eq!(lab.a.fake.copy(&web()), CopyState::Frozen);
    let service = resolve(&lab.a, "run-here").unwrap();
    assert_eq!(service.service.unwrap().status.copy, CopyState::Running);
    // It is at home, and can do what any other can.
    let error = resolve(&lab.a, "run-here").unwrap_err();
    assert!(error.code == ErrorCode::Refused && error.message.contains("nothing for an operator"), "{error}");
    assert_eq!(lab.b.fake.copy(&web()), CopyState::Held);
    lab.b.start([]);
    wait_for("the end of the held copy", || (lab.b.fake.copy(&web()) == CopyState::Absent).then_some(()));
    lab.settles_at("a", b"web");
}

#[test]
fn a_held_copy_runs_and_the_returning_original_stays_frozen() {
    let (mut lab, _dir) = in_doubt("a");
    assert_eq!(resolve(&lab.b, "run-here").unwrap().service.unwrap().status.copy, CopyState::Running);
    assert_eq!(lab.b.fake.memory(&web()).unwrap(), b"web");
    assert_eq!(lab.a.fake.copy(&web()), CopyState::Frozen);

    lab.a.start([]);
    let seen: ServiceView = lab.a.client.get("/v1/services/web").unwrap();
    assert_eq!(seen.status.copy, CopyState::Frozen, "two would run");
    let error = lab.a.migrate("web", "b").unwrap_err();
    assert!(error.message.contains("web"), "{error}");
    assert_eq!(lab.witness.crimes(), Vec::<String>::new());

    // What is superseded is given up by its operator, and nothing of it is left.
    resolve(&lab.a, "give-up").unwrap();
    wait_for("the end of the original", || (lab.a.fake.copy(&web()) == CopyState::Absent).then_some(()));
    lab.settles_at("b", b"web");
}

#[test]
fn a_held_copy_that_is_given_up_is_refused_to_the_returning_source() {
    let (mut lab, _dir) = in_doubt("a");
    resolve(&lab.b, "give-up").unwrap();
    wait_for("the end of the held copy", || (lab.b.fake.copy(&web()) == CopyState::Absent).then_some(()));
    lab.a.start([]);
    lab.settles_at("a", b"web");
}

#[test]
fn an_original_that_is_given_up_in_doubt_is_released() {
    let (mut lab, _dir) = in_doubt("b");
    resolve(&lab.a, "give-up").unwrap();
    wait_for("the end of the original", || (lab.a.fake.copy(&web()) == CopyState::Absent).then_some(()));
    // The source has committed once, and says so for ever.
    lab.b.start([]);
    assert_eq!(lab.witness.crimes(), Vec::<String>::new());
}

#[test]
fn where_the_other_site_answers_no_word_is_needed() {
    let dir = tempfile::tempdir().unwrap();
    let gate = Gate::new(&dir, "gate");
    let mut lab = Lab::new([(Step::Commit, gate.act())], []);
    let id = lab.a.migrate("web", "b").unwrap();
    gate.reached();
    for verdict in ["run-here", "give-up"] {
        let error = resolve(&lab.b, verdict).unwrap_err();
        assert!(error.code == ErrorCode::Refused && error.message.contains("answers"), "{error}");
    }
    gate.open();
    assert_eq!(lab.a.end_of(id).outcome, Some(Outcome::Done));
    // At home there is nothing to decide either.
    assert_eq!(resolve(&lab.b, "run-here").unwrap_err().code, ErrorCode::Refused);
    lab.settles_at("b", b"web");
}

#[test]
fn a_verdict_survives_a_restart() {
    let (mut lab, _dir) = in_doubt("b");
    resolve(&lab.a, "run-here").unwrap();
    lab.a.crash();
    lab.a.start([]);
    assert_eq!(lab.a.fake.copy(&web()), CopyState::Running);
    lab.b.start([]);
    lab.settles_at("a", b"web");
}
