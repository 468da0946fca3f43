//! The destination's end: entries become a directory.

use std::ffi::OsStr;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use rustix::fs::{FileType, syncfs};
use ums_model::names::Bytes;

use super::content::Unfinished;
use super::error::failed;
use super::place::{At, dress};
use super::walk::{DIRECTORY, open_below};
use super::{
    Attributes, EntryKind, FileWriter, FilesError, Refusal, TreeEntry, TreePath, WritePolicy, layout, remove,
    xattr,
};

const SET_UID: u32 = 0o4000;
const SET_GID: u32 = 0o2000;
/// What `chown` takes for "leave it".
const NO_ID: u32 = u32::MAX;
/// Longest target of a symbolic link.
const MAX_TARGET: usize = 4095;
/// Numbers that fit into the kernel's device number.
const MAX_MAJOR: u32 = (1 << 12) - 1;
const MAX_MINOR: u32 = (1 << 20) - 1;

/// Applies entries to a directory: the merged directory of an overlay, or one that has nothing below it.
///
/// The directory must not be in use meanwhile. Entries come in the order of [`read_tree`](super::read_tree), several
/// files may be filled at once. After the first error the directory holds a part of the tree and must be thrown away;
/// nothing outside of it was touched.
#[derive(Debug)]
pub struct TreeWriter {
    root: OwnedFd,
    policy: WritePolicy,
    /// The directory of the last entry and those above it; the root first.
    open: Vec<OpenDirectory>,
    last: Option<TreePath>,
    written: Written,
    unfinished: Unfinished,
}

#[derive(Debug)]
struct OpenDirectory {
    path: TreePath,
    directory: OwnedFd,
    /// To be set when nothing in it changes any more. `None` for a root that no entry has named.
    attributes: Option<Attributes>,
}

/// What was written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Written {
    /// Entries.
    pub entries: u64,
    /// Data of all files, holes not counted.
    pub bytes: Bytes,
}

impl TreeWriter {
    /// Writes into an open directory. Touches nothing yet.
    pub fn new(root: OwnedFd, policy: WritePolicy) -> Result<Self, FilesError> {
        let path = TreePath::root();
        let directory = open_below(&root, OsStr::new("."), DIRECTORY).map_err(failed("open", &path))?;
        let open = vec![OpenDirectory { path, directory, attributes: None }];
        Ok(Self {
            root,
            policy,
            open,
            last: None,
            written: Written::default(),
            unfinished: Unfinished::default(),
        })
    }

    /// Begins the next entry. On `Ok(Some(_))` it is a file, which takes its data by what is returned; everything else
    /// is done. An error names the entry that was refused or failed.
    pub fn begin(&mut self, entry: &TreeEntry) -> Result<Option<FileWriter>, FilesError> {
        self.admit(entry)?;
        let TreeEntry { path, kind, attributes } = entry;
        let Some((parent, name)) = path.split() else {
            self.root(kind, attributes)?;
            return Ok(None);
        };
        while self.open.last().is_some_and(|open| !parent.is_within(&open.path)) {
            self.leave()?;
        }
        let at = match self.open.last() {
            Some(open) if open.path == parent => At { parent: &open.directory, name, path },
            _ => return Err(FilesError::refused(path, Refusal::NoDirectory)),
        };
        match kind {
            EntryKind::Dir { opaque } => {
                let directory = at.directory(*opaque)?;
                let attributes = Some(attributes.clone());
                self.open.push(OpenDirectory { path: path.clone(), directory, attributes });
            }
            EntryKind::File { size, holes } => {
                let ranges = layout::data_ranges(*size, holes)
                    .map_err(|invalid| FilesError::refused(path, Refusal::Layout(invalid)))?;
                let bytes = self.written.bytes + Bytes(layout::length(&ranges));
                let limit = self.policy.limits.bytes;
                if bytes > limit {
                    return Err(FilesError::refused(path, Refusal::TooLarge { limit }));
                }
                let file = at.file()?;
                self.written.bytes = bytes;
                let unfinished = Arc::clone(&self.unfinished);
                let attributes = attributes.clone();
                return Ok(Some(FileWriter::new(path.clone(), file, attributes, *size, ranges, unfinished)));
            }
            EntryKind::HardLink { first } => {
                // What comes later is not there yet, and the name itself would be removed first.
                if first >= path {
                    return Err(FilesError::refused(path, Refusal::HardLink { first: first.clone() }));
                }
                at.hard_link(&self.root, first)?;
            }
            EntryKind::Symlink { target } => at.symlink(target, attributes)?,
            EntryKind::Fifo => at.node(FileType::Fifo, (0, 0), attributes)?,
            EntryKind::Socket => at.node(FileType::Socket, (0, 0), attributes)?,
            EntryKind::CharDevice { major, minor } => {
                at.node(FileType::CharacterDevice, (*major, *minor), attributes)?;
            }
            EntryKind::BlockDevice { major, minor } => {
                at.node(FileType::BlockDevice, (*major, *minor), attributes)?;
            }
            EntryKind::Whiteout => at.vacate()?,
        }
        Ok(None)
    }

    /// Ends the tree: sets what directories still lack and waits until everything is on the disk. On `Ok` the tree is
    /// complete and durable, as far as the file system can be believed. An error if a file was not finished.
    pub fn complete(mut self) -> Result<Written, FilesError> {
        let files = self.unfinished.load(Ordering::Relaxed);
        if files > 0 {
            return Err(FilesError::refused(&TreePath::root(), Refusal::Incomplete { files }));
        }
        while self.leave()? {}
        syncfs(&self.root).map_err(failed("sync the file system of", &TreePath::root()))?;
        Ok(self.written)
    }

    fn root(&mut self, kind: &EntryKind, attributes: &Attributes) -> Result<(), FilesError> {
        let path = TreePath::root();
        let EntryKind::Dir { opaque } = kind else { return Err(FilesError::refused(&path, Refusal::Root)) };
        if *opaque {
            // It cannot be removed and made again, so what the image has in it is hidden piece by piece.
            let directory =
                open_below(&self.root, OsStr::new("."), DIRECTORY).map_err(failed("open", &path))?;
            remove::empty(directory, &path)?;
        }
        if let Some(root) = self.open.first_mut() {
            root.attributes = Some(attributes.clone());
        }
        Ok(())
    }

    /// Gives the innermost directory its attributes and closes it; whether there was one.
    fn leave(&mut self) -> Result<bool, FilesError> {
        let Some(OpenDirectory { path, directory, attributes }) = self.open.pop() else { return Ok(false) };
        if let Some(attributes) = attributes {
            dress(&directory, &path, &attributes)?;
        }
        Ok(true)
    }

    /// Everything about an entry that can be judged without looking at the disk.
    fn admit(&mut self, entry: &TreeEntry) -> Result<(), FilesError> {
        let TreeEntry { path, kind, attributes } = entry;
        let refused = |reason| Err(FilesError::refused(path, reason));
        let limits = self.policy.limits;
        if let Some(last) = &self.last
            && path <= last
        {
            return refused(Refusal::OutOfOrder { after: last.clone() });
        }
        if self.written.entries >= limits.entries {
            return refused(Refusal::TooManyEntries { limit: limits.entries });
        }
        if path.depth() > limits.depth {
            return refused(Refusal::TooDeep { limit: limits.depth });
        }
        match kind {
            EntryKind::CharDevice { major, minor } | EntryKind::BlockDevice { major, minor } => {
                let (major, minor) = (*major, *minor);
                // 0:0 is no device but the overlay's whiteout, which has its own kind here.
                let real = (major, minor) != (0, 0) && major <= MAX_MAJOR && minor <= MAX_MINOR;
                if !self.policy.devices || !real {
                    return refused(Refusal::Device { major, minor });
                }
            }
            EntryKind::Symlink { target }
                if target.is_empty() || target.len() > MAX_TARGET || target.contains(&0) =>
            {
                return refused(Refusal::LinkTarget);
            }
            _ => {}
        }
        admit_attributes(path, kind, attributes, self.policy.setuid)?;
        self.written.entries += 1;
        self.last = Some(path.clone());
        Ok(())
    }
}

/// The bits of a mode that give whoever comes by rights of the owner.
pub(super) const fn privileged_bits(kind: FileType) -> u32 {
    match kind {
        // Set-gid on a directory only says which group new files get.
        FileType::Directory => SET_UID,
        // Nobody asks for the mode of a symbolic link.
        FileType::Symlink => 0,
        _ => SET_UID | SET_GID,
    }
}

fn admit_attributes(
    path: &TreePath,
    kind: &EntryKind,
    attributes: &Attributes,
    setuid: bool,
) -> Result<(), FilesError> {
    let refused = |reason| Err(FilesError::refused(path, reason));
    let Attributes { mode, uid, gid, modified, xattrs } = attributes;
    let invalid = match () {
        () if mode & !0o7777 != 0 => Some("mode"),
        () if *uid == NO_ID || *gid == NO_ID => Some("owner"),
        () if modified.nanoseconds >= 1_000_000_000 => Some("time"),
        () if !xattrs.is_empty() && matches!(kind, EntryKind::Symlink { .. }) => {
            Some("set of extended attributes")
        }
        () => None,
    };
    if let Some(attribute) = invalid {
        return refused(Refusal::InvalidAttribute { attribute });
    }
    for xattr in xattrs {
        if xattr.name.contains(&0) || !xattr::travels(&xattr.name) {
            let name = super::text::encode(&xattr.name).chars().take(255).collect();
            return refused(Refusal::ForeignXattr { name });
        }
    }
    xattr::check_size(path, xattrs)?;
    let privileged_bits = privileged_bits(match kind {
        EntryKind::Dir { .. } => FileType::Directory,
        EntryKind::Symlink { .. } => FileType::Symlink,
        _ => FileType::RegularFile,
    });
    let capable = xattrs.iter().any(|xattr| xattr.name == xattr::CAPABILITY);
    if !setuid && (mode & privileged_bits != 0 || capable) {
        return refused(Refusal::Privileged);
    }
    Ok(())
}
