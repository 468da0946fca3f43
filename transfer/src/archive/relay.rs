//! From one stream to the next without looking inside: the site between a nest and the other site.

use tokio::io::{AsyncRead, AsyncWrite};
use ums_model::error::chain;

use super::ledger::Ledger;
use super::wire::{decode_abort, encode_abort};
use super::{ArchiveError, Limits};
use crate::frame::{Channel, Frame, FrameError, FrameReader, FrameWriter, Kind};

/// How much a relay has passed on.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RelayStats {
    /// Bytes of content, as in [`super::Totals`].
    pub bytes: u64,
    /// Items begun.
    pub items: u64,
}

/// A relayed archive did not reach its end, and which side is to blame.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "the fields are what the messages say")]
pub enum RelayError {
    /// What came in was cut, silent, malformed, over the limits or aborted by its sender. The receiver was told by
    /// an abort frame, and the stream towards it is still good.
    #[error("cannot receive the archive that is being passed on")]
    Incoming { source: ArchiveError },
    /// The stream towards the receiver failed.
    #[error("cannot pass the archive on")]
    Outgoing { source: FrameError },
}

/// Passes one archive on, frame by frame, until its end.
///
/// Frames go through as they are. Channels and limits are checked, content is not: it is verified where it ends.
/// One frame is held at a time, so a slow receiver slows the sender down. Silence of the sender is bounded by
/// `from`'s idle deadline, a receiver that takes nothing by `to`'s stall deadline; the receiver gets keep-alive
/// frames while the sender only sends those. `observe` hears of every frame and must be quick.
///
/// `Ok`: the end was passed on and flushed; both streams are free again. Not cancel safe.
pub async fn relay<R: AsyncRead + Unpin, W: AsyncWrite + Unpin>(
    from: &mut FrameReader<R>,
    to: &mut FrameWriter<W>,
    limits: Limits,
    mut observe: impl FnMut(RelayStats),
) -> Result<RelayStats, RelayError> {
    let outgoing = |source| RelayError::Outgoing { source };
    let mut ledger = Ledger::new(limits);
    loop {
        // Polls the incoming side first: only when it has nothing to say is the outgoing side flushed.
        let incoming = to.alive_while(from.read()).await.map_err(outgoing)?;
        let frame = match checked(&mut ledger, incoming) {
            Ok(frame) => frame,
            Err(source) => {
                let reason = match &source {
                    ArchiveError::Aborted { reason } => reason.clone(),
                    other => format!("the site in between: {}", chain(other)),
                };
                to.write(super::frame(Kind::Abort, Channel::MAIN, encode_abort(&reason)))
                    .await
                    .map_err(outgoing)?;
                to.flush().await.map_err(outgoing)?;
                return Err(RelayError::Incoming { source });
            }
        };
        let end = frame.kind == Kind::End;
        to.write(frame).await.map_err(outgoing)?;
        let stats = RelayStats { bytes: ledger.bytes(), items: ledger.items() };
        observe(stats);
        if end {
            to.flush().await.map_err(outgoing)?;
            return Ok(stats);
        }
    }
}

fn checked(
    ledger: &mut Ledger<()>,
    incoming: Result<Option<Frame>, FrameError>,
) -> Result<Frame, ArchiveError> {
    let frame = incoming?.ok_or_else(|| ledger.cut())?;
    match frame.kind {
        Kind::Open => ledger.open(frame.channel, ())?,
        Kind::Data => ledger.data(frame.channel, frame.payload.len()).map(|_| ())?,
        Kind::Close => ledger.close(frame.channel).map(|_| ())?,
        Kind::End => ledger.end()?,
        Kind::Abort => return Err(decode_abort(&frame)),
        Kind::Control | Kind::KeepAlive => return Err(ArchiveError::Unexpected { got: frame.kind }),
    }
    Ok(frame)
}
