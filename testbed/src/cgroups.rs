//! The product's cgroups, version 1 and 2: thawed so that their tasks can die, removed when they are empty.

use std::collections::BTreeSet;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

/// A site of the product keeps its services in a cgroup whose name begins with this.
const SITE_PREFIX: &str = "ums-";

/// How long a cgroup may stay busy after its last process was killed.
const PATIENCE: Duration = Duration::from_secs(10);

/// Where the cgroup hierarchies are mounted.
#[derive(Debug)]
pub(crate) struct Cgroups {
    /// Controllers (empty for version 2) and mount point.
    hierarchies: Vec<(Vec<String>, PathBuf)>,
}

/// A directory in one hierarchy, at or below a site's cgroup.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct ServiceCgroup {
    path: PathBuf,
    /// The site's own directory, removed as well when nothing is left in it.
    site: PathBuf,
}

impl Cgroups {
    /// The hierarchies this process sees.
    pub(crate) fn mounted() -> Result<Self> {
        let mounts = fs::read_to_string("/proc/self/mountinfo").context("cannot read the mount table")?;
        Ok(Self { hierarchies: mounts.lines().filter_map(hierarchy).collect() })
    }

    /// Where `pid` lives, in every hierarchy in which that is a cgroup of a site. Empty if it is gone.
    pub(crate) fn of_service_process(&self, pid: i32) -> BTreeSet<ServiceCgroup> {
        let Ok(lines) = fs::read_to_string(format!("/proc/{pid}/cgroup")) else { return BTreeSet::new() };
        lines.lines().filter_map(|line| self.locate(line)).collect()
    }

    /// Every cgroup of the site whose directory has this name, deepest first.
    pub(crate) fn of_site(&self, name: &str) -> Vec<ServiceCgroup> {
        let tops = self.hierarchies.iter().flat_map(|(_, mount)| find(mount, name, 3));
        tops.flat_map(|site| {
            below(&site).into_iter().map(move |path| ServiceCgroup { path, site: site.clone() })
        })
        .collect()
    }

    fn locate(&self, line: &str) -> Option<ServiceCgroup> {
        let mut fields = line.splitn(3, ':').skip(1);
        let (controllers, path) = (fields.next()?, fields.next()?);
        let controllers: Vec<&str> = controllers.split(',').filter(|name| !name.is_empty()).collect();
        let (_, mount) = self.hierarchies.iter().find(|(have, _)| match controllers.first() {
            Some(first) => have.iter().any(|name| name == first),
            None => have.is_empty(),
        })?;
        let mut site = mount.clone();
        for part in Path::new(path).components().skip(1) {
            site.push(part);
            if part.as_os_str().to_string_lossy().starts_with(SITE_PREFIX) {
                return Some(ServiceCgroup { path: mount.join(path.trim_start_matches('/')), site });
            }
        }
        None
    }
}

impl ServiceCgroup {
    /// Thaws it and everything above it up to the site's cgroup.
    pub(crate) fn thaw(&self) {
        for path in self.path.ancestors().take_while(|path| path.starts_with(&self.site)) {
            // A directory has one of the two files, or none in hierarchies without a freezer.
            for (file, word) in [("freezer.state", "THAWED"), ("cgroup.freeze", "0")] {
                let file = path.join(file);
                if file.exists() {
                    let _ = fs::write(file, word);
                }
            }
        }
    }

    /// Removes what is below it, itself, and the directories above it up to the site's, as far as they are empty
    /// of processes.
    pub(crate) fn remove(&self) {
        for path in below(&self.path) {
            remove_directory(&path);
        }
        let above = self.path.ancestors().skip(1).take_while(|path| path.starts_with(&self.site));
        for path in above {
            if fs::remove_dir(path).is_err() && path.exists() {
                return;
            }
        }
    }
}

/// Waits a while for the dead: they stay in their cgroup, unlisted, until their memory is freed.
fn remove_directory(path: &Path) {
    let deadline = Instant::now() + PATIENCE;
    while fs::remove_dir(path).is_err_and(|error| error.kind() == ErrorKind::ResourceBusy)
        && Instant::now() < deadline
    {
        thread::sleep(Duration::from_millis(5));
    }
}

/// `path` and all directories below it, deepest first.
fn below(path: &Path) -> Vec<PathBuf> {
    let mut list: Vec<PathBuf> = directories(path).iter().flat_map(|child| below(child)).collect();
    list.push(path.to_owned());
    list
}

/// Directories called `name` at most `depth` levels below `top`.
fn find(top: &Path, name: &str, depth: usize) -> Vec<PathBuf> {
    let children = directories(top);
    let (hits, others): (Vec<_>, Vec<_>) = children.into_iter().partition(|path| path.ends_with(name));
    let deeper = others.into_iter().filter(|_| depth > 1).flat_map(|path| find(&path, name, depth - 1));
    hits.into_iter().chain(deeper).collect()
}

fn directories(path: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(path) else { return Vec::new() };
    entries
        .filter_map(Result::ok)
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
        .map(|entry| entry.path())
        .collect()
}

fn hierarchy(line: &str) -> Option<(Vec<String>, PathBuf)> {
    let (mount, superblock) = line.split_once(" - ")?;
    let point = PathBuf::from(mount.split(' ').nth(4)?);
    let mut fields = superblock.split(' ');
    match fields.next()? {
        "cgroup2" => Some((Vec::new(), point)),
        "cgroup" => {
            let options = fields.nth(1)?;
            Some((options.split(',').map(str::to_owned).collect(), point))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hybrid() -> Cgroups {
        let lines = [
            "30 25 0:26 / /sys/fs/cgroup/freezer rw,relatime - cgroup cgroup rw,freezer",
            "31 25 0:27 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw",
            "32 25 0:28 / /tmp rw - tmpfs tmpfs rw",
        ];
        Cgroups { hierarchies: lines.into_iter().filter_map(hierarchy).collect() }
    }

    #[test]
    fn both_versions_are_located() {
        let cgroups = hybrid();
        let v1 = cgroups.locate("6:freezer:/outer/ums-0a1b2c3d/web").unwrap();
        assert_eq!(v1.path, Path::new("/sys/fs/cgroup/freezer/outer/ums-0a1b2c3d/web"));
        assert_eq!(v1.site, Path::new("/sys/fs/cgroup/freezer/outer/ums-0a1b2c3d"));
        let v2 = cgroups.locate("0::/ums-0a1b2c3d/web").unwrap();
        assert_eq!(v2.path, Path::new("/sys/fs/cgroup/unified/ums-0a1b2c3d/web"));
    }

    #[test]
    fn cgroups_of_others_are_left_alone() {
        assert_eq!(hybrid().locate("6:freezer:/system.slice/ssh"), None);
        assert_eq!(hybrid().locate("0::/"), None);
    }
}
