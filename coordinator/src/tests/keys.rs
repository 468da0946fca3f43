//! Sites that are put out, and sites that change their key.

use serde_json::{Value, json};
use ums_model::error::ErrorCode;
use ums_model::message::{KeyMessage, PeerMessage};
use ums_model::names::{Fingerprint, SiteName};
use ums_model::phase::Outcome;
use ums_model::policy::Policy;
use ums_sites::adapter::CopyState;
use ums_transfer::link::{Purpose, connect};

use super::client::PATIENCE;
use super::lab::{Gate, Lab, Node, wait_for, web};
use super::strangers::{Stranger, about, new_id};
use crate::fault::Step;
use crate::view::{AcceptedView, InviteView, PairedView, RevokedView, RotationView, SiteView};

fn revoke(node: &Node, peer: &str) -> RevokedView {
    node.client.post(&format!("/v1/sites/{peer}/revoke"), &json!({})).unwrap()
}

fn rotate(node: &Node, forget: bool) -> RotationView {
    node.client.post("/v1/site/rotate", &json!({"forget": forget})).unwrap()
}

fn known_as(node: &Node, peer: &str) -> Option<Fingerprint> {
    let sites: Vec<PairedView> = node.client.get("/v1/sites").unwrap();
    sites.into_iter().find(|site| site.name.as_str() == peer).map(|site| site.fingerprint)
}

fn own_key(node: &Node) -> Fingerprint {
    node.client.get::<SiteView>("/v1/site").unwrap().fingerprint
}

#[test]
fn a_revoked_site_is_out() {
    let mut lab = Lab::new([], []);
    // An invite that was given out before is no way back.
    let early: InviteView = lab.b.client.post("/v1/sites/invite", &json!({})).unwrap();
    let revoked = revoke(&lab.b, "a");
    assert_eq!((revoked.site.as_str(), revoked.fingerprint), ("a", lab.a.fingerprint()));
    assert!(revoked.aborted.is_empty() && revoked.going_on.is_empty());
    assert_eq!(known_as(&lab.b, "a"), None);
    assert_eq!(
        lab.b.client.post::<Value>("/v1/sites/a/revoke", &json!({})).unwrap_err().code,
        ErrorCode::UnknownSite
    );
    for _ in 0..2 {
        assert_eq!(lab.a.migrate("web", "b").unwrap_err().code, ErrorCode::NotPaired);
        let accept = lab
            .a
            .client
            .post::<AcceptedView>("/v1/sites/accept", &json!({"token": early.token}))
            .unwrap_err();
        assert_eq!(accept.code, ErrorCode::Refused, "{accept}");
        lab.b.restart([]);
    }
    // With a new one it comes in again, with the policy of a new pairing.
    let invite: InviteView = lab.b.client.post("/v1/sites/invite", &json!({})).unwrap();
    lab.a.client.post::<AcceptedView>("/v1/sites/accept", &json!({"token": invite.token})).unwrap();
    assert_eq!(lab.b.client.get::<Policy>("/v1/sites/a/policy").unwrap(), Policy::default());
    lab.a.end_of(lab.a.migrate("web", "b").unwrap());
    assert_eq!(lab.settled_at(), "b");
}

/// Connections that were open are of no use any more.
#[test]
fn open_links_are_ended() {
    let lab = Lab::strangers([], []);
    let c = Stranger::paired_with(&lab, &lab.b);
    let links = [Purpose::Control, Purpose::Migration { id: new_id() }];
    let mut links = links.map(|purpose| lab.runtime.block_on(c.link(&lab.b, purpose)));
    revoke(&lab.b, "c");
    for link in &mut links {
        let end = lab.runtime.block_on(async {
            tokio::time::timeout(PATIENCE, link.frames.next::<PeerMessage>()).await.expect("an end")
        });
        assert!(!matches!(end, Ok(Some(_))));
    }
    let (address, deadlines) = (lab.b.address().to_string(), lab.b.config.deadlines.link());
    let again = connect(&address, &c.identity, lab.b.fingerprint(), Purpose::Probe, &c.greeting, &deadlines);
    lab.runtime.block_on(again).unwrap_err();
}

/// Before its commit a migration is rolled back, whichever side revokes.
#[test]
fn what_is_not_committed_is_rolled_back() {
    for at_source in [true, false] {
        let dir = tempfile::tempdir().unwrap();
        let gate = Gate::new(&dir, "gate");
        // The destination waits at its own step, so that it is not HELD; the source waits for it.
        let mut lab = Lab::new([], [(Step::DestinationArm, gate.act())]);
        let id = lab.a.migrate("web", "b").unwrap();
        gate.reached();
        let (node, peer) = if at_source { (&lab.a, "b") } else { (&lab.b, "a") };
        std::thread::scope(|scope| {
            let revoked = scope.spawn(|| revoke(node, peer));
            wait_for("the site to be out", || known_as(node, peer).is_none().then_some(()));
            gate.open();
            let revoked = revoked.join().unwrap();
            assert_eq!(revoked.aborted, [id], "{revoked:?}");
        });
        assert_eq!(lab.a.end_of(id).outcome, Some(Outcome::RolledBack));
        assert_eq!(lab.a.fake.copy(&web()), CopyState::Running);
        assert_eq!(lab.settled_at(), "a");
    }
}

/// After its commit it goes on, also over a new connection: exactly one copy must run.
#[test]
fn what_is_committed_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let gate = Gate::new(&dir, "gate");
    let mut lab = Lab::new([(Step::Committed, gate.act())], []);
    let id = lab.a.migrate("web", "b").unwrap();
    gate.reached();
    let at_b = revoke(&lab.b, "a");
    assert_eq!(at_b.going_on, [id], "{at_b:?}");
    let at_a = revoke(&lab.a, "b");
    assert_eq!(at_a.going_on, [id], "{at_a:?}");
    // The link they have is lost, and so is everything that was in memory.
    lab.b.crash();
    lab.b.start([]);
    gate.open();
    assert_eq!(lab.a.end_of(id).outcome, Some(Outcome::Done));
    assert_eq!(lab.b.end_of(id).outcome, Some(Outcome::Done));
    // Nothing but that was heard.
    assert_eq!(lab.a.client.get::<Vec<PairedView>>("/v1/sites").unwrap().len(), 0);
    assert_eq!(lab.b.migrate("web", "a").unwrap_err().code, ErrorCode::UnknownSite);
    assert_eq!(lab.settled_at(), "b");
}

#[test]
fn a_new_key_gets_around() {
    let mut lab = Lab::new([], []);
    let (a, b) = (own_key(&lab.a), own_key(&lab.b));
    let body = json!({"max_services": 7});
    lab.b.client.call::<Value>(hyper::Method::PUT, "/v1/sites/a/policy", Some(&body)).unwrap();
    lab.a.end_of(lab.a.migrate("web", "b").unwrap());
    let rotated = rotate(&lab.a, false);
    assert!(rotated.holds && rotated.waiting.is_empty() && rotated.fingerprint != a, "{rotated:?}");
    assert_eq!(own_key(&lab.a), rotated.fingerprint);
    wait_for("b to have seen it", || (known_as(&lab.b, "a") == Some(rotated.fingerprint)).then_some(()));
    assert_eq!(known_as(&lab.a, "b"), Some(b));
    // What it may do is what it might do before; services go both ways.
    assert_eq!(lab.b.client.get::<Policy>("/v1/sites/a/policy").unwrap().max_services, 7);
    lab.b.end_of(lab.b.migrate("web", "a").unwrap());
    for node in [&mut lab.a, &mut lab.b] {
        node.restart([]);
    }
    assert_eq!(own_key(&lab.a), rotated.fingerprint);
    let id = lab.a.migrate("web", "b").unwrap();
    assert_eq!(lab.a.end_of(id).outcome, Some(Outcome::Done));
    assert_eq!(lab.settled_at(), "b");
}

/// A migration that is under way meanwhile is the same one under the new key.
#[test]
fn a_new_key_in_the_middle() {
    let dir = tempfile::tempdir().unwrap();
    let gate = Gate::new(&dir, "gate");
    let mut lab = Lab::new([(Step::Committed, gate.act())], []);
    let id = lab.a.migrate("web", "b").unwrap();
    gate.reached();
    let rotated = rotate(&lab.a, false);
    assert!(rotated.holds);
    wait_for("b to have seen it", || (known_as(&lab.b, "a") == Some(rotated.fingerprint)).then_some(()));
    // The word comes over a new link, with the new key.
    lab.cut();
    lab.heal();
    gate.open();
    assert_eq!(lab.a.end_of(id).outcome, Some(Outcome::Done));
    assert_eq!(lab.settled_at(), "b");
}

/// A site that cannot be reached holds it up, and learns of it when it comes back, also after a restart.
#[test]
fn a_site_that_was_away() {
    let mut lab = Lab::new([], []);
    let before = own_key(&lab.a);
    lab.b.stop();
    let waiting = rotate(&lab.a, false);
    assert!(!waiting.holds, "{waiting:?}");
    assert_eq!(waiting.waiting, ["b".parse::<SiteName>().unwrap()]);
    assert_eq!(own_key(&lab.a), before, "until then the old one holds");
    lab.a.crash();
    lab.a.start([]);
    assert_eq!(own_key(&lab.a), before);
    lab.b.start([]);
    wait_for("the new key to hold", || (own_key(&lab.a) == waiting.fingerprint).then_some(()));
    wait_for("b to have seen it", || (known_as(&lab.b, "a") == Some(waiting.fingerprint)).then_some(()));
    let id = lab.a.migrate("web", "b").unwrap();
    assert_eq!(lab.a.end_of(id).outcome, Some(Outcome::Done));
    assert_eq!(lab.settled_at(), "b");
}

#[test]
fn a_site_that_is_not_waited_for() {
    let mut lab = Lab::new([], []);
    lab.b.stop();
    let rotated = rotate(&lab.a, true);
    assert!(rotated.holds, "{rotated:?}");
    assert_eq!(rotated.waiting, ["b".parse::<SiteName>().unwrap()], "they are named");
    lab.b.start([]);
    assert_eq!(lab.a.migrate("web", "b").unwrap_err().code, ErrorCode::NotPaired);
    lab.b.client.delete("/v1/sites/a").unwrap();
    lab.a.client.delete("/v1/sites/b").unwrap();
    lab.pair();
    lab.a.end_of(lab.a.migrate("web", "b").unwrap());
    assert_eq!(lab.settled_at(), "b");
}

/// A site cannot announce the key of another one: whatever is bound to it would be its own.
#[test]
fn a_key_of_somebody_else() {
    let lab = Lab::new([], []);
    let c = Stranger::paired_with(&lab, &lab.b);
    let announce = |fingerprint| -> KeyMessage {
        lab.runtime.block_on(async {
            let mut link = c.link(&lab.b, Purpose::Rotate).await;
            link.frames.send(&KeyMessage::Next { fingerprint }).await.unwrap();
            link.frames.expect(PATIENCE).await.unwrap()
        })
    };
    for taken in [own_key(&lab.a), own_key(&lab.b), c.identity.fingerprint()] {
        let KeyMessage::Refused { error } = announce(taken) else { panic!("{taken} was noted") };
        assert_eq!(error.code, ErrorCode::Refused);
    }
    let own = Fingerprint([9; 32]);
    for _ in 0..2 {
        assert_eq!(announce(own), KeyMessage::Noted { fingerprint: own });
    }
    // Noted, it is nobody else's; and A is who it was.
    assert_eq!(known_as(&lab.b, "c"), Some(c.identity.fingerprint()));
    assert_eq!(known_as(&lab.b, "a"), Some(own_key(&lab.a)));
    let query = PeerMessage::Query { about: about(new_id(), 1) };
    assert!(matches!(c.say(&lab, Purpose::Control, &query), PeerMessage::State { .. }));
}
