//! Extended attributes that belong to an image, and reading them.

use std::os::fd::AsFd;

use rustix::fs::{fgetxattr, flistxattr, flistxattr_query};
use rustix::io::Errno;

use super::archive::Xattrs;

/// Attribute that holds a program's file capabilities.
pub(super) const CAPABILITY: &[u8] = b"security.capability";

/// The kernel's limit for the names and for a value.
const LARGEST: usize = 64 << 10;

/// Whether the attribute `name` is part of a file's content. Overlay's own attributes would change what the overlay
/// shows; security labels and everything else in `trusted.` and `security.` belong to the host they were set on.
pub(super) fn travels(name: &[u8]) -> bool {
    (name.starts_with(b"user.") && !name.starts_with(b"user.overlay."))
        || name == CAPABILITY
        || name == b"system.posix_acl_access"
        || name == b"system.posix_acl_default"
}

/// The attributes of an open file that [travel](travels), in the order of their names.
pub(super) fn read(file: impl AsFd) -> Result<Xattrs, Errno> {
    match flistxattr_query(&file) {
        // Nearly every file. The second: the file system knows no attributes.
        Ok(0) | Err(Errno::OPNOTSUPP) => return Ok(Vec::new()),
        Ok(_) => {}
        Err(errno) => return Err(errno),
    }
    let mut names = vec![0; LARGEST];
    let length = flistxattr(&file, &mut names[..])?;
    let mut found = Vec::new();
    for name in names[..length].split(|byte| *byte == 0).filter(|name| travels(name)) {
        let mut value = vec![0; LARGEST];
        let length = fgetxattr(&file, name, &mut value[..])?;
        value.truncate(length);
        found.push((name.to_vec(), value));
    }
    found.sort();
    Ok(found)
}
