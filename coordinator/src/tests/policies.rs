//! What a paired site may do: asked in a plan, and held to by each site on its own.

use serde_json::{Value, json};
use ums_model::error::ErrorCode;
use ums_model::message::{Needs, PeerMessage};
use ums_model::names::Bytes;
use ums_model::phase::Outcome;
use ums_model::plan::Plan;
use ums_model::policy::Policy;
use ums_model::spec::{Limits, SiteMount};
use ums_sites::adapter::CopyState;
use ums_transfer::link::Purpose;

use super::lab::{Gate, Lab, Node, web};
use super::strangers::{Stranger, about, new_id, offer, rejected};
use crate::fault::Step;

/// Changes a policy as the command line does: read, change, write.
fn set(node: &Node, peer: &str, change: impl FnOnce(&mut Policy)) {
    let path = format!("/v1/sites/{peer}/policy");
    let mut policy: Policy = node.client.get(&path).unwrap();
    change(&mut policy);
    let body = serde_json::to_value(&policy).unwrap();
    let answer: Policy = node.client.call(hyper::Method::PUT, &path, Some(&body)).unwrap();
    assert_eq!(answer, policy);
}

fn plan(lab: &Lab, service: &str) -> Plan {
    lab.a.client.get(&format!("/v1/plan?service={service}&to=b")).unwrap()
}

fn start(node: &Node, name: &str, user_namespace: bool) {
    let body = json!({"name": name, "image": {"image": "redis"}, "user_namespace": user_namespace});
    node.client.post::<Value>("/v1/services", &body).unwrap();
}

#[test]
fn a_service_without_a_user_namespace_needs_a_word() {
    let lab = Lab::new([], []);
    start(&lab.a, "plain", false);
    let refused = plan(&lab, "plain");
    assert!(!refused.feasible && refused.predicted.is_none());
    assert_eq!(refused.blockers[0].site, Some("b".parse().unwrap()));
    assert!(refused.blockers[0].remedy.contains("ums sites policy a --allow-no-user-namespace"));
    let error = lab.a.migrate("plain", "b").unwrap_err();
    assert!(error.code == ErrorCode::Refused && error.message.contains("user namespace"), "{error}");

    set(&lab.b, "a", |policy| policy.allow_no_user_namespace = true);
    assert!(plan(&lab, "plain").feasible);
    let id = lab.a.migrate("plain", "b").unwrap();
    assert_eq!(lab.a.end_of(id).outcome, Some(Outcome::Done));
    // Said in the history of both, and in what the destination tells of it.
    assert!(!lab.a.end_of(id).user_namespace && !lab.b.end_of(id).user_namespace);
    let events = lab.b.client.raw(hyper::Method::GET, &format!("/v1/migrations/{id}/events"), None, &[]).1;
    assert!(String::from_utf8(events).unwrap().contains("without a user namespace"));

    let id = lab.a.migrate("web", "b").unwrap();
    assert!(lab.a.end_of(id).user_namespace);
    assert!(lab.b.end_of(id).user_namespace);
}

#[test]
fn names_that_may_go_and_come() {
    let mut lab = Lab::new([], []);
    set(&lab.a, "b", |policy| policy.outgoing = vec!["db-*".parse().unwrap()]);
    set(&lab.b, "a", |policy| policy.incoming = vec!["db-*".parse().unwrap()]);
    let sites: Vec<_> = plan(&lab, "web").blockers.into_iter().map(|blocker| blocker.site).collect();
    assert_eq!(sites, [Some("a".parse().unwrap()), Some("b".parse().unwrap())], "each site has its say");
    assert_eq!(lab.a.migrate("web", "b").unwrap_err().code, ErrorCode::Refused);
    set(&lab.a, "b", |policy| policy.outgoing.push("w?b".parse().unwrap()));
    assert_eq!(lab.a.migrate("web", "b").unwrap_err().code, ErrorCode::Refused);
    // What was set is there after a restart.
    lab.b.restart([]);
    assert_eq!(lab.a.migrate("web", "b").unwrap_err().code, ErrorCode::Refused);
    set(&lab.b, "a", |policy| policy.incoming.push("web".parse().unwrap()));
    lab.a.end_of(lab.a.migrate("web", "b").unwrap());
    assert_eq!(lab.settled_at(), "b");
}

#[test]
fn a_policy_belongs_to_a_pairing() {
    let lab = Lab::new([], []);
    set(&lab.b, "a", |policy| policy.allow_no_user_namespace = true);
    lab.b.client.delete("/v1/sites/a").unwrap();
    lab.a.client.delete("/v1/sites/b").unwrap();
    let gone = lab.b.client.get::<Policy>("/v1/sites/a/policy").unwrap_err();
    assert_eq!(gone.code, ErrorCode::UnknownSite);
    lab.pair();
    assert_eq!(lab.b.client.get::<Policy>("/v1/sites/a/policy").unwrap(), Policy::default());
    for wrong in [json!({"ports": ["x"]}), json!({"allow_all": true}), json!({"incoming": vec!["*"; 257]})] {
        let put = lab.b.client.call::<Value>(hyper::Method::PUT, "/v1/sites/a/policy", Some(&wrong));
        assert_eq!(put.unwrap_err().code, ErrorCode::BadRequest, "{wrong}");
    }
}

/// A source that asks nobody, or was not told the truth by its own policy, is refused all the same.
#[test]
fn the_destination_holds_to_its_policy_by_itself() {
    let lab = Lab::strangers([], []);
    let c = Stranger::paired_with(&lab, &lab.b);
    type Change = fn(&mut ums_model::message::Offer);
    let changes: [Change; 7] = [
        |offer| offer.spec.user_namespace = false,
        |offer| {
            offer.spec.ports = vec!["443:443".parse().unwrap()];
            offer.needs.ports = offer.spec.ports.clone();
        },
        |offer| {
            let (name, path) = ("disk".parse().unwrap(), "/disk".parse().unwrap());
            offer.spec.site_mounts = vec![SiteMount { name, path, read_only: true }];
        },
        |offer| offer.needs.memory = Bytes::mib(65),
        |offer| offer.sizes.memory = Bytes::mib(65),
        |offer| offer.spec.limits = Limits { memory: Some(Bytes::mib(65)), ..Limits::default() },
        |offer| offer.needs.disk = Bytes::mib(65),
    ];
    set(&lab.b, "c", |policy| {
        policy.max_memory = Some(Bytes::mib(64));
        policy.max_disk = Some(Bytes::mib(64));
    });
    let try_it = |change: Change| {
        let id = new_id();
        let PeerMessage::Offer { about, mut offer } = offer(about(id, 1)) else { unreachable!() };
        change(&mut offer);
        rejected(c.say(&lab, Purpose::Migration { id }, &PeerMessage::Offer { about, offer }))
    };
    for (number, change) in changes.into_iter().enumerate() {
        assert_eq!(try_it(change), ErrorCode::Refused, "{number}");
    }
    assert_eq!(try_it(|offer| offer.needs.ports = vec!["22:22".parse().unwrap()]), ErrorCode::InvalidSpec);
    set(&lab.b, "c", |policy| policy.incoming.clear());
    assert_eq!(try_it(|_| ()), ErrorCode::Refused);
    set(&lab.b, "c", |policy| *policy = Policy { max_services: 0, ..Policy::default() });
    assert_eq!(try_it(|_| ()), ErrorCode::Refused);
    set(&lab.b, "c", |policy| *policy = Policy { max_migrations: 0, ..Policy::default() });
    assert_eq!(try_it(|_| ()), ErrorCode::Busy);
    assert_eq!(lab.b.fake.copy(&web()), CopyState::Absent);
    let history: Vec<Value> = lab.b.client.get("/v1/migrations").unwrap();
    assert!(history.is_empty(), "nothing has begun: {history:?}");
}

/// A service counts for as long as it is here, also after a restart, and no longer.
#[test]
fn a_quota_of_services() {
    let mut lab = Lab::new([], []);
    set(&lab.b, "a", |policy| policy.max_services = 1);
    start(&lab.a, "other", true);
    lab.a.end_of(lab.a.migrate("web", "b").unwrap());
    for _ in 0..2 {
        let error = lab.a.migrate("other", "b").unwrap_err();
        assert!(error.code == ErrorCode::Refused && error.hint.contains("--max-services 2"), "{error}");
        lab.b.restart([]);
    }
    // Its own services and those of others are none of them.
    start(&lab.b, "own", true);
    lab.b.end_of(lab.b.migrate("web", "a").unwrap());
    let id = lab.a.migrate("other", "b").unwrap();
    assert_eq!(lab.a.end_of(id).outcome, Some(Outcome::Done));
    // Removed, and made anew here under the same name: it is this site's own.
    lab.b.client.delete("/v1/services/other?force=true").unwrap();
    start(&lab.b, "other", true);
    let id = lab.a.migrate("web", "b").unwrap();
    assert_eq!(lab.a.end_of(id).outcome, Some(Outcome::Done));
    assert_eq!(lab.settled_at(), "b");
}

/// More services than may be on their way at once are taken one after the other.
#[test]
fn a_place_is_given_once() {
    let dir = tempfile::tempdir().unwrap();
    let gate = Gate::new(&dir, "gate");
    let lab = Lab::new([], [(Step::DestinationArm, gate.act())]);
    set(&lab.b, "a", |policy| policy.max_migrations = 1);
    let first = lab.a.migrate("web", "b").unwrap();
    gate.reached();
    // Another site has its own number; this one has used its own.
    let c = Stranger::paired_with(&lab, &lab.b);
    set(&lab.b, "c", |policy| policy.max_migrations = 0);
    let id = new_id();
    let PeerMessage::Offer { mut about, mut offer } = offer(about(id, 1)) else { unreachable!() };
    about.service = "other".parse().unwrap();
    offer.spec.name = about.service.clone();
    let offer = PeerMessage::Offer { about, offer };
    assert_eq!(rejected(c.say(&lab, Purpose::Migration { id }, &offer)), ErrorCode::Busy);
    start(&lab.a, "other", true);
    let second = lab.a.migrate("other", "b").unwrap();
    gate.open();
    for id in [first, second] {
        assert_eq!(lab.a.end_of(id).outcome, Some(Outcome::Done));
    }
}

/// The id of somebody else's migration opens nothing, and is not taken over.
#[test]
fn an_id_is_not_taken_over() {
    let dir = tempfile::tempdir().unwrap();
    let gate = Gate::new(&dir, "gate");
    let mut lab = Lab::new([(Step::Commit, gate.act())], []);
    let c = Stranger::paired_with(&lab, &lab.b);
    let id = lab.a.migrate("web", "b").unwrap();
    gate.reached();
    // Another service under the same id: the journal has one row for it.
    let PeerMessage::Offer { mut about, mut offer } = offer(about(id, 1)) else { unreachable!() };
    about.service = "other".parse().unwrap();
    offer.spec.name = about.service.clone();
    offer.needs = Needs::default();
    let steal = PeerMessage::Offer { about, offer };
    assert_eq!(rejected(c.say(&lab, Purpose::Migration { id }, &steal)), ErrorCode::NotPaired);
    gate.open();
    assert_eq!(lab.a.end_of(id).outcome, Some(Outcome::Done));
    let ended = lab.b.end_of(id);
    assert_eq!((ended.peer.as_str(), ended.service.as_str()), ("a", "web"));
    assert_eq!(lab.settled_at(), "b");
}
