//! What every test needs from the machine: root, tools, a mount namespace with the wanted cgroup version.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::mount::{MountFlags, MountPropagationFlags, UnmountFlags, mount, mount_change, unmount};
use rustix::thread::{UnshareFlags, unshare_unsafe};
use tempfile::TempDir;
use ums_engine::cgroup::{Cgroup, Layout, detect};
use ums_engine::tools::{Tool, locate};

/// Longest wait for anything that happens at once when all is well.
pub(crate) const SOON: Duration = Duration::from_secs(30);

/// How long a file is watched that must not grow. A writer adds a line every two milliseconds.
const WATCH: Duration = Duration::from_millis(60);

/// Which freezer a test uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Version {
    V1,
    V2,
}

/// A mount namespace for this thread, with a private `/run` and cgroups of one version. Ends with the thread.
pub(crate) struct Machine {
    pub(crate) criu: PathBuf,
    pub(crate) runc: PathBuf,
    pub(crate) folder: TempDir,
}

impl Machine {
    /// Panics with the reason where the machine lacks something.
    pub(crate) fn new(version: Version) -> Self {
        assert!(rustix::process::geteuid().is_root(), "this test needs root");
        let criu = locate(Tool::Criu).unwrap_or_else(|error| panic!("this test needs CRIU: {error}"));
        let runc = locate(Tool::Runc).unwrap_or_else(|error| panic!("this test needs runc: {error}"));
        ums_engine::spawn::become_subreaper().expect("become a subreaper");
        own_mounts();
        match (version, detect().expect("cgroups")) {
            (Version::V1, Layout::V1 | Layout::Hybrid) | (Version::V2, Layout::V2) => {}
            (Version::V1, Layout::V2) => panic!("this test needs a host with cgroup version 1"),
            (Version::V2, _) => {
                let folder = Path::new("/sys/fs/cgroup");
                unmount(folder, UnmountFlags::DETACH).expect("unmount version 1");
                mount(c"cgroup2", folder, c"cgroup2", MountFlags::empty(), None).expect("mount version 2");
            }
        }
        let folder = tempfile::tempdir().expect("a folder");
        Self { criu, runc, folder }
    }

    /// A cgroup path that no other test uses.
    pub(crate) fn cgroup_path(&self) -> PathBuf {
        let name = self.folder.path().file_name().and_then(|name| name.to_str()).unwrap_or_default();
        format!("/ums-engine-lab{}/service", name.replace('.', "-")).into()
    }

    pub(crate) fn cgroup(&self) -> Cgroup {
        Cgroup::of_container(&self.cgroup_path()).expect("cgroups")
    }

    /// A new folder.
    pub(crate) fn folder(&self, name: &str) -> PathBuf {
        let path = self.folder.path().join(name);
        fs::create_dir_all(&path).expect("create a folder");
        path
    }
}

#[allow(unsafe_code)]
fn own_mounts() {
    // SAFETY: the descriptor table stays shared; only this thread's view of mounts changes.
    unsafe { unshare_unsafe(UnshareFlags::NEWNS | UnshareFlags::FS) }.expect("a mount namespace");
    mount_change(c"/", MountPropagationFlags::REC | MountPropagationFlags::PRIVATE).expect("private mounts");
    // CRIU keeps what it learned about the kernel here, if it is a tmpfs.
    mount(c"tmpfs", c"/run", c"tmpfs", MountFlags::empty(), None).expect("a private /run");
}

/// The helper program, built as an example of this crate.
pub(crate) fn helper() -> PathBuf {
    let own = std::env::current_exe().expect("own program file");
    let folder = own.parent().and_then(Path::parent).expect("the target folder");
    let path = folder.join("examples/lab_helper");
    assert!(path.is_file(), "{} is missing: cargo build -p ums-engine --examples", path.display());
    path
}

/// Ends a cgroup and what is in it, whatever state it is in, and reaps.
pub(crate) fn clean_up(cgroup: &Cgroup) {
    cgroup.kill_all(SOON).unwrap_or_else(|error| eprintln!("clean up: {error}"));
    reap();
    let removed = Instant::now() + SOON;
    while let Err(error) = cgroup.remove() {
        if Instant::now() > removed {
            eprintln!("clean up: {error}");
            return;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    // The folder above was made with it.
    let (Cgroup::V1 { freezer: dir, .. } | Cgroup::V2 { dir }) = cgroup;
    let others = if let Cgroup::V1 { others, .. } = cgroup { others.as_slice() } else { &[] };
    for path in std::iter::once(dir).chain(others) {
        let _ = path.parent().map(fs::remove_dir);
    }
}

/// Reaps the orphans that were handed to this process.
pub(crate) fn reap() {
    while let Ok(Some(_)) = rustix::process::wait(rustix::process::WaitOptions::NOHANG) {}
}

/// Waits until `wanted` is so.
pub(crate) fn wait_until(what: &str, mut wanted: impl FnMut() -> bool) {
    let deadline = Instant::now() + SOON;
    while !wanted() {
        assert!(Instant::now() < deadline, "{what}: not after {} s", SOON.as_secs());
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Fails unless a service goes on writing.
pub(crate) fn assert_runs(file: &Path) {
    let before = length(file);
    wait_until("the service goes on writing", || length(file) > before);
}

/// Fails if a service writes.
pub(crate) fn assert_stands(file: &Path) {
    let before = length(file);
    std::thread::sleep(WATCH);
    assert_eq!(length(file), before, "the service ran although it is frozen");
}

pub(crate) fn length(file: &Path) -> u64 {
    fs::metadata(file).map_or(0, |metadata| metadata.len())
}
