use super::*;
use crate::phase::{Approach, Mode};
use crate::spec::{ImageRef, ServiceSpec};

fn about() -> About {
    About {
        migration: MigrationId::new(uuid::Uuid::from_u128(9)),
        service: "web".parse().unwrap(),
        epoch: Epoch(3),
    }
}

fn offer() -> PeerMessage {
    let digest = Digest::sha256([1; 32]);
    let spec = ServiceSpec::new("web".parse().unwrap(), ImageRef { digest, name: "redis".into() });
    let offer = Offer {
        spec,
        mode: Mode::Cold,
        approach: Approach::Container,
        image: ImageOffer { digest, blobs: vec![BlobInfo { digest, size: Bytes(10) }] },
        sizes: Sizes { memory: Bytes::mib(1), files: Bytes::ZERO },
        needs: Needs { ports: vec!["1:2".parse().unwrap()], memory: Bytes::mib(2), disk: Bytes::ZERO },
        restore: RestoreRequirements { stdio_pipes: [None, Some("pipe:[7]".into()), None], tasks: 4 },
    };
    PeerMessage::Offer { about: about(), offer: Box::new(offer) }
}

#[test]
fn messages_survive_the_wire_and_tolerate_new_fields() {
    let held = PeerMessage::Held { about: about(), tasks: 4 };
    for message in [offer(), held] {
        let mut json = serde_json::to_value(&message).unwrap();
        assert_eq!(json["epoch"], 3, "what it is about stands beside the type");
        json["added-later"] = true.into();
        assert_eq!(serde_json::from_value::<PeerMessage>(json).unwrap(), message);
    }
}

#[test]
fn an_unknown_message_is_named() {
    let error = serde_json::from_str::<PeerMessage>(r#"{"type":"teleport","epoch":1}"#).unwrap_err();
    assert!(error.to_string().contains("teleport"), "{error}");
}

#[test]
fn a_bad_name_inside_a_message_is_refused() {
    let mut json = serde_json::to_value(offer()).unwrap();
    json["service"] = "../../etc".into();
    assert!(serde_json::from_value::<PeerMessage>(json).is_err());
}

#[test]
fn saying_a_word_and_hearing_it_is_the_same_word() {
    let states = Answer::ALL.iter().map(|answer| Word::State { answer: *answer });
    let words = [Word::Abort, Word::Commit, Word::Lost, Word::Query, Word::Reject { highest: Epoch(8) }];
    for word in words.into_iter().chain(states) {
        let message = PeerMessage::saying(about(), word).unwrap();
        assert_eq!(message.word(), Some(word));
        assert_eq!(message.about(), Some(&about()));
    }
    assert!(PeerMessage::saying(about(), Word::Offer).is_none(), "an offer needs its content");
}
