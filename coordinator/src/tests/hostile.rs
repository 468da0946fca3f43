//! A paired site that means harm, over the real link with its real identity: whatever it says is refused, nothing is
//! written but in this site's own journal, memory stays bounded, and an honest site is served as before.

use std::collections::BTreeSet;
use std::time::Duration;

use axum::body::Bytes as Block;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use ums_model::action::Word;
use ums_model::error::{ErrorCode, WireError};
use ums_model::facts::Answer;
use ums_model::message::{BlobInfo, Offer, PeerMessage};
use ums_model::names::{Bytes, Digest, MigrationId};
use ums_model::phase::Outcome;
use ums_sites::adapter::{CopyState, ImageRequest, SiteAdapter};
use ums_transfer::archive::{ArchiveWriter, Limits};
use ums_transfer::link::{Greeting, Link, LinkError, Purpose, Version, connect};
use ums_transfer::tls::{Dial, connect as connect_tls};

use super::client::PATIENCE;
use super::fake::digest_of;
use super::lab::{Lab, wait_for, web};
use super::strangers::{Stranger, about, new_id, offer, rejected};
use crate::config::Config;

/// A lab, a hostile site C that is paired with B, and what was there before it said a word.
struct Siege {
    lab: Lab,
    c: Stranger,
    before: BTreeSet<String>,
}

impl Siege {
    fn new() -> Self {
        Self::with(|_| ())
    }

    fn with(change: impl FnOnce(&mut Config)) -> Self {
        let mut lab = Lab::new([], []);
        lab.b.stop();
        lab.b.config.deadlines.lease = Duration::from_secs(2);
        lab.b.config.limits.connections = 16.try_into().unwrap();
        change(&mut lab.b.config);
        lab.b.start([]);
        let c = Stranger::paired_with(&lab, &lab.b);
        let before = tree(&lab);
        Self { lab, c, before }
    }

    /// Opens a link for a migration, and says one thing on it.
    fn begin(&self, id: MigrationId, message: &PeerMessage) -> (Link, PeerMessage) {
        self.lab.runtime.block_on(async {
            let mut link = self.c.link(&self.lab.b, Purpose::Migration { id }).await;
            link.frames.send(message).await.unwrap();
            let answer = link.frames.expect(PATIENCE).await.unwrap();
            (link, answer)
        })
    }

    /// A reservation for `web`, with these blobs.
    fn reserved(&self, id: MigrationId, blobs: Vec<BlobInfo>) -> Link {
        let (link, answer) = self.begin(id, &changed(id, 1, |offer| offer.image.blobs = blobs));
        assert!(matches!(answer, PeerMessage::Accept { .. }), "{answer:?}");
        link
    }

    /// A reservation for `web`, with an image that is complete.
    fn armable(&self, id: MigrationId) -> Link {
        let redis = ImageRequest::Image("redis".to_owned());
        let image = self.lab.runtime.block_on(self.lab.b.fake.import_image(&redis)).unwrap();
        let offer = changed(id, 1, |offer| {
            offer.image.digest = image.digest;
            offer.spec.image = image;
        });
        let (link, answer) = self.begin(id, &offer);
        assert!(matches!(answer, PeerMessage::Accept { .. }), "{answer:?}");
        link
    }

    /// The end of an attempt: refused with a reason, or cut off.
    fn refused(&self, link: &mut Link) -> Option<WireError> {
        self.lab.runtime.block_on(async {
            loop {
                match tokio::time::timeout(PATIENCE, link.frames.next::<PeerMessage>()).await.expect("an end")
                {
                    Ok(Some(PeerMessage::Refused { error, .. })) => return Some(error),
                    Ok(Some(PeerMessage::Armed { .. })) => {}
                    Ok(Some(other)) => panic!("not refused: {other:?}"),
                    Ok(None) | Err(_) => return None,
                }
            }
        })
    }

    /// Nothing of it is there, and an honest site is served.
    fn over(mut self) {
        // The last attempt of C is undone before anybody else's can begin.
        let id = wait_for("the name to be free", || {
            let id = self.lab.a.migrate("web", "b").ok()?;
            (self.lab.a.end_of(id).outcome == Some(Outcome::Done)).then_some(id)
        });
        assert_eq!(self.lab.b.migration(id).peer.as_str(), "a");
        assert_eq!(tree(&self.lab), self.before, "something was written that should not have been");
        assert_eq!(self.lab.witness.crimes(), Vec::<String>::new());
        assert_eq!(self.lab.settled_at(), "b");
    }
}

/// Every path of both sites and around them; the files of the databases come and go.
fn tree(lab: &Lab) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let mut left = vec![lab.dir.path().to_owned()];
    while let Some(dir) = left.pop() {
        for entry in std::fs::read_dir(dir).unwrap() {
            let entry = entry.unwrap();
            if entry.file_type().unwrap().is_dir() {
                left.push(entry.path());
            }
            let path = entry.path().display().to_string();
            if !path.contains("/journal.") {
                found.insert(path);
            }
        }
    }
    found
}

fn changed(id: MigrationId, epoch: u64, change: impl FnOnce(&mut Offer)) -> PeerMessage {
    let PeerMessage::Offer { about, mut offer } = offer(about(id, epoch)) else { unreachable!() };
    change(&mut offer);
    PeerMessage::Offer { about, offer }
}

/// Memory of this process that is in use, in bytes.
fn resident() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    statm.split(' ').nth(1).unwrap().parse::<u64>().unwrap() * 4096
}

#[test]
fn epochs_that_are_forged() {
    let siege = Siege::new();
    for (epoch, expected) in [
        (0, ErrorCode::EpochTooOld),
        (u64::MAX, ErrorCode::BadRequest),
        (u64::MAX - 1, ErrorCode::BadRequest),
        (1 << 40, ErrorCode::BadRequest),
        (i64::MAX as u64 + 1, ErrorCode::BadRequest),
    ] {
        let id = new_id();
        assert_eq!(rejected(siege.begin(id, &offer(about(id, epoch))).1), expected, "{epoch}");
        for word in [Word::Commit, Word::Abort, Word::Lost, Word::Query] {
            let message = PeerMessage::saying(about(id, epoch), word).unwrap();
            let answer = siege.begin(id, &message).1;
            let PeerMessage::State { answer, .. } = answer else { panic!("{epoch} {word:?}: {answer:?}") };
            assert!(
                matches!(answer, Answer::NeverHeard | Answer::Over | Answer::Stuck),
                "{epoch} {word:?}: {answer}"
            );
        }
    }
    // An abort that runs ahead leaves a tombstone; the honest site goes past it by itself.
    let id = new_id();
    let abort = PeerMessage::saying(about(id, 7), Word::Abort).unwrap();
    assert_eq!(siege.begin(id, &abort).1, PeerMessage::Aborted { about: about(id, 7) });
    assert_eq!(rejected(siege.begin(id, &offer(about(id, 6))).1), ErrorCode::EpochTooOld);
    siege.over();
}

/// Whatever is said where another message is due ends the attempt, and nothing ever runs.
#[test]
fn words_out_of_order() {
    let siege = Siege::new();
    let words: [fn(ums_model::message::About) -> PeerMessage; 9] = [
        |about| PeerMessage::Commit { about },
        |about| PeerMessage::Held { about, tasks: 3 },
        |about| PeerMessage::Running { about, resumed_at_unix_ms: None },
        |about| PeerMessage::Query { about },
        |about| PeerMessage::DumpComplete { about, bytes: Bytes(1), tasks: 3 },
        |about| PeerMessage::Accept { about, missing: Vec::new(), lease_ms: 0 },
        |about| PeerMessage::State { about, answer: Answer::Running },
        offer,
        |about| PeerMessage::Armed { about },
    ];
    let mut epoch = 0;
    for (number, word) in words.into_iter().enumerate() {
        for armed in [false, true] {
            // Every attempt uses its epoch up, and is undone before the next one can begin.
            let (id, mut link) = wait_for("an offer to be accepted", || {
                let id = new_id();
                epoch += 1;
                let (link, answer) = siege.begin(id, &offer(about(id, epoch)));
                matches!(answer, PeerMessage::Accept { .. }).then_some((id, link))
            });
            siege.lab.runtime.block_on(async {
                if armed {
                    link.frames.send(&PeerMessage::Arm { about: about(id, epoch) }).await.unwrap();
                }
                // With an image that is complete, this is heard where Arm is due, or the dump.
                link.frames.send(&word(about(id, epoch))).await.unwrap();
            });
            siege.refused(&mut link);
            assert_ne!(siege.lab.b.fake.copy(&web()), CopyState::Running, "{number}");
            assert_ne!(siege.lab.b.fake.copy(&web()), CopyState::Held, "{number}");
        }
    }
    siege.over();
}

/// What was said once is not worth anything a second time.
#[test]
fn messages_that_are_replayed() {
    let siege = Siege::new();
    let id = new_id();
    let mut link = siege.reserved(id, Vec::new());
    let abort = PeerMessage::saying(about(id, 1), Word::Abort).unwrap();
    siege.lab.runtime.block_on(link.frames.send(&abort)).unwrap();
    assert!(siege.refused(&mut link).is_some());
    for _ in 0..3 {
        assert_eq!(rejected(siege.begin(id, &offer(about(id, 1))).1), ErrorCode::NotPaired);
        assert_eq!(rejected(siege.begin(id, &offer(about(id, 2))).1), ErrorCode::NotPaired);
        let commit = siege.begin(id, &PeerMessage::Commit { about: about(id, 1) }).1;
        let Some(Word::State { answer }) = commit.word() else { panic!("{commit:?}") };
        assert!(matches!(answer, Answer::Aborted | Answer::Refused | Answer::Over), "{answer}");
    }
    siege.over();
}

#[test]
fn everything_too_large() {
    let siege = Siege::new();
    type Change = fn(&mut Offer);
    let changes: [(Change, ErrorCode); 8] = [
        (|offer| offer.spec.command = vec!["x".to_owned(); 2000], ErrorCode::InvalidSpec),
        (|offer| offer.spec.command = vec!["x".repeat(200_000)], ErrorCode::InvalidSpec),
        (|offer| offer.spec.env = vec![("A".repeat(200_000), String::new())], ErrorCode::InvalidSpec),
        (|offer| offer.spec.hostname = Some("h".repeat(10_000)), ErrorCode::InvalidSpec),
        (|offer| offer.needs.memory = Bytes(u64::MAX), ErrorCode::MemoryTooSmall),
        (|offer| offer.sizes.memory = Bytes(u64::MAX), ErrorCode::MemoryTooSmall),
        (|offer| offer.needs.disk = Bytes(u64::MAX), ErrorCode::DiskTooSmall),
        (
            |offer| {
                let blob = |n: u8| BlobInfo { digest: Digest::sha256([n; 32]), size: Bytes(u64::MAX) };
                offer.image.blobs = vec![blob(1), blob(2)];
            },
            ErrorCode::DiskTooSmall,
        ),
    ];
    for (number, (change, expected)) in changes.into_iter().enumerate() {
        let id = new_id();
        assert_eq!(rejected(siege.begin(id, &changed(id, 1, change)).1), expected, "{number}");
    }
    // Frames that claim to be longer than any, of kinds that there are not, or that are no JSON.
    let header = |kind: u8, length: u32| {
        let mut bytes = vec![kind, 0, 0, 0];
        bytes.extend(length.to_be_bytes());
        bytes
    };
    let before = resident();
    for start in [
        header(1, u32::MAX),
        header(1, 2 << 20),
        header(2, u32::MAX),
        header(99, 1),
        header(0, 0),
        [header(1, 3), b"{]}".to_vec()].concat(),
        vec![0xff; 64],
        format!("GET / HTTP/1.1\r\n{}\r\n", "x: y\r\n".repeat(1000)).into_bytes(),
    ] {
        siege.lab.runtime.block_on(async {
            let (address, deadlines) =
                (siege.lab.b.address().to_string(), siege.lab.b.config.deadlines.link());
            let dial = Dial::Link(siege.lab.b.fingerprint());
            let mut stream = connect_tls(&address, &siege.c.identity, dial, &deadlines).await.unwrap();
            stream.write_all(&start).await.unwrap();
            let mut waste = Vec::new();
            let end = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut waste)).await;
            drop(end.expect("the connection is ended"));
        });
    }
    assert!(resident().saturating_sub(before) < 64 << 20, "memory for lengths that were only claimed");
    siege.over();
}

#[test]
fn blobs_that_are_not_what_was_asked_for() {
    let content = b"a layer".to_vec();
    let blob = BlobInfo { digest: digest_of(&content), size: Bytes(content.len() as u64) };
    let honest = blob.digest.to_string();
    for (number, (name, data)) in [
        (honest.clone(), b"another".to_vec()),
        (honest.clone(), b"".to_vec()),
        (honest.clone(), [content.clone(), b"more".to_vec()].concat()),
        ("../../../etc/passwd".to_owned(), content.clone()),
        ("/etc/passwd".to_owned(), content.clone()),
        (format!("{honest}/../x"), content.clone()),
        (Digest::sha256([9; 32]).to_string(), content.clone()),
    ]
    .into_iter()
    .enumerate()
    {
        let siege = Siege::new();
        let mut link = siege.reserved(new_id(), vec![blob]);
        siege.lab.runtime.block_on(async {
            let mut archive = ArchiveWriter::new(&mut link.frames.writer, Limits::default());
            let sent = async {
                let channel = archive.open(&name, &json!({})).await?;
                archive.write(channel, Block::from(data)).await?;
                archive.close(channel).await?;
                archive.finish().await
            };
            // It may be cut off in the middle.
            drop(sent.await);
        });
        siege.refused(&mut link);
        assert_eq!(siege.lab.b.fake.copy(&web()), CopyState::Absent, "{number}");
        siege.over();
    }
}

/// A blob of a few bytes that never ends.
#[test]
fn a_stream_without_an_end() {
    let siege = Siege::new();
    let blob = BlobInfo { digest: Digest::sha256([5; 32]), size: Bytes(1000) };
    let mut link = siege.reserved(new_id(), vec![blob]);
    let before = resident();
    let sent = siege.lab.runtime.block_on(async {
        let mut archive = ArchiveWriter::new(&mut link.frames.writer, Limits::default());
        let endless = async {
            let channel = archive.open(&blob.digest.to_string(), &json!({})).await?;
            let block = Block::from(vec![1; 256 * 1024]);
            for _ in 0..1024 {
                archive.write(channel, block.clone()).await?;
                archive.flush().await?;
            }
            Ok::<_, ums_transfer::archive::ArchiveError>(())
        };
        tokio::time::timeout(PATIENCE, endless).await.expect("a stream that is read, or cut off").is_ok()
    });
    siege.refused(&mut link);
    assert!(resident().saturating_sub(before) < 64 << 20, "what comes is kept; all was sent: {sent}");
    siege.over();
}

/// Links that say nothing take no place from others for ever.
#[test]
fn silence_at_each_point() {
    let siege = Siege::new();
    let id = new_id();
    let silent = siege.lab.runtime.block_on(async {
        let (address, deadlines) = (siege.lab.b.address().to_string(), siege.lab.b.config.deadlines.link());
        let dial = Dial::Link(siege.lab.b.fingerprint());
        let tcp = tokio::net::TcpStream::connect(&address).await.unwrap();
        let tls = connect_tls(&address, &siege.c.identity, dial, &deadlines).await.unwrap();
        let hello = siege.c.link(&siege.lab.b, Purpose::Migration { id: new_id() }).await;
        (tcp, tls, hello)
    });
    let mut reserved = siege.reserved(id, Vec::new());
    // The reservation is a lease.
    assert!(siege.refused(&mut reserved).is_some());
    siege.over();
    drop(silent);
}

/// Signs of life are not enough: whoever takes a place for an arrival uses it, or it is given to others.
#[test]
fn nothing_but_signs_of_life() {
    let blob = BlobInfo { digest: Digest::sha256([5; 32]), size: Bytes(1000) };
    for due in ["an image", "the rest of a blob", "a dump"] {
        let siege = Siege::with(|config| config.limits.migrations = 1.try_into().unwrap());
        let id = new_id();
        let mut link = match due {
            "a dump" => siege.armable(id),
            _ => siege.reserved(id, vec![blob]),
        };
        let refused = siege.lab.runtime.block_on(async {
            match due {
                "a dump" => link.frames.send(&PeerMessage::Arm { about: about(id, 1) }).await.unwrap(),
                "an image" => {}
                _ => {
                    let mut archive = ArchiveWriter::new(&mut link.frames.writer, Limits::default());
                    archive.open(&blob.digest.to_string(), &json!({})).await.unwrap();
                }
            }
            let (reader, writer) = (&mut link.frames.reader, &mut link.frames.writer);
            let refused = async {
                loop {
                    match reader.read_control::<PeerMessage>().await.unwrap().expect("a word before the end")
                    {
                        PeerMessage::Refused { error, .. } => return error,
                        PeerMessage::Armed { .. } => {}
                        other => panic!("not refused: {other:?}"),
                    }
                }
            };
            tokio::time::timeout(PATIENCE, writer.alive_while(refused)).await.expect(due).unwrap()
        });
        assert!(refused.message.contains("sent nothing of use for 2 s"), "{due}: {refused}");
        siege.over();
    }
}

/// However many links a paired site opens, it gets its share of the places, and the others have theirs.
#[test]
fn thousands_of_connections() {
    // None of them is ended by its silence meanwhile.
    let siege = Siege::with(|config| {
        config.deadlines.idle = Duration::from_secs(600);
        config.deadlines.answer = Duration::from_secs(600);
    });
    let mut links = Vec::new();
    let before = resident();
    for _ in 0..300 {
        let link = siege.lab.runtime.block_on(async {
            let (address, deadlines) =
                (siege.lab.b.address().to_string(), siege.lab.b.config.deadlines.link());
            let (identity, peer) = (&siege.c.identity, siege.lab.b.fingerprint());
            let purpose = Purpose::Control;
            let link = connect(&address, identity, peer, purpose, &siege.c.greeting, &deadlines).await;
            let mut link = link.ok()?;
            let id = new_id();
            link.frames.send(&PeerMessage::Query { about: about(id, 1) }).await.ok()?;
            link.frames.expect::<PeerMessage>(PATIENCE).await.ok().map(|_| link)
        });
        links.extend(link);
    }
    assert!((1..=4).contains(&links.len()), "{} of 300 links were served at once", links.len());
    assert!(resident().saturating_sub(before) < 64 << 20);
    siege.over();
}

#[test]
fn thousands_of_offers() {
    let siege = Siege::new();
    let body = json!({"incoming": []});
    let set = siege.lab.b.client.call::<Value>(hyper::Method::PUT, "/v1/sites/c/policy", Some(&body));
    set.unwrap();
    let id = new_id();
    let before = resident();
    siege.lab.runtime.block_on(async {
        let mut link = siege.c.link(&siege.lab.b, Purpose::Migration { id }).await;
        for number in 0..2000 {
            let PeerMessage::Offer { mut about, mut offer } = offer(about(id, 1)) else { unreachable!() };
            about.service = format!("web-{number}").parse().unwrap();
            offer.spec.name = about.service.clone();
            offer.spec.env = vec![("A".to_owned(), "x".repeat(20_000))];
            let abort = PeerMessage::saying(about.clone(), Word::Abort).unwrap();
            link.frames.send(&PeerMessage::Offer { about, offer }).await.unwrap();
            let answer = link.frames.expect(PATIENCE).await.unwrap();
            assert_eq!(rejected(answer), ErrorCode::Refused);
            // Nor does a word about a name that it may not send leave a trace.
            link.frames.send(&abort).await.unwrap();
            let answer: PeerMessage = link.frames.expect(PATIENCE).await.unwrap();
            assert!(matches!(answer, PeerMessage::State { .. }), "{answer:?}");
        }
    });
    assert!(resident().saturating_sub(before) < 32 << 20, "names that were refused are kept");
    siege.over();
}

#[test]
fn versions_that_nobody_knows() {
    let siege = Siege::new();
    let c = &siege.c;
    let greeting = Greeting { versions: vec![Version(99), Version(0)], ..c.greeting.clone() };
    let (address, deadlines) = (siege.lab.b.address().to_string(), siege.lab.b.config.deadlines.link());
    let peer = siege.lab.b.fingerprint();
    let link = connect(&address, &c.identity, peer, Purpose::Control, &greeting, &deadlines);
    let error = siege.lab.runtime.block_on(link).unwrap_err();
    assert!(matches!(error, LinkError::NoCommonVersion { .. }), "{error}");
    // A message of a type that nobody knows, and one that is not on this kind of link.
    for message in [json!({"type": "teleport"}), json!({"type": "commit"}), json!([1]), json!(null)] {
        for purpose in [Purpose::Control, Purpose::Migration { id: new_id() }] {
            siege.lab.runtime.block_on(async {
                let mut link = c.link(&siege.lab.b, purpose).await;
                link.frames.send(&message).await.unwrap();
                let answer = tokio::time::timeout(PATIENCE, link.frames.next::<Value>()).await.unwrap();
                assert!(!matches!(answer, Ok(Some(_))), "{answer:?}");
            });
        }
    }
    siege.over();
}
