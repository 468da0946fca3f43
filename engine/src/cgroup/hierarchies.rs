//! Which cgroup hierarchies are mounted, and where a cgroup lies in them.

use std::fs;
use std::path::{Path, PathBuf};

use rustix::fs::statfs;

use super::{Cgroup, CgroupError};

/// Where cgroups are mounted; container runtimes look nowhere else.
const MOUNT: &str = "/sys/fs/cgroup";

/// What `statfs` tells of a cgroup mount of version 2.
const CGROUP2_SUPER_MAGIC: i64 = 0x6367_7270;

/// How the host has mounted its cgroups.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Layout {
    /// Version 1 only.
    V1,
    /// Version 2 only.
    V2,
    /// Both, with the freezer and the other controllers in version 1.
    Hybrid,
}

/// Finds out what the mount namespace of this process has.
pub fn detect() -> Result<Layout, CgroupError> {
    Hierarchies::mounted().map(|hierarchies| hierarchies.layout())
}

/// The mounted hierarchies that containers use.
#[derive(Debug)]
pub(super) struct Hierarchies {
    /// Empty where version 2 has everything.
    v1: Vec<Hierarchy>,
    v2: Option<Hierarchy>,
}

#[derive(Debug)]
struct Hierarchy {
    /// Empty for version 2.
    controllers: Vec<String>,
    mount: PathBuf,
    /// Which of its cgroups is the root of the mount, as this process sees paths.
    root: PathBuf,
}

impl Hierarchies {
    pub(super) fn mounted() -> Result<Self, CgroupError> {
        // Of this thread: it may have a mount namespace of its own.
        let path = Path::new("/proc/thread-self/mountinfo");
        let mountinfo =
            fs::read_to_string(path).map_err(|source| CgroupError::Read { path: path.to_owned(), source })?;
        // The same question that runc asks, so that both look into the same directories.
        let unified = statfs(MOUNT).is_ok_and(|stat| stat.f_type == CGROUP2_SUPER_MAGIC);
        Self::parse(&mountinfo, unified).ok_or_else(|| CgroupError::NoFreezer { mount: MOUNT.into() })
    }

    /// `None` if there is no freezer.
    fn parse(mountinfo: &str, unified: bool) -> Option<Self> {
        let all = || mountinfo.lines().filter_map(hierarchy);
        if unified {
            let v2 = all().rfind(|one| one.controllers.is_empty() && one.mount == Path::new(MOUNT))?;
            return Some(Self { v1: Vec::new(), v2: Some(v2) });
        }
        let below = |one: &Hierarchy| one.mount.starts_with(MOUNT);
        let (v2, v1): (Vec<_>, Vec<_>) = all().filter(below).partition(|one| one.controllers.is_empty());
        let found = Self { v1, v2: v2.into_iter().next_back() };
        found.freezer().is_some().then_some(found)
    }

    fn layout(&self) -> Layout {
        match (&self.v2, self.v1.is_empty()) {
            (_, true) => Layout::V2,
            (None, false) => Layout::V1,
            (Some(_), false) => Layout::Hybrid,
        }
    }

    fn freezer(&self) -> Option<&Hierarchy> {
        self.v1.iter().find(|one| one.controllers.iter().any(|name| name == "freezer"))
    }

    pub(super) fn container(&self, path: &Path) -> Result<Cgroup, CgroupError> {
        self.cgroup(|hierarchy| Some(join(&hierarchy.mount, path)))
    }

    pub(super) fn process(&self, pid: i32) -> Result<Cgroup, CgroupError> {
        let file = PathBuf::from(format!("/proc/{pid}/cgroup"));
        let text =
            fs::read_to_string(&file).map_err(|source| CgroupError::Read { path: file.clone(), source })?;
        self.cgroup(|hierarchy| hierarchy.of_process(&text))
    }

    fn cgroup(&self, directory: impl Fn(&Hierarchy) -> Option<PathBuf>) -> Result<Cgroup, CgroupError> {
        let none = || CgroupError::NoFreezer { mount: MOUNT.into() };
        let Some(freezer) = self.freezer() else {
            let dir = self.v2.as_ref().and_then(directory).ok_or_else(none)?;
            return Ok(Cgroup::V2 { dir });
        };
        let freezer = directory(freezer).ok_or_else(none)?;
        let others = self.v1.iter().chain(&self.v2).filter_map(&directory).filter(|path| *path != freezer);
        Ok(Cgroup::V1 { others: others.collect(), freezer })
    }
}

impl Hierarchy {
    /// The directory that belongs to the line of this hierarchy in `/proc/PID/cgroup`.
    fn of_process(&self, text: &str) -> Option<PathBuf> {
        let mut lines = text.lines().filter_map(|line| {
            let mut fields = line.splitn(3, ':').skip(1);
            Some((fields.next()?, fields.next()?))
        });
        let (_, path) = lines.find(|(controllers, _)| match self.controllers.first() {
            Some(first) => controllers.split(',').any(|name| name == first),
            None => controllers.is_empty(),
        })?;
        Path::new(path).strip_prefix(&self.root).ok().map(|inner| self.mount.join(inner))
    }
}

/// The hierarchy that a line of mountinfo shows, if it shows one.
fn hierarchy(line: &str) -> Option<Hierarchy> {
    let (mount, filesystem) = line.split_once(" - ")?;
    let mut fields = mount.split(' ').skip(3);
    let (root, mount) = (fields.next()?, fields.next()?);
    let mut fields = filesystem.split(' ');
    let kind = fields.next()?;
    let controllers = match kind {
        "cgroup2" => Vec::new(),
        "cgroup" => fields
            .nth(1)?
            .split(',')
            .filter(|word| *word != "rw" && *word != "ro")
            .map(str::to_owned)
            .collect(),
        _ => return None,
    };
    // An entry of version 1 always names something; one that does not must not pass for version 2.
    if kind == "cgroup" && controllers.is_empty() {
        return None;
    }
    Some(Hierarchy { controllers, mount: mount.into(), root: root.into() })
}

fn join(mount: &Path, path: &Path) -> PathBuf {
    mount.join(path.strip_prefix("/").unwrap_or(path))
}

#[cfg(test)]
mod tests {
    use super::*;

    const HYBRID: &str = "\
24 1 0:21 / /sys rw - sysfs sysfs rw
30 24 0:26 / /sys/fs/cgroup rw - tmpfs tmpfs rw,mode=755
31 30 0:27 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct
32 30 0:28 / /sys/fs/cgroup/freezer rw shared:9 - cgroup cgroup rw,freezer
33 30 0:29 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,xattr,name=systemd
34 30 0:30 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw
35 1 0:27 / /mnt/elsewhere rw - cgroup cgroup rw,cpu,cpuacct";
    const V2: &str = "30 24 0:26 /docker/1 /sys/fs/cgroup rw,relatime - cgroup2 cgroup rw,nsdelegate";

    #[test]
    fn a_hybrid_host_freezes_in_version_1() {
        let hierarchies = Hierarchies::parse(HYBRID, false).unwrap();
        assert_eq!(hierarchies.layout(), Layout::Hybrid);
        let Cgroup::V1 { freezer, others } = hierarchies.container(Path::new("/ums/web")).unwrap() else {
            panic!("version 1 expected");
        };
        assert_eq!(freezer, Path::new("/sys/fs/cgroup/freezer/ums/web"));
        let expected =
            ["cpu,cpuacct", "systemd", "unified"].map(|name| format!("/sys/fs/cgroup/{name}/ums/web"));
        assert_eq!(others, expected.map(PathBuf::from));
    }

    #[test]
    fn the_cgroup_of_a_process_is_found_below_the_root_of_the_mount() {
        let hierarchies = Hierarchies::parse(V2, true).unwrap();
        assert_eq!(hierarchies.layout(), Layout::V2);
        let found = hierarchies.v2.as_ref().unwrap().of_process("0::/docker/1/ums/web\n");
        assert_eq!(found.unwrap(), Path::new("/sys/fs/cgroup/ums/web"));
        // Outside of what is mounted: it has no directory here.
        assert_eq!(hierarchies.v2.as_ref().unwrap().of_process("0::/docker/2\n"), None);
    }

    #[test]
    fn without_a_freezer_there_is_nothing_to_use() {
        let without: Vec<_> = HYBRID.lines().filter(|line| !line.contains("freezer")).collect();
        assert!(Hierarchies::parse(&without.join("\n"), false).is_none());
        assert!(Hierarchies::parse("", true).is_none());
    }
}
