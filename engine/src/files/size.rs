//! How much a tree is, and what of it another site may not want, before it is read.

use std::collections::HashSet;
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::FileType;
use ums_model::names::Bytes;

use super::walk::{Found, Place, Walk};
use super::write::privileged_bits;
use super::xattr::{Holder, is_capable};
use super::{FilesError, Limits};

/// How much a tree is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TreeSize {
    /// Entries, the root included.
    pub entries: u64,
    /// Data of its files: what of them takes space, a file with several names once. Neither the directories
    /// themselves nor the file system's own overhead is in it.
    pub bytes: Bytes,
    /// The first thing that only [`WritePolicy::setuid`](super::WritePolicy::setuid) lets be written.
    pub set_uid: Option<String>,
    /// The first thing that only [`WritePolicy::devices`](super::WritePolicy::devices) lets be written.
    pub device: Option<String>,
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
        if size.set_uid.is_none() && is_privileged(&found) {
            size.set_uid = Some(found.path.to_string());
        }
        if size.device.is_none() && is_device(&found) {
            size.device = Some(found.path.to_string());
        }
    }
    Ok(size)
}

fn is_privileged(found: &Found) -> bool {
    let (kind, mode) = (FileType::from_raw_mode(found.stat.st_mode), found.stat.st_mode);
    let is_file = kind == FileType::RegularFile;
    let capable = || match (&found.place, found.path.split()) {
        (Place::In(directory), Some((_, name))) => is_capable(Holder::Named(directory.as_fd(), name)),
        _ => false,
    };
    mode & privileged_bits(kind) != 0 || (is_file && capable())
}

/// A device 0:0 is the whiteout of an overlay.
fn is_device(found: &Found) -> bool {
    let kind = FileType::from_raw_mode(found.stat.st_mode);
    matches!(kind, FileType::CharacterDevice | FileType::BlockDevice) && found.stat.st_rdev != 0
}
