//! Extended attributes: which of them travel, reading and writing them.

use std::ffi::OsStr;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;

use rustix::fs::{
    XattrFlags, fgetxattr, flistxattr, fremovexattr, fsetxattr, lgetxattr, llistxattr, lremovexattr,
    lsetxattr,
};
use rustix::io::Errno;

use super::error::failed;
use super::{FilesError, Refusal, TreePath, Xattr, text};

/// Attribute that holds a program's file capabilities.
pub(super) const CAPABILITY: &[u8] = b"security.capability";

/// The kernel's limit for the names and for one value.
const LARGEST: usize = 64 << 10;

/// Most bytes that all attributes of one entry take as text. It must fit into 60 KiB with everything else.
pub(super) const MAX_TEXT: usize = 32 << 10;

/// Whether the attribute `name` is part of a file's content. Overlay's own attributes would change what the overlay
/// shows; security labels and everything else in `trusted.` and `security.` belong to the host they were set on.
pub(super) fn travels(name: &[u8]) -> bool {
    (name.starts_with(b"user.") && !name.starts_with(b"user.overlay."))
        || name == CAPABILITY
        || name == b"system.posix_acl_access"
        || name == b"system.posix_acl_default"
}

/// What attributes are read from and written to.
#[derive(Debug, Clone, Copy)]
pub(super) enum Holder<'a> {
    /// An open file or directory.
    Open(BorrowedFd<'a>),
    /// A name in an open directory, of something that cannot be opened: a fifo, a socket, a device.
    Named(BorrowedFd<'a>, &'a OsStr),
}

impl Holder<'_> {
    /// There are no `*xattrat` calls before Linux 6.13; a path through /proc does the same. Only its first part is a
    /// magic link, and the last is not followed.
    fn path(directory: BorrowedFd<'_>, name: &OsStr) -> Vec<u8> {
        let mut path = format!("/proc/self/fd/{}/", directory.as_raw_fd()).into_bytes();
        path.extend_from_slice(name.as_bytes());
        path
    }

    fn list(&self, buffer: &mut [u8]) -> Result<usize, Errno> {
        match self {
            Self::Open(fd) => flistxattr(fd, buffer),
            Self::Named(directory, name) => llistxattr(Self::path(*directory, name), buffer),
        }
    }

    fn get(&self, attribute: &[u8], buffer: &mut [u8]) -> Result<usize, Errno> {
        match self {
            Self::Open(fd) => fgetxattr(fd, attribute, buffer),
            Self::Named(directory, name) => lgetxattr(Self::path(*directory, name), attribute, buffer),
        }
    }

    fn set(&self, attribute: &[u8], value: &[u8]) -> Result<(), Errno> {
        match self {
            Self::Open(fd) => fsetxattr(fd, attribute, value, XattrFlags::empty()),
            Self::Named(directory, name) => {
                lsetxattr(Self::path(*directory, name), attribute, value, XattrFlags::empty())
            }
        }
    }

    fn remove(&self, attribute: &[u8]) -> Result<(), Errno> {
        match self {
            Self::Open(fd) => fremovexattr(fd, attribute),
            Self::Named(directory, name) => lremovexattr(Self::path(*directory, name), attribute),
        }
    }

    fn names(&self) -> Result<Vec<Vec<u8>>, Errno> {
        // Nearly every file has none or few; the large buffer is the exception.
        let mut buffer = vec![0; 512];
        let length = loop {
            match self.list(&mut buffer) {
                Ok(length) => break length,
                // The file system knows no attributes.
                Err(Errno::OPNOTSUPP) => return Ok(Vec::new()),
                Err(Errno::RANGE) if buffer.len() < LARGEST => buffer = vec![0; LARGEST],
                Err(errno) => return Err(errno),
            }
        };
        let names = buffer[..length].split(|byte| *byte == 0).filter(|name| !name.is_empty());
        Ok(names.map(<[u8]>::to_vec).collect())
    }

    /// All attributes, in the order of their names.
    fn all(&self) -> Result<Vec<Xattr>, Errno> {
        let mut found = Vec::new();
        for name in self.names()? {
            let mut value = vec![0; LARGEST];
            match self.get(&name, &mut value) {
                Ok(length) => {
                    value.truncate(length);
                    found.push(Xattr { name, value });
                }
                // Removed meanwhile, or one that is listed but not for us.
                Err(Errno::NODATA | Errno::PERM | Errno::ACCESS) => {}
                Err(errno) => return Err(errno),
            }
        }
        found.sort();
        Ok(found)
    }
}

/// All attributes of something, including those that do not travel.
pub(super) fn read(holder: Holder<'_>, path: &TreePath) -> Result<Vec<Xattr>, FilesError> {
    holder.all().map_err(failed("read the extended attributes of", path))
}

/// Whether it has file capabilities, as far as that can be read. Only a program's mean something.
pub(super) fn is_capable(holder: Holder<'_>) -> bool {
    holder.get(CAPABILITY, &mut [0; 64]).is_ok()
}

/// Of `xattrs` those that travel.
pub(super) fn keep_travelling(path: &TreePath, mut xattrs: Vec<Xattr>) -> Result<Vec<Xattr>, FilesError> {
    xattrs.retain(|xattr| travels(&xattr.name));
    check_size(path, &xattrs)?;
    Ok(xattrs)
}

/// Whether `xattrs` fit into an entry.
pub(super) fn check_size(path: &TreePath, xattrs: &[Xattr]) -> Result<(), FilesError> {
    /// What JSON writes around one of them.
    const AROUND: usize = 24;
    let size = |xattr: &Xattr| AROUND + text::encode(&xattr.name).len() + 2 * xattr.value.len();
    if xattrs.iter().map(size).sum::<usize>() > MAX_TEXT {
        return Err(FilesError::refused(path, Refusal::LargeXattrs { limit: MAX_TEXT }));
    }
    Ok(())
}

/// Gives something exactly these attributes: others that travel are removed, such as an access list that it inherited
/// from its directory.
pub(super) fn write(holder: Holder<'_>, path: &TreePath, xattrs: &[Xattr]) -> Result<(), FilesError> {
    for name in holder.names().map_err(failed("read the extended attributes of", path))? {
        if travels(&name) && !xattrs.iter().any(|xattr| xattr.name == name) {
            match holder.remove(&name) {
                Ok(()) | Err(Errno::NODATA) => {}
                Err(errno) => return Err(failed("remove an extended attribute of", path)(errno)),
            }
        }
    }
    for xattr in xattrs {
        holder.set(&xattr.name, &xattr.value).map_err(failed("set an extended attribute of", path))?;
    }
    Ok(())
}
