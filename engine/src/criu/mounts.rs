//! Mounts of a container that CRIU must be told of, and mounts that a restore may leave behind.

use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use rustix::mount::{UnmountFlags, unmount};

use super::rpc::ExternalMount;

/// `/dev/null`.
const NULL_DEVICE: (u32, u32) = (1, 3);

/// One line of mountinfo, as far as it is of interest.
#[derive(Debug, PartialEq, Eq)]
struct Mount {
    /// Which part of its file system is mounted.
    root: PathBuf,
    /// Where, inside the container.
    point: PathBuf,
}

/// Finds the device nodes that are mounted singly: masked files (`/dev/null` mounted over them) and devices of a
/// container in a user namespace. They get the names that runc gives them when it restores.
pub(super) fn devices(pid: i32) -> io::Result<Vec<ExternalMount>> {
    let mountinfo = fs::read(format!("/proc/{pid}/mountinfo"))?;
    let single = mounts(&mountinfo).filter(|mount| mount.root != Path::new("/"));
    Ok(single
        .filter_map(|mount| {
            let point = mount.point.to_str()?.to_owned();
            // Below the root of the process; a mount hidden by another one shows that other one, and CRIU then
            // says so itself.
            let inside = format!("/proc/{pid}/root/{}", point.trim_start_matches('/'));
            let metadata = fs::symlink_metadata(inside).ok()?;
            let kind = metadata.file_type();
            let number = (rustix::fs::major(metadata.rdev()), rustix::fs::minor(metadata.rdev()));
            let name = match kind.is_char_device() || kind.is_block_device() {
                true if number == NULL_DEVICE => "/dev/null".to_owned(),
                true => point.clone(),
                false => return None,
            };
            Some(ExternalMount { key: point, val: name })
        })
        .collect())
}

/// Takes away everything that is mounted below a directory, the innermost first.
///
/// On `Ok` nothing is mounted below it any more. Safe to repeat.
pub(super) fn unmount_below(directory: &Path) -> io::Result<()> {
    let directory = fs::canonicalize(directory)?;
    // Of this thread: it may have a mount namespace of its own.
    let mountinfo = fs::read("/proc/thread-self/mountinfo")?;
    let mut points: Vec<_> = mounts(&mountinfo).map(|mount| mount.point).collect();
    points.retain(|point| point.starts_with(&directory) && *point != directory);
    // In the order of mounting, also for several on one point.
    for point in points.into_iter().rev() {
        unmount(&point, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW)?;
    }
    Ok(())
}

fn mounts(mountinfo: &[u8]) -> impl Iterator<Item = Mount> {
    mountinfo.split(|byte| *byte == b'\n').filter_map(|line| {
        let mut fields = line.split(|byte| *byte == b' ').skip(3);
        Some(Mount { root: path(fields.next()?), point: path(fields.next()?) })
    })
}

/// Undoes the octal escapes for blanks and the like.
fn path(field: &[u8]) -> PathBuf {
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((byte, after)) = rest.split_first() {
        let octal = after.get(..3).and_then(|digits| std::str::from_utf8(digits).ok());
        match octal.and_then(|digits| u8::from_str_radix(digits, 8).ok()) {
            Some(escaped) if *byte == b'\\' => {
                bytes.push(escaped);
                rest = &after[3..];
            }
            _ => {
                bytes.push(*byte);
                rest = after;
            }
        }
    }
    std::ffi::OsStr::from_bytes(&bytes).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mount_points_are_unescaped() {
        let text = b"82 106 0:6 /null /proc/with\\040blank rw - devtmpfs devtmpfs rw\n\n104 76 0:41 / / rw - overlay overlay rw\n";
        let found: Vec<_> = mounts(text).collect();
        assert_eq!(found[0], Mount { root: "/null".into(), point: "/proc/with blank".into() });
        assert_eq!(found[1], Mount { root: "/".into(), point: "/".into() });
        assert_eq!(found.len(), 2);
    }
}
