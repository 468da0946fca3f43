//! The receiving end: checks everything, keeps nothing.

use bytes::Bytes;
use tokio::io::AsyncRead;

use super::ledger::Ledger;
use super::wire::{Meta, add_to_digest, decode_abort, decode_close, decode_end, decode_open};
use super::{ArchiveError, Closed, Limits, Totals};
use crate::frame::{Channel, Frame, FrameReader, Kind};

/// What happened next in an archive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ArchiveEvent {
    /// An item starts. The name is any text of up to [`MAX_NAME`](super::MAX_NAME) bytes, not a safe path.
    Open {
        /// Under which its data will come.
        channel: Channel,
        /// As the sender gave it.
        name: String,
        /// As the sender gave it.
        meta: Meta,
    },
    /// More content of an open item, **not yet verified**. Never empty.
    Data {
        /// The item.
        channel: Channel,
        /// Shares the read buffer: keeping it pins up to 1 MiB.
        data: Bytes,
    },
    /// An item is complete, and its content is what was sent.
    Close {
        /// The item; the number may come again for another one.
        channel: Channel,
        /// Size and digest, both checked.
        closed: Closed,
    },
    /// The archive is complete and verified: no item is missing, added or renamed. Nothing comes after it.
    End {
        /// All checked.
        totals: Totals,
    },
}

/// Receives one archive from a frame reader that it borrows; after [`ArchiveEvent::End`] the reader stands at the
/// first frame behind it.
#[derive(Debug)]
pub struct ArchiveReader<'a, R> {
    frames: &'a mut FrameReader<R>,
    receiver: Receiver,
}

impl<'a, R: AsyncRead + Unpin> ArchiveReader<'a, R> {
    /// Expects an archive within `limits`.
    pub fn new(frames: &'a mut FrameReader<R>, limits: Limits) -> Self {
        Self { frames, receiver: Receiver::new(limits) }
    }

    /// The next event. Cancel safe. After an `Err` the archive is void, and what was received of it must be
    /// discarded; after [`ArchiveError::Aborted`] the stream itself is still in step, after any other it is not.
    pub async fn next(&mut self) -> Result<ArchiveEvent, ArchiveError> {
        loop {
            if self.receiver.over {
                return Err(ArchiveError::Over);
            }
            let Some(frame) = self.frames.read().await? else { return Err(self.receiver.ledger.cut()) };
            if let Some(event) = self.receiver.take(frame)? {
                return Ok(event);
            }
        }
    }
}

/// The rules, without I/O.
#[derive(Debug)]
pub(super) struct Receiver {
    ledger: Ledger<Item>,
    digest: blake3::Hasher,
    over: bool,
}

#[derive(Debug)]
struct Item {
    name: String,
    hasher: blake3::Hasher,
}

impl Receiver {
    pub(super) fn new(limits: Limits) -> Self {
        Self { ledger: Ledger::new(limits), digest: blake3::Hasher::new(), over: false }
    }

    /// Checks one frame. `None`: it says nothing to the caller.
    pub(super) fn take(&mut self, frame: Frame) -> Result<Option<ArchiveEvent>, ArchiveError> {
        let result = self.event(frame);
        self.over |= matches!(result, Err(_) | Ok(Some(ArchiveEvent::End { .. })));
        result
    }

    fn event(&mut self, frame: Frame) -> Result<Option<ArchiveEvent>, ArchiveError> {
        let channel = frame.channel;
        match frame.kind {
            Kind::Open => {
                let (name, meta) = decode_open(&frame)?;
                self.ledger.open(channel, Item { name: name.clone(), hasher: blake3::Hasher::new() })?;
                add_to_digest(&mut self.digest, &frame);
                Ok(Some(ArchiveEvent::Open { channel, name, meta }))
            }
            Kind::Data => {
                let data = frame.payload;
                self.ledger.data(channel, data.len())?.hasher.update(&data);
                Ok((!data.is_empty()).then_some(ArchiveEvent::Data { channel, data }))
            }
            Kind::Close => {
                let told = decode_close(&frame)?;
                let (size, Item { name, hasher }) = self.ledger.close(channel)?;
                let closed = Closed { size, hash: hasher.finalize() };
                match told {
                    told if told.size != closed.size => Err(ArchiveError::Damaged { name, what: "the size" }),
                    told if told.hash != closed.hash => {
                        Err(ArchiveError::Damaged { name, what: "the digest" })
                    }
                    _ => {
                        add_to_digest(&mut self.digest, &frame);
                        Ok(Some(ArchiveEvent::Close { channel, closed }))
                    }
                }
            }
            Kind::End => {
                self.ledger.end()?;
                let told = decode_end(&frame)?;
                let (items, bytes) = (self.ledger.items(), self.ledger.bytes());
                let totals = Totals { items, bytes, digest: self.digest.finalize() };
                match told {
                    told if told.items != items => {
                        Err(ArchiveError::DamagedTotals { what: "the number of items" })
                    }
                    told if told.bytes != bytes => {
                        Err(ArchiveError::DamagedTotals { what: "the number of bytes" })
                    }
                    told if told != totals => Err(ArchiveError::DamagedTotals { what: "the digest" }),
                    _ => Ok(Some(ArchiveEvent::End { totals })),
                }
            }
            Kind::Abort => Err(decode_abort(&frame)),
            Kind::KeepAlive => Ok(None),
            Kind::Control => Err(ArchiveError::Unexpected { got: Kind::Control }),
        }
    }
}
