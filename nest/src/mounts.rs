//! The file systems of a service: overlay, `/dev/shm`, and the three files that name it.

use std::ffi::CStr;
use std::fs;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::chown;
use std::path::{Path, PathBuf};

use rustix::mount::{MountFlags, mount};
use ums_engine::cgroup::Layout;
use ums_engine::userns;
use ums_frontman::place::{Inner, inner_namespace};
use ums_model::nest::Right;

use crate::layout::{NestDir, cgroups, etc, lower, merged, shm, site_mount, user_namespace, volume};
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
    let map = match recipe.ids {
        Some(_) => Some(mapped()?),
        None => None,
    };
    if !is_mount_point(&merged()) {
        let mut layers = Vec::new();
        for (index, layer) in recipe.lower.iter().enumerate() {
            layers.push(match &map {
                Some(map) => show(layer, &lower(index), map)?.display().to_string(),
                None => layer.display().to_string(),
            });
        }
        // Without these three the upper directory is plain enough to travel to a host with other settings.
        let options = format!(
            "lowerdir={},upperdir={},workdir={},redirect_dir=off,metacopy=off,index=off",
            layers.join(":"),
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
        let root = recipe.ids.map_or(0, |ids| ids.first);
        let options = format!("mode=1777,uid={root},gid={root}\0");
        let options = CStr::from_bytes_with_nul(options.as_bytes()).expect("numbers contain no NUL");
        mount("shm", shm(), "tmpfs", flags, Some(options))
            .map_err(|errno| failed("mount a tmpfs on", &shm())(errno.into()))?;
    }
    if let Some(map) = &map {
        for (host, shown) in shifted(recipe) {
            show(&host, &shown, map)?;
        }
    }
    for (host, inside) in cgroups_of(recipe) {
        for path in [&host, &cgroups().join(inside)] {
            fs::create_dir_all(path).map_err(failed("make", path))?;
        }
    }
    write_etc(recipe)
}

/// The cgroups that a service with a user namespace sees, and under which name below `/sys/fs/cgroup`; empty for
/// version 2, which has only one. CRIU cannot mount cgroups from inside of a user namespace, so they are mounts from
/// outside: those that tell a program what it may use, the same at every site.
pub(crate) fn cgroups_of(recipe: &Recipe) -> Vec<(PathBuf, &'static str)> {
    const MOUNT: &str = "/sys/fs/cgroup";
    if recipe.ids.is_none() {
        return Vec::new();
    }
    match ums_engine::cgroup::detect() {
        Ok(Layout::V2) => vec![(Path::new(MOUNT).join(&recipe.cgroup), "")],
        _ => ["memory", "cpu", "cpuset", "pids"]
            .map(|controller| (Path::new(MOUNT).join(controller).join(&recipe.cgroup), controller))
            .to_vec(),
    }
}

/// What comes from the host and appears to the service with other owners, and where.
fn shifted(recipe: &Recipe) -> Vec<(PathBuf, PathBuf)> {
    let volumes = recipe.volumes.iter().map(|bind| (bind.host.clone(), volume(bind.name.as_str())));
    let mounts = recipe.site_mounts.iter().map(|bind| (bind.host.clone(), site_mount(bind.name.as_str())));
    volumes.chain(mounts).collect()
}

/// The service's user namespace, for its map.
fn mapped() -> Result<OwnedFd, MountError> {
    let path = user_namespace();
    let found = userns::bound(&path).map_err(failed("open", &path))?;
    found.ok_or_else(|| failed("open the user namespace at", &path)(io::ErrorKind::NotFound.into()))
}

/// Shows `host` at `at` with the owners that the service sees.
fn show(host: &Path, at: &Path, map: &OwnedFd) -> Result<PathBuf, MountError> {
    if !is_mount_point(at) {
        let make = || match host.is_dir() {
            true => fs::create_dir_all(at),
            false => {
                fs::create_dir_all(at.parent().unwrap_or(at))?;
                fs::File::options().create(true).append(true).open(at).map(drop)
            }
        };
        make().map_err(failed("make", at))?;
        userns::mount_shifted(host, at, map.as_fd(), false)
            .map_err(failed("show with the owners of the service's user namespace", host))?;
    }
    Ok(at.to_owned())
}

/// Provides the service's user namespace and, where a copy is to start from its image, the network namespace that
/// belongs to it; says where the latter comes from. Safe to repeat.
pub(crate) fn provide_namespaces(recipe: &Recipe, right: Right) -> io::Result<Inner> {
    let Some(ids) = recipe.ids else { return Ok(Inner::Make) };
    let (user, network) = (user_namespace(), inner_namespace());
    let is_there = userns::bound(&user)?.is_some();
    if right != Right::Prepared && is_there && userns::bound(&network)?.is_some() {
        return Ok(Inner::Given);
    }
    let made = match right == Right::Run || !is_there {
        true => Some(userns::create(ids)?),
        false => None,
    };
    if let Some(made) = &made {
        userns::bind(made.user.as_fd(), &user)?;
    }
    match made {
        Some(made) if right == Right::Run => {
            userns::bind(made.network.as_fd(), &network)?;
            Ok(Inner::Given)
        }
        // CRIU makes both anew for a tree that it restores; what an earlier attempt left is in the way.
        _ => {
            userns::unbind(&network)?;
            Ok(Inner::Later)
        }
    }
}

/// The namespaces of a tree that is being restored become those of the service.
pub(crate) fn adopt_namespaces(pid: i32) -> io::Result<()> {
    userns::bind(userns::of_process(pid, "user")?.as_fd(), &user_namespace())?;
    userns::bind(userns::of_process(pid, "net")?.as_fd(), &inner_namespace())
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
        if let Some(ids) = recipe.ids {
            chown(&path, Some(ids.first), Some(ids.first)).map_err(failed("give to the service", &path))?;
        }
    }
    Ok(())
}
