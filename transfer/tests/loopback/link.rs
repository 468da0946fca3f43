use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::io::split;
use ums_model::names::MigrationId;
use ums_transfer::frame::{Channel, Conversation, FrameError};
use ums_transfer::link::{self, LinkError, Purpose, VERSIONS, Version};
use ums_transfer::tls::{self, Dial};

use crate::site::{linked, pair};

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Message {
    text: String,
}

fn migration() -> Purpose {
    Purpose::Migration { id: "0198f0a4-0000-7000-8000-000000000001".parse::<MigrationId>().unwrap() }
}

#[tokio::test]
async fn both_sides_learn_who_and_what_for() {
    let (a, b) = pair().await;
    let (near, far) = tokio::join!(a.dial(&b, migration()), b.accept_link());
    let (mut near, mut far) = (near.unwrap(), far.unwrap());
    let newest = *VERSIONS.last().unwrap();
    assert_eq!((near.version, far.version), (newest, newest));
    assert_eq!((near.purpose, far.purpose), (migration(), migration()));
    assert_eq!((near.peer.site.as_str(), far.peer.site.as_str()), ("cloud", "edge"));
    assert_eq!((near.peer.fingerprint, far.peer.fingerprint), (b.fingerprint(), a.fingerprint()));
    assert!(far.peer.software.starts_with("ums "), "{}", far.peer.software);

    let hello = Message { text: "is anybody there?".into() };
    near.frames.send(&hello).await.unwrap();
    assert_eq!(far.frames.next::<Message>().await.unwrap().unwrap(), hello);
    far.frames.send(&hello).await.unwrap();
    assert_eq!(near.frames.expect::<Message>(a.deadlines.hello).await.unwrap(), hello);
    near.close().await.unwrap();
    assert!(far.frames.next::<Message>().await.unwrap().is_none());
}

#[tokio::test]
async fn the_highest_common_version_wins_and_none_is_an_error_on_both_sides() {
    let (mut a, mut b) = pair().await;
    a.greeting.versions = vec![Version(1), Version(2), Version(3)];
    b.greeting.versions = vec![Version(2), Version(1), Version(9)];
    let (near, far) = tokio::join!(a.dial(&b, Purpose::Probe), b.accept_link());
    assert_eq!((near.unwrap().version, far.unwrap().version), (Version(2), Version(2)));

    b.greeting.versions = vec![Version(8), Version(9)];
    let (near, far) = tokio::join!(a.dial(&b, Purpose::Probe), b.accept_link());
    let (near, far) = (near.unwrap_err(), far.unwrap_err());
    assert!(
        matches!(near, LinkError::NoCommonVersion { .. }) && matches!(far, LinkError::NoCommonVersion { .. })
    );
    let (near, far) = (near.to_string(), far.to_string());
    assert!(near.ends_with("this site speaks 1, 2, 3, the other one 8, 9"), "{near}");
    assert!(far.ends_with("this site speaks 8, 9, the other one 1, 2, 3"), "{far}");
}

/// Sends whatever as a hello and returns the answer with what the accepting side made of it.
async fn say(hello: serde_json::Value) -> (Result<Option<serde_json::Value>, FrameError>, LinkError) {
    let (a, b) = pair().await;
    let dialing = async {
        let dial = Dial::Link(b.fingerprint());
        let stream = tls::connect(&b.address, &a.identity, dial, &a.deadlines).await.unwrap();
        let (reader, writer) = split(stream);
        let mut frames = Conversation::new(reader, writer, &a.deadlines);
        frames.send(&hello).await.unwrap();
        frames.reader.read_control().await
    };
    let (answer, far) = tokio::join!(dialing, b.accept_link());
    (answer, far.unwrap_err())
}

#[tokio::test]
async fn an_unknown_purpose_is_refused_in_words() {
    let hello = json!({"versions": [1], "software": "x", "site": "edge", "purpose": {"kind": "teleport"}});
    let (answer, error) = say(hello).await;
    assert_eq!(answer.unwrap().unwrap(), json!({"answer": "unknown-purpose"}));
    assert!(matches!(error, LinkError::UnknownPurpose { .. }), "{error:?}");
}

#[tokio::test]
async fn a_hello_of_the_future_gets_our_versions() {
    let (answer, error) = say(json!({"versions": [7], "who": "unknown to us"})).await;
    assert_eq!(answer.unwrap().unwrap(), json!({"answer": "no-common-version", "versions": VERSIONS}));
    assert!(matches!(error, LinkError::NoCommonVersion { .. }), "{error:?}");
}

#[tokio::test]
async fn a_hello_that_is_none_ends_the_connection() {
    for hello in
        [json!(7), json!({"versions": "all"}), json!({"versions": [1], "purpose": {"kind": "probe"}})]
    {
        let (answer, error) = say(hello).await;
        assert!(!matches!(answer, Ok(Some(_))), "{answer:?}");
        assert!(matches!(error, LinkError::Frame { source: FrameError::Decode { .. }, .. }), "{error:?}");
    }
}

#[tokio::test]
async fn a_version_that_was_not_offered_is_not_accepted() {
    let (a, b) = pair().await;
    let accepting = async {
        let (reader, writer) = split(b.accept().await.unwrap().stream);
        let mut frames = Conversation::new(reader, writer, &b.deadlines);
        let _hello: serde_json::Value = frames.next().await.unwrap().unwrap();
        let answer = json!({"answer": "welcome", "version": 9, "software": "x", "site": "cloud"});
        frames.send(&answer).await.unwrap();
        frames.reader.read().await
    };
    let (near, _) = tokio::join!(a.dial(&b, Purpose::Probe), accepting);
    let error = near.unwrap_err();
    assert!(matches!(error, LinkError::NoAnswer { .. }), "{error:?}");
}

#[tokio::test]
async fn a_silent_server_is_given_up() {
    let (mut a, b) = pair().await;
    a.deadlines.hello = std::time::Duration::from_millis(50);
    let (near, _far) = tokio::join!(a.dial(&b, Purpose::Probe), b.accept());
    let error = near.unwrap_err();
    assert!(matches!(error, LinkError::TimedOut { .. }), "{error:?}");
}

#[tokio::test]
async fn a_link_that_breaks_is_not_one_that_ends() {
    let (mut near, mut far) = linked(Purpose::Control).await;
    near.frames.send(&1).await.unwrap();
    // Dropped without goodbye, at the border of a frame: as a crash of the other site looks.
    drop(near);
    assert_eq!(far.frames.reader.read_control::<u32>().await.unwrap(), Some(1));
    let error = far.frames.reader.read().await.unwrap_err();
    assert!(matches!(error, FrameError::Read { .. }), "{error:?}");
}

#[tokio::test]
async fn a_link_streams_one_way_and_listens_the_other() {
    let (mut near, mut far) = linked(Purpose::Control).await;
    let sending = async {
        let Conversation { reader, writer } = &mut near.frames;
        let stream = async {
            loop {
                writer.write_data(Channel(1), vec![0; 4096].into()).await.unwrap();
            }
        };
        tokio::select! {
            () = stream => unreachable!("it never ends"),
            word = reader.read_control::<Message>() => word.unwrap().unwrap().text,
        }
    };
    let receiving = async {
        let mut received = 0;
        while received < 1024 * 1024 {
            received += far.frames.reader.read().await.unwrap().unwrap().payload.len();
        }
        far.frames.send(&Message { text: "enough".into() }).await.unwrap();
    };
    let (word, ()) = tokio::join!(sending, receiving);
    assert_eq!(word, "enough");
}

#[tokio::test]
async fn only_a_known_site_gets_as_far_as_a_hello() {
    let (a, b) = pair().await;
    let stranger = crate::site::Site::start("stranger").await;
    let dialing = link::connect(
        &b.address,
        &stranger.identity,
        b.fingerprint(),
        Purpose::Control,
        &a.greeting,
        &a.deadlines,
    );
    let (near, far) = tokio::join!(dialing, b.accept_link());
    near.unwrap_err();
    assert!(matches!(far.unwrap_err(), LinkError::Tls { .. }));
}
