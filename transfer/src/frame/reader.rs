//! Frames out of a byte stream.

use std::time::Duration;

use bytes::BytesMut;
use serde::de::DeserializeOwned;
use tokio::io::{AsyncRead, AsyncReadExt};

use super::codec::{HEADER_LEN, missing};
use super::patience::Patience;
use super::{Frame, FrameError, Kind, decode};
use crate::Deadlines;

/// Size of one read buffer in bytes. Four of the longest data frames: what a full buffer leaves of a half-read
/// frame must be moved to the next one, and this keeps that below an eighth of all bytes.
const READ_BUFFER: usize = 1024 * 1024;
/// With less room than this the next read would be a small one; a new buffer is begun instead.
const SMALLEST_READ: usize = 64 * 1024;
/// So many bytes that are no keep-alive are progress. Single bytes are not, or a frame could be made to last for days;
/// a link that does not bring this much in a minute or two brings no migration to its end either.
const PROGRESS: u64 = 4 * 1024;

/// Reads frames.
///
/// Payloads are slices of the read buffer and not copied. A payload that is kept pins its buffer (1 MiB), so hold
/// on to few of them. As long as payloads are dropped before the next call, one buffer serves for ever; in any
/// case at most one buffer more than the kept payloads use is allocated.
#[derive(Debug)]
pub struct FrameReader<R> {
    inner: R,
    buffer: BytesMut,
    patience: Patience,
    demand: Option<Demand>,
    received: u64,
}

/// What must come besides keep-alives.
#[derive(Debug)]
struct Demand {
    patience: Patience,
    /// Bytes of whole frames that have come.
    told: u64,
    /// How many had come, with those of a frame that is on its way, when patience was last renewed.
    renewed_at: u64,
}

impl<R: AsyncRead + Unpin> FrameReader<R> {
    /// Reads from `inner`; of the deadlines only `idle` is used.
    pub fn new(inner: R, deadlines: &Deadlines) -> Self {
        Self {
            inner,
            buffer: BytesMut::new(),
            patience: Patience::new(deadlines.idle),
            demand: None,
            received: 0,
        }
    }

    /// From now on the other side must not only be heard, but send 4 KiB of something else than keep-alives in every
    /// `within` of waiting for it: [`FrameError::NoProgress`]. What the caller does between two reads does not count,
    /// so a slow receiver blames nobody. `None`: being heard is enough again.
    pub fn demand(&mut self, within: Option<Duration>) {
        self.demand = within.map(|within| Demand { patience: Patience::new(within), told: 0, renewed_at: 0 });
    }

    /// The next frame that is not a keep-alive, or `None` when the stream ended cleanly between two frames.
    ///
    /// Waits as long as the other side is heard at all (`idle`), for ever if need be: how long an answer may take
    /// is the caller's to say. Cancel safe: dropped before it is ready, nothing is lost, and the next call
    /// continues. After an `Err` the stream is of no further use.
    pub async fn read(&mut self) -> Result<Option<Frame>, FrameError> {
        loop {
            match decode(&mut self.buffer)? {
                Some(frame) if frame.kind == Kind::KeepAlive => {}
                Some(frame) => {
                    if let Some(demand) = &mut self.demand {
                        demand.told += (HEADER_LEN + frame.payload.len()) as u64;
                    }
                    return Ok(Some(frame));
                }
                None if self.fill().await? == 0 => return self.at_end(),
                None => {}
            }
        }
    }

    /// The next frame, which must be a control message of type `T`; `None` when the stream ended cleanly.
    ///
    /// Cancel safe, and waits, like [`FrameReader::read`]. After [`FrameError::Decode`] (not a `T`) the stream is
    /// still in step and the next message can be read.
    pub async fn read_control<T: DeserializeOwned>(&mut self) -> Result<Option<T>, FrameError> {
        match self.read().await? {
            None => Ok(None),
            Some(frame) => frame.control().map(Some),
        }
    }

    /// Number of bytes taken from the stream so far, headers and keep-alive frames included.
    pub fn received(&self) -> u64 {
        self.received
    }

    /// One read into the buffer; returns the number of bytes, 0 at the end of the stream.
    async fn fill(&mut self) -> Result<usize, FrameError> {
        let room = self.buffer.capacity() - self.buffer.len();
        let needed = missing(&self.buffer);
        if room < needed.max(SMALLEST_READ) {
            // Takes the same allocation again if nobody holds a payload out of it.
            self.buffer.reserve(needed.max(READ_BUFFER - self.buffer.len().min(READ_BUFFER)));
        }
        if let Some(demand) = &mut self.demand {
            demand.look(&self.buffer);
        }
        // Only whole reads are counted and kept, so a cancelled one has not happened.
        let heard = self.patience.wait(self.inner.read_buf(&mut self.buffer));
        let heard = match &mut self.demand {
            None => heard.await,
            Some(demand) => {
                demand.patience.spend(heard).await.map_err(|after| FrameError::NoProgress { after })?
            }
        };
        match heard {
            Ok(Ok(count)) => {
                self.received += count as u64;
                Ok(count)
            }
            Ok(Err(source)) => Err(FrameError::Read { source }),
            Err(after) => Err(FrameError::Silent { after }),
        }
    }

    fn at_end(&self) -> Result<Option<Frame>, FrameError> {
        if self.buffer.is_empty() {
            Ok(None)
        } else {
            Err(FrameError::Cut { missing: missing(&self.buffer) })
        }
    }
}

impl Demand {
    /// Renews patience if enough has come; `begun` is what there is of the next frame.
    fn look(&mut self, begun: &[u8]) {
        let is_sign_of_life = begun.first() == Some(&(Kind::KeepAlive as u8));
        let come = self.told + if is_sign_of_life { 0 } else { begun.len() as u64 };
        if come - self.renewed_at >= PROGRESS {
            self.renewed_at = come;
            self.patience.renew();
        }
    }
}
