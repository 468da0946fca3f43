//! A file system in memory for images: what a service has in its memory must not reach a disk in clear.

use std::ffi::CString;
use std::io;
use std::path::{Path, PathBuf};

use rustix::io::Errno;
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount as unmount_call};

/// A mounted tmpfs. It goes away, with all in it, when this is dropped.
#[derive(Debug)]
pub struct Tmpfs {
    path: PathBuf,
    noswap: bool,
}

/// Mounts a tmpfs of at most `size` bytes over an existing directory, for root only.
///
/// On `Err` nothing is mounted. Each call mounts one more.
pub fn tmpfs(directory: &Path, size: u64) -> io::Result<Tmpfs> {
    let noswap = match try_mount(directory, &format!("mode=0711,size={size},noswap")) {
        Ok(()) => true,
        // Kernels before 6.4 do not know the word, and a user namespace may not use it.
        Err(Errno::INVAL) => {
            try_mount(directory, &format!("mode=0711,size={size}"))?;
            false
        }
        Err(errno) => return Err(errno.into()),
    };
    Ok(Tmpfs { path: directory.to_owned(), noswap })
}

/// Unmounts all that is mounted on a directory, as an earlier process may have left it. Safe to repeat.
pub fn unmount(directory: &Path) -> io::Result<()> {
    loop {
        match unmount_call(directory, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW) {
            Ok(()) => {}
            // Nothing is mounted there (any more), or there is no such directory.
            Err(Errno::INVAL | Errno::NOENT) => return Ok(()),
            Err(errno) => return Err(errno.into()),
        }
    }
}

impl Tmpfs {
    /// Where it is mounted.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Leaves it mounted, also beyond the end of this process, until [`unmount`].
    pub fn leave(self) {
        std::mem::forget(self);
    }

    /// Whether its content can never be swapped out. If not, the swap of this host must be encrypted or off.
    pub fn noswap(&self) -> bool {
        self.noswap
    }
}

impl Drop for Tmpfs {
    fn drop(&mut self) {
        // CRIU may still have files open; they go with their last user.
        if let Err(errno) = unmount_call(&self.path, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW) {
            tracing::warn!(path = %self.path.display(), %errno, "cannot unmount images");
        }
    }
}

fn try_mount(directory: &Path, options: &str) -> Result<(), Errno> {
    let options = CString::new(options).map_err(|_| Errno::INVAL)?;
    let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    mount(c"tmpfs", directory, c"tmpfs", flags, options.as_c_str())
}
