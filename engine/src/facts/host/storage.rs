//! Space, and whether what is written survives a restart.

use std::path::Path;

use rustix::fs::{statfs, statvfs};
use ums_model::names::Bytes;

use crate::facts::FactsError;

const TMPFS: u64 = 0x0102_1994;
const RAMFS: u64 = 0x8584_58f6;
const OVERLAY: u64 = 0x794c_7630;
/// File systems of which somebody else decides how durable they are.
const UNKNOWN: [u64; 2] = [
    0x6573_5546, // FUSE
    0x0102_1997, // 9p
];

/// What an ordinary user could still write below a directory.
pub(super) fn available(directory: &Path) -> Result<Bytes, FactsError> {
    let stat = statvfs(directory).map_err(|errno| FactsError::read(directory)(errno.into()))?;
    Ok(Bytes(stat.f_bavail.saturating_mul(stat.f_frsize)))
}

/// Whether a directory lies on a disk. Memory does not survive a restart of the machine, and a container's own file
/// system not one of the container. `None` if it cannot be told.
pub(super) fn is_durable(directory: &Path) -> Option<bool> {
    let kind = statfs(directory).ok()?.f_type as u64;
    match kind {
        TMPFS | RAMFS | OVERLAY => Some(false),
        kind if UNKNOWN.contains(&kind) => None,
        _ => Some(true),
    }
}
