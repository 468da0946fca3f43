//! Tar archives, read from strangers and written for ourselves.
//!
//! The `tar` crate decodes and encodes the 512-byte headers; everything that decides how many bytes are read, held in
//! memory or believed is done here: its own iterator reads extended headers of any size into memory and splits pax
//! records at newlines, which destroys binary values such as file capabilities.
//!
//! Read in this order: `name` (which paths are acceptable), `pax` (extended header records), `read` (bytes to
//! entries), `write` (entries to bytes). Nothing here touches a file system.

mod name;
mod pax;
mod read;
mod write;

use std::io;

use thiserror::Error;
use ums_model::names::Bytes;

pub(super) use name::Name;
pub(super) use read::ArchiveReader;
pub(super) use write::ArchiveWriter;

/// Size of a header, and what every body is padded to.
const BLOCK: usize = 512;

/// Type of one entry; sockets have none in a tar archive.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Kind {
    File,
    HardLink,
    Symlink,
    Directory,
    Fifo,
    Character,
    Block,
}

/// One entry as the archive states it: decoded, bounded in size, not yet believed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) path: Vec<u8>,
    pub(super) link: Vec<u8>,
    pub(super) kind: Kind,
    pub(super) attributes: Attributes,
    /// Bytes of body that follow; zero for everything but files.
    pub(super) size: u64,
    /// Major and minor number of a device node.
    pub(super) device: (u32, u32),
}

/// What an inode carries besides its content.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Attributes {
    /// Permission bits, set-uid, set-gid and sticky: the lower 12 bits.
    pub(super) mode: u32,
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) modified: Moment,
    pub(super) xattrs: Xattrs,
}

/// Extended attributes: names and values.
pub(super) type Xattrs = Vec<(Vec<u8>, Vec<u8>)>;

/// A point in time as files carry it: seconds since 1970 (negative before) and nanoseconds after that second.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Moment {
    pub(super) seconds: i64,
    pub(super) nanoseconds: u32,
}

/// Why an archive was not taken.
#[derive(Debug, Error)]
pub enum ArchiveError {
    /// Its bytes could not be read: an I/O error, broken compression, or more content than the limit.
    #[error("cannot read the archive")]
    Read {
        /// What the reader said.
        source: io::Error,
    },
    /// It is not a tar archive as the store understands it.
    #[error("malformed archive at byte {offset}: {what}")]
    Malformed {
        /// Where in the uncompressed archive.
        offset: u64,
        /// What is wrong there.
        what: &'static str,
    },
    /// An entry asks for something that the store does not do.
    #[error("archive entry {entry:?} refused: {reason}")]
    Refused {
        /// The entry's path, made printable.
        entry: String,
        /// What it asked for.
        reason: Refusal,
    },
    /// An entry is fine but could not be written.
    #[error("cannot {action} {entry:?}")]
    Write {
        /// What was tried.
        action: &'static str,
        /// The entry's path, made printable.
        entry: String,
        /// What the kernel said.
        source: io::Error,
    },
}

/// What an archive entry asked for in vain.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum Refusal {
    /// `/etc/passwd`
    #[error("absolute path")]
    Absolute,
    /// `../../etc/passwd`
    #[error("path with a \"..\" component")]
    Parent,
    /// A path with a zero byte, or an empty one where a name is needed.
    #[error("empty path or path with a zero byte")]
    NotAName,
    /// A path or a component that no Linux file system takes.
    #[error("path longer than {limit} bytes, or a component longer than 255")]
    TooLong {
        /// The limit for the whole path.
        limit: usize,
    },
    /// A path with too many components.
    #[error("path deeper than {limit} components")]
    TooDeep {
        /// The limit.
        limit: usize,
    },
    /// The path leads through something of the same archive that is a symbolic link.
    #[error("its path leads through a symbolic link")]
    ThroughSymlink,
    /// The path leads through something of the same archive that is a file.
    #[error("its path leads through something that is not a directory")]
    ThroughFile,
    /// Something else would take the place of a directory of the same archive.
    #[error("it would replace a directory of the same archive")]
    ReplacesDirectory,
    /// A hard link to nothing, to a directory or to a whiteout.
    #[error("hard link to {target:?}, which is not a file of the same archive")]
    LinkTarget {
        /// Where the link points, made printable.
        target: String,
    },
    /// A device node that the policy does not allow.
    #[error("device node {major}:{minor}")]
    Device {
        /// Major number.
        major: u32,
        /// Minor number.
        minor: u32,
    },
    /// User or group number that Linux does not have.
    #[error("owner {owner} is not a user or group number")]
    Owner {
        /// The number given.
        owner: u64,
    },
    /// `.wh.`, `.wh..` and the like.
    #[error("whiteout of nothing")]
    Whiteout,
    /// Sparse files and other types that images do not contain.
    #[error("entry type {kind:?} is not supported")]
    Type {
        /// The type flag of the header.
        kind: char,
    },
    /// A number in the header that cannot be.
    #[error("{field} is not valid")]
    Field {
        /// Which one.
        field: &'static str,
    },
    /// The archive has more entries than the limit.
    #[error("more than {limit} entries")]
    TooMany {
        /// The limit.
        limit: u64,
    },
    /// An extended header is larger than the limit.
    #[error("extended header larger than {limit}")]
    Header {
        /// The limit.
        limit: Bytes,
    },
}

impl ArchiveError {
    pub(super) fn refused(entry: &[u8], reason: Refusal) -> Self {
        Self::Refused { entry: printable(entry), reason }
    }
}

/// Paths come from strangers: errors quote at most this much of them.
const QUOTED_BYTES: usize = 200;

/// `path` as text for a message.
pub(super) fn printable(path: &[u8]) -> String {
    String::from_utf8_lossy(&path[..path.len().min(QUOTED_BYTES)]).into_owned()
}

#[cfg(test)]
mod tests;
