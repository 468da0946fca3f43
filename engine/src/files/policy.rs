//! What the writing end accepts.

use ums_model::names::Bytes;

/// Bounds on one tree. The reading end keeps to them too, so that a tree that is too large is found where it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Entries.
    pub entries: u64,
    /// Data of all files together, holes not counted.
    pub bytes: Bytes,
    /// Parts of a path. Both ends keep a directory open for each part of the path that they are at.
    pub depth: usize,
}

impl Default for Limits {
    /// Two million entries, 1 TiB, 256 directories deep: more than a service has, less than a machine can bear. Who
    /// knows the free space of the disk sets `bytes` to it.
    fn default() -> Self {
        Self { entries: 2_000_000, bytes: Bytes::gib(1024), depth: 256 }
    }
}

/// What the writing end accepts. The default is what a stranger may do.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct WritePolicy {
    /// Device nodes are made. Otherwise a tree with one is refused.
    pub devices: bool,
    /// Set-uid and set-gid programs and file capabilities are made. Otherwise a tree with one is refused.
    pub setuid: bool,
    /// Bounds.
    pub limits: Limits,
}
