//! The OCI bundle: what runc is told about the service. The same recipe gives the same container at every site.

use std::fs;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags, ResolveFlags, open, openat2};
use serde_json::{Value, json};

use crate::layout::{bundle, cgroups, etc, merged, shm, site_mount, user_namespace, volume};
use crate::mounts::cgroups_of;
use crate::recipe::Recipe;
use crate::state::{FileError, write_json};

/// Capabilities of a service: what container tools give by default.
pub(crate) const CAPABILITIES: [&str; 14] = [
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FSETID",
    "CAP_FOWNER",
    "CAP_MKNOD",
    "CAP_NET_RAW",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SETFCAP",
    "CAP_SETPCAP",
    "CAP_NET_BIND_SERVICE",
    "CAP_SYS_CHROOT",
    "CAP_KILL",
    "CAP_AUDIT_WRITE",
];
/// Where a service finds its cgroups.
pub(crate) const CGROUPS: &str = "/sys/fs/cgroup";
/// How much of an image's `passwd` or `group` is looked at, in bytes.
const MAX_USER_FILE: u64 = 4 << 20;
/// What they say then.
const ENOSYS: u32 = 38;

/// What a service does not see of the host.
pub(crate) const MASKED: [&str; 9] = [
    "/proc/acpi",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/sys/firmware",
];
/// What a service sees of the host and cannot change.
pub(crate) const READ_ONLY: [&str; 5] =
    ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];
/// System calls that a service finds missing; programs that probe for io_uring fall back to what can be dumped.
pub(crate) const ABSENT_CALLS: [(&str, u32); 3] =
    [("io_uring_setup", 425), ("io_uring_enter", 426), ("io_uring_register", 427)];
/// Devices that every container has.
pub(crate) const DEVICES: [&str; 6] =
    ["/dev/null", "/dev/random", "/dev/full", "/dev/tty", "/dev/zero", "/dev/urandom"];

/// A mount that does not belong to the container's own tree: CRIU must be told of it by name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ExternalMount {
    /// Where it comes from on this host.
    pub(crate) host: String,
    /// Where it appears inside; also its name in the images, so that both sites agree.
    pub(crate) inside: String,
    /// Whether the service may only read it.
    pub(crate) read_only: bool,
    directory: bool,
}

/// All mounts of the recipe that come from outside, in mount order.
pub(crate) fn external_mounts(recipe: &Recipe) -> Vec<ExternalMount> {
    let own = |host: &Path, inside: &str, directory| ExternalMount {
        host: host.display().to_string(),
        inside: inside.to_owned(),
        read_only: false,
        directory,
    };
    let mut mounts = vec![own(&shm(), "/dev/shm", true)];
    for file in ["resolv.conf", "hosts", "hostname"] {
        mounts.push(own(&etc().join(file), &format!("/etc/{file}"), false));
    }
    let cgroup = |host: &Path, inside: &str| ExternalMount { read_only: true, ..own(host, inside, true) };
    match cgroups_of(recipe).as_slice() {
        [] => {}
        [(host, "")] => mounts.push(cgroup(host, CGROUPS)),
        all => {
            mounts.push(cgroup(&cgroups(), CGROUPS));
            mounts.extend(all.iter().map(|(host, name)| cgroup(host, &format!("{CGROUPS}/{name}"))));
        }
    }
    // With a user namespace they are shown elsewhere, with other owners.
    let shown = |host: &Path, at: PathBuf| recipe.ids.map_or_else(|| host.to_owned(), |_| at);
    for bind in &recipe.volumes {
        let host = shown(&bind.host, volume(bind.name.as_str()));
        mounts.push(ExternalMount { read_only: bind.read_only, ..own(&host, &bind.inside, true) });
    }
    for bind in &recipe.site_mounts {
        let host = shown(&bind.host, site_mount(bind.name.as_str()));
        let directory = bind.host.is_dir();
        mounts.push(ExternalMount { read_only: bind.read_only, ..own(&host, &bind.inside, directory) });
    }
    mounts
}

/// Where the namespaces of a container come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Namespaces {
    /// The network namespace, and the user namespace if the service has one, were made beforehand.
    Given,
    /// CRIU makes them where the service has a user namespace: the network namespace then has to belong to it.
    Restored,
}

/// Files of the host that runc mounts into a container with a user namespace, in which no device can be made: CRIU has
/// to be told of them. Where each appears, and the name under which runc gives it to a restore. `root`: the root
/// directory of the service, to see which of them it has.
pub(crate) fn host_files(recipe: &Recipe, root: &Path) -> Vec<(PathBuf, String)> {
    if recipe.ids.is_none() {
        return Vec::new();
    }
    let masked = MASKED.iter().copied().filter(|path| {
        let inside = root.join(path.trim_start_matches('/'));
        fs::symlink_metadata(inside).is_ok_and(|metadata| !metadata.is_dir())
    });
    let devices = DEVICES.iter().map(|path| (PathBuf::from(path), (*path).to_owned()));
    // What is masked is covered with this one.
    devices.chain(masked.map(|path| (PathBuf::from(path), DEVICES[0].to_owned()))).collect()
}

/// Numeric identity of the service's first process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct User {
    uid: u32,
    gid: u32,
}

impl User {
    /// Resolves `name`, `uid`, `name:group`, `uid:gid` with the passwd and group files below `root`. `None`: there is
    /// no such user.
    pub(crate) fn resolve(user: &str, root: &Path) -> Option<Self> {
        let (user, group) = user.split_once(':').map_or((user, None), |(user, group)| (user, Some(group)));
        let lookup = |file: &str, name: &str| -> Option<Vec<u32>> {
            let text = read_inside(root, &format!("etc/{file}"))?;
            let line = text.lines().find(|line| {
                let mut fields = line.split(':');
                fields.next() == Some(name) || fields.nth(1) == Some(name)
            })?;
            Some(line.split(':').skip(2).take(2).map_while(|field| field.parse().ok()).collect())
        };
        let (uid, primary) = match user {
            "" => (0, 0),
            name => match (lookup("passwd", name).as_deref(), name.parse()) {
                (Some([uid, gid]), _) => (*uid, *gid),
                (_, Ok(uid)) => (uid, 0),
                _ => return None,
            },
        };
        let gid = match group {
            None | Some("") => primary,
            Some(name) => match (lookup("group", name).and_then(|ids| ids.first().copied()), name.parse()) {
                (Some(gid), _) | (None, Ok(gid)) => gid,
                _ => return None,
            },
        };
        Some(Self { uid, gid })
    }
}

/// Reads a small text file of an image. Symbolic links lead no further than its root, and what is no file (a fifo would
/// block for ever) is not read.
fn read_inside(root: &Path, path: &str) -> Option<String> {
    let root = open(root, OFlags::DIRECTORY | OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).ok()?;
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file =
        openat2(&root, path, flags, Mode::empty(), ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS);
    let file = fs::File::from(file.ok()?);
    let mut text = Vec::new();
    file.metadata().ok().filter(fs::Metadata::is_file)?;
    file.take(MAX_USER_FILE).read_to_end(&mut text).ok()?;
    Some(String::from_utf8_lossy(&text).into_owned())
}

/// Writes the bundle. Safe to repeat.
pub(crate) fn write(recipe: &Recipe, user: User, namespaces: Namespaces) -> Result<(), FileError> {
    let path = bundle().join("config.json");
    fs::create_dir_all(bundle()).map_err(|source| FileError::Write { path: bundle(), source })?;
    write_json(&path, &config(recipe, user, namespaces))
}

fn config(recipe: &Recipe, user: User, namespaces: Namespaces) -> Value {
    let mut config = container(recipe, user);
    let linux = &mut config["linux"];
    linux["namespaces"] = namespaces_of(recipe, namespaces);
    if let (Some(ids), Namespaces::Restored) = (recipe.ids, namespaces) {
        let map = json!([{ "containerID": 0, "hostID": ids.first, "size": ids.count }]);
        linux["uidMappings"] = map.clone();
        linux["gidMappings"] = map;
    }
    config
}

fn namespaces_of(recipe: &Recipe, namespaces: Namespaces) -> Value {
    let new = ["pid", "ipc", "uts", "mount", "cgroup", "time"].map(|kind| json!({ "type": kind }));
    let network = json!({ "type": "network", "path": ums_frontman::place::inner_namespace() });
    let own = match (recipe.ids, namespaces) {
        (None, _) => vec![network],
        (Some(_), Namespaces::Given) => vec![network, json!({ "type": "user", "path": user_namespace() })],
        (Some(_), Namespaces::Restored) => vec![json!({ "type": "network" }), json!({ "type": "user" })],
    };
    new.into_iter().chain(own).collect()
}

fn container(recipe: &Recipe, user: User) -> Value {
    let mut resources = json!({ "devices": [{ "allow": false, "access": "rwm" }] });
    if let Some(memory) = recipe.spec.limits.memory {
        resources["memory"] = json!({ "limit": memory.get() });
    }
    if let Some(cpus) = recipe.spec.limits.cpus {
        // Millicpus over a period of 100 ms.
        resources["cpu"] = json!({ "period": 100_000, "quota": u64::from(cpus.get()) * 100 });
    }
    json!({
        "ociVersion": "1.2.0",
        "hostname": recipe.spec.hostname(),
        "root": { "path": merged(), "readonly": false },
        "process": {
            "terminal": false,
            "user": { "uid": user.uid, "gid": user.gid },
            "args": recipe.args,
            "env": recipe.env,
            "cwd": recipe.workdir,
            "capabilities": {
                "bounding": CAPABILITIES,
                "effective": CAPABILITIES,
                "permitted": CAPABILITIES,
            },
            "noNewPrivileges": false,
        },
        "mounts": mounts(recipe),
        "linux": {
            "cgroupsPath": format!("/{}", recipe.cgroup),
            "resources": resources,
            "seccomp": {
                "defaultAction": "SCMP_ACT_ALLOW",
                "architectures": ["SCMP_ARCH_X86_64"],
                "syscalls": [{
                    "names": ABSENT_CALLS.map(|(name, _)| name),
                    "action": "SCMP_ACT_ERRNO",
                    "errnoRet": ENOSYS,
                }],
            },
            "maskedPaths": MASKED,
            "readonlyPaths": READ_ONLY,
        },
    })
}

fn mounts(recipe: &Recipe) -> Vec<Value> {
    let mut mounts = vec![
        json!({ "destination": "/proc", "type": "proc", "source": "proc" }),
        json!({ "destination": "/dev", "type": "tmpfs", "source": "tmpfs",
            "options": ["nosuid", "strictatime", "mode=755", "size=65536k"] }),
        json!({ "destination": "/dev/pts", "type": "devpts", "source": "devpts",
            "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"] }),
        json!({ "destination": "/dev/mqueue", "type": "mqueue", "source": "mqueue",
            "options": ["nosuid", "noexec", "nodev"] }),
        json!({ "destination": "/sys", "type": "sysfs", "source": "sysfs",
            "options": ["nosuid", "noexec", "nodev", "ro"] }),
    ];
    // With one they are mounts from outside.
    if recipe.ids.is_none() {
        mounts.push(json!({ "destination": CGROUPS, "type": "cgroup", "source": "cgroup",
            "options": ["nosuid", "noexec", "nodev", "relatime", "ro"] }));
    }
    for mount in external_mounts(recipe) {
        let access = if mount.read_only { "ro" } else { "rw" };
        let bind = if mount.directory { "rbind" } else { "bind" };
        mounts.push(json!({ "destination": mount.inside, "type": "bind", "source": mount.host,
            "options": [bind, access, "private"] }));
    }
    mounts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_are_resolved_like_other_tools_do() {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir(root.path().join("etc")).unwrap();
        fs::write(root.path().join("etc/passwd"), "root:x:0:0::/:/bin/sh\nredis:x:105:110::/:/bin/sh\n")
            .unwrap();
        fs::write(root.path().join("etc/group"), "root:x:0:\nweb:x:33:\n").unwrap();
        let resolve = |user| User::resolve(user, root.path()).map(|user| (user.uid, user.gid));
        assert_eq!(resolve(""), Some((0, 0)));
        assert_eq!(resolve("redis"), Some((105, 110)));
        assert_eq!(resolve("105"), Some((105, 110)));
        assert_eq!(resolve("redis:web"), Some((105, 33)));
        assert_eq!(resolve("1000:1000"), Some((1000, 1000)));
        assert_eq!(resolve("1000"), Some((1000, 0)));
        assert_eq!(resolve("nobody-here"), None);
    }

    #[test]
    fn the_files_of_an_image_cannot_lead_out_of_it_or_block() {
        let root = tempfile::tempdir().unwrap();
        let outside = tempfile::NamedTempFile::new().unwrap();
        fs::write(outside.path(), "mallory:x:1:1::/:/bin/sh\n").unwrap();
        fs::create_dir_all(root.path().join("etc")).unwrap();
        std::os::unix::fs::symlink(outside.path(), root.path().join("etc/passwd")).unwrap();
        assert_eq!(User::resolve("mallory", root.path()), None);
        fs::remove_file(root.path().join("etc/passwd")).unwrap();
        // As an image of today has it: a link from its root.
        fs::write(root.path().join("users"), "web:x:33:33::/:/bin/sh\n").unwrap();
        std::os::unix::fs::symlink("/users", root.path().join("etc/passwd")).unwrap();
        assert_eq!(User::resolve("web", root.path()), Some(User { uid: 33, gid: 33 }));
        fs::remove_file(root.path().join("etc/passwd")).unwrap();
        let (fifo, mode) = (root.path().join("etc/passwd"), Mode::RUSR);
        rustix::fs::mknodat(rustix::fs::CWD, fifo, rustix::fs::FileType::Fifo, mode, 0).unwrap();
        assert_eq!(User::resolve("web", root.path()), None);
    }
}
