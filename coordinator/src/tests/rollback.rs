//! A journal that was put back to an older copy: what the nests have seen since tells, and no copy runs on its word.

use serde_json::json;
use ums_model::action::Alarm;
use ums_model::error::ErrorCode;
use ums_model::names::Epoch;
use ums_model::phase::Outcome;
use ums_sites::adapter::CopyState;

use super::lab::{Backup, Lab, wait_for, web};
use crate::view::{ResolvedView, ServiceView};

/// `web` has gone to B and come back; A's journal was put back to before.
fn put_back() -> Lab {
    let mut lab = Lab::new([], []);
    lab.a.stop();
    let before = Backup::of(&lab.a);
    lab.a.start([]);
    lab.a.end_of(lab.a.migrate("web", "b").unwrap());
    lab.b.end_of(lab.b.migrate("web", "a").unwrap());
    wait_for("web at A", || lab.a.fake.memory(&web()));
    lab.a.stop();
    before.put_back(&lab.a);
    lab
}

fn is_stopped_and_kept(lab: &Lab) {
    assert_eq!(lab.a.fake.copy(&web()), CopyState::Frozen);
    assert!(lab.witness.running(&web()).is_empty());
    let view: ServiceView = lab.a.client.get("/v1/services/web").unwrap();
    assert_eq!(view.alarm, Some(Alarm::Superseded), "{}", view.standing);
    assert_eq!(view.standing, "source Superseded(2)");
    let refused = lab.a.migrate("web", "b").unwrap_err();
    assert_eq!(refused.code, ErrorCode::Stuck, "{refused}");
    assert!(refused.hint.contains("ums resolve web --run-here"), "{refused:?}");
    let started = lab.a.client.post::<ServiceView>("/v1/services/web/start", &json!({})).unwrap_err();
    assert_eq!(started.code, ErrorCode::Stuck, "{started}");
}

#[test]
fn a_copy_is_stopped_whose_nest_knows_more_than_the_journal() {
    let mut lab = put_back();
    for _ in 0..2 {
        lab.a.start([]);
        is_stopped_and_kept(&lab);
        lab.a.stop();
    }
    lab.a.start([]);
    // An operator knows that it runs nowhere else.
    let resolved: ResolvedView =
        lab.a.client.post("/v1/services/web/resolve", &json!({"verdict": "run-here"})).unwrap();
    assert!(resolved.service.is_some_and(|service| service.status.copy == CopyState::Running));
    let ended = lab.a.end_of(lab.a.migrate("web", "b").unwrap());
    assert_eq!(ended.outcome, Some(Outcome::Done), "{:?}", ended.report);
    assert!(ended.epoch > Epoch(2), "{}", ended.epoch);
    assert_eq!(lab.settled_at(), "b");
}

/// A stop that does not work is tried again, and nothing is thawed meanwhile.
#[test]
fn a_copy_that_cannot_be_stopped_is_stopped_later() {
    let mut lab = put_back();
    lab.a.fake.fail("freeze");
    lab.a.start([]);
    wait_for("the stop", || (lab.a.fake.copy(&web()) == CopyState::Frozen).then_some(()));
    wait_for("the alarm", || {
        let view: ServiceView = lab.a.client.get("/v1/services/web").unwrap();
        (view.alarm == Some(Alarm::Superseded)).then_some(())
    });
    is_stopped_and_kept(&lab);
    assert!(lab.a.fake.has_failed());
}

/// A new journal knows nothing: a service that has migrated is kept for an operator, who may give it up.
#[test]
fn a_new_journal_does_not_adopt_a_service_that_has_migrated() {
    let mut lab = put_back();
    Backup::of(&lab.a).remove(&lab.a);
    lab.a.config.new_journal = true;
    lab.a.start([]);
    is_stopped_and_kept_alone(&lab);
    lab.a.client.delete("/v1/services/web?force=true").unwrap();
    assert_eq!(lab.a.fake.copy(&web()), CopyState::Absent);
    lab.a.run("web").unwrap();
    assert_eq!(lab.witness.crimes(), Vec::<String>::new());
}

fn is_stopped_and_kept_alone(lab: &Lab) {
    assert_eq!(lab.a.fake.copy(&web()), CopyState::Frozen);
    let view: ServiceView = lab.a.client.get("/v1/services/web").unwrap();
    assert_eq!((view.alarm, view.standing.as_str()), (Some(Alarm::Superseded), "source Superseded(2)"));
}
