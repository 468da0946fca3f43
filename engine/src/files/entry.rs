//! One thing in a tree, as it travels.

use serde::{Deserialize, Serialize};

use super::{Hole, TreePath, text};

/// One thing in a tree. On the wire it is the head of an item; the content of a file follows it as bytes.
///
/// As JSON it has less than 60 KiB, whatever its names are, if [`read_tree`](super::read_tree) made it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TreeEntry {
    /// Where it is.
    pub path: TreePath,
    /// What it is.
    pub kind: EntryKind,
    /// Owner, permissions and the like. They mean nothing for a whiteout and a hard link.
    #[serde(default)]
    pub attributes: Attributes,
}

/// What a thing in a tree is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "kebab-case")]
pub enum EntryKind {
    /// A directory. Its content follows.
    Dir {
        /// It hides everything that the image has in it.
        #[serde(default)]
        opaque: bool,
    },
    /// A regular file. Its data follows: all of it but the holes, in order, without gaps.
    File {
        /// Length in bytes, holes included.
        size: u64,
        /// Ranges without data, which read as zeros. In order, apart from each other.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        holes: Vec<Hole>,
    },
    /// Another name of something that came earlier.
    HardLink {
        /// Its first name.
        first: TreePath,
    },
    /// A symbolic link.
    Symlink {
        /// Where it points: any bytes but NUL.
        #[serde(with = "text::lossless")]
        target: Vec<u8>,
    },
    /// A named pipe.
    Fifo,
    /// The name of a unix socket. Nothing listens to it until somebody binds it again.
    Socket,
    /// A character device.
    CharDevice {
        /// Driver.
        major: u32,
        /// Device of that driver.
        minor: u32,
    },
    /// A block device.
    BlockDevice {
        /// Driver.
        major: u32,
        /// Device of that driver.
        minor: u32,
    },
    /// Hides what the image has here.
    Whiteout,
}

/// Owner, permissions, time and extended attributes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attributes {
    /// Permissions with set-uid, set-gid and sticky bit: the lower twelve bits of `st_mode`.
    pub mode: u32,
    /// User, in the reader's user namespace.
    pub uid: u32,
    /// Group, in the reader's user namespace.
    pub gid: u32,
    /// Last change of the content.
    pub modified: Modified,
    /// Extended attributes that belong to the content, in the order of their names.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub xattrs: Vec<Xattr>,
}

/// A moment, relative to 1970-01-01 UTC.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Modified {
    /// Whole seconds; negative before 1970.
    pub seconds: i64,
    /// Nanoseconds on top, less than 1,000,000,000.
    pub nanoseconds: u32,
}

/// An extended attribute.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Xattr {
    /// Name with its name space, for example `user.checksum`.
    #[serde(with = "text::lossless")]
    pub name: Vec<u8>,
    /// Value, as the kernel gave it.
    #[serde(with = "text::hexadecimal")]
    pub value: Vec<u8>,
}

impl TreeEntry {
    /// A thing without attributes that matter, for whiteouts and hard links.
    pub(super) fn bare(path: TreePath, kind: EntryKind) -> Self {
        Self { path, kind, attributes: Attributes::default() }
    }
}
