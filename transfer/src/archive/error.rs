//! What can be wrong with an archive.

use crate::frame::{Channel, FrameError, Kind};

/// An archive could not be sent or received. Unless said otherwise the archive is void: the receiver discards what
/// it has, the sender may start a new one.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "the fields are what the messages say")]
pub enum ArchiveError {
    /// The frames themselves failed.
    #[error("the stream of the archive failed")]
    Frame {
        #[from]
        source: FrameError,
    },
    /// The stream ended, at the border of a frame, before the archive did.
    #[error("the stream ended after {items} items and {bytes} bytes, before the end of the archive")]
    Cut { items: u64, bytes: u64 },
    /// The sender gave up.
    #[error("the sender gave the archive up: {reason}")]
    Aborted { reason: String },
    /// A frame that has no place in an archive.
    #[error("got a {got} frame inside an archive")]
    Unexpected { got: Kind },
    /// Received: the item is not open (never was, or is closed). Sending: the caller used a channel after closing it.
    #[error("no item is open on channel {channel}")]
    NotOpen { channel: Channel },
    /// Two items at once on one channel, or one on the channel that is for none.
    #[error("an item may not be opened on channel {channel} now")]
    ChannelTaken { channel: Channel },
    /// More than the limits allow.
    #[error("the archive has more {what} than the limit of {limit}")]
    OverLimit { what: &'static str, limit: u64 },
    /// The name or the meta is too long. Sending: nothing was sent, the archive is still good.
    #[error("the {what} of an item is {length} bytes long, over the limit of {limit}")]
    TooLong { what: &'static str, length: usize, limit: usize },
    /// The payload of a frame is not laid out as it must be.
    #[error("malformed {kind} frame on channel {channel}")]
    Malformed { kind: Kind, channel: Channel },
    /// The content that arrived is not the content that was sent.
    #[error("item {name:?} was damaged on the way: {what} does not match")]
    Damaged { name: String, what: &'static str },
    /// Items were lost, added or renamed on the way.
    #[error("the archive was damaged on the way: {what} does not match")]
    DamagedTotals { what: &'static str },
    /// The end came while items were open. Sending: nothing was sent, the archive is still good.
    #[error("{open} items are still open at the end of the archive")]
    StillOpen { open: usize },
    /// The caller asked for more after the end.
    #[error("the archive is over")]
    Over,
    /// An item's meta cannot be written as JSON. Nothing was sent, the archive is still good.
    #[error("cannot encode the meta of item {name:?}")]
    EncodeMeta { name: String, source: serde_json::Error },
    /// An item's meta is not of the expected type.
    #[error("cannot decode the meta of an item")]
    DecodeMeta { source: serde_json::Error },
}
