//! Mounts: exactly what the bundle of this site has, each at its place in the tree.

use std::collections::{BTreeMap, BTreeSet};

use super::set::{At, Set, is_path, refused};
use super::{Admission, AdmittedMount, Mounted, Refused};
use crate::images::schema::Message;

/// Numbers of file systems in images.
const KINDS: [(&str, u64); 7] =
    [("proc", 1), ("sysfs", 2), ("tmpfs", 5), ("devpts", 6), ("cgroup", 12), ("mqueue", 14), ("cgroup2", 23)];
const OVERLAY: u64 = 17;
const TMPFS: u64 = 5;
/// Flags of mount(2) that may be there: read only, no set-uid, no devices, no programs, and how times are kept.
const FLAGS: u64 = 0x1 | 0x2 | 0x4 | 0x8 | 0x10 | 0x400 | 0x800 | 0x20_0000 | 0x100_0000 | 0x200_0000;
/// Words that options of a file system of the service's own may have.
const OPTIONS: [&str; 14] = [
    "size",
    "mode",
    "uid",
    "gid",
    "nr_inodes",
    "inode32",
    "inode64",
    "newinstance",
    "ptmxmode",
    "nr_blocks",
    "huge",
    "hidepid",
    "max",
    "noswap",
];
/// Where cgroups are mounted, one below the other.
const CGROUPS: &str = "/sys/fs/cgroup/";

/// What hides a file.
const MASK: &str = "/dev/null";

/// What other rules need to know of mounts.
#[derive(Debug, Default)]
pub(super) struct Mounts {
    ids: BTreeSet<u64>,
    root_device: Option<u64>,
    /// Devices of file systems in memory whose content travels.
    devices: BTreeSet<u64>,
}

impl Mounts {
    pub(super) fn has(&self, id: u64) -> bool {
        self.ids.contains(&id)
    }

    pub(super) fn root_device(&self) -> Option<u64> {
        self.root_device
    }
}

pub(super) fn check(set: &Set, admission: &Admission, namespace: u64) -> Result<Mounts, Refused> {
    let image = set.need("mountpoints")?;
    if image.number != namespace {
        return Err(refused(&image.name, "it belongs to another namespace"));
    }
    let mut mounts = Mounts::default();
    let mut points: BTreeMap<&str, u64> = BTreeMap::new();
    for (at, mount) in image.messages() {
        let point = mount.text("mountpoint");
        at.require(is_path(point), "mountpoint", format_args!("{point:?} is no path inside of the service"))?;
        let id = mount.number("mnt_id");
        at.require(mounts.ids.insert(id), "mnt_id", format_args!("{id} is there twice"))?;
        let new = points.insert(point, id).is_none();
        at.require(new, "mountpoint", format_args!("something is mounted over {point}"))?;
        let admitted = find(admission, point).ok_or_else(|| {
            at.refuse("mountpoint", format_args!("nothing is mounted at {point} in this service"))
        })?;
        is_admitted(at, mount, admitted, &mut mounts)?;
    }
    // In the order of the tree, a mount hangs on what its place is in.
    for (at, mount) in image.messages() {
        let (point, parent) = (mount.text("mountpoint"), mount.number("parent_mnt_id"));
        let holder = parent_of(point).and_then(|above| holder(&points, above));
        let (fits, rule) = match holder {
            Some(holder) => (parent == holder, "hangs on another mount"),
            None => (!mounts.has(parent), "is the root, and hangs on a mount in it"),
        };
        at.require(fits, "parent_mnt_id", format_args!("{point} {rule}"))?;
    }
    let absent =
        admission.mounts.iter().find(|mount| mount.required && !points.contains_key(mount.point.as_str()));
    if let Some(mount) = absent {
        return Err(refused(&image.name, format!("{} is not mounted, and would lie open", mount.point)));
    }
    archives(set, admission, &mounts)?;
    Ok(mounts)
}

fn find<'a>(admission: &'a Admission, point: &str) -> Option<&'a AdmittedMount> {
    let exact = admission.mounts.iter().find(|mount| mount.point == point);
    // Each of the hierarchies of version 1, under whatever name the source's host gives it.
    exact.or_else(|| {
        let name = point.strip_prefix(CGROUPS)?;
        let plain = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b",_=-".contains(&byte));
        admission.mounts.iter().find(|mount| plain && mount.point == CGROUPS)
    })
}

fn parent_of(point: &str) -> Option<&str> {
    if point == "/" {
        return None;
    }
    let (above, _) = point.rsplit_once('/')?;
    Some(if above.is_empty() { "/" } else { above })
}

/// The mount in which a place is.
fn holder(points: &BTreeMap<&str, u64>, place: &str) -> Option<u64> {
    let mut place = Some(place);
    while let Some(at) = place {
        if let Some(id) = points.get(at) {
            return Some(*id);
        }
        place = parent_of(at);
    }
    None
}

fn is_admitted(
    at: At<'_>,
    mount: &Message,
    admitted: &AdmittedMount,
    mounts: &mut Mounts,
) -> Result<(), Refused> {
    let kind = mount.number("fstype");
    let (root, key) = (mount.text("root"), mount.text("ext_key"));
    for field in ["shared_id", "master_id"] {
        at.require(mount.number(field) == 0, field, format_args!("it would pass mounts on"))?;
    }
    for field in ["internal_sharing", "deleted", "ext_mount"] {
        at.require(mount.number(field) == 0, field, format_args!("it may not be set"))?;
    }
    let flags = mount.number("flags");
    at.require(flags & !FLAGS == 0, "flags", format_args!("{flags:#x} has more than it may"))?;
    let wanted = u64::from(admitted.flags);
    at.require(flags & wanted == wanted, "flags", format_args!("{flags:#x} lacks some of {wanted:#x}"))?;
    at.require(mount.number("sb_flags") & !FLAGS == 0, "sb_flags", format_args!("it has more than it may"))?;
    at.require(is_path(root), "root", format_args!("{root:?} is no path"))?;
    match &admitted.what {
        Mounted::Root => {
            at.require(
                kind == OVERLAY && root == "/" && key.is_empty(),
                "fstype",
                format_args!("the root is an overlay"),
            )?;
            mounts.root_device = Some(mount.number("root_dev"));
        }
        Mounted::External(name) => {
            at.require(key == name, "ext_key", format_args!("{key:?} is mounted where {name:?} belongs"))?;
        }
        Mounted::Mask if mount.has("ext_key") => {
            at.require(key == MASK, "ext_key", format_args!("{key:?} is mounted where {MASK} belongs"))?;
        }
        Mounted::Mask => {
            let empty = kind == TMPFS && root == "/" && flags & 1 == 1;
            at.require(empty, "fstype", format_args!("it masks nothing"))?;
            options_are_fair(at, mount.text("options"), false)?;
            mounts.devices.insert(mount.number("root_dev"));
        }
        Mounted::Own { kind: name, root: expected } => {
            at.require(!mount.has("ext_key"), "ext_key", format_args!("it is a mount of the service's own"))?;
            let known = KINDS.iter().any(|(other, number)| {
                *number == kind && (other == name || (*name == "cgroup" && *other == "cgroup2"))
            });
            at.require(known, "fstype", format_args!("{kind} is not {name}"))?;
            at.require(
                root == expected,
                "root",
                format_args!("{root:?} is mounted where {expected:?} belongs"),
            )?;
            let source = mount.text("source");
            let plain = source.bytes().all(|byte| byte.is_ascii_alphanumeric()) && source.len() <= 32;
            at.require(plain, "source", format_args!("{source:?} is no name"))?;
            options_are_fair(at, mount.text("options"), *name == "cgroup")?;
            if kind == TMPFS {
                mounts.devices.insert(mount.number("root_dev"));
            }
        }
    }
    Ok(())
}

fn options_are_fair(at: At<'_>, options: &str, cgroup: bool) -> Result<(), Refused> {
    for option in options.split(',').filter(|option| !option.is_empty()) {
        let (word, value) = option.split_once('=').unwrap_or((option, ""));
        let plain = |text: &str| {
            text.len() <= 32 && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
        };
        let fair = if cgroup { plain(word) } else { OPTIONS.contains(&word) };
        at.require(
            fair && plain(value),
            "options",
            format_args!("{option:?} is no option of a mount of a service"),
        )?;
    }
    Ok(())
}

/// What lies in file systems in memory.
fn archives(set: &Set, admission: &Admission, mounts: &Mounts) -> Result<(), Refused> {
    let most = u64::from(admission.ids.unwrap_or(u32::MAX));
    for (name, device, archive) in &set.archives {
        if !mounts.devices.contains(device) {
            return Err(refused(name, "no file system of the service is this one"));
        }
        archive.check(most, &admission.devices).map_err(|(path, rule)| Refused {
            image: name.clone(),
            field: path,
            rule,
        })?;
    }
    Ok(())
}
