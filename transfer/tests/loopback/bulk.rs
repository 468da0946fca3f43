//! Archives over links: a nest, its site, the other site.

use bytes::Bytes;
use tokio::io::split;
use tokio::net::UnixStream;
use ums_transfer::Deadlines;
use ums_transfer::archive::{
    ArchiveError, ArchiveEvent, ArchiveReader, ArchiveWriter, Limits, RelayError, RelayStats, Totals, relay,
};
use ums_transfer::frame::{Conversation, FrameError, FrameReader, FrameWriter};
use ums_transfer::link::Purpose;

use crate::site::linked;

/// Not a round number, so that the last frame is a short one.
const ITEM: usize = 5_000_011;

fn content(seed: u8) -> Bytes {
    let mut bytes = vec![0; ITEM];
    blake3::Hasher::new_keyed(&[seed; 32]).finalize_xof().fill(&mut bytes);
    bytes.into()
}

async fn send<W: tokio::io::AsyncWrite + Unpin>(
    frames: &mut FrameWriter<W>,
    items: u8,
) -> Result<Totals, ArchiveError> {
    let mut archive = ArchiveWriter::new(frames, Limits::default());
    let mut open = Vec::new();
    for seed in 0..items {
        open.push((archive.open(&format!("item-{seed}"), &seed).await?, content(seed)));
    }
    // All of them a piece at a time, as growing files come.
    while open.iter().any(|(_, content)| !content.is_empty()) {
        for (channel, content) in &mut open {
            let piece = content.split_to(content.len().min(100_000));
            archive.write(*channel, piece).await?;
        }
    }
    for (channel, _) in open {
        archive.close(channel).await?;
    }
    archive.finish().await
}

async fn receive<R: tokio::io::AsyncRead + Unpin>(
    frames: &mut FrameReader<R>,
) -> Result<Totals, ArchiveError> {
    let mut archive = ArchiveReader::new(frames, Limits::default());
    let mut seeds = std::collections::HashMap::new();
    loop {
        match archive.next().await? {
            ArchiveEvent::Open { channel, meta, .. } => {
                seeds.insert(channel, meta.decode::<u8>()?);
            }
            ArchiveEvent::Data { .. } => {}
            ArchiveEvent::Close { channel, closed } => {
                let seed = seeds.remove(&channel).unwrap();
                assert_eq!(closed.hash, blake3::hash(&content(seed)));
            }
            ArchiveEvent::End { totals } => return Ok(totals),
        }
    }
}

#[tokio::test]
async fn an_archive_crosses_a_link_and_the_link_goes_on() {
    let (mut near, mut far) = linked(Purpose::Control).await;
    let sending = async {
        let totals = send(&mut near.frames.writer, 4).await.unwrap();
        near.frames.expect::<Received>(Deadlines::default().hello).await.unwrap();
        totals
    };
    let receiving = async {
        let totals = receive(&mut far.frames.reader).await.unwrap();
        far.frames.send(&Received { items: totals.items }).await.unwrap();
        totals
    };
    let (sent, received) = tokio::join!(sending, receiving);
    assert_eq!(sent, received);
    assert_eq!(sent.bytes, 4 * ITEM as u64);
}

/// What the receiver answers after the archive.
#[derive(serde::Serialize, serde::Deserialize)]
struct Received {
    items: u64,
}

#[tokio::test]
async fn an_archive_goes_from_a_nest_through_its_site_to_the_other() {
    let deadlines = Deadlines::default();
    let conversation = |stream: UnixStream| {
        let (reader, writer) = split(stream);
        Conversation::new(reader, writer, &deadlines)
    };
    let (nest, site) = UnixStream::pair().unwrap();
    let (mut nest, mut site) = (conversation(nest), conversation(site));
    let (mut near, mut far) = linked(Purpose::Control).await;
    let mut seen = RelayStats::default();
    let relaying = relay(&mut site.reader, &mut near.frames.writer, Limits::default(), |stats| seen = stats);
    let (sent, relayed, received) =
        tokio::join!(send(&mut nest.writer, 3), relaying, receive(&mut far.frames.reader));
    let (sent, received) = (sent.unwrap(), received.unwrap());
    assert_eq!(sent, received);
    assert_eq!(relayed.unwrap(), RelayStats { bytes: sent.bytes, items: 3 });
    assert_eq!(seen, RelayStats { bytes: sent.bytes, items: 3 });
}

#[tokio::test]
async fn a_nest_that_dies_ends_the_archive_and_not_the_link() {
    let deadlines = Deadlines::default();
    let (nest, site) = UnixStream::pair().unwrap();
    let (mut near, mut far) = linked(Purpose::Control).await;
    let dying = async {
        let mut frames = FrameWriter::new(nest, &deadlines);
        let mut archive = ArchiveWriter::new(&mut frames, Limits::default());
        let channel = archive.open("x", &0).await.unwrap();
        archive.write(channel, content(0)).await.unwrap();
        // In the middle of a frame.
        archive.write(channel, content(0)).await.unwrap();
        drop(frames);
    };
    let mut from = FrameReader::new(site, &deadlines);
    let relaying = async {
        let result = relay(&mut from, &mut near.frames.writer, Limits::default(), |_| {}).await;
        near.frames.send(&7).await.unwrap();
        result
    };
    let receiving = async {
        let result = receive(&mut far.frames.reader).await;
        (result, far.frames.reader.read_control::<u32>().await.unwrap())
    };
    let ((), relayed, (received, word)) = tokio::join!(dying, relaying, receiving);
    assert!(matches!(relayed.unwrap_err(), RelayError::Incoming { .. }));
    assert!(matches!(received.unwrap_err(), ArchiveError::Aborted { .. }));
    assert_eq!(word, Some(7));
}

#[tokio::test]
async fn a_link_cut_in_the_middle_is_an_error_at_both_ends() {
    let (mut near, mut far) = linked(Purpose::Control).await;
    let receiving = async {
        let mut archive = ArchiveReader::new(&mut far.frames.reader, Limits::default());
        for _ in 0..10 {
            archive.next().await.unwrap();
        }
        drop(far);
    };
    let (sent, ()) = tokio::join!(send(&mut near.frames.writer, 8), receiving);
    let error = sent.unwrap_err();
    assert!(matches!(error, ArchiveError::Frame { source: FrameError::Write { .. } }), "{error:?}");

    let (near, mut far) = linked(Purpose::Control).await;
    let sending = async {
        let mut near = near;
        let mut archive = ArchiveWriter::new(&mut near.frames.writer, Limits::default());
        let channel = archive.open("x", &0).await.unwrap();
        archive.write(channel, content(0)).await.unwrap();
        archive.flush().await.unwrap();
        drop(near);
    };
    let ((), received) = tokio::join!(sending, receive(&mut far.frames.reader));
    let error = received.unwrap_err();
    assert!(matches!(error, ArchiveError::Frame { .. }), "{error:?}");
}
