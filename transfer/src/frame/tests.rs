//! The reader and the writer over an in-memory pipe.

use std::pin::{Pin, pin};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

use super::*;
use crate::Deadlines;

const IMPATIENT: Duration = Duration::from_millis(10);

fn data(length: usize, fill: u8) -> Bytes {
    vec![fill; length].into()
}

fn poll_once<F: Future>(future: Pin<&mut F>) -> Poll<F::Output> {
    future.poll(&mut Context::from_waker(Waker::noop()))
}

#[tokio::test]
async fn frames_of_all_sizes_arrive_in_order() {
    let (near, far) = duplex(100_000);
    let lengths =
        [0, 1, 4095, 4096, 4097, 65_536, MAX_DATA - 1, MAX_DATA, MAX_DATA + 1, 3 * MAX_DATA + 5, 0, 3];
    let sending = async {
        let mut writer = FrameWriter::new(near, &Deadlines::default());
        for (fill, length) in (0..).zip(lengths) {
            writer.write_data(Channel(fill.into()), data(length, fill)).await.unwrap();
            writer.write_control(&fill).await.unwrap();
        }
        writer.close().await.unwrap();
        writer.sent()
    };
    let receiving = async {
        let mut reader = FrameReader::new(far, &Deadlines::default());
        for (fill, length) in (0_u8..).zip(lengths) {
            let mut got = Vec::new();
            loop {
                let frame = reader.read().await.unwrap().unwrap();
                if frame.kind == Kind::Control {
                    assert_eq!(frame.control::<u8>().unwrap(), fill);
                    break;
                }
                assert_eq!((frame.kind, frame.channel), (Kind::Data, Channel(fill.into())));
                got.extend_from_slice(&frame.payload);
            }
            assert!(got == data(length, fill), "data of {length} bytes differs");
        }
        assert_eq!(reader.read().await.unwrap(), None);
        reader.received()
    };
    let (sent, received) = tokio::join!(sending, receiving);
    assert_eq!(sent, received);
}

#[tokio::test]
async fn a_cancelled_read_loses_nothing() {
    let (mut near, far) = duplex(1024);
    let mut reader = FrameReader::new(far, &Deadlines::default());
    let whole = [2, 0, 0, 9, 0, 0, 0, 3, b'a', b'b', b'c'];
    for byte in whole {
        assert!(poll_once(pin!(reader.read())).is_pending());
        near.write_all(&[byte]).await.unwrap();
    }
    let frame = reader.read().await.unwrap().unwrap();
    assert_eq!((frame.channel, &frame.payload[..]), (Channel(9), &b"abc"[..]));
}

#[tokio::test]
async fn a_cancelled_write_leaves_whole_frames() {
    let (near, far) = duplex(64);
    let mut writer = FrameWriter::new(near, &Deadlines::default());
    writer.write_data(Channel(1), data(10_000, 1)).await.unwrap();
    // The pipe is full: this one waits for its turn, is dropped, and was never queued.
    assert!(poll_once(pin!(writer.write_data(Channel(2), data(10_000, 2)))).is_pending());
    assert!(poll_once(pin!(writer.flush())).is_pending());
    let sending = async {
        writer.write_data(Channel(3), data(10_000, 3)).await.unwrap();
        writer.close().await.unwrap();
    };
    let receiving = async {
        let mut reader = FrameReader::new(far, &Deadlines::default());
        for expected in [1, 3] {
            let frame = reader.read().await.unwrap().unwrap();
            assert_eq!((frame.channel, frame.payload), (Channel(expected.into()), data(10_000, expected)));
        }
        assert_eq!(reader.read().await.unwrap(), None);
    };
    tokio::join!(sending, receiving);
}

#[tokio::test]
async fn an_end_inside_a_frame_is_a_cut() {
    for length in 1..11 {
        let whole = [2, 0, 0, 9, 0, 0, 0, 3, b'a', b'b', b'c'];
        let mut reader = FrameReader::new(&whole[..length], &Deadlines::default());
        let error = reader.read().await.unwrap_err();
        assert!(matches!(error, FrameError::Cut { .. }), "after {length} bytes: {error:?}");
    }
}

#[tokio::test]
async fn silence_and_standstill_end() {
    let (near, _far) = duplex(64);
    let deadlines = Deadlines { idle: IMPATIENT, stall: IMPATIENT, ..Deadlines::default() };
    let (reading, writing) = tokio::io::split(near);
    let error = FrameReader::new(reading, &deadlines).read().await.unwrap_err();
    assert!(matches!(error, FrameError::Silent { after: IMPATIENT }), "{error:?}");
    let mut writer = FrameWriter::new(writing, &deadlines);
    writer.write_data(Channel(1), data(10_000, 1)).await.unwrap();
    let error = writer.flush().await.unwrap_err();
    assert!(matches!(error, FrameError::Stalled { after: IMPATIENT }), "{error:?}");
}

/// How long a reader waits that demands progress. A piece every tenth of it is slow, also on a busy machine.
const SLOW: Duration = Duration::from_millis(400);

/// Sends the pieces one by one, and then nothing but the last one: how a reader that demands progress likes it, for three
/// times as long as it waits.
async fn bears(pieces: &[Vec<u8>], demand: Option<Duration>) -> Result<(), FrameError> {
    let (near, mut far) = duplex(64 * 1024);
    let mut reader = FrameReader::new(near, &Deadlines::default());
    reader.demand(demand);
    let send = async {
        let last = pieces.last().into_iter().cycle();
        for piece in pieces.iter().chain(last) {
            far.write_all(piece).await.unwrap();
            tokio::time::sleep(SLOW / 10).await;
        }
    };
    let read = async {
        loop {
            reader.read().await?;
        }
    };
    tokio::select! {
        () = send => Ok(()),
        read = tokio::time::timeout(3 * SLOW, read) => read.unwrap_or(Ok(())),
    }
}

#[tokio::test]
async fn signs_of_life_are_no_progress_but_a_slow_stream_is() {
    let header = |kind: Kind, length: usize| {
        let mut bytes = vec![kind as u8, 0, 0, 0];
        bytes.extend(u32::try_from(length).unwrap().to_be_bytes());
        bytes
    };
    let long = [header(Kind::Data, MAX_DATA), vec![1; MAX_DATA]].concat();
    let in_pieces_of = |length: usize| long.chunks(length).map(<[u8]>::to_vec).collect::<Vec<_>>();
    let keep_alive = vec![header(Kind::KeepAlive, 0)];
    bears(&keep_alive, None).await.unwrap();
    for idle in [keep_alive, vec![header(Kind::Data, 0)], in_pieces_of(8)] {
        let error = bears(&idle, Some(SLOW)).await.unwrap_err();
        assert!(matches!(error, FrameError::NoProgress { after: SLOW }), "{error:?}");
    }
    // However many signs of life a slow sender puts around what it sends, and whatever comes first.
    let keep_alives = header(Kind::KeepAlive, 0).repeat(1024);
    let little = [header(Kind::Data, 8), vec![1; 8]].concat();
    for idle in [[&*little, &keep_alives].concat(), [&*keep_alives, &little].concat()] {
        let error = bears(&[idle], Some(SLOW)).await.unwrap_err();
        assert!(matches!(error, FrameError::NoProgress { after: SLOW }), "{error:?}");
    }
    let much = [header(Kind::Data, 4096), vec![1; 4096]].concat();
    for busy in [[&*much, &keep_alives].concat(), [&*keep_alives, &much].concat()] {
        bears(&[busy], Some(SLOW)).await.unwrap();
    }
    // One frame that takes minutes is on its way all the time.
    bears(&in_pieces_of(2048), Some(SLOW)).await.unwrap();
}

#[tokio::test]
async fn work_is_covered_by_keep_alives_and_they_are_not_seen() {
    let (near, mut far) = duplex(1024);
    let mut writer = FrameWriter::new(near, &Deadlines { keep_alive: IMPATIENT, ..Deadlines::default() });
    writer.write_control(&"before").await.unwrap();
    let mut raw = Vec::new();
    let work = async {
        // Only what was queued before and keep-alives can come while the work is not done.
        while raw.len() < 100 {
            far.read_buf(&mut raw).await.unwrap();
        }
    };
    writer.alive_while(work).await.unwrap();
    writer.close().await.unwrap();
    far.read_to_end(&mut raw).await.unwrap();
    let mut reader = FrameReader::new(&raw[..], &Deadlines::default());
    assert_eq!(reader.read_control::<String>().await.unwrap().unwrap(), "before");
    assert_eq!(reader.read().await.unwrap(), None);
}

#[tokio::test]
async fn a_caller_that_asks_again_and_again_neither_waits_for_ever_nor_falls_silent() {
    let short = Duration::from_millis(1);
    let (near, mut far) = duplex(1024);
    let deadlines = Deadlines { idle: 50 * IMPATIENT, keep_alive: IMPATIENT, ..Deadlines::default() };
    let (reading, writing) = tokio::io::split(near);
    let mut conversation = Conversation::new(reading, writing, &deadlines);
    let error = loop {
        // Much shorter than both deadlines, so each of them spans many calls.
        if let Ok(end) = tokio::time::timeout(short, conversation.next::<u32>()).await {
            break end.unwrap_err();
        }
    };
    assert!(matches!(error, FrameError::Silent { .. }), "{error:?}");
    drop(conversation);
    let mut raw = Vec::new();
    far.read_to_end(&mut raw).await.unwrap();
    assert!(raw.starts_with(&[Kind::KeepAlive as u8]), "no keep-alive was sent");
}

#[tokio::test]
async fn a_message_that_does_not_fit_changes_nothing() {
    let (near, far) = duplex(1024);
    let mut writer = FrameWriter::new(near, &Deadlines::default());
    let error = writer.write_control(&"x".repeat(MAX_CONTROL)).await.unwrap_err();
    assert!(matches!(error, FrameError::TooLong { kind: Kind::Control, .. }), "{error:?}");
    writer.write_control(&"short").await.unwrap();
    writer.close().await.unwrap();
    let mut reader = FrameReader::new(far, &Deadlines::default());
    // Not a number: an error, after which the stream is still in step.
    assert!(matches!(reader.read_control::<u32>().await, Err(FrameError::Decode { .. })));
    assert_eq!(reader.read().await.unwrap(), None);
}

#[tokio::test]
async fn a_conversation_asks_and_answers() {
    let (near, far) = duplex(1024);
    let deadlines = Deadlines { keep_alive: IMPATIENT, ..Deadlines::default() };
    let conversation = |stream| {
        let (reader, writer) = tokio::io::split(stream);
        Conversation::new(reader, writer, &deadlines)
    };
    let (mut asking, mut answering) = (conversation(near), conversation(far));
    let ask = async {
        asking.send(&2).await.unwrap();
        let answer: u32 = asking.expect(Duration::from_secs(60)).await.unwrap();
        let silence = asking.expect::<u32>(IMPATIENT).await;
        assert!(matches!(silence, Err(FrameError::Silent { after: IMPATIENT })), "{silence:?}");
        asking.writer.close().await.unwrap();
        answer
    };
    let answer = async {
        let question: u32 = answering.next().await.unwrap().unwrap();
        answering.send(&(question + 40)).await.unwrap();
        assert_eq!(answering.next::<u32>().await.unwrap(), None);
    };
    assert_eq!(tokio::join!(ask, answer).0, 42);
}
