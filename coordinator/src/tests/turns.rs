//! Several migrations at once: those for which there is no room wait, first come, first served, and can be seen and
//! aborted while they wait.

use serde_json::json;
use ums_model::error::{ErrorCode, WireError};
use ums_model::names::MigrationId;
use ums_model::phase::Outcome;

use super::lab::{Gate, Lab, Node};
use crate::fault::Step;
use crate::view::{MigrationState, MigrationView, ServiceView};

/// A lab in which one migration at a time leaves A, and more services than `web` at A.
fn one_at_a_time(gate: &Gate, others: &[&str]) -> Lab {
    let mut lab = Lab::new([], []);
    lab.a.stop();
    lab.a.config.limits.migrations = 1.try_into().unwrap();
    lab.a.start([(Step::Arm, gate.act())]);
    others.iter().for_each(|name| run(&lab.a, name));
    lab
}

fn run(node: &Node, name: &str) {
    node.client
        .post::<ServiceView>("/v1/services", &json!({"name": name, "image": {"image": "redis"}}))
        .unwrap();
}

fn abort(node: &Node, id: MigrationId) -> Result<MigrationView, WireError> {
    node.client.call(hyper::Method::DELETE, &format!("/v1/migrations/{id}"), None)
}

#[test]
fn who_waits_is_seen_goes_in_order_and_can_be_aborted() {
    let dir = tempfile::tempdir().unwrap();
    let gate = Gate::new(&dir, "gate");
    let mut lab = one_at_a_time(&gate, &["one", "two", "three"]);
    let first = lab.a.migrate("web", "b").unwrap();
    gate.reached();
    let [one, two, three] = ["one", "two", "three"].map(|name| lab.a.migrate(name, "b").unwrap());
    for id in [one, two, three] {
        assert_eq!(lab.a.migration(id).state, MigrationState::Queued);
    }
    // What waits is in a migration as any other.
    let error = lab.a.client.post::<serde_json::Value>("/v1/services/one/stop", &json!({})).unwrap_err();
    assert!(error.code == ErrorCode::AlreadyMigrating && error.message.contains(&one.to_string()), "{error}");
    let error = lab.a.migrate("two", "b").unwrap_err();
    assert!(error.code == ErrorCode::AlreadyMigrating && error.message.contains(&two.to_string()), "{error}");

    assert_eq!(abort(&lab.a, two).unwrap().outcome, Some(Outcome::RolledBack));
    assert_eq!(lab.a.migration(two).state, MigrationState::Ended);
    gate.open();
    let ends = [first, one, three].map(|id| {
        let view = lab.a.end_of(id);
        assert_eq!(view.outcome, Some(Outcome::Done), "{:?}", view.report);
        view.ended_unix_ms.unwrap()
    });
    assert!(ends.is_sorted(), "{ends:?}");
    let shown: ServiceView = lab.a.client.get("/v1/services/two").unwrap();
    assert_eq!(shown.migration, None, "it is left as it was");
    assert_eq!(lab.settled_at(), "b");
}

#[test]
fn a_daemon_that_ends_forgets_who_waits_and_its_history_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let gate = Gate::new(&dir, "gate");
    let mut lab = one_at_a_time(&gate, &["other"]);
    lab.a.migrate("web", "b").unwrap();
    gate.reached();
    let waits = lab.a.migrate("other", "b").unwrap();
    assert_eq!(lab.a.migration(waits).state, MigrationState::Queued);
    lab.a.crash();
    lab.a.start([]);
    let view = lab.a.migration(waits);
    assert_eq!((view.state, view.outcome), (MigrationState::Ended, Some(Outcome::RolledBack)));
    let error = view.report.unwrap().error.unwrap();
    assert!(error.message.contains("restart"), "{error}");
    lab.a.end_of(lab.a.migrate("other", "b").unwrap());
    assert_eq!(lab.settled_at(), "a");
}

/// A service that came from elsewhere stands as arrived while it waits: that is not the end of the one that waits.
#[test]
fn one_that_is_aborted_while_it_waits_did_not_arrive() {
    let dir = tempfile::tempdir().unwrap();
    let gate = Gate::new(&dir, "gate");
    let mut lab = one_at_a_time(&gate, &["other"]);
    gate.open();
    lab.a.end_of(lab.a.migrate("other", "b").unwrap());
    lab.b.end_of(lab.b.migrate("other", "a").unwrap());
    let gate = Gate::new(&dir, "again");
    lab.a.restart([(Step::Arm, gate.act())]);
    lab.a.migrate("web", "b").unwrap();
    gate.reached();
    let waits = lab.a.migrate("other", "b").unwrap();
    assert_eq!(abort(&lab.a, waits).unwrap().outcome, Some(Outcome::RolledBack));
    gate.open();
    assert_eq!(lab.settled_at(), "b");
}

#[test]
fn a_destination_with_enough_arrivals_is_waited_for() {
    let dir = tempfile::tempdir().unwrap();
    let gate = Gate::new(&dir, "gate");
    let mut lab = Lab::new([], []);
    run(&lab.a, "other");
    lab.b.stop();
    lab.b.config.limits.migrations = 1.try_into().unwrap();
    lab.b.start([(Step::DestinationArm, gate.act())]);
    let first = lab.a.migrate("web", "b").unwrap();
    gate.reached();
    let second = lab.a.migrate("other", "b").unwrap();
    lab.a.client.follow_until(&format!("/v1/migrations/{second}/events"), "as many arrivals");
    assert_eq!(lab.a.migration(second).state, MigrationState::Active);
    gate.open();
    for id in [first, second] {
        assert_eq!(lab.a.end_of(id).outcome, Some(Outcome::Done));
    }
    assert_eq!(lab.settled_at(), "b");
}

/// Each fills the other up, and still nobody waits for ever.
#[test]
fn two_sites_that_migrate_to_each_other_do_not_wait_for_each_other() {
    let mut lab = Lab::new([], []);
    for node in [&mut lab.a, &mut lab.b] {
        node.stop();
        node.config.limits.migrations = 1.try_into().unwrap();
        node.start([]);
    }
    for name in ["a1", "a2", "a3"] {
        run(&lab.a, name);
    }
    for name in ["b1", "b2", "b3"] {
        run(&lab.b, name);
    }
    let there = ["a1", "a2", "a3"].map(|name| lab.a.migrate(name, "b").unwrap());
    let back = ["b1", "b2", "b3"].map(|name| lab.b.migrate(name, "a").unwrap());
    for (node, ids) in [(&lab.a, there), (&lab.b, back)] {
        for id in ids {
            let view = node.end_of(id);
            assert_eq!(view.outcome, Some(Outcome::Done), "{:?}", view.report);
        }
    }
    assert_eq!(lab.settled_at(), "a");
}
