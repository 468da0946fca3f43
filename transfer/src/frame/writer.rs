//! Frames into a byte stream.

use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use serde::Serialize;
use tokio::io::{AsyncWrite, AsyncWriteExt};
use tokio::time::{Instant, sleep_until};

use super::codec::put_header;
use super::patience::Patience;
use super::{Channel, Frame, FrameError, Kind, MAX_DATA};
use crate::Deadlines;

/// Payloads up to this length are copied next to their header; longer ones are written from where they are.
const SMALL: usize = 4 * 1024;
/// Small frames are collected up to this many bytes before a write is tried.
const COLLECT: usize = 64 * 1024;

/// Writes frames.
///
/// At most [`MAX_CONTROL`](super::MAX_CONTROL) and 64 KiB wait here; beyond that a write waits until the other
/// side has taken what is queued: that is the back-pressure. Small frames stay queued until [`FrameWriter::flush`],
/// so call it before waiting for an answer ([`FrameWriter::alive_while`] does).
#[derive(Debug)]
pub struct FrameWriter<W> {
    out: Outgoing<W>,
    patience: Patience,
    keep_alive: Duration,
}

impl<W: AsyncWrite + Unpin> FrameWriter<W> {
    /// Writes to `inner`; of the deadlines `stall` and `keep_alive` are used.
    pub fn new(inner: W, deadlines: &Deadlines) -> Self {
        let Deadlines { stall, keep_alive, .. } = *deadlines;
        Self { out: Outgoing::new(inner), patience: Patience::new(stall), keep_alive }
    }

    /// Queues a message as a control frame. A message that is too long or is no JSON is an error and leaves the
    /// stream as it was. Cancel safe: dropped before it is ready, the message was not queued, never half of it.
    pub async fn write_control<T: Serialize>(&mut self, message: &T) -> Result<(), FrameError> {
        let payload = serde_json::to_vec(message).map_err(|source| FrameError::Encode { source })?;
        self.write(Frame { kind: Kind::Control, channel: Channel::MAIN, payload: payload.into() }).await
    }

    /// Queues bytes on a channel, in as many frames as they need; empty data is one empty frame. The bytes are not
    /// copied. Cancel safe as [`FrameWriter::write_control`] up to [`MAX_DATA`] bytes; of longer data, dropped
    /// before it is ready, a part may have been queued.
    pub async fn write_data(&mut self, channel: Channel, mut data: Bytes) -> Result<(), FrameError> {
        while data.len() > MAX_DATA {
            let payload = data.split_to(MAX_DATA);
            self.write(Frame { kind: Kind::Data, channel, payload }).await?;
        }
        self.write(Frame { kind: Kind::Data, channel, payload: data }).await
    }

    /// Queues a frame as it is. `Ok`: it is queued whole and will be written by this or a later call. Cancel safe
    /// as [`FrameWriter::write_control`]. [`FrameError::TooLong`] leaves the stream as it was; after any other
    /// error it is of no further use.
    pub async fn write(&mut self, frame: Frame) -> Result<(), FrameError> {
        let (length, limit) = (frame.payload.len(), frame.kind.limit());
        if length > limit {
            return Err(FrameError::TooLong { kind: frame.kind, length, limit });
        }
        if self.out.is_full() {
            self.drain().await?;
        }
        self.out.push(frame);
        if self.out.is_full() {
            // What the stream takes at once goes out now, so that it is not idle while the caller fetches more.
            self.out.write_at_once().await.map_err(|source| FrameError::Write { source })?;
        }
        Ok(())
    }

    /// Writes everything that is queued down to the operating system. Cancel safe; safe to repeat.
    pub async fn flush(&mut self) -> Result<(), FrameError> {
        self.drain().await?;
        let flushed = self.patience.wait(self.out.inner.flush()).await;
        flushed.map_err(|after| FrameError::Stalled { after })?.map_err(|source| FrameError::Write { source })
    }

    /// Flushes and closes our direction, so that the other side reads a clean end. Nothing may be written after
    /// it. Safe to repeat.
    pub async fn close(&mut self) -> Result<(), FrameError> {
        self.flush().await?;
        let closed = self.patience.wait(self.out.inner.shutdown()).await;
        closed.map_err(|after| FrameError::Stalled { after })?.map_err(|source| FrameError::Write { source })
    }

    /// Awaits `work` and lets the other side know that we are alive: flushes, then sends a keep-alive frame whenever
    /// nothing was sent for `keep_alive`, until `work` is done. Wrap whatever takes time on this side while the other
    /// one waits. `work` must not block its thread, or the keep-alive frames stop with it.
    ///
    /// `Err`: the link broke and `work` was dropped unfinished. Cancel safe if `work` is.
    pub async fn alive_while<F: Future>(&mut self, work: F) -> Result<F::Output, FrameError> {
        let mut work = pin!(work);
        loop {
            tokio::select! {
                biased;
                output = &mut work => return Ok(output),
                beat = self.beat() => beat?,
            }
        }
    }

    /// Number of bytes given to the stream so far, headers and keep-alive frames included.
    pub fn sent(&self) -> u64 {
        self.out.sent
    }

    /// The stream itself. What is still queued is lost, so flush first.
    pub fn into_inner(self) -> W {
        self.out.inner
    }

    async fn beat(&mut self) -> Result<(), FrameError> {
        self.flush().await?;
        // Counted from the last byte and not from now: a caller that asks anew every second must not keep us silent.
        sleep_until(self.out.last_sent + self.keep_alive).await;
        self.write(Frame { kind: Kind::KeepAlive, channel: Channel::MAIN, payload: Bytes::new() }).await?;
        self.flush().await
    }

    async fn drain(&mut self) -> Result<(), FrameError> {
        while !self.out.is_empty() {
            // Patience for each step and not for all: slow is not cut.
            let step = self.patience.wait(poll_fn(|cx| self.out.poll_step(cx))).await;
            step.map_err(|after| FrameError::Stalled { after })?
                .map_err(|source| FrameError::Write { source })?;
        }
        Ok(())
    }
}

/// The stream and what waits for it: some headers and small payloads, then at most one long payload.
#[derive(Debug)]
struct Outgoing<W> {
    inner: W,
    /// Headers and small payloads, in order.
    head: BytesMut,
    /// The long payload that follows `head`, if any; while there is one, `head` may not grow.
    tail: Bytes,
    sent: u64,
    last_sent: Instant,
}

impl<W: AsyncWrite + Unpin> Outgoing<W> {
    fn new(inner: W) -> Self {
        Self { inner, head: BytesMut::new(), tail: Bytes::new(), sent: 0, last_sent: Instant::now() }
    }

    /// Nothing may be added before something was written.
    fn is_full(&self) -> bool {
        !self.tail.is_empty() || self.head.len() >= COLLECT
    }

    fn is_empty(&self) -> bool {
        self.head.is_empty() && self.tail.is_empty()
    }

    fn push(&mut self, frame: Frame) {
        debug_assert!(self.tail.is_empty(), "a frame may not overtake the payload before it");
        put_header(&mut self.head, frame.kind, frame.channel, frame.payload.len());
        if frame.payload.len() <= SMALL {
            self.head.extend_from_slice(&frame.payload);
        } else {
            self.tail = frame.payload;
        }
    }

    /// Writes until the stream would have to wait; never waits itself.
    async fn write_at_once(&mut self) -> io::Result<()> {
        poll_fn(|cx| {
            while !self.is_empty() {
                match self.poll_step(cx) {
                    Poll::Ready(Ok(())) => {}
                    Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                    Poll::Pending => break,
                }
            }
            Poll::Ready(Ok(()))
        })
        .await
    }

    fn poll_step(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let slices = [IoSlice::new(&self.head), IoSlice::new(&self.tail)];
        let slices = if self.head.is_empty() { &slices[1..] } else { &slices[..] };
        let count = ready!(Pin::new(&mut self.inner).poll_write_vectored(cx, slices))?;
        if count == 0 {
            return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
        }
        let of_head = count.min(self.head.len());
        self.head.advance(of_head);
        self.tail.advance(count - of_head);
        if self.tail.is_empty() {
            // Gives the caller's memory back as soon as it was taken, not when the next frame comes.
            self.tail = Bytes::new();
        }
        self.sent += count as u64;
        self.last_sent = Instant::now();
        Poll::Ready(Ok(()))
    }
}
