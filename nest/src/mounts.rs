//! The file systems of a service: overlay, `/dev/shm`, and the three files that name it.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use rustix::mount::{MountFlags, mount};

use crate::layout::{NestDir, etc, merged, shm};
use crate::recipe::Recipe;

/// A file system of the service could not be made.
#[derive(Debug, thiserror::Error)]
#[error("cannot {action} {path}")]
#[allow(missing_docs, reason = "the fields are what the message says")]
pub(crate) struct MountError {
    action: &'static str,
    path: PathBuf,
    source: io::Error,
}

fn failed(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> MountError {
    let path = path.to_owned();
    move |source| MountError { action, path, source }
}

/// Mounts what the service lives on. Safe to repeat: what is mounted stays, because a service may use it.
pub(crate) fn mount_all(dir: &NestDir, recipe: &Recipe) -> Result<(), MountError> {
    for path in [dir.upper(), dir.work(), merged(), shm(), etc()] {
        fs::create_dir_all(&path).map_err(failed("make", &path))?;
    }
    if !is_mount_point(&merged()) {
        let lower: Vec<String> = recipe.lower.iter().map(|path| path.display().to_string()).collect();
        // Without these three the upper directory is plain enough to travel to a host with other settings.
        let options = format!(
            "lowerdir={},upperdir={},workdir={},redirect_dir=off,metacopy=off,index=off",
            lower.join(":"),
            dir.upper().display(),
            dir.work().display()
        );
        let options = std::ffi::CString::new(options).map_err(|_| MountError {
            action: "mount",
            path: merged(),
            source: io::ErrorKind::InvalidInput.into(),
        })?;
        mount("overlay", merged(), "overlay", MountFlags::empty(), Some(options.as_c_str()))
            .map_err(|errno| failed("mount the overlay on", &merged())(errno.into()))?;
    }
    if !is_mount_point(&shm()) {
        let flags = MountFlags::NOSUID | MountFlags::NODEV;
        mount("shm", shm(), "tmpfs", flags, Some(c"mode=1777"))
            .map_err(|errno| failed("mount a tmpfs on", &shm())(errno.into()))?;
    }
    write_etc(recipe)
}

/// Whether something is mounted exactly there, in this mount namespace.
pub(crate) fn is_mount_point(path: &Path) -> bool {
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let wanted = path.display().to_string();
    mounts.lines().any(|line| line.split(' ').nth(4) == Some(wanted.as_str()))
}

/// `resolv.conf`, `hosts`, `hostname`: the same at every site, because processes keep them open or cached.
fn write_etc(recipe: &Recipe) -> Result<(), MountError> {
    let network = &recipe.spec.network;
    let name = recipe.spec.hostname();
    let hosts = format!(
        "127.0.0.1 localhost\n::1 localhost ip6-localhost ip6-loopback\n{} {name}\n{} {name}\n",
        network.address, network.address6
    );
    let resolver = format!("nameserver {}\n", network.gateway);
    for (file, text) in [("resolv.conf", resolver), ("hosts", hosts), ("hostname", format!("{name}\n"))] {
        let path = etc().join(file);
        fs::write(&path, text).map_err(failed("write", &path))?;
    }
    Ok(())
}
