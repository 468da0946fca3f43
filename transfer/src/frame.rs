//! One framing for every byte stream: TLS between two sites, a Unix socket between a site and a nest.
//!
//! ```text
//!  0        1        2                 4                                   8
//! +--------+--------+-----------------+-----------------------------------+----------------
//! | kind   | flags  | channel         | length                            | payload ...
//! | u8     | u8 = 0 | u16 big endian  | u32 big endian                    | length bytes
//! +--------+--------+-----------------+-----------------------------------+----------------
//! ```
//!
//! Kind 0 is invalid, so that a run of zeros is never taken for frames; an unknown kind or flag is an error, never
//! skipped: what may be sent is settled by the version that the handshake picked. The length is checked against
//! the kind's own bound before a byte of payload is waited for.

mod codec;
mod conversation;
mod error;
mod patience;
mod reader;
#[cfg(test)]
mod tests;
mod writer;

pub use codec::{Channel, Frame, HEADER_LEN, Kind, MAX_CONTROL, MAX_DATA, MAX_OPEN, MAX_REASON, decode};
pub use conversation::Conversation;
pub use error::FrameError;
pub use reader::FrameReader;
pub use writer::FrameWriter;
