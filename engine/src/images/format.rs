//! The files that images are: which kinds there are, how each begins, and what stands between its messages.
//!
//! ```text
//! common word, word of the kind, { length, message, [ payload ] }      all but those in the next line
//! raw bytes                                                            pages, and the content of a tmpfs
//! ```

mod kinds;
mod read;
mod write;

pub(super) use kinds::{Kind, Layout};

use super::schema::Message;

/// First word of nearly all images.
const COMMON: u32 = 0x5456_4319;

/// An image that was understood to its last byte.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Image {
    /// Its file name.
    pub(super) name: String,
    /// What it is.
    pub(super) kind: &'static Kind,
    /// The number in its name; 0 where it has none.
    pub(super) number: u64,
    /// What it holds.
    pub(super) entries: Vec<Entry>,
}

/// A message, and what follows it.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Entry {
    /// The message.
    pub(super) message: Message,
    /// Bytes that are the service's own: what was in a pipe, a socket, a file, a segment.
    pub(super) payload: Vec<u8>,
}

/// A file that is no image of the kind that its name says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct FormatError {
    /// Which field of which message, or nothing.
    pub(super) field: String,
    /// What is wrong.
    pub(super) reason: String,
}

impl FormatError {
    fn new(reason: impl Into<String>) -> Self {
        Self { field: String::new(), reason: reason.into() }
    }
}

#[cfg(test)]
mod tests;
