//! User namespaces of services: a range of the host's ids, the namespaces that belong to it, and mounts that show a
//! directory's owners through it.
//!
//! Inside, ids begin at 0 and end below [`IdRange::count`]; on the host they are [`IdRange::first`] and what follows.
//! Files keep the ids of the inside wherever they lie on a disk as an image or a volume ([`mount_shifted`] shows them to
//! the service as its own), so that no tree has to be rewritten when a service gets another range at another site.

use std::fs;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{Mode, OFlags, open};
use rustix::mount::{
    MountFlags, MoveMountFlags, OpenTreeFlags, UnmountFlags, mount_bind, mount_remount, move_mount,
    open_tree, unmount,
};
use rustix::pipe::{PipeFlags, pipe_with};
use serde::{Deserialize, Serialize};

/// Ids of a user namespace that is mapped in one piece, users and groups alike.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct IdRange {
    /// What 0 inside is on the host.
    pub first: u32,
    /// How many there are.
    pub count: u32,
}

impl IdRange {
    /// What `inside` is on the host; `None` if it is not mapped.
    pub fn outside(self, inside: u32) -> Option<u32> {
        (inside < self.count).then(|| self.first.checked_add(inside)).flatten()
    }

    /// What `outside` is inside; `None` if it is not mapped.
    pub fn inside(self, outside: u32) -> Option<u32> {
        outside.checked_sub(self.first).filter(|inside| *inside < self.count)
    }
}

/// A user namespace and a network namespace that belongs to it. Both live as long as their descriptors, whatever is
/// bound to them, and whoever is in them.
#[derive(Debug)]
pub struct Owned {
    /// The user namespace.
    pub user: OwnedFd,
    /// The network namespace, in which even `lo` is down.
    pub network: OwnedFd,
}

/// Makes a user namespace with `ids` and a network namespace that belongs to it. Blocks for a few milliseconds.
///
/// On `Err` nothing is left.
pub fn create(ids: IdRange) -> io::Result<Owned> {
    let (ready, say_ready) = pipe_with(PipeFlags::CLOEXEC)?;
    let (stay, let_go) = pipe_with(PipeFlags::CLOEXEC)?;
    let child = fork_holder(&say_ready, &stay, &let_go)?;
    drop(say_ready);
    let made = (|| {
        let mut word = [0];
        if rustix::io::read(&ready, &mut word)? != 1 || word != [1] {
            return Err(io::Error::other("the kernel makes no user namespace: see user.max_user_namespaces"));
        }
        let directory = format!("/proc/{child}");
        let map = format!("0 {} {}", ids.first, ids.count);
        fs::write(format!("{directory}/uid_map"), &map)?;
        fs::write(format!("{directory}/gid_map"), &map)?;
        let file = |name: &str| -> io::Result<OwnedFd> {
            Ok(open(format!("{directory}/ns/{name}"), OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?)
        };
        Ok(Owned { user: file("user")?, network: file("net")? })
    })();
    drop(let_go);
    reap(child);
    made
}

/// Starts a process that makes the namespaces, says so, and ends when nobody has the other end of `stay` any more.
#[allow(unsafe_code)]
fn fork_holder(ready: &OwnedFd, stay: &OwnedFd, let_go: &OwnedFd) -> io::Result<i32> {
    let (ready, stay, let_go) = (ready.as_raw_fd(), stay.as_raw_fd(), let_go.as_raw_fd());
    // SAFETY: both sides go on as after any fork; what the child may do is said below.
    match unsafe { libc::fork() } {
        -1 => Err(io::Error::last_os_error()),
        // SAFETY: the child makes system calls on plain numbers and on its own stack only, allocates nothing and never
        // returns; that is allowed after the fork of a process with threads.
        0 => unsafe {
            libc::close(let_go);
            let made = u8::from(libc::unshare(libc::CLONE_NEWUSER | libc::CLONE_NEWNET) == 0);
            libc::write(ready, (&raw const made).cast(), 1);
            let mut nothing = 0_u8;
            libc::read(stay, (&raw mut nothing).cast(), 1);
            libc::_exit(0)
        },
        child => Ok(child),
    }
}

fn reap(child: i32) {
    if let Some(pid) = rustix::process::Pid::from_raw(child) {
        while let Err(rustix::io::Errno::INTR) =
            rustix::process::waitpid(Some(pid), rustix::process::WaitOptions::empty())
        {}
    }
}

/// Gives a namespace (an open `/proc/PID/ns/*` file) a name that keeps it alive: a file on which it is mounted. What
/// was mounted there is replaced.
pub fn bind(namespace: BorrowedFd<'_>, file: &Path) -> io::Result<()> {
    if let Some(directory) = file.parent() {
        fs::create_dir_all(directory)?;
    }
    unbind(file)?;
    fs::File::options().create(true).append(true).open(file)?;
    Ok(mount_bind(format!("/proc/self/fd/{}", namespace.as_raw_fd()), file)?)
}

/// Opens the namespace of a process: `user`, `net` and so on.
pub fn of_process(pid: i32, kind: &str) -> io::Result<OwnedFd> {
    Ok(open(format!("/proc/{pid}/ns/{kind}"), OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?)
}

/// Opens the namespace that is [bound](bind) to `file`; `None` if none is.
pub fn bound(file: &Path) -> io::Result<Option<OwnedFd>> {
    const NSFS: u64 = 0x6e73_6673;
    match open(file, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()) {
        Ok(fd) => {
            let kind = rustix::fs::fstatfs(&fd)?.f_type;
            Ok((u64::try_from(kind).is_ok_and(|kind| kind == NSFS)).then_some(fd))
        }
        Err(rustix::io::Errno::NOENT) => Ok(None),
        Err(errno) => Err(errno.into()),
    }
}

/// Takes the name away again. Ok also if there was none.
pub fn unbind(file: &Path) -> io::Result<()> {
    while bound(file)?.is_some() {
        unmount(file, UnmountFlags::DETACH)?;
    }
    match fs::remove_file(file) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Shows `source` (a directory or a file) at `target`, its owners shifted by the map of a user namespace: what belongs
/// to 0 on the disk belongs to 0 inside. Needs a file system that can do it (ext4, xfs, btrfs; tmpfs from Linux 6.3).
pub fn mount_shifted(source: &Path, target: &Path, user: BorrowedFd<'_>, read_only: bool) -> io::Result<()> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    let tree = open_tree(rustix::fs::CWD, source, flags)?;
    shift(tree.as_fd(), user)?;
    move_mount(&tree, "", rustix::fs::CWD, target, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)?;
    if read_only {
        mount_remount(target, MountFlags::BIND | MountFlags::RDONLY, "")?;
    }
    Ok(())
}

/// Whether services whose files lie in `storage` can have user namespaces here. Leaves nothing behind. `None`: we may
/// not find out.
pub fn is_usable(storage: &Path) -> Option<bool> {
    const IDS: IdRange = IdRange { first: 0x7000_0000, count: 0x1_0000 };
    // Overlays take layers with shifted owners from Linux 5.19 on; there is nothing to ask but the version.
    let release = rustix::system::uname().release().to_string_lossy().into_owned();
    let mut numbers =
        release.split(|letter: char| !letter.is_ascii_digit()).map_while(|part| part.parse::<u32>().ok());
    if (numbers.next()?, numbers.next()?) < (5, 19) {
        return Some(false);
    }
    if !rustix::process::geteuid().is_root() {
        return None;
    }
    let Ok(made) = create(IDS) else { return Some(false) };
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    let tree = open_tree(rustix::fs::CWD, storage, flags).ok()?;
    Some(shift(tree.as_fd(), made.user.as_fd()).is_ok())
}

/// Sets the map on a mount that nobody sees yet.
#[allow(unsafe_code)]
fn shift(tree: BorrowedFd<'_>, user: BorrowedFd<'_>) -> io::Result<()> {
    let attributes = libc::mount_attr {
        attr_set: libc::MOUNT_ATTR_IDMAP,
        attr_clr: 0,
        propagation: 0,
        userns_fd: u64::try_from(user.as_raw_fd()).expect("a descriptor is no negative number"),
    };
    // SAFETY: the path is a constant with its NUL, the structure lives through the call and its size is the one given.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            tree.as_raw_fd(),
            c"".as_ptr(),
            libc::AT_EMPTY_PATH,
            &raw const attributes,
            size_of::<libc::mount_attr>(),
        )
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const IDS: IdRange = IdRange { first: 1_879_048_192, count: 65_536 };

    #[test]
    fn ids_are_shifted_there_and_back_and_not_beyond_the_end() {
        for inside in [0, 1, 65_535] {
            assert_eq!(IDS.inside(IDS.outside(inside).unwrap()), Some(inside));
        }
        assert_eq!(IDS.outside(65_536), None);
        assert_eq!(IDS.inside(IDS.first - 1), None);
        assert_eq!(IDS.inside(0), None);
        assert_eq!(IdRange { first: u32::MAX, count: 2 }.outside(1), None);
    }

    #[test]
    fn lab_owned_namespaces_can_be_named_and_shift_what_is_mounted_through_them() {
        let own = fs::read_link("/proc/self/ns/user").unwrap();
        let Owned { user, network } = create(IDS).unwrap();
        let name = |fd: &OwnedFd| fs::read_link(format!("/proc/self/fd/{}", fd.as_raw_fd())).unwrap();
        assert_ne!(name(&user), own);
        assert!(name(&network).to_string_lossy().starts_with("net:["));

        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("user");
        assert!(bound(&file).unwrap().is_none());
        bind(user.as_fd(), &file).unwrap();
        bind(user.as_fd(), &file).unwrap();
        assert!(bound(&file).unwrap().is_some());
        unbind(&file).unwrap();
        unbind(&file).unwrap();
        assert!(!file.exists());

        let (source, target) = (directory.path().join("a"), directory.path().join("b"));
        fs::create_dir(&source).unwrap();
        fs::create_dir(&target).unwrap();
        fs::write(source.join("file"), "x").unwrap();
        mount_shifted(&source, &target, user.as_fd(), true).unwrap();
        let seen = std::os::unix::fs::MetadataExt::uid(&fs::metadata(target.join("file")).unwrap());
        let refused = fs::write(target.join("new"), "y");
        unmount(&target, UnmountFlags::DETACH).unwrap();
        assert_eq!(seen, IDS.first);
        assert!(refused.is_err());
    }
}
