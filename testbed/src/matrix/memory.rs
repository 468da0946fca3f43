//! A host without memory: the processes of one site in a cgroup with a limit that leaves them none.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::net::{A, B};
use crate::patience::within;
use crate::processes;
use crate::site::Site;
use crate::tag::Tag;

/// Version 1's memory controller, and version 2.
const V1: &str = "/sys/fs/cgroup/memory";
const V2: &str = "/sys/fs/cgroup";
/// What is left to a site that has no memory: nothing that a restore could do anything with.
const LIMIT: &str = "4194304";
/// How long the dead may stay in a cgroup.
const EMPTY: Duration = Duration::from_secs(10);

/// Takes the memory away from everything that runs at `site` now or is started there from now on. Safe to repeat.
pub(crate) fn take(tag: &Tag, site: &Site) -> Result<()> {
    if !Path::new(V1).join("memory.limit_in_bytes").exists() && !Path::new(V1).join("cgroup.procs").exists() {
        let limit = Path::new(V2).join(site.cgroup()?).join("memory.max");
        return fs::write(&limit, LIMIT).with_context(|| format!("cannot write {}", limit.display()));
    }
    let group = group(tag.as_str(), site.name());
    fs::create_dir_all(&group).with_context(|| format!("cannot create {}", group.display()))?;
    let state = site.state().display().to_string();
    let mut moved = 0;
    for process in processes::all()? {
        if processes::is_of_site(process.pid, &state) || Some(process.pid) == site.daemon_pid() {
            // Who has ended meanwhile needs no memory.
            moved += u32::from(fs::write(group.join("cgroup.procs"), process.pid.to_string()).is_ok());
        }
    }
    ensure!(moved > 0, "nothing runs at site {}", site.name());
    // What they had is not counted; only what they ask for from now on is.
    fs::write(group.join("memory.limit_in_bytes"), LIMIT).context("cannot limit memory")
}

/// Gives it back. Safe to repeat.
pub(crate) fn give(tag: &Tag, site: &Site) -> Result<()> {
    let group = group(tag.as_str(), site.name());
    if group.exists() {
        return fs::write(group.join("memory.limit_in_bytes"), "-1").context("cannot lift a limit");
    }
    match fs::write(Path::new(V2).join(site.cgroup()?).join("memory.max"), "max") {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error).context("cannot lift a limit"),
        _ => Ok(()),
    }
}

/// Removes what was made for a tag whose processes have ended. Safe to repeat.
pub(crate) fn remove(tag: &str) -> Result<()> {
    [A, B].into_iter().try_for_each(|site| {
        let group = group(tag, site.name());
        within(EMPTY, &format!("an empty {}", group.display()), || match fs::remove_dir(&group) {
            Ok(()) => Ok(Some(())),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(Some(())),
            Err(error) if error.kind() == ErrorKind::ResourceBusy => Ok(None),
            Err(error) => Err(error).with_context(|| format!("cannot remove {}", group.display())),
        })
    })
}

fn group(tag: &str, site: &str) -> PathBuf {
    Path::new(V1).join(format!("{tag}-{site}-memory"))
}
