//! The source's end: a directory becomes entries.

use std::collections::HashMap;
use std::ops::Range;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::fs::{FileType, Mode, OFlags, Stat, fstat, major, minor, open, readlinkat};
use rustix::io::{Errno, pread};

use super::error::failed;
use super::form::Notes;
use super::walk::{Found, Place, Walk, cannot_open, open_below};
use super::xattr::{self, Holder};
use super::{
    Attributes, EntryKind, FilesError, Limits, Modified, Refusal, TreeEntry, TreeForm, TreePath, Xattr,
    layout,
};

/// How files are opened: whatever took the file's place meanwhile is neither followed nor waited for.
const FILE: OFlags = OFlags::RDONLY
    .union(OFlags::NOFOLLOW)
    .union(OFlags::NONBLOCK)
    .union(OFlags::NOCTTY)
    .union(OFlags::CLOEXEC);

/// How to read a tree.
#[derive(Debug, Clone, Copy)]
pub struct ReadOptions {
    /// What the directory is.
    pub form: TreeForm,
    /// Bounds; those of the other end, if they are known.
    pub limits: Limits,
}

/// Opens the root of a tree. The path is ours, so symbolic links in it are followed.
pub fn open_root(path: &Path) -> Result<OwnedFd, FilesError> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    open(path, flags, Mode::empty())
        .map_err(|errno| FilesError::Root { path: path.to_owned(), source: errno.into() })
}

/// Reads the tree in an open directory: everything in it, the directory itself first.
///
/// Changes nothing, not even access times where the kernel lets us. The tree should not be in use: what changes while
/// it is read comes as it was at some moment, or is an error. Does not cross file systems: one that is mounted in the
/// tree is an error, because what it hides cannot be read.
pub fn read_tree(root: OwnedFd, options: ReadOptions) -> TreeReader {
    let walk = Walk::new(root, options.limits);
    TreeReader { walk, options, first_names: HashMap::new(), bytes: 0, ended: false }
}

/// Reads a tree, as an iterator. It ends after an error.
pub struct TreeReader {
    walk: Walk,
    options: ReadOptions,
    /// Things with several names that came by, by device and inode.
    first_names: HashMap<(u64, u64), TreePath>,
    bytes: u64,
    ended: bool,
}

/// One thing of a tree that is being read.
#[derive(Debug)]
pub struct TreeItem {
    /// What it is.
    pub entry: TreeEntry,
    /// Its data: there exactly if it is a file.
    pub content: Option<FileContent>,
}

impl Iterator for TreeReader {
    type Item = Result<TreeItem, FilesError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.ended {
            return None;
        }
        let item = self.advance().transpose();
        self.ended = !matches!(item, Some(Ok(_)));
        item
    }
}

impl TreeReader {
    fn advance(&mut self) -> Result<Option<TreeItem>, FilesError> {
        loop {
            let Some(Found { path, stat, place }) = self.walk.step()? else { return Ok(None) };
            let item = match place {
                Place::Directory(directory) => Some(self.directory(path, &stat, &directory)?),
                Place::In(directory) => self.other(path, &stat, &directory)?,
            };
            if item.is_some() {
                return Ok(item);
            }
        }
    }

    fn directory(&self, path: TreePath, stat: &Stat, directory: &OwnedFd) -> Result<TreeItem, FilesError> {
        let xattrs = xattr::read(Holder::Open(directory.as_fd()), &path)?;
        let opaque = self.options.form.notes(&path, &xattrs)? == Notes::Opaque;
        let attributes = attributes(stat, xattr::keep_travelling(&path, xattrs)?);
        Ok(TreeItem { entry: TreeEntry { path, kind: EntryKind::Dir { opaque }, attributes }, content: None })
    }

    /// Anything but a directory; `None` if it has just disappeared.
    fn other(
        &mut self,
        path: TreePath,
        stat: &Stat,
        parent: &OwnedFd,
    ) -> Result<Option<TreeItem>, FilesError> {
        // Before links are looked for: the kernel makes one whiteout and links it wherever it needs one.
        if self.options.form.is_whiteout(stat) {
            return Ok(Some(bare(path, EntryKind::Whiteout)));
        }
        if FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile {
            return self.file(path, parent);
        }
        if let Some(first) = self.other_name(&path, stat) {
            return Ok(Some(bare(path, EntryKind::HardLink { first })));
        }
        let Some((_, name)) = path.split() else { return Ok(None) };
        let (major, minor) = (major(stat.st_rdev), minor(stat.st_rdev));
        let kind = match FileType::from_raw_mode(stat.st_mode) {
            FileType::Symlink => match readlinkat(parent, name, Vec::new()) {
                Ok(target) => EntryKind::Symlink { target: target.into_bytes() },
                Err(Errno::NOENT) => return Ok(None),
                Err(Errno::INVAL) => return Err(FilesError::refused(&path, Refusal::Changed)),
                Err(errno) => return Err(failed("read the symbolic link", &path)(errno)),
            },
            FileType::Fifo => EntryKind::Fifo,
            FileType::Socket => EntryKind::Socket,
            FileType::CharacterDevice => EntryKind::CharDevice { major, minor },
            FileType::BlockDevice => EntryKind::BlockDevice { major, minor },
            _ => return Err(FilesError::refused(&path, Refusal::InvalidAttribute { attribute: "type" })),
        };
        let xattrs = match kind {
            // None that travels can be set on one.
            EntryKind::Symlink { .. } => Vec::new(),
            _ => xattr::keep_travelling(&path, xattr::read(Holder::Named(parent.as_fd(), name), &path)?)?,
        };
        let entry = TreeEntry { path, kind, attributes: attributes(stat, xattrs) };
        Ok(Some(TreeItem { entry, content: None }))
    }

    fn file(&mut self, path: TreePath, parent: &OwnedFd) -> Result<Option<TreeItem>, FilesError> {
        let Some((_, name)) = path.split() else { return Ok(None) };
        let file = match open_below(parent, name, FILE) {
            Ok(file) => file,
            Err(Errno::NOENT) => return Ok(None),
            Err(errno) => return Err(cannot_open(&path, errno)),
        };
        // Of the open file, which need not be what had this name before.
        let stat = fstat(&file).map_err(failed("look at", &path))?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            return Err(FilesError::refused(&path, Refusal::Changed));
        }
        if let Some(first) = self.other_name(&path, &stat) {
            return Ok(Some(bare(path, EntryKind::HardLink { first })));
        }
        let xattrs = xattr::read(Holder::Open(file.as_fd()), &path)?;
        if self.options.form.notes(&path, &xattrs)? == Notes::Whiteout {
            return Ok(Some(bare(path, EntryKind::Whiteout)));
        }
        let size = stat.st_size as u64;
        // A file that takes as much space as it is long has none, which saves looking for them.
        let dense = stat.st_blocks as u64 * 512 >= size;
        let holes = if dense { Vec::new() } else { find_holes(&path, &file, size)? };
        let ranges = layout::data_ranges(size, &holes)
            .map_err(|invalid| FilesError::refused(&path, Refusal::Layout(invalid)))?;
        self.bytes = self.bytes.saturating_add(layout::length(&ranges));
        if self.bytes > self.options.limits.bytes.get() {
            return Err(FilesError::refused(&path, Refusal::TooLarge { limit: self.options.limits.bytes }));
        }
        let attributes = attributes(&stat, xattr::keep_travelling(&path, xattrs)?);
        let content = FileContent { path: path.clone(), file, ranges: ranges.into_iter(), current: 0..0 };
        let entry = TreeEntry { path, kind: EntryKind::File { size, holes }, attributes };
        Ok(Some(TreeItem { entry, content: Some(content) }))
    }

    /// The first name of something that has several, if this is not it.
    fn other_name(&mut self, path: &TreePath, stat: &Stat) -> Option<TreePath> {
        if stat.st_nlink < 2 {
            return None;
        }
        let id = (stat.st_dev, stat.st_ino);
        let first = self.first_names.get(&id);
        if first.is_none() {
            self.first_names.insert(id, path.clone());
        }
        self.first_names.get(&id).filter(|first| *first != path).cloned()
    }
}

fn find_holes(path: &TreePath, file: &OwnedFd, size: u64) -> Result<Vec<super::Hole>, FilesError> {
    layout::holes(file, size).map_err(failed("find the holes of", path))
}

fn bare(path: TreePath, kind: EntryKind) -> TreeItem {
    TreeItem { entry: TreeEntry::bare(path, kind), content: None }
}

fn attributes(stat: &Stat, xattrs: Vec<Xattr>) -> Attributes {
    Attributes {
        mode: stat.st_mode & 0o7777,
        uid: stat.st_uid,
        gid: stat.st_gid,
        modified: Modified { seconds: stat.st_mtime, nanoseconds: stat.st_mtime_nsec as u32 },
        xattrs,
    }
}

/// The data of a file: everything but its holes, in order, without gaps.
#[derive(Debug)]
pub struct FileContent {
    path: TreePath,
    file: OwnedFd,
    ranges: std::vec::IntoIter<Range<u64>>,
    current: Range<u64>,
}

impl FileContent {
    /// Reads the next bytes into `buffer`; 0 says that there are no more.
    ///
    /// An error if the file became shorter since its entry was made. After an error it must not be called again.
    pub fn read(&mut self, buffer: &mut [u8]) -> Result<usize, FilesError> {
        while self.current.is_empty() {
            match self.ranges.next() {
                Some(range) => self.current = range,
                None => return Ok(0),
            }
        }
        let left = usize::try_from(self.current.end - self.current.start).unwrap_or(usize::MAX);
        let wanted = buffer.len().min(left);
        let read = loop {
            match pread(self.file.as_fd(), &mut buffer[..wanted], self.current.start) {
                Err(Errno::INTR) => {}
                other => break other.map_err(failed("read", &self.path))?,
            }
        };
        if read == 0 && wanted > 0 {
            return Err(FilesError::refused(&self.path, Refusal::Changed));
        }
        self.current.start += read as u64;
        Ok(read)
    }

    /// How many bytes are left.
    pub fn remaining(&self) -> u64 {
        self.current.end - self.current.start + layout::length(self.ranges.as_slice())
    }
}
