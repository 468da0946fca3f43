//! Image files between CRIU and the wire: they live in memory only, and travel while they are being written.
//!
//! `memory` mounts the place where they are, `tail` reads them out at the source behind CRIU's back, `sink`
//! writes them at the destination. What comes from another site passes [`admit`] first: `format` and `schema` read it,
//! rules look at it, and what is written is our own.

pub mod admit;
mod format;
mod memory;
pub mod namespaces;
mod schema;
mod sink;
mod tail;

pub use memory::{Tmpfs, tmpfs, unmount};
pub use sink::{Sink, SinkError};
pub use tail::{Chunk, Complete, Tail, TailError};

/// Size of a piece in which images travel, in bytes.
pub const CHUNK: usize = 256 << 10;

/// How many files and bytes went through; both ends of a transfer must find the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
pub struct Totals {
    /// Image files.
    pub files: u64,
    /// Their content.
    pub bytes: u64,
}
