//! What a root directory consists of: one record per file, in an order that does not depend on the disk.

use std::ffi::OsStr;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, Stat, fstat, open, openat2, statat};
use rustix::io::Errno;
use sha2::{Digest as _, Sha256};
use ums_model::names::Digest;

use super::archive::{Kind, Moment};
use super::error::StoreError;
use super::policy::Limits;
use super::tree::{BELOW, is_whiteout};
use super::unpack::is_reserved;

const DIRECTORY: OFlags =
    OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// One file or directory, as it was when the directory was scanned. Two equal nodes have equal content, except for
/// changes within one tick of the kernel's clock; see [`Scan::is_settled`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Node {
    /// Below the scanned directory; empty for itself.
    pub(super) path: Vec<u8>,
    pub(super) kind: Kind,
    pub(super) mode: u32,
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) size: u64,
    pub(super) links: u64,
    pub(super) modified: Moment,
    /// Moves with every change of content or attributes, and cannot be set.
    pub(super) changed: Moment,
    pub(super) device: u64,
    pub(super) inode: u64,
    /// Number of the device that a device node stands for.
    pub(super) number: u64,
}

/// Everything in a directory, parents before their content, names in byte order.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Scan {
    pub(super) nodes: Vec<Node>,
}

impl Scan {
    /// Looks at everything below `root` without opening any file.
    ///
    /// Fails where a file system is mounted (`/proc` of a running container, for example): its content is not part of
    /// the directory, and leaving it out silently would make another image than the one that was meant.
    pub(super) fn of(root: &Path, limits: &Limits) -> Result<Self, StoreError> {
        let fd = open(root, DIRECTORY, Mode::empty()).map_err(StoreError::io("open", root))?;
        let stat = fstat(&fd).map_err(StoreError::io("look at", root))?;
        let mut walk = Walk { root, limits, nodes: vec![node(Vec::new(), Kind::Directory, &stat)] };
        walk.directory(&fd, &[], 0)?;
        Ok(Self { nodes: walk.nodes })
    }

    /// Equal for equal scans, and practically never for different ones.
    pub(super) fn fingerprint(&self) -> Digest {
        let mut hash = Sha256::new();
        for node in &self.nodes {
            hash.update((node.path.len() as u64).to_le_bytes());
            hash.update(&node.path);
            for number in [
                u64::from(node.mode),
                u64::from(node.uid) << 32 | u64::from(node.gid),
                node.size,
                node.links,
                node.modified.seconds.cast_unsigned(),
                node.changed.seconds.cast_unsigned(),
                u64::from(node.modified.nanoseconds) << 32 | u64::from(node.changed.nanoseconds),
                node.device,
                node.inode,
                node.number,
                node.kind as u64,
            ] {
                hash.update(number.to_le_bytes());
            }
        }
        Digest::sha256(hash.finalize().into())
    }

    /// Whether every change so far happened well before `now`. A change in the same tick of the file system's clock as
    /// an earlier one leaves no trace, so only a settled scan can be recognised later.
    pub(super) fn is_settled(&self, now: Moment, tick_seconds: i64) -> bool {
        self.nodes.iter().all(|node| node.changed.seconds.saturating_add(tick_seconds) <= now.seconds)
    }

    /// The first path at which `self` and `other` differ.
    pub(super) fn first_difference<'a>(&'a self, other: &'a Self) -> Option<&'a [u8]> {
        let differing = self.nodes.iter().zip(&other.nodes).find(|(mine, theirs)| mine != theirs);
        let longer = if self.nodes.len() > other.nodes.len() { self } else { other };
        let extra = longer.nodes.get(self.nodes.len().min(other.nodes.len()));
        differing.map(|(mine, _)| mine.path.as_slice()).or(extra.map(|node| node.path.as_slice()))
    }
}

struct Walk<'a> {
    root: &'a Path,
    limits: &'a Limits,
    nodes: Vec<Node>,
}

impl Walk<'_> {
    fn directory(&mut self, fd: &OwnedFd, path: &[u8], depth: usize) -> Result<(), StoreError> {
        if depth > self.limits.path_depth {
            return Err(self.bad(path, "it is too deep"));
        }
        let mut names = Vec::new();
        let failed = |errno: Errno| StoreError::io("list", self.at(path))(errno);
        for entry in Dir::read_from(fd).map_err(failed)? {
            let name = entry.map_err(failed)?.file_name().to_bytes().to_vec();
            if name != b"." && name != b".." {
                names.push(name);
            }
        }
        names.sort_unstable();
        for name in names {
            let below = if path.is_empty() { name.clone() } else { [path, &name].join(&b'/') };
            self.entry(fd, &name, &below, depth)?;
        }
        Ok(())
    }

    fn entry(&mut self, parent: &OwnedFd, name: &[u8], path: &[u8], depth: usize) -> Result<(), StoreError> {
        let name = OsStr::from_bytes(name);
        if is_reserved(name.as_bytes()) {
            return Err(self.bad(path, "names that begin with .wh. mean something else in an image"));
        }
        if path.len() > self.limits.path_bytes {
            return Err(self.bad(path, "its path is too long"));
        }
        if self.nodes.len() as u64 >= self.limits.entries {
            return Err(self.bad(path, "there are too many files"));
        }
        let stat = match statat(parent, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => stat,
            Err(Errno::NOENT) => return Err(StoreError::Changed { path: self.at(path) }),
            Err(errno) => return Err(StoreError::io("look at", self.at(path))(errno)),
        };
        if is_whiteout(&stat) {
            return Err(
                self.bad(path, "it is a whiteout; give the merged directory, not an overlay's upper one")
            );
        }
        let kind = match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile => Kind::File,
            FileType::Directory => Kind::Directory,
            FileType::Symlink => Kind::Symlink,
            FileType::Fifo => Kind::Fifo,
            FileType::CharacterDevice => Kind::Character,
            FileType::BlockDevice => Kind::Block,
            // A socket means nothing without the process that listens on it, and no archive can hold one.
            _ => return Ok(()),
        };
        self.nodes.push(node(path.to_owned(), kind, &stat));
        if kind == Kind::Directory {
            let fd = openat2(parent, name, DIRECTORY, Mode::empty(), BELOW).map_err(|errno| match errno {
                Errno::XDEV => self.bad(path, "a file system is mounted there; unmount it first"),
                errno => StoreError::io("open", self.at(path))(errno),
            })?;
            self.directory(&fd, path, depth + 1)?;
        }
        Ok(())
    }

    fn at(&self, path: &[u8]) -> PathBuf {
        self.root.join(OsStr::from_bytes(path))
    }

    fn bad(&self, path: &[u8], reason: &'static str) -> StoreError {
        StoreError::BadRoot { path: self.at(path), reason }
    }
}

/// What `stat` says about `path`. Used to compare as well: access times and the like are not in it.
pub(super) fn node(path: Vec<u8>, kind: Kind, stat: &Stat) -> Node {
    let moment = |seconds: i64, nanoseconds: u64| Moment {
        seconds,
        nanoseconds: u32::try_from(nanoseconds).unwrap_or_default(),
    };
    let is_device = matches!(kind, Kind::Character | Kind::Block);
    Node {
        path,
        kind,
        mode: stat.st_mode & 0o7777,
        uid: stat.st_uid,
        gid: stat.st_gid,
        size: if kind == Kind::File { stat.st_size.cast_unsigned() } else { 0 },
        links: if kind == Kind::Directory { 1 } else { stat.st_nlink },
        modified: moment(stat.st_mtime, stat.st_mtime_nsec),
        changed: moment(stat.st_ctime, stat.st_ctime_nsec),
        device: stat.st_dev,
        inode: stat.st_ino,
        number: if is_device { stat.st_rdev } else { 0 },
    }
}
