//! A stream of named items over frames: memory images, file trees, blobs, while they are still growing.
//!
//! ```text
//! sender                                                        receiver
//! Open  (channel 1, "pages-1.img", meta) ─────────────────────► Open
//! Data  (channel 1, bytes) ───────────────────────────────────► Data    not yet verified
//! Open  (channel 2, "core-7.img", meta) ──────────────────────► Open    items may interleave
//! Data  (channel 2, bytes), Data (channel 1, bytes) ──────────► Data
//! Close (channel 2, size, blake3) ────────────────────────────► Close   this item's content is verified
//! Close (channel 1, size, blake3) ────────────────────────────► Close   channels may be used again
//! End   (items, bytes, blake3 over all Open and Close) ───────► End     everything is verified, nothing is missing
//! ```
//!
//! Instead of `End` the sender may say `Abort (reason)`; after either the connection is free for other frames.
//! TLS already protects the bytes on the wire. The digests also cover what TLS does not: relays in between, a Unix
//! socket, the memory of every process on the way, and a sender that lost a part.
//!
//! What an item means is not known here: its `meta` is the caller's own JSON. A receiver must treat the name, the
//! meta and all data as hostile; here only their *sizes* are bounded ([`Limits`]).
//!
//! [`ArchiveWriter`] and [`ArchiveReader`] hold no bytes themselves. What is in flight is bounded by the frame
//! writer's queue, the socket's buffers and the frame reader's buffer, so a slow receiver slows the sender down.

mod error;
mod ledger;
mod reader;
mod relay;
#[cfg(test)]
mod tests;
mod wire;
mod writer;

use bytes::Bytes;

pub use error::ArchiveError;
pub use ledger::Limits;
pub use reader::{ArchiveEvent, ArchiveReader};
pub use relay::{RelayError, RelayStats, relay};
pub use wire::{MAX_NAME, Meta};
pub use writer::ArchiveWriter;

/// What an item's content was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Closed {
    /// Length of the content in bytes.
    pub size: u64,
    /// Digest of the content.
    pub hash: blake3::Hash,
}

/// What a whole archive was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Totals {
    /// Number of items.
    pub items: u64,
    /// Sum of the items' sizes in bytes, without names, metas and framing.
    pub bytes: u64,
    /// Digest over all names, metas, sizes and content digests, in the order in which they were sent.
    pub digest: blake3::Hash,
}

/// Frames for one archive stream, kept out of the public interface so that the two ends cannot disagree.
fn frame(kind: crate::frame::Kind, channel: crate::frame::Channel, payload: Bytes) -> crate::frame::Frame {
    crate::frame::Frame { kind, channel, payload }
}
