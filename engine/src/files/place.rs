//! Making single things in an open directory, and giving them their attributes.

use std::ffi::OsStr;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;

use rustix::fs::{
    AtFlags, FileType, Gid, Mode, OFlags, Timespec, Timestamps, UTIME_OMIT, Uid, chmodat, chownat, fchmod,
    fchown, futimens, linkat, makedev, mkdirat, mknodat, openat, openat2, statat, symlinkat, utimensat,
};
use rustix::io::Errno;

use super::error::failed;
use super::walk::{BELOW, DIRECTORY, cannot_open, open_below};
use super::xattr::{self, Holder};
use super::{Attributes, FilesError, Modified, Refusal, TreePath, remove};

/// A name in an open directory, with the path that messages call it by.
#[derive(Clone, Copy)]
pub(super) struct At<'a> {
    pub(super) parent: &'a OwnedFd,
    pub(super) name: &'a OsStr,
    pub(super) path: &'a TreePath,
}

impl At<'_> {
    /// Sees to it that a directory is here, and opens it. One that is here stays with its content, unless it is to be
    /// `fresh`; anything else is replaced. What the image has in a directory that is removed and made again is hidden.
    pub(super) fn directory(self, fresh: bool) -> Result<OwnedFd, FilesError> {
        let here = match statat(self.parent, self.name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => FileType::from_raw_mode(stat.st_mode) == FileType::Directory,
            Err(Errno::NOENT) => false,
            Err(errno) => return Err(failed("look at", self.path)(errno)),
        };
        if fresh || !here {
            self.vacate()?;
            mkdirat(self.parent, self.name, Mode::RWXU).map_err(failed("create the directory", self.path))?;
        }
        open_below(self.parent, self.name, DIRECTORY).map_err(|errno| cannot_open(self.path, errno))
    }

    /// Makes an empty file and opens it for writing.
    pub(super) fn file(self) -> Result<OwnedFd, FilesError> {
        self.vacate()?;
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        openat(self.parent, self.name, flags, Mode::RUSR | Mode::WUSR).map_err(failed("create", self.path))
    }

    /// Makes a symbolic link. Where it points does not matter: nothing here follows it.
    pub(super) fn symlink(self, target: &[u8], attributes: &Attributes) -> Result<(), FilesError> {
        self.vacate()?;
        symlinkat(OsStr::from_bytes(target), self.parent, self.name)
            .map_err(failed("create the symbolic link", self.path))?;
        self.own(attributes)?;
        self.date(attributes.modified)
    }

    /// Makes a fifo, a socket's name or a device.
    pub(super) fn node(
        self,
        kind: FileType,
        (major, minor): (u32, u32),
        attributes: &Attributes,
    ) -> Result<(), FilesError> {
        self.vacate()?;
        mknodat(self.parent, self.name, kind, Mode::RUSR | Mode::WUSR, makedev(major, minor))
            .map_err(failed("create the node", self.path))?;
        self.own(attributes)?;
        // It was made just now, so it is no symbolic link that could be followed.
        chmodat(self.parent, self.name, Mode::from_raw_mode(attributes.mode), AtFlags::empty())
            .map_err(failed("set the mode of", self.path))?;
        xattr::write(Holder::Named(self.parent.as_fd(), self.name), self.path, &attributes.xattrs)?;
        self.date(attributes.modified)
    }

    /// Makes another name of `first`, which is looked up below `root`.
    pub(super) fn hard_link(self, root: &OwnedFd, first: &TreePath) -> Result<(), FilesError> {
        let refused = || FilesError::refused(self.path, Refusal::HardLink { first: first.clone() });
        let (first_parent, first_name) = first.split().ok_or_else(refused)?;
        let first_parent =
            match openat2(root, first_parent.as_os_str(), DIRECTORY | OFlags::PATH, Mode::empty(), BELOW) {
                Ok(directory) => directory,
                Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP | Errno::XDEV) => return Err(refused()),
                Err(errno) => return Err(failed("open the directory of", first)(errno)),
            };
        match statat(&first_parent, first_name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) if FileType::from_raw_mode(stat.st_mode) != FileType::Directory => {}
            Ok(_) | Err(Errno::NOENT) => return Err(refused()),
            Err(errno) => return Err(failed("look at", first)(errno)),
        }
        self.vacate()?;
        linkat(&first_parent, first_name, self.parent, self.name, AtFlags::empty())
            .map_err(failed("create the hard link", self.path))
    }

    /// Removes what is here, if anything is.
    pub(super) fn vacate(self) -> Result<(), FilesError> {
        remove::remove(self.parent, self.name, self.path).map(|_| ())
    }

    fn own(self, attributes: &Attributes) -> Result<(), FilesError> {
        let (uid, gid) = (Uid::from_raw(attributes.uid), Gid::from_raw(attributes.gid));
        chownat(self.parent, self.name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)
            .map_err(failed("set the owner of", self.path))
    }

    fn date(self, modified: Modified) -> Result<(), FilesError> {
        utimensat(self.parent, self.name, &times(modified), AtFlags::SYMLINK_NOFOLLOW)
            .map_err(failed("set the time of", self.path))
    }
}

/// Gives an open file or directory its attributes, in the order in which they do not undo each other: a new owner
/// takes set-uid bits and capabilities away, and everything but the time itself may change the time.
pub(super) fn dress(fd: &OwnedFd, path: &TreePath, attributes: &Attributes) -> Result<(), FilesError> {
    fchown(fd, Some(Uid::from_raw(attributes.uid)), Some(Gid::from_raw(attributes.gid)))
        .map_err(failed("set the owner of", path))?;
    fchmod(fd, Mode::from_raw_mode(attributes.mode)).map_err(failed("set the mode of", path))?;
    xattr::write(Holder::Open(fd.as_fd()), path, &attributes.xattrs)?;
    futimens(fd.as_fd(), &times(attributes.modified)).map_err(failed("set the time of", path))
}

fn times(modified: Modified) -> Timestamps {
    Timestamps {
        last_access: Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT },
        last_modification: Timespec { tv_sec: modified.seconds, tv_nsec: modified.nanoseconds.into() },
    }
}
