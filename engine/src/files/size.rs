//! How much a tree is, before it is read.

use std::collections::HashSet;
use std::os::fd::OwnedFd;

use rustix::fs::FileType;
use ums_model::names::Bytes;

use super::walk::Walk;
use super::{FilesError, Limits};

/// How much a tree is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct TreeSize {
    /// Entries, the root included.
    pub entries: u64,
    /// Data of its files: what of them takes space, a file with several names once. Neither the directories
    /// themselves nor the file system's own overhead is in it.
    pub bytes: Bytes,
}

/// Measures the tree in an open directory. Reads no file and may be called while the tree is in use; then the answer
/// is a snapshot of no particular moment. Does not cross file systems: one that is mounted in the tree is an error.
pub fn tree_size(root: OwnedFd, limits: Limits) -> Result<TreeSize, FilesError> {
    /// The unit of `st_blocks`, whatever the file system's own is.
    const BLOCK: u64 = 512;
    let mut walk = Walk::new(root, limits);
    let mut size = TreeSize::default();
    let mut linked = HashSet::new();
    while let Some(found) = walk.step()? {
        size.entries += 1;
        let stat = found.stat;
        if FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile
            && (stat.st_nlink < 2 || linked.insert((stat.st_dev, stat.st_ino)))
        {
            let taken = (stat.st_blocks as u64).saturating_mul(BLOCK);
            size.bytes = size.bytes + Bytes(taken.min(stat.st_size as u64));
        }
    }
    Ok(size)
}
