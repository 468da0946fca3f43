//! Services whose keepers end: started again as their policies say, and never beside a copy elsewhere.

use std::time::Duration;

use serde_json::{Value, json};
use ums_model::phase::Outcome;
use ums_sites::adapter::CopyState;

use super::lab::{Gate, Lab, Node, wait_for, web};
use crate::fault::{Act, Step};

/// Longer than the first pauses of a lab.
const WHILE: Duration = Duration::from_millis(300);

fn run(node: &Node, restart: &str) {
    let body = json!({"name": "web", "image": {"image": "redis"}, "restart": restart});
    node.client.post::<Value>("/v1/services", &body).unwrap();
}

fn runs(node: &Node) {
    wait_for("web to run again", || (node.fake.copy(&web()) == CopyState::Running).then_some(()));
}

fn stays_dead(node: &Node) {
    std::thread::sleep(WHILE);
    assert_eq!(node.fake.copy(&web()), CopyState::Dead);
}

#[test]
fn a_dead_keeper_is_followed_by_another_as_the_policy_says() {
    let mut lab = Lab::strangers([], []);
    for (restart, again) in [("always", true), ("on-failure", true), ("no", false)] {
        run(&lab.a, restart);
        for _ in 0..2 {
            // The daemon sees it.
            lab.a.fake.kill(&web());
            if again {
                runs(&lab.a);
            } else {
                stays_dead(&lab.a);
            }
            // The host was off.
            lab.a.crash();
            lab.a.fake.lose(&web());
            lab.a.start([]);
            if again { runs(&lab.a) } else { stays_dead(&lab.a) }
        }
        lab.a.client.delete("/v1/services/web?force=true").unwrap();
    }
}

#[test]
fn what_a_user_stopped_stays_so() {
    let mut lab = Lab::strangers([], []);
    run(&lab.a, "always");
    lab.a.client.post::<Value>("/v1/services/web/stop", &json!({"grace_ms": 1})).unwrap();
    lab.a.fake.kill(&web());
    stays_dead(&lab.a);
    lab.a.restart([]);
    stays_dead(&lab.a);
    lab.a.client.post::<Value>("/v1/services/web/start", &json!({})).unwrap();
    lab.a.fake.kill(&web());
    runs(&lab.a);
}

#[test]
fn a_start_that_fails_is_tried_again() {
    let lab = Lab::strangers([], []);
    run(&lab.a, "always");
    for call in ["start", "status", "start"] {
        lab.a.fake.fail(call);
    }
    lab.a.fake.kill(&web());
    runs(&lab.a);
    assert!(lab.a.fake.has_failed());
}

/// Its keeper dies while a migration is undecided: nothing is started before that ends, and then only at home.
#[test]
fn nothing_is_started_in_a_migration() {
    let mut lab = Lab::strangers([], []);
    lab.pair();
    run(&lab.a, "always");
    // HELD at the destination, the source dead: the copy there is the one.
    let gate = Gate::new(&lab.dir, "commit");
    lab.a.restart([(Step::Commit, gate.act())]);
    let id = lab.a.migrate("web", "b").unwrap();
    gate.reached();
    lab.a.fake.kill(&web());
    stays_dead(&lab.a);
    gate.open();
    assert_eq!(lab.a.end_of(id).outcome, Some(Outcome::Done));
    runs(&lab.b);
    assert_eq!(lab.settled_at(), "b");
    lab.a.start([]);
    lab.b.start([]);

    // It is at home at B now, and at B alone.
    lab.b.fake.kill(&web());
    runs(&lab.b);
    assert_eq!(lab.a.fake.copy(&web()), CopyState::Absent);

    // An attempt that ends before anything was stopped: it goes on as if there had been none.
    let gate = Gate::new(&lab.dir, "arm");
    lab.b.restart([(Step::Arm, gate.act()), (Step::Freeze, Act::Fail)]);
    let id = lab.b.migrate("web", "a").unwrap();
    gate.reached();
    lab.b.fake.kill(&web());
    stays_dead(&lab.b);
    gate.open();
    assert_eq!(lab.b.end_of(id).outcome, Some(Outcome::RolledBack));
    runs(&lab.b);
    assert_eq!(lab.settled_at(), "b");
}
