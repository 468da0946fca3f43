//! Memory that a new service could get.

use std::fs;
use std::path::{Component, Path, PathBuf};

use ums_model::names::Bytes;

use crate::facts::FactsError;

const MEMINFO: &str = "/proc/meminfo";
const CGROUP: &str = "/proc/self/cgroup";
const MOUNT: &str = "/sys/fs/cgroup";

/// The machine's available memory, or less if a cgroup that this process is in has less.
pub(super) fn available() -> Result<Bytes, FactsError> {
    let meminfo = fs::read_to_string(MEMINFO).map_err(FactsError::read(MEMINFO))?;
    let machine = mem_available(&meminfo)
        .ok_or_else(|| FactsError::Unclear { path: MEMINFO.into(), what: "the available memory" })?;
    let cgroup = fs::read_to_string(CGROUP).map_err(FactsError::read(CGROUP))?;
    let limits = Unit::of(&cgroup).and_then(|unit| unit.room(Path::new(MOUNT)));
    Ok(Bytes(limits.map_or(machine, |room| room.min(machine))))
}

fn mem_available(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kib.checked_mul(1024)
}

/// The cgroup that accounts this process's memory.
#[derive(Debug, PartialEq, Eq)]
struct Unit {
    version: Version,
    path: PathBuf,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Version {
    V1,
    V2,
}

impl Version {
    /// Files with the limit, the use, and the name of the part of it that can be given back at once.
    fn files(self) -> (&'static str, &'static str, &'static str) {
        match self {
            Self::V1 => ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
            Self::V2 => ("memory.max", "memory.current", "inactive_file"),
        }
    }
}

impl Unit {
    /// Reads `/proc/PID/cgroup`. The memory controller is in version 1 if a line there names it.
    fn of(cgroup: &str) -> Option<Self> {
        let lines = || cgroup.lines().filter_map(|line| line.split_once(':')?.1.split_once(':'));
        let v1 = lines().find(|(controllers, _)| controllers.split(',').any(|one| one == "memory"));
        let v2 = lines().find(|(controllers, _)| controllers.is_empty());
        match (v1, v2) {
            (Some((_, path)), _) => Some(Self { version: Version::V1, path: path.into() }),
            (None, Some((_, path))) => Some(Self { version: Version::V2, path: path.into() }),
            (None, None) => None,
        }
    }

    /// The least room in it and in those above it; `None` if none is limited.
    fn room(&self, mount: &Path) -> Option<u64> {
        let mount = match self.version {
            Version::V1 => mount.join("memory"),
            Version::V2 => mount.to_owned(),
        };
        // A path that leaves our cgroup namespace names nothing below the mount.
        let inside = self.path.components().all(|part| part != Component::ParentDir);
        let relative = self.path.strip_prefix("/").ok().filter(|_| inside).unwrap_or(Path::new(""));
        relative.ancestors().filter_map(|part| self.room_in(&mount.join(part))).min()
    }

    fn room_in(&self, directory: &Path) -> Option<u64> {
        let (limit, usage, inactive) = self.version.files();
        let number = |file: &str| fs::read_to_string(directory.join(file)).ok()?.trim().parse::<u64>().ok();
        // Version 2 says `max` where there is no limit; version 1 a number that no machine has, which the minimum
        // with the machine's own memory makes harmless.
        let limit = number(limit)?;
        let usage = number(usage)?;
        let stat = fs::read_to_string(directory.join("memory.stat")).unwrap_or_default();
        let reclaimable = stat
            .lines()
            .filter_map(|line| line.split_once(' '))
            .find_map(|(key, value)| (key == inactive).then(|| value.trim().parse::<u64>().ok())?)
            .unwrap_or(0);
        Some(limit.saturating_sub(usage.saturating_sub(reclaimable)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_memory_controller_may_be_in_either_version() {
        let hybrid = "5:devices:/\n4:cpu,memory:/outer/inner\n0::/elsewhere\n";
        assert_eq!(Unit::of(hybrid), Some(Unit { version: Version::V1, path: "/outer/inner".into() }));
        assert_eq!(Unit::of("0::/a\n"), Some(Unit { version: Version::V2, path: "/a".into() }));
        assert_eq!(Unit::of("1:name=systemd:/\n"), None);
    }

    #[test]
    fn the_narrowest_cgroup_counts() {
        let folder = tempfile::tempdir().unwrap();
        let write = |path: &str, text: &str| {
            let path = folder.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        let unit = Unit { version: Version::V2, path: "/a/b".into() };
        assert_eq!(unit.room(folder.path()), None);
        write("a/b/memory.max", "max\n");
        write("a/b/memory.current", "5\n");
        assert_eq!(unit.room(folder.path()), None);
        write("a/memory.max", "1000\n");
        write("a/memory.current", "700\n");
        assert_eq!(unit.room(folder.path()), Some(300));
        write("a/memory.stat", "anon 10\ninactive_file 200\nactive_file 7\n");
        assert_eq!(unit.room(folder.path()), Some(500));
        write("a/b/memory.max", "100\n");
        assert_eq!(unit.room(folder.path()), Some(95));
        let outside = Unit { version: Version::V2, path: "/../a".into() };
        assert_eq!(outside.room(folder.path()), None);
    }

    #[test]
    fn available_memory_is_read_in_kib() {
        assert_eq!(mem_available("MemTotal: 8 kB\nMemAvailable:     5 kB\n"), Some(5120));
        assert_eq!(mem_available("MemTotal: 8 kB\n"), None);
    }
}
