//! Mounts that only one thread sees, and that go when it ends.

use std::fs;
use std::path::{Path, PathBuf};
use std::thread;

use rustix::mount::{MountFlags, MountPropagationFlags, mount, mount_change};
use rustix::thread::{UnshareFlags, unshare_unsafe};

/// Runs `test` in a mount namespace of its own, with an empty tmpfs to work in. Needs root.
#[allow(unsafe_code)]
pub(super) fn in_private_mounts(test: impl FnOnce(&Path) + Send) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    let run = || {
        // SAFETY: descriptors stay shared; the thread's working directory and root become its own, and it ends with
        // this closure.
        unsafe { unshare_unsafe(UnshareFlags::NEWNS | UnshareFlags::FS) }.expect("these tests need root");
        mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC).unwrap();
        mount("tmpfs", path, "tmpfs", MountFlags::empty(), None).unwrap();
        test(path);
    };
    let outcome = thread::scope(|scope| scope.spawn(run).join());
    if let Err(panic) = outcome {
        std::panic::resume_unwind(panic);
    }
}

/// A mounted overlay over a given lower directory.
pub(super) struct Overlay {
    pub(super) upper: PathBuf,
    pub(super) merged: PathBuf,
}

impl Overlay {
    pub(super) fn new(at: &Path, lower: &Path) -> Self {
        let [upper, work, merged] = ["upper", "work", "merged"].map(|name| at.join(name));
        for directory in [&upper, &work, &merged] {
            fs::create_dir_all(directory).unwrap();
        }
        let options = format!(
            "lowerdir={},upperdir={},workdir={},redirect_dir=off,metacopy=off,index=off",
            lower.display(),
            upper.display(),
            work.display()
        );
        let options = std::ffi::CString::new(options).unwrap();
        mount("overlay", &merged, "overlay", MountFlags::empty(), Some(&*options)).unwrap();
        Self { upper, merged }
    }
}
