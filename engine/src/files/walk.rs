//! Walking a tree in the order in which it travels.

use std::collections::VecDeque;
use std::ffi::OsStr;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::sync::Arc;

use rustix::fs::{AtFlags, FileType, Mode, OFlags, RawDir, ResolveFlags, Stat, fstat, openat2, statat};
use rustix::io::Errno;

use super::error::failed;
use super::{FilesError, Limits, Refusal, TreePath};

/// How every name is looked up: below its directory, without symbolic links, in the same mount.
pub(super) const BELOW: ResolveFlags = ResolveFlags::BENEATH
    .union(ResolveFlags::NO_SYMLINKS)
    .union(ResolveFlags::NO_MAGICLINKS)
    .union(ResolveFlags::NO_XDEV);

/// How directories are opened.
pub(super) const DIRECTORY: OFlags =
    OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// Names of a directory are read in pieces of this size.
const NAMES_BUFFER: usize = 32 << 10;

/// Walks a tree: a directory before its content, names in the order of their bytes, the root first.
pub(super) struct Walk {
    limits: Limits,
    entries: u64,
    root: Option<Arc<OwnedFd>>,
    levels: Vec<Level>,
}

struct Level {
    path: TreePath,
    directory: Arc<OwnedFd>,
    names: VecDeque<Vec<u8>>,
}

/// Something that a walk came by.
pub(super) struct Found {
    /// Where.
    pub(super) path: TreePath,
    /// What, a moment ago.
    pub(super) stat: Stat,
    /// How to get at it.
    pub(super) place: Place,
}

/// How to get at something in a tree.
pub(super) enum Place {
    /// A directory, open.
    Directory(Arc<OwnedFd>),
    /// The directory that something else is in; its name is the last part of its path.
    In(Arc<OwnedFd>),
}

impl Walk {
    pub(super) fn new(root: OwnedFd, limits: Limits) -> Self {
        Self { limits, entries: 0, root: Some(Arc::new(root)), levels: Vec::new() }
    }

    /// The next thing. What disappears between two steps was not there.
    pub(super) fn step(&mut self) -> Result<Option<Found>, FilesError> {
        if let Some(root) = self.root.take() {
            return self.enter(TreePath::root(), root).map(Some);
        }
        loop {
            let Some(level) = self.levels.last_mut() else { return Ok(None) };
            let Some(name) = level.names.pop_front() else {
                self.levels.pop();
                continue;
            };
            let directory = Arc::clone(&level.directory);
            let too_deep = Refusal::TooDeep { limit: self.limits.depth };
            let Ok(path) = level.path.join(&name) else {
                return Err(FilesError::refused(&level.path, too_deep));
            };
            if self.levels.len() > self.limits.depth {
                return Err(FilesError::refused(&path, too_deep));
            }
            if let Some(found) = self.look_at(path, directory, OsStr::from_bytes(&name))? {
                return Ok(Some(found));
            }
        }
    }

    fn look_at(
        &mut self,
        path: TreePath,
        directory: Arc<OwnedFd>,
        name: &OsStr,
    ) -> Result<Option<Found>, FilesError> {
        let stat = match statat(&directory, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => stat,
            Err(Errno::NOENT) => return Ok(None),
            Err(errno) => return Err(failed("look at", &path)(errno)),
        };
        if FileType::from_raw_mode(stat.st_mode) != FileType::Directory {
            self.count(&path)?;
            return Ok(Some(Found { path, stat, place: Place::In(directory) }));
        }
        match open_below(&directory, name, DIRECTORY) {
            Ok(opened) => self.enter(path, Arc::new(opened)).map(Some),
            Err(Errno::NOENT) => Ok(None),
            Err(errno) => Err(cannot_open(&path, errno)),
        }
    }

    fn enter(&mut self, path: TreePath, directory: Arc<OwnedFd>) -> Result<Found, FilesError> {
        self.count(&path)?;
        // Of the open directory, which need not be what had this name before.
        let stat = fstat(&directory).map_err(failed("look at", &path))?;
        let mut names = names(&directory).map_err(failed("list", &path))?;
        names.sort_unstable();
        let level = Level { path: path.clone(), directory: Arc::clone(&directory), names: names.into() };
        self.levels.push(level);
        Ok(Found { path, stat, place: Place::Directory(directory) })
    }

    fn count(&mut self, path: &TreePath) -> Result<(), FilesError> {
        self.entries += 1;
        if self.entries > self.limits.entries {
            let reason = Refusal::TooManyEntries { limit: self.limits.entries };
            return Err(FilesError::refused(path, reason));
        }
        Ok(())
    }
}

/// Opens a name in a directory without going anywhere else. Reading leaves no trace where that can be had.
pub(super) fn open_below(directory: impl AsFd, name: &OsStr, flags: OFlags) -> Result<OwnedFd, Errno> {
    match openat2(&directory, name, flags | OFlags::NOATIME, Mode::empty(), BELOW) {
        // Only the owner may ask for that.
        Err(Errno::PERM) => openat2(&directory, name, flags, Mode::empty(), BELOW),
        other => other,
    }
}

/// The error of [`open_below`].
pub(super) fn cannot_open(path: &TreePath, errno: Errno) -> FilesError {
    match errno {
        Errno::XDEV => FilesError::refused(path, Refusal::Mounted),
        Errno::LOOP | Errno::NOTDIR => FilesError::refused(path, Refusal::Changed),
        errno => failed("open", path)(errno),
    }
}

/// The names in an open directory, in no order.
pub(super) fn names(directory: impl AsFd) -> Result<Vec<Vec<u8>>, Errno> {
    let mut buffer = vec![MaybeUninit::uninit(); NAMES_BUFFER];
    let mut entries = RawDir::new(directory, &mut buffer);
    let mut names = Vec::new();
    while let Some(entry) = entries.next() {
        let entry = entry?;
        let name = entry.file_name().to_bytes();
        if name != b"." && name != b".." {
            names.push(name.to_vec());
        }
    }
    Ok(names)
}
