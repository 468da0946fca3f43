//! What can go wrong below the meaning of frames.

use std::io;
use std::time::Duration;

use super::Kind;

/// A frame could not be read or written. Except for [`FrameError::Encode`] and [`FrameError::Decode`], the stream
/// is of no further use.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "the fields are what the messages say")]
pub enum FrameError {
    /// The stream itself failed, or a TLS stream ended without its closing message.
    #[error("cannot read from the stream")]
    Read { source: io::Error },
    /// The stream itself failed.
    #[error("cannot write to the stream")]
    Write { source: io::Error },
    /// The stream ended inside a frame.
    #[error("the stream was cut inside a frame, at least {missing} bytes are missing")]
    Cut { missing: usize },
    /// The stream ended where a message had to come.
    #[error("the stream ended where a message was expected")]
    Ended,
    /// Not one byte arrived in time.
    #[error("nothing was heard from the other side for {} s", after.as_secs_f32())]
    Silent { after: Duration },
    /// Signs of life came, and next to nothing else.
    #[error("the other side was heard, but sent nothing of use for {} s", after.as_secs_f32())]
    NoProgress { after: Duration },
    /// Not one byte was taken in time.
    #[error("the other side took no byte for {} s", after.as_secs_f32())]
    Stalled { after: Duration },
    /// The bytes are no frame of this version.
    #[error("unknown frame kind {kind}")]
    UnknownKind { kind: u8 },
    /// The bytes are no frame of this version.
    #[error("unknown flags {flags:#04x} in a {kind} frame")]
    UnknownFlags { kind: Kind, flags: u8 },
    /// Received: refused before reading it. Sending: nothing was written.
    #[error("a {kind} frame of {length} bytes is over the limit of {limit} bytes")]
    TooLong { kind: Kind, length: usize, limit: usize },
    /// A frame that has no meaning at this point.
    #[error("got a {got} frame where a {expected} frame was expected")]
    Unexpected { expected: Kind, got: Kind },
    /// The message cannot be written as JSON; nothing was written.
    #[error("cannot encode a control message")]
    Encode { source: serde_json::Error },
    /// The message is not of the expected type. The stream itself is still in step.
    #[error("cannot decode a control message")]
    Decode { source: serde_json::Error },
}
