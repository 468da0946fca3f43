//! A third site that is paired as well, and says what it should not: nothing of it counts.

use std::time::Duration;

use serde_json::json;
use ums_model::error::ErrorCode;
use ums_model::facts::Answer;
use ums_model::message::{About, ImageOffer, Needs, Offer, PeerMessage, RestoreRequirements, Sizes};
use ums_model::names::{Digest, Epoch, MigrationId};
use ums_model::phase::{Approach, Mode};
use ums_model::spec::{ImageRef, ServiceSpec};
use ums_sites::adapter::CopyState;
use ums_transfer::identity::Identity;
use ums_transfer::link::{Greeting, Link, Purpose, connect};
use ums_transfer::pairing::{Announcement, Invite, pair_client};

use super::client::PATIENCE;
use super::lab::{Gate, Lab, Node, wait_for, web};
use crate::fault::Step;
use crate::view::InviteView;

/// Site C: an identity, and whatever it likes to say.
pub(super) struct Stranger {
    pub(super) identity: Identity,
    pub(super) greeting: Greeting,
}

impl Stranger {
    /// A site that has been paired with `node`.
    pub(super) fn paired_with(lab: &Lab, node: &Node) -> Self {
        let invite: InviteView = node.client.post("/v1/sites/invite", &json!({})).unwrap();
        let invite: Invite = invite.token.parse().unwrap();
        let identity = Identity::ephemeral().unwrap();
        let announcement =
            Announcement { name: "c".parse().unwrap(), addresses: vec!["127.0.0.1:9".to_owned()] };
        let deadlines = node.config.deadlines.link();
        let pairing = pair_client(&invite, &identity, &announcement, &deadlines);
        lab.runtime.block_on(pairing).unwrap();
        Self { identity, greeting: Greeting::new("c".parse().unwrap()) }
    }

    pub(super) async fn link(&self, node: &Node, purpose: Purpose) -> Link {
        let (address, deadlines) = (node.address().to_string(), node.config.deadlines.link());
        let link = connect(&address, &self.identity, node.fingerprint(), purpose, &self.greeting, &deadlines);
        link.await.unwrap()
    }

    /// Says one thing on a link of its own, and hears the answer.
    pub(super) fn say(&self, lab: &Lab, purpose: Purpose, message: &PeerMessage) -> PeerMessage {
        lab.runtime.block_on(async {
            let mut link = self.link(&lab.b, purpose).await;
            link.frames.send(message).await.unwrap();
            link.frames.expect(PATIENCE).await.unwrap()
        })
    }
}

pub(super) fn about(migration: MigrationId, epoch: u64) -> About {
    About { migration, service: web(), epoch: Epoch(epoch) }
}

pub(super) fn new_id() -> MigrationId {
    MigrationId::new(uuid::Uuid::now_v7())
}

pub(super) fn offer(about: About) -> PeerMessage {
    let digest = Digest::sha256([3; 32]);
    let image = ImageRef { digest, name: "redis".to_owned() };
    let offer = Offer {
        spec: ServiceSpec::new(web(), image),
        mode: Mode::Cold,
        approach: Approach::Container,
        image: ImageOffer { digest, blobs: Vec::new() },
        sizes: Sizes::default(),
        needs: Needs::default(),
        restore: RestoreRequirements { tasks: 3, ..RestoreRequirements::default() },
    };
    PeerMessage::Offer { about, offer: Box::new(offer) }
}

pub(super) fn rejected(answer: PeerMessage) -> ErrorCode {
    match answer {
        PeerMessage::Reject { error, .. } => error.code,
        other => panic!("not rejected: {other:?}"),
    }
}

#[test]
fn a_migration_belongs_to_its_two_sites() {
    let dir = tempfile::tempdir().unwrap();
    let gate = Gate::new(&dir, "gate");
    let mut lab = Lab::new([(Step::Commit, gate.act())], []);
    let c = Stranger::paired_with(&lab, &lab.b);
    let id = lab.a.migrate("web", "b").unwrap();
    gate.reached();
    let purpose = Purpose::Migration { id };
    for message in [
        PeerMessage::Commit { about: about(id, 1) },
        PeerMessage::saying(about(id, 1), ums_model::action::Word::Abort).unwrap(),
        PeerMessage::saying(about(id, 1), ums_model::action::Word::Lost).unwrap(),
    ] {
        let answer = c.say(&lab, purpose, &message);
        let PeerMessage::Refused { error, .. } = answer else { panic!("{answer:?}") };
        assert_eq!(error.code, ErrorCode::NotPaired);
        assert_eq!(lab.b.fake.copy(&web()), CopyState::Held, "nothing has happened to it");
    }
    for purpose in [purpose, Purpose::Control] {
        let answer = c.say(&lab, purpose, &PeerMessage::Query { about: about(id, 1) });
        assert_eq!(answer, PeerMessage::State { about: about(id, 1), answer: Answer::NeverHeard });
    }
    // Under an id of its own it gets no further.
    let own = new_id();
    let purpose = Purpose::Migration { id: own };
    assert_eq!(rejected(c.say(&lab, purpose, &offer(about(own, 2)))), ErrorCode::AlreadyMigrating);
    for epoch in [1, 2] {
        let answer = c.say(&lab, purpose, &PeerMessage::Commit { about: about(own, epoch) });
        let PeerMessage::State { answer, .. } = answer else { panic!("{answer:?}") };
        assert!(matches!(answer, Answer::Stuck | Answer::NeverHeard), "{answer}");
    }
    assert_eq!(lab.b.fake.copy(&web()), CopyState::Held);
    gate.open();
    lab.a.end_of(id);
    assert_eq!(rejected(c.say(&lab, purpose, &offer(about(own, 2)))), ErrorCode::NameTaken);
    assert_eq!(lab.settled_at(), "b");
}

#[test]
fn offers_that_are_none() {
    let lab = Lab::strangers([], []);
    let c = Stranger::paired_with(&lab, &lab.b);
    let id = new_id();
    let purpose = Purpose::Migration { id };
    let far = c.say(&lab, purpose, &offer(about(id, u64::MAX)));
    assert_eq!(rejected(far), ErrorCode::BadRequest, "the epochs would be used up");
    let PeerMessage::Offer { about: meant, mut offer } = offer(about(id, 1)) else { unreachable!() };
    offer.spec.name = "other".parse().unwrap();
    let other = c.say(&lab, purpose, &PeerMessage::Offer { about: meant.clone(), offer: offer.clone() });
    assert_eq!(rejected(other), ErrorCode::InvalidSpec);
    offer.spec.name = web();
    offer.mode = Mode::Hybrid;
    let other = c.say(&lab, purpose, &PeerMessage::Offer { about: meant, offer });
    assert_eq!(rejected(other), ErrorCode::Unsupported);
}

/// Words about migrations that never were leave tombstones, so that their offers cannot be accepted later.
#[test]
fn words_that_come_before_their_offer() {
    let lab = Lab::strangers([], []);
    let c = Stranger::paired_with(&lab, &lab.b);
    let id = new_id();
    let purpose = Purpose::Migration { id };
    let abort = PeerMessage::saying(about(id, 3), ums_model::action::Word::Abort).unwrap();
    assert_eq!(c.say(&lab, purpose, &abort), PeerMessage::Aborted { about: about(id, 3) });
    assert_eq!(rejected(c.say(&lab, purpose, &offer(about(id, 3)))), ErrorCode::EpochTooOld);
    let answer = c.say(&lab, purpose, &PeerMessage::Commit { about: about(id, 4) });
    assert!(matches!(answer, PeerMessage::Refused { .. }), "{answer:?}");
    // Said again, as good as refused.
    let again = c.say(&lab, purpose, &PeerMessage::Commit { about: about(id, 4) });
    assert_eq!(again, PeerMessage::State { about: about(id, 4), answer: Answer::Over });
}

/// A source that reserves and then says nothing, though it is alive, does not block the name for ever.
#[test]
fn a_reservation_is_a_lease() {
    let mut lab = Lab::new([], []);
    lab.b.stop();
    lab.b.config.deadlines.lease = Duration::from_millis(300);
    lab.b.start([]);
    let c = Stranger::paired_with(&lab, &lab.b);
    let id = new_id();
    let mut link = lab.runtime.block_on(async {
        let mut link = c.link(&lab.b, Purpose::Migration { id }).await;
        link.frames.send(&offer(about(id, 1))).await.unwrap();
        let answer: PeerMessage = link.frames.expect(PATIENCE).await.unwrap();
        assert!(matches!(answer, PeerMessage::Accept { .. }), "{answer:?}");
        link
    });
    let end = lab.runtime.block_on(link.frames.expect::<PeerMessage>(PATIENCE)).unwrap();
    assert!(matches!(end, PeerMessage::Refused { .. }), "{end:?}");
    wait_for("the name to be free", || {
        let id = lab.a.migrate("web", "b").unwrap();
        lab.a.end_of(id).report.unwrap().error.is_none().then_some(())
    });
    assert_eq!(lab.settled_at(), "b");
}

#[test]
fn speaking_out_of_turn_ends_the_link() {
    let lab = Lab::strangers([], []);
    let c = Stranger::paired_with(&lab, &lab.b);
    let id = new_id();
    for (purpose, message) in [
        (Purpose::Migration { id }, PeerMessage::Arm { about: about(id, 1) }),
        (Purpose::Migration { id }, PeerMessage::Query { about: about(new_id(), 1) }),
        (Purpose::Control, PeerMessage::Commit { about: about(id, 1) }),
    ] {
        lab.runtime.block_on(async {
            let mut link = c.link(&lab.b, purpose).await;
            link.frames.send(&message).await.unwrap();
            let answer = tokio::time::timeout(PATIENCE, link.frames.next::<PeerMessage>()).await.unwrap();
            assert!(!matches!(answer, Ok(Some(_))), "{answer:?}");
        });
    }
}
