use std::future::Future;
use std::pin::pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncRead, AsyncWriteExt, DuplexStream, duplex};

use super::*;
use crate::Deadlines;
use crate::frame::{Channel, FrameError, FrameReader, FrameWriter, HEADER_LEN, Kind, MAX_DATA};

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct About {
    mode: u32,
}

fn writer<W: tokio::io::AsyncWrite + Unpin>(stream: W) -> FrameWriter<W> {
    FrameWriter::new(stream, &Deadlines::default())
}

fn reader<R: AsyncRead + Unpin>(stream: R) -> FrameReader<R> {
    FrameReader::new(stream, &Deadlines::default())
}

fn noise(length: usize, seed: u8) -> Bytes {
    let mut bytes = vec![0; length];
    blake3::Hasher::new_keyed(&[seed; 32]).finalize_xof().fill(&mut bytes);
    bytes.into()
}

/// An item as it arrived.
#[derive(Debug)]
struct Item {
    channel: Channel,
    name: String,
    meta: Meta,
    content: Vec<u8>,
}

/// Everything that arrives, in the order of closing; or the first error. Looks into nothing, as a relay would.
async fn receive<R: AsyncRead + Unpin>(
    frames: &mut FrameReader<R>,
    limits: Limits,
) -> Result<(Vec<Item>, Totals), ArchiveError> {
    let mut archive = ArchiveReader::new(frames, limits);
    let (mut open, mut done) = (Vec::<Item>::new(), Vec::new());
    loop {
        match archive.next().await? {
            ArchiveEvent::Open { channel, name, meta } => {
                open.push(Item { channel, name, meta, content: Vec::new() });
            }
            ArchiveEvent::Data { channel, data } => {
                open.iter_mut()
                    .find(|item| item.channel == channel)
                    .unwrap()
                    .content
                    .extend_from_slice(&data);
            }
            ArchiveEvent::Close { channel, closed } => {
                let at = open.iter().position(|item| item.channel == channel).unwrap();
                let item = open.remove(at);
                assert_eq!(
                    closed,
                    Closed { size: item.content.len() as u64, hash: blake3::hash(&item.content) }
                );
                done.push(item);
            }
            ArchiveEvent::End { totals } => {
                assert!(matches!(archive.next().await, Err(ArchiveError::Over)));
                return Ok((done, totals));
            }
        }
    }
}

const ABOUT: About = About { mode: 0o600 };

/// A small archive as bytes: two interleaved items, one empty, one that takes a used channel.
async fn small() -> Vec<u8> {
    let mut frames = writer(Vec::new());
    let mut archive = ArchiveWriter::new(&mut frames, Limits::default());
    let a = archive.open("pages-1.img", &ABOUT).await.unwrap();
    let b = archive.open("core-7.img", &ABOUT).await.unwrap();
    archive.write(a, noise(40, 1)).await.unwrap();
    archive.write(b, noise(30, 2)).await.unwrap();
    archive.write(a, noise(20, 3)).await.unwrap();
    archive.close(a).await.unwrap();
    let c = archive.open("empty", &ABOUT).await.unwrap();
    archive.close(c).await.unwrap();
    archive.close(b).await.unwrap();
    archive.finish().await.unwrap();
    frames.into_inner()
}

#[tokio::test]
async fn items_arrive_as_they_were_sent() {
    let (near, far) = duplex(64 * 1024);
    let sent = tokio::spawn(async move {
        let mut frames = writer(near);
        let mut archive = ArchiveWriter::new(&mut frames, Limits::default());
        let large = archive.open("large", &ABOUT).await.unwrap();
        for round in 0..20 {
            // More items than channels that are open: numbers come again.
            let small = archive.open(&format!("small-{round}"), &ABOUT).await.unwrap();
            archive.write(large, noise(MAX_DATA * 2 + 17, round)).await.unwrap();
            archive.write(small, noise(usize::from(round), round)).await.unwrap();
            archive.close(small).await.unwrap();
        }
        archive.close(large).await.unwrap();
        let totals = archive.finish().await.unwrap();
        frames.write_control(&"and on it goes").await.unwrap();
        frames.close().await.unwrap();
        totals
    });
    let mut frames = reader(far);
    let (items, totals) = receive(&mut frames, Limits::default()).await.unwrap();
    assert_eq!(totals, sent.await.unwrap());
    assert_eq!((totals.items, items.len()), (21, 21));
    for (round, item) in (0..20).zip(&items) {
        assert_eq!(
            (&item.name, &item.content[..]),
            (&format!("small-{round}"), &noise(round.into(), round)[..])
        );
        assert_eq!(item.meta.decode::<About>().unwrap(), ABOUT);
    }
    let large: Vec<u8> = (0..20).flat_map(|round| noise(MAX_DATA * 2 + 17, round)).collect();
    assert!(items[20].content == large, "the large item differs");
    assert_eq!(frames.read_control::<String>().await.unwrap().unwrap(), "and on it goes");
    assert_eq!(frames.read().await.unwrap(), None);
}

#[tokio::test]
async fn every_flipped_bit_is_noticed() {
    let good = small().await;
    receive(&mut reader(&good[..]), Limits::default()).await.unwrap();
    for at in 0..good.len() {
        for bit in 0..8 {
            let mut bad = good.clone();
            bad[at] ^= 1 << bit;
            let result = receive(&mut reader(&bad[..]), Limits::default()).await;
            assert!(result.is_err(), "bit {bit} of byte {at} was flipped and nobody saw it");
        }
    }
}

#[tokio::test]
async fn damaged_content_is_named() {
    let mut bytes = small().await;
    let at = bytes.windows(20).position(|window| window == &noise(20, 3)[..]).unwrap();
    bytes[at] ^= 1;
    let error = receive(&mut reader(&bytes[..]), Limits::default()).await.unwrap_err();
    assert!(matches!(&error, ArchiveError::Damaged { name, .. } if name == "pages-1.img"), "{error:?}");
}

#[tokio::test]
async fn a_cut_anywhere_is_noticed() {
    let good = small().await;
    for length in 0..good.len() {
        let error = receive(&mut reader(&good[..length]), Limits::default()).await.unwrap_err();
        let cut = matches!(
            error,
            ArchiveError::Cut { .. } | ArchiveError::Frame { source: FrameError::Cut { .. } }
        );
        assert!(cut, "after {length} bytes: {error:?}");
    }
}

/// Feeds frames of a hostile sender.
async fn verdict(frames: &[(Kind, u16, &[u8])], limits: Limits) -> ArchiveError {
    let mut out = writer(Vec::new());
    for (kind, channel, payload) in frames {
        out.write(frame(*kind, Channel(*channel), Bytes::copy_from_slice(payload))).await.unwrap();
    }
    out.flush().await.unwrap();
    receive(&mut reader(&out.into_inner()[..]), limits).await.unwrap_err()
}

const OPEN: &[u8] = b"\x00\x01x{\"mode\":384}";

#[tokio::test]
async fn what_has_no_place_is_refused() {
    let limits = Limits::default();
    let open = |channel| (Kind::Open, channel, OPEN);
    let not_open = verdict(&[(Kind::Data, 5, b"x")], limits).await;
    assert!(matches!(not_open, ArchiveError::NotOpen { channel: Channel(5) }), "{not_open:?}");
    let twice = verdict(&[open(5), open(5)], limits).await;
    assert!(matches!(twice, ArchiveError::ChannelTaken { channel: Channel(5) }), "{twice:?}");
    let main = verdict(&[open(0)], limits).await;
    assert!(matches!(main, ArchiveError::ChannelTaken { channel: Channel::MAIN }), "{main:?}");
    let empty = Closed { size: 0, hash: blake3::hash(b"") };
    let close = wire::encode_close(&empty);
    let late = verdict(&[open(5), (Kind::Close, 5, &close), (Kind::Data, 5, b"x")], limits).await;
    assert!(matches!(late, ArchiveError::NotOpen { channel: Channel(5) }), "{late:?}");
    let control = verdict(&[open(5), (Kind::Control, 0, b"{}")], limits).await;
    assert!(matches!(control, ArchiveError::Unexpected { got: Kind::Control }), "{control:?}");
    let totals = Totals { items: 0, bytes: 0, digest: blake3::hash(b"") };
    let early = verdict(&[open(5), (Kind::End, 0, &wire::encode_end(&totals))], limits).await;
    assert!(matches!(early, ArchiveError::StillOpen { open: 1 }), "{early:?}");
    let missing = Totals { items: 1, ..totals };
    let missing = verdict(&[(Kind::End, 0, &wire::encode_end(&missing))], limits).await;
    assert!(matches!(missing, ArchiveError::DamagedTotals { .. }), "{missing:?}");
    for malformed in [&b""[..], b"\x00", b"\x00\x05x", b"\xff\xffx", b"\x00\x01\xff"] {
        let error = verdict(&[(Kind::Open, 5, malformed)], limits).await;
        assert!(matches!(error, ArchiveError::Malformed { kind: Kind::Open, .. }), "{error:?}");
    }
}

#[tokio::test]
async fn limits_hold_at_both_ends() {
    let tight = Limits { items: 3, open: 2, item_bytes: 10, bytes: 15 };
    let over = |error: ArchiveError| match error {
        ArchiveError::OverLimit { what, .. } => what,
        other => panic!("{other:?}"),
    };
    let open = |channel| (Kind::Open, channel, OPEN);
    let close = wire::encode_close(&Closed { size: 0, hash: blake3::hash(b"") });
    let close = |channel| (Kind::Close, channel, &close[..]);
    assert_eq!(over(verdict(&[open(1), open(2), open(3)], tight).await), "open items");
    let four = [open(1), close(1), open(1), close(1), open(1), close(1), open(1)];
    assert_eq!(over(verdict(&four, tight).await), "items");
    let long = (Kind::Data, 1, &[0; 11][..]);
    assert_eq!(over(verdict(&[open(1), long], tight).await), "bytes in one item");
    let eight = |channel| (Kind::Data, channel, &[0; 8][..]);
    assert_eq!(over(verdict(&[open(1), eight(1), open(2), eight(2)], tight).await), "bytes");

    let mut frames = writer(Vec::new());
    let mut archive = ArchiveWriter::new(&mut frames, tight);
    let channel = archive.open("x", &ABOUT).await.unwrap();
    assert_eq!(over(archive.write(channel, noise(11, 1)).await.unwrap_err()), "bytes in one item");
    let long = "x".repeat(MAX_NAME + 1);
    assert!(matches!(archive.open(&long, &ABOUT).await, Err(ArchiveError::TooLong { what: "name", .. })));
    let huge = "x".repeat(64 * 1024);
    assert!(matches!(archive.open("y", &huge).await, Err(ArchiveError::TooLong { what: "meta", .. })));
    archive.open("still good", &ABOUT).await.unwrap();
}

#[tokio::test]
async fn an_abort_says_why_and_leaves_the_stream_usable() {
    let (near, far) = duplex(1024);
    let (mut out, mut frames) = (writer(near), reader(far));
    let mut archive = ArchiveWriter::new(&mut out, Limits::default());
    let channel = archive.open("x", &ABOUT).await.unwrap();
    archive.write(channel, noise(10, 1)).await.unwrap();
    archive.abort("the dump failed").await.unwrap();
    out.write_control(&7).await.unwrap();
    out.flush().await.unwrap();
    let error = receive(&mut frames, Limits::default()).await.unwrap_err();
    assert!(matches!(&error, ArchiveError::Aborted { reason } if reason == "the dump failed"), "{error:?}");
    assert_eq!(frames.read_control::<u32>().await.unwrap(), Some(7));
}

/// Polls until nothing moves any more without somebody else's help. Pending for its own reasons (the scheduler's
/// budget) a future may be for a while, hence the repetition.
fn poll_to_rest<F: Future + Unpin>(future: &mut F, progress: &AtomicU64) -> Option<F::Output> {
    let mut cx = Context::from_waker(Waker::noop());
    let mut quiet = 0;
    while quiet < 1000 {
        let before = progress.load(Ordering::Relaxed);
        if let Poll::Ready(output) = std::pin::Pin::new(&mut *future).poll(&mut cx) {
            return Some(output);
        }
        quiet = if progress.load(Ordering::Relaxed) == before { quiet + 1 } else { 0 };
    }
    None
}

async fn send_chunks(near: DuplexStream, chunks: u64, handed_over: &AtomicU64) -> Totals {
    let mut frames = writer(near);
    let mut archive = ArchiveWriter::new(&mut frames, Limits::default());
    let channel = archive.open("x", &ABOUT).await.unwrap();
    for _ in 0..chunks {
        archive.write(channel, noise(MAX_DATA, 1)).await.unwrap();
        handed_over.fetch_add(MAX_DATA as u64, Ordering::Relaxed);
    }
    archive.close(channel).await.unwrap();
    archive.finish().await.unwrap()
}

#[tokio::test]
async fn a_slow_receiver_slows_the_sender_down() {
    const PIPE: usize = 64 * 1024;
    let (near, far) = duplex(PIPE);
    let handed_over = AtomicU64::new(0);
    let mut sending = pin!(send_chunks(near, 64, &handed_over));
    assert!(poll_to_rest(&mut sending, &handed_over).is_none(), "all was sent with nobody receiving");
    // The frame that is half in the pipe, and the one that waits for it.
    let bound = (PIPE + 2 * MAX_DATA) as u64;
    let buffered = handed_over.load(Ordering::Relaxed);
    assert!(buffered <= bound, "{buffered} bytes are buffered, more than {bound}");
    let mut frames = reader(far);
    let (totals, received) = tokio::join!(sending, receive(&mut frames, Limits::default()));
    assert_eq!(received.unwrap().1, totals);
}

#[tokio::test]
async fn a_relay_buffers_no_more() {
    const PIPE: usize = 64 * 1024;
    let (near, incoming) = duplex(PIPE);
    let (outgoing, far) = duplex(PIPE);
    let handed_over = AtomicU64::new(0);
    let mut from = reader(incoming);
    let mut to = writer(outgoing);
    let mut both = pin!(async {
        tokio::join!(
            send_chunks(near, 64, &handed_over),
            relay(&mut from, &mut to, Limits::default(), |_| {}),
        )
    });
    assert!(poll_to_rest(&mut both, &handed_over).is_none(), "all was sent with nobody receiving");
    // Besides the sender's own: two frames in the relay, and its read buffer.
    let bound = (2 * PIPE + 4 * MAX_DATA + 1024 * 1024) as u64;
    let buffered = handed_over.load(Ordering::Relaxed);
    assert!(buffered <= bound, "{buffered} bytes are buffered, more than {bound}");
    let mut frames = reader(far);
    let ((totals, relayed), received) = tokio::join!(both, receive(&mut frames, Limits::default()));
    assert_eq!(received.unwrap().1, totals);
    assert_eq!(relayed.unwrap(), RelayStats { bytes: totals.bytes, items: totals.items });
}

#[tokio::test]
async fn growing_items_pass_a_relay_while_they_grow() {
    let (near, incoming) = duplex(1024);
    let (outgoing, far) = duplex(1024);
    let mut seen = Vec::new();
    let (grow, mut grown) = tokio::sync::mpsc::channel::<Bytes>(1);
    let sending = async {
        let mut frames = writer(near);
        let mut archive = ArchiveWriter::new(&mut frames, Limits::default());
        let channel = archive.open("log", &ABOUT).await.unwrap();
        while let Some(more) = archive.alive_while(grown.recv()).await.unwrap() {
            archive.write(channel, more).await.unwrap();
        }
        archive.close(channel).await.unwrap();
        archive.finish().await.unwrap()
    };
    let relaying = async {
        relay(&mut reader(incoming), &mut writer(outgoing), Limits::default(), |stats| seen.push(stats)).await
    };
    let receiving = async {
        let mut frames = reader(far);
        let mut archive = ArchiveReader::new(&mut frames, Limits::default());
        assert!(matches!(archive.next().await.unwrap(), ArchiveEvent::Open { .. }));
        let mut all = 0;
        for round in 1..10_u8 {
            // Each piece is made only after the one before it came out at the far end.
            grow.send(noise(5000, round)).await.unwrap();
            let mut piece = Vec::new();
            while piece.len() < 5000 {
                let event = archive.next().await.unwrap();
                let ArchiveEvent::Data { data, .. } = event else { panic!("{event:?}") };
                piece.extend_from_slice(&data);
            }
            assert_eq!(piece, noise(5000, round));
            all += piece.len() as u64;
        }
        drop(grow);
        assert!(matches!(archive.next().await.unwrap(), ArchiveEvent::Close { .. }));
        assert!(matches!(archive.next().await.unwrap(), ArchiveEvent::End { .. }));
        all
    };
    let (totals, relayed, received) = tokio::join!(sending, relaying, receiving);
    assert_eq!(relayed.unwrap(), RelayStats { bytes: received, items: 1 });
    assert_eq!(totals.bytes, received);
    assert!(seen.is_sorted_by_key(|stats| stats.bytes) && seen.last().unwrap().bytes == received);
}

#[tokio::test]
async fn a_relay_tells_the_receiver_when_the_sender_is_gone() {
    let good = small().await;
    for (incoming, why) in [(&good[..good.len() / 2], "cut"), (&good[..20], "cut"), (&[0; 9][..], "frame")] {
        let (outgoing, far) = duplex(64 * 1024);
        let mut to = writer(outgoing);
        let error = relay(&mut reader(incoming), &mut to, Limits::default(), |_| {}).await.unwrap_err();
        assert!(matches!(error, RelayError::Incoming { .. }), "{error:?}");
        to.write_control(&7).await.unwrap();
        to.flush().await.unwrap();
        let mut frames = reader(far);
        let error = receive(&mut frames, Limits::default()).await.unwrap_err();
        assert!(matches!(&error, ArchiveError::Aborted { reason } if reason.contains(why)), "{error:?}");
        assert_eq!(frames.read_control::<u32>().await.unwrap(), Some(7), "the stream is out of step");
    }
}

#[tokio::test]
async fn a_relay_holds_the_limits_and_passes_an_abort_on() {
    let good = small().await;
    let (outgoing, _far) = duplex(64 * 1024);
    let tight = Limits { items: 1, ..Limits::default() };
    let error = relay(&mut reader(&good[..]), &mut writer(outgoing), tight, |_| {}).await.unwrap_err();
    let over =
        matches!(error, RelayError::Incoming { source: ArchiveError::OverLimit { what: "items", .. } });
    assert!(over, "{error:?}");

    let mut out = writer(Vec::new());
    ArchiveWriter::new(&mut out, Limits::default()).abort("enough").await.unwrap();
    let (outgoing, far) = duplex(64 * 1024);
    let aborted = out.into_inner();
    let mut to = writer(outgoing);
    let error = relay(&mut reader(&aborted[..]), &mut to, Limits::default(), |_| {}).await.unwrap_err();
    assert!(matches!(error, RelayError::Incoming { source: ArchiveError::Aborted { .. } }), "{error:?}");
    let error = receive(&mut reader(far), Limits::default()).await.unwrap_err();
    assert!(matches!(&error, ArchiveError::Aborted { reason } if reason == "enough"), "{error:?}");
}

#[tokio::test]
async fn a_relay_without_a_receiver_fails_on_the_outgoing_side() {
    let good = small().await;
    let (outgoing, far) = duplex(16);
    drop(far);
    let error =
        relay(&mut reader(&good[..]), &mut writer(outgoing), Limits::default(), |_| {}).await.unwrap_err();
    assert!(matches!(error, RelayError::Outgoing { source: FrameError::Write { .. } }), "{error:?}");
}

#[tokio::test]
async fn bytes_after_a_header_alone_are_no_item() {
    let (mut near, far) = duplex(64);
    near.write_all(&[Kind::Open as u8, 0, 0, 1, 0, 0, 0, 9]).await.unwrap();
    drop(near);
    let error = receive(&mut reader(far), Limits::default()).await.unwrap_err();
    assert!(matches!(error, ArchiveError::Frame { source: FrameError::Cut { missing: 9 } }), "{error:?}");
    assert_eq!(HEADER_LEN, 8);
}
