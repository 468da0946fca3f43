//! A directory tree under construction, out of reach of the names it is built from.
//!
//! Every path is resolved by the kernel below the tree's root, without symbolic links and without crossing a mount
//! (`openat2`); the last component is always made or changed relative to its parent's descriptor and never followed.
//! So an archive can say what it likes: nothing outside the tree is read, written or linked.
//!
//! The tree is meant for an overlay's lower directory. A whiteout is a character device 0:0, an opaque directory has
//! the attribute `trusted.overlay.opaque`. Both need the privileges that mounting an overlay needs as well.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::rc::Rc;

use rustix::fs::{
    AtFlags, FileType, Gid, Mode, OFlags, ResolveFlags, Timespec, Timestamps, Uid, XattrFlags, chownat,
    fchmod, fchown, fsetxattr, futimens, linkat, mkdirat, mknodat, open, openat, openat2, statat, symlinkat,
    unlinkat, utimensat,
};
use rustix::io::Errno;

use super::archive::{ArchiveError, Attributes, Moment, Name, Refusal, printable};
use super::policy::Limits;

/// How a path below a root is looked up. The same flags serve reading a root directory for import.
pub(super) const BELOW: ResolveFlags = ResolveFlags::BENEATH
    .union(ResolveFlags::NO_SYMLINKS)
    .union(ResolveFlags::NO_MAGICLINKS)
    .union(ResolveFlags::NO_XDEV);

/// Attribute by which overlayfs knows a directory that hides everything below it.
pub(super) const OPAQUE: &str = "trusted.overlay.opaque";

const DIRECTORY: OFlags =
    OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// Entries of a directory are copied in pieces of this size.
const COPY_BYTES: usize = 256 << 10;

/// See the module's documentation. One thread fills it; [`finish`](Self::finish) makes it complete.
pub(super) struct Tree {
    root: Rc<OwnedFd>,
    directories: BTreeMap<Name, Directory>,
    /// The directory used last. Archives list a directory's content together, so most look-ups end here.
    last: Option<(Name, Rc<OwnedFd>)>,
    buffer: Vec<u8>,
    most_directories: u64,
    whiteouts: BTreeSet<Name>,
}

/// A directory of the tree. Its attributes are set at the end, when nothing changes its modification time any more and
/// no missing permission stands in the way.
#[derive(Default)]
struct Directory {
    /// `None` while no entry has named it, only something below it.
    attributes: Option<Attributes>,
    opaque: bool,
}

/// What a finished tree holds that an overlay does not do justice to.
pub(super) struct Finished {
    /// Directories that no entry has named: an overlay would cover with them the attributes that a lower layer gave.
    pub(super) unnamed: Vec<Name>,
    /// The root hides all lower layers: overlayfs never looks for that.
    pub(super) opaque_root: bool,
    /// Where there are whiteouts. An overlay lists those in directories that no lower layer has.
    pub(super) whiteouts: Vec<Name>,
}

impl Tree {
    /// A tree in the directory `path`, which must exist and be empty.
    pub(super) fn new(path: &Path, limits: &Limits) -> io::Result<Self> {
        let root = open(path, DIRECTORY, Mode::empty())?;
        let directories = BTreeMap::from([(Name::root(), Directory::default())]);
        Ok(Self {
            root: Rc::new(root),
            directories,
            last: None,
            buffer: vec![0; COPY_BYTES],
            most_directories: limits.entries,
            whiteouts: BTreeSet::new(),
        })
    }

    /// Makes the directory `name`, or gives it other attributes if there is one.
    pub(super) fn directory(&mut self, name: &Name, attributes: Attributes) -> Result<(), ArchiveError> {
        self.make_directory(name)?;
        self.directories.entry(name.clone()).or_default().attributes = Some(attributes);
        Ok(())
    }

    /// Makes the file `name` with `size` bytes of `body`.
    pub(super) fn file(
        &mut self,
        name: &Name,
        attributes: &Attributes,
        size: u64,
        mut body: impl Read,
    ) -> Result<(), ArchiveError> {
        let (parent, last) = self.vacant(name)?;
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = openat(&parent, last, flags, Mode::RUSR | Mode::WUSR).map_err(failed("create", name))?;
        let mut file = File::from(file);
        self.fill(&mut file, name, size, &mut body)?;
        fchown(&file, Some(Uid::from_raw(attributes.uid)), Some(Gid::from_raw(attributes.gid)))
            .map_err(failed("set the owner of", name))?;
        // After the owner, because changing that takes the set-uid bit away.
        dress(file.as_fd(), name, attributes)
    }

    /// Makes the symbolic link `name`. Where it points does not matter: nothing here follows it.
    pub(super) fn symlink(
        &mut self,
        name: &Name,
        target: &[u8],
        attributes: &Attributes,
    ) -> Result<(), ArchiveError> {
        if target.is_empty() || target.contains(&0) {
            return Err(ArchiveError::refused(name.bytes(), Refusal::NotAName));
        }
        let (parent, last) = self.vacant(name)?;
        symlinkat(OsStr::from_bytes(target), &parent, last)
            .map_err(failed("create the symbolic link", name))?;
        own(&parent, last, name, attributes)
    }

    /// Makes `name` another name of the file `target`, which must be in the tree already.
    pub(super) fn hard_link(&mut self, name: &Name, target: &Name) -> Result<(), ArchiveError> {
        let refusal = || {
            let reason = Refusal::LinkTarget { target: printable(target.bytes()) };
            ArchiveError::refused(name.bytes(), reason)
        };
        let Some((target_parent, target_last)) = target.split() else { return Err(refusal()) };
        if !self.directories.contains_key(&target_parent) {
            return Err(refusal());
        }
        let target_parent = self.open(&target_parent, name)?;
        let target_last = OsStr::from_bytes(target_last);
        let found = match statat(&target_parent, target_last, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(found) => found,
            Err(Errno::NOENT) => return Err(refusal()),
            Err(errno) => return Err(failed("look up the hard link's target of", name)(errno)),
        };
        if is_whiteout(&found) || FileType::from_raw_mode(found.st_mode) == FileType::Directory {
            return Err(refusal());
        }
        if name == target {
            return Ok(());
        }
        let (parent, last) = self.vacant(name)?;
        linkat(&target_parent, target_last, &parent, last, AtFlags::empty()).map_err(failed("link", name))
    }

    /// Makes a fifo or a device node.
    pub(super) fn node(
        &mut self,
        name: &Name,
        kind: FileType,
        device: (u32, u32),
        attributes: &Attributes,
    ) -> Result<(), ArchiveError> {
        let (parent, last) = self.vacant(name)?;
        let number = rustix::fs::makedev(device.0, device.1);
        let mode = Mode::from_raw_mode(attributes.mode);
        mknodat(&parent, last, kind, mode, number).map_err(failed("create the node", name))?;
        // Not `mknodat`'s mode, because the process's umask took bits from it. The node was just made: no link is
        // followed here.
        rustix::fs::chmodat(&parent, last, mode, AtFlags::empty())
            .map_err(failed("set the mode of", name))?;
        own(&parent, last, name, attributes)
    }

    /// Hides what lower layers have at `name`. What this tree itself has there stays, in whichever order the two come.
    pub(super) fn whiteout(&mut self, name: &Name) -> Result<(), ArchiveError> {
        if let Some(directory) = self.directories.get_mut(name) {
            directory.opaque = true;
            return Ok(());
        }
        let Some((parent, last)) = name.split() else {
            return Err(ArchiveError::refused(name.bytes(), Refusal::Whiteout));
        };
        self.make_directory(&parent)?;
        let parent = self.open(&parent, name)?;
        match mknodat(&parent, OsStr::from_bytes(last), FileType::CharacterDevice, Mode::empty(), 0) {
            Ok(()) => {
                self.whiteouts.insert(name.clone());
                Ok(())
            }
            Err(Errno::EXIST) => Ok(()),
            Err(errno) => Err(failed("create a whiteout for", name)(errno)),
        }
    }

    /// Hides what lower layers have in the directory `name`.
    pub(super) fn opaque(&mut self, name: &Name) -> Result<(), ArchiveError> {
        self.make_directory(name)?;
        self.directories.entry(name.clone()).or_default().opaque = true;
        Ok(())
    }

    /// Gives all directories their attributes. Safe to use is the tree only after this.
    pub(super) fn finish(mut self) -> Result<Finished, ArchiveError> {
        self.drop_idle_whiteouts()?;
        let whiteouts = std::mem::take(&mut self.whiteouts).into_iter().collect();
        let opaque_root = self.directories.get(&Name::root()).is_some_and(|root| root.opaque);
        let mut unnamed = Vec::new();
        // Backwards is children first: their changes do not touch a parent that is done.
        for (name, directory) in std::mem::take(&mut self.directories).into_iter().rev() {
            let fd = self.open_below(&name, &name)?;
            if directory.opaque {
                fsetxattr(&fd, OPAQUE, b"y", XattrFlags::empty()).map_err(failed("make opaque", &name))?;
            }
            let Some(attributes) = directory.attributes else {
                // It belongs to whoever unpacks, as it was made: that is root where it matters.
                dress(fd.as_fd(), &name, &Attributes { mode: 0o755, ..Attributes::default() })?;
                unnamed.push(name);
                continue;
            };
            fchown(&fd, Some(Uid::from_raw(attributes.uid)), Some(Gid::from_raw(attributes.gid)))
                .map_err(failed("set the owner of", &name))?;
            dress(fd.as_fd(), &name, &attributes)?;
        }
        Ok(Finished { unnamed, opaque_root, whiteouts })
    }

    /// Removes whiteouts below opaque directories. They hide nothing that is not hidden already, and an overlay would
    /// list them.
    fn drop_idle_whiteouts(&mut self) -> Result<(), ArchiveError> {
        let is_opaque = |name: &Name| self.directories.get(name).is_some_and(|directory| directory.opaque);
        let is_idle = |name: &Name| name.ancestors().any(|above| is_opaque(&above));
        let idle: Vec<_> = self.whiteouts.iter().filter(|name| is_idle(name)).cloned().collect();
        for name in idle {
            // Making place for something else is removing it.
            self.vacant(&name)?;
        }
        Ok(())
    }

    /// Parent and last component of `name`, with nothing there: what this archive had there before goes away.
    fn vacant<'n>(&mut self, name: &'n Name) -> Result<(Rc<OwnedFd>, &'n OsStr), ArchiveError> {
        if self.directories.contains_key(name) {
            return Err(ArchiveError::refused(name.bytes(), Refusal::ReplacesDirectory));
        }
        let Some((parent, last)) = name.split() else {
            return Err(ArchiveError::refused(name.bytes(), Refusal::ReplacesDirectory));
        };
        self.make_directory(&parent)?;
        let parent = self.open(&parent, name)?;
        let last = OsStr::from_bytes(last);
        match unlinkat(&parent, last, AtFlags::empty()) {
            Ok(()) => {
                self.whiteouts.remove(name);
                Ok((parent, last))
            }
            Err(Errno::NOENT) => Ok((parent, last)),
            Err(errno) => Err(failed("replace", name)(errno)),
        }
    }

    /// Sees to it that `name` and everything above it are directories.
    fn make_directory(&mut self, name: &Name) -> Result<(), ArchiveError> {
        if self.directories.contains_key(name) {
            return Ok(());
        }
        let Some((parent_name, last)) = name.split() else { return Ok(()) };
        // One entry can bring a whole path of directories with it: they are counted like entries.
        if self.directories.len() as u64 > self.most_directories {
            let reason = Refusal::TooMany { limit: self.most_directories };
            return Err(ArchiveError::refused(name.bytes(), reason));
        }
        self.make_directory(&parent_name)?;
        let parent = self.open(&parent_name, name)?;
        let last = OsStr::from_bytes(last);
        let mut opaque = false;
        if let Err(errno) = mkdirat(&parent, last, Mode::RWXU) {
            if errno != Errno::EXIST {
                return Err(failed("create the directory", name)(errno));
            }
            let found = statat(&parent, last, AtFlags::SYMLINK_NOFOLLOW).map_err(failed("look at", name))?;
            // A whiteout and then a directory of the same name: what lower layers have in it stays hidden.
            opaque = is_whiteout(&found);
            if !opaque {
                let reason = match FileType::from_raw_mode(found.st_mode) {
                    FileType::Symlink => Refusal::ThroughSymlink,
                    _ => Refusal::ThroughFile,
                };
                return Err(ArchiveError::refused(name.bytes(), reason));
            }
            unlinkat(&parent, last, AtFlags::empty()).map_err(failed("replace", name))?;
            self.whiteouts.remove(name);
            mkdirat(&parent, last, Mode::RWXU).map_err(failed("create the directory", name))?;
        }
        self.directories.insert(name.clone(), Directory { attributes: None, opaque });
        Ok(())
    }

    /// Opens a directory of the tree, for the sake of the entry `wanted_by`.
    fn open(&mut self, directory: &Name, wanted_by: &Name) -> Result<Rc<OwnedFd>, ArchiveError> {
        match &self.last {
            _ if directory.is_root() => return Ok(Rc::clone(&self.root)),
            Some((name, fd)) if name == directory => return Ok(Rc::clone(fd)),
            _ => {}
        }
        let fd = Rc::new(self.open_below(directory, wanted_by)?);
        self.last = Some((directory.clone(), Rc::clone(&fd)));
        Ok(fd)
    }

    fn open_below(&self, directory: &Name, wanted_by: &Name) -> Result<OwnedFd, ArchiveError> {
        let path = if directory.is_root() { OsStr::new(".") } else { OsStr::from_bytes(directory.bytes()) };
        match openat2(&self.root, path, DIRECTORY, Mode::empty(), BELOW) {
            Ok(fd) => Ok(fd),
            Err(Errno::LOOP) => Err(ArchiveError::refused(wanted_by.bytes(), Refusal::ThroughSymlink)),
            Err(Errno::NOTDIR) => Err(ArchiveError::refused(wanted_by.bytes(), Refusal::ThroughFile)),
            Err(errno) => Err(failed("open the directory of", wanted_by)(errno)),
        }
    }

    fn fill(
        &mut self,
        file: &mut File,
        name: &Name,
        size: u64,
        body: &mut impl Read,
    ) -> Result<(), ArchiveError> {
        let mut left = size;
        while left > 0 {
            let wanted = self.buffer.len().min(usize::try_from(left).unwrap_or(usize::MAX));
            let read = match body.read(&mut self.buffer[..wanted]) {
                Ok(0) => Err(io::Error::from(io::ErrorKind::UnexpectedEof)),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                other => other,
            };
            let read = read.map_err(|source| ArchiveError::Read { source })?;
            io::Write::write_all(file, &self.buffer[..read]).map_err(|source| ArchiveError::Write {
                action: "write",
                entry: printable(name.bytes()),
                source,
            })?;
            left -= read as u64;
        }
        Ok(())
    }
}

/// Mode, extended attributes and time of an open file or directory, in the order in which they do not undo each other.
fn dress(fd: BorrowedFd<'_>, name: &Name, attributes: &Attributes) -> Result<(), ArchiveError> {
    fchmod(fd, Mode::from_raw_mode(attributes.mode)).map_err(failed("set the mode of", name))?;
    for (key, value) in &attributes.xattrs {
        fsetxattr(fd, OsStr::from_bytes(key), value, XattrFlags::empty())
            .map_err(failed("set an extended attribute of", name))?;
    }
    futimens(fd, &times(attributes.modified)).map_err(failed("set the time of", name))
}

/// Owner and time of something that cannot be opened.
fn own(parent: &OwnedFd, last: &OsStr, name: &Name, attributes: &Attributes) -> Result<(), ArchiveError> {
    let (uid, gid) = (Uid::from_raw(attributes.uid), Gid::from_raw(attributes.gid));
    chownat(parent, last, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)
        .map_err(failed("set the owner of", name))?;
    utimensat(parent, last, &times(attributes.modified), AtFlags::SYMLINK_NOFOLLOW)
        .map_err(failed("set the time of", name))
}

fn times(modified: Moment) -> Timestamps {
    let time = Timespec { tv_sec: modified.seconds, tv_nsec: modified.nanoseconds.into() };
    Timestamps { last_access: time, last_modification: time }
}

pub(super) fn is_whiteout(stat: &rustix::fs::Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice && stat.st_rdev == 0
}

fn failed(action: &'static str, name: &Name) -> impl Fn(Errno) -> ArchiveError {
    move |errno| ArchiveError::Write { action, entry: printable(name.bytes()), source: errno.into() }
}
