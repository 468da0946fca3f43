//! The sending end.

use bytes::Bytes;
use serde::Serialize;
use tokio::io::AsyncWrite;

use super::ledger::Ledger;
use super::wire::{add_to_digest, encode_abort, encode_close, encode_end, encode_open};
use super::{ArchiveError, Closed, Limits, Totals, frame};
use crate::frame::{Channel, Frame, FrameWriter, Kind, MAX_DATA};

/// Sends one archive over a frame writer that it borrows, so that the connection is the caller's again afterwards.
///
/// Dropped without [`ArchiveWriter::finish`] or [`ArchiveWriter::abort`], the archive is unfinished and the stream
/// must not be used for anything else: the receiver would take it for part of the archive.
#[derive(Debug)]
pub struct ArchiveWriter<'a, W> {
    frames: &'a mut FrameWriter<W>,
    ledger: Ledger<blake3::Hasher>,
    digest: blake3::Hasher,
    next: u16,
}

impl<'a, W: AsyncWrite + Unpin> ArchiveWriter<'a, W> {
    /// Starts an archive. Nothing is sent yet. `limits` are the receiver's, so that breaking them is noticed here.
    pub fn new(frames: &'a mut FrameWriter<W>, limits: Limits) -> Self {
        Self { frames, ledger: Ledger::new(limits), digest: blake3::Hasher::new(), next: 0 }
    }

    /// Starts an item; several may be open at once. `meta` is for the receiver and must fit in 60 KiB of JSON.
    ///
    /// Not cancel safe, like all methods here that send: dropped before it is ready, the archive is void.
    pub async fn open<M: Serialize>(&mut self, name: &str, meta: &M) -> Result<Channel, ArchiveError> {
        let payload = encode_open(name, meta)?;
        let channel = self.free_channel();
        self.ledger.open(channel, blake3::Hasher::new())?;
        self.send_digested(frame(Kind::Open, channel, payload)).await?;
        Ok(channel)
    }

    /// Appends to an item, however much at once. Waits while the receiver is behind. The bytes are not copied, and
    /// may be queued until the next write or [`ArchiveWriter::flush`].
    pub async fn write(&mut self, channel: Channel, mut data: Bytes) -> Result<(), ArchiveError> {
        while !data.is_empty() {
            let part = data.split_to(data.len().min(MAX_DATA));
            self.ledger.data(channel, part.len())?.update(&part);
            self.frames.write(frame(Kind::Data, channel, part)).await?;
        }
        Ok(())
    }

    /// Ends an item and says what it was. Its channel may be given to a later item.
    pub async fn close(&mut self, channel: Channel) -> Result<Closed, ArchiveError> {
        let (size, hasher) = self.ledger.close(channel)?;
        let closed = Closed { size, hash: hasher.finalize() };
        self.send_digested(frame(Kind::Close, channel, encode_close(&closed))).await?;
        Ok(closed)
    }

    /// Sends everything that is queued.
    pub async fn flush(&mut self) -> Result<(), ArchiveError> {
        Ok(self.frames.flush().await?)
    }

    /// Awaits `work` (more data, the end of a dump) while the receiver hears that we are alive; see
    /// [`FrameWriter::alive_while`].
    pub async fn alive_while<F: Future>(&mut self, work: F) -> Result<F::Output, ArchiveError> {
        Ok(self.frames.alive_while(work).await?)
    }

    /// Bytes of content so far.
    pub fn bytes(&self) -> u64 {
        self.ledger.bytes()
    }

    /// Ends the archive and flushes. All items must be closed. `Ok` says that everything was sent, not that it was
    /// received: only the receiver's own answer says that.
    pub async fn finish(self) -> Result<Totals, ArchiveError> {
        self.ledger.end()?;
        let totals =
            Totals { items: self.ledger.items(), bytes: self.ledger.bytes(), digest: self.digest.finalize() };
        self.frames.write(frame(Kind::End, Channel::MAIN, encode_end(&totals))).await?;
        self.frames.flush().await?;
        Ok(totals)
    }

    /// Gives the archive up and tells the receiver why; afterwards the stream is free again.
    pub async fn abort(self, reason: &str) -> Result<(), ArchiveError> {
        self.frames.write(frame(Kind::Abort, Channel::MAIN, encode_abort(reason))).await?;
        Ok(self.frames.flush().await?)
    }

    async fn send_digested(&mut self, frame: Frame) -> Result<(), ArchiveError> {
        add_to_digest(&mut self.digest, &frame);
        Ok(self.frames.write(frame).await?)
    }

    /// Channels go round, so that a late frame for a closed item does not hit the next one. With all of them open
    /// the one returned is taken, which the ledger refuses.
    fn free_channel(&mut self) -> Channel {
        for _ in 0..u16::MAX {
            self.next = self.next.checked_add(1).unwrap_or(1);
            if !self.ledger.is_open(Channel(self.next)) {
                break;
            }
        }
        Channel(self.next)
    }
}
