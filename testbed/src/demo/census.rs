//! How many copies of the service exist, and whether anything stays behind; asked of the kernel, not of the product.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

use crate::lab::Lab;
use crate::service::Service;
use crate::tag::Tag;
use crate::{cgroups::Cgroups, processes};

/// Name of the program whose copies are counted.
const PROGRAM: &str = "redis-server";

/// The one copy, and what must be gone when the lab is.
#[derive(Debug)]
pub(super) struct Census {
    tag: Tag,
    /// Pid namespace of the one copy; `None` if it has none of its own.
    place: Option<PathBuf>,
    cgroups: Vec<String>,
}

impl Census {
    /// Counts at the end of the journey.
    ///
    /// On `Ok` exactly one process of Redis exists, the one that the service's site names, and no other site lists
    /// the service as running.
    pub(super) fn take(lab: &Lab, service: &Service<'_>) -> Result<Self> {
        let site = service.site();
        let pid = site.service_pid(service.name())?;
        let tag = lab.net().tag().clone();
        let copies = copies(&tag)?;
        ensure!(
            copies == [pid],
            "exactly one copy was to run, process {pid} at site {}; there are {copies:?}",
            site.name()
        );
        let place = namespace(pid)?;
        let own = namespace(std::process::id().cast_signed())?;
        let cgroups = lab.sites().iter().filter_map(|site| {
            let file = tag.directory().join(site.name()).join(crate::sweep::CGROUP_NAME_FILE);
            fs::read_to_string(file).ok().map(|name| name.trim().to_owned())
        });
        Ok(Self { cgroups: cgroups.collect(), place: Some(place).filter(|place| *place != own), tag })
    }

    /// To be asked when the lab is gone.
    ///
    /// On `Ok` no process, network namespace, cgroup, mount or directory of it exists any more.
    pub(super) fn nothing_left(&self) -> Result<()> {
        let left: Vec<i32> = copies(&self.tag)?;
        ensure!(left.is_empty(), "copies of Redis are left: {left:?}");
        let all = processes::all()?;
        let in_place = |pid: &i32| self.place.is_some() && namespace(*pid).ok() == self.place;
        let left: Vec<i32> = all.iter().map(|process| process.pid).filter(in_place).collect();
        ensure!(left.is_empty(), "processes of the service are left: {left:?}");
        let marked = |pid: &i32| processes::mark(*pid).as_deref() == Some(self.tag.as_str());
        let left: Vec<i32> = all.iter().map(|process| process.pid).filter(marked).collect();
        ensure!(left.is_empty(), "processes are left: {left:?}");
        let names = fs::read_dir("/run/netns").into_iter().flatten().flatten();
        let names = names.filter_map(|entry| entry.file_name().into_string().ok());
        let left: Vec<String> =
            names.filter(|name| crate::tag::of(name) == Some(self.tag.as_str())).collect();
        ensure!(left.is_empty(), "network namespaces are left: {}", left.join(", "));
        let hierarchies = Cgroups::mounted()?;
        for name in &self.cgroups {
            ensure!(hierarchies.of_site(name).is_empty(), "a cgroup {name} is left");
        }
        let directory = self.tag.directory();
        ensure!(!directory.exists(), "{} is left", directory.display());
        let mounts = fs::read_to_string("/proc/self/mountinfo").context("cannot read the mount table")?;
        let inside = |line: &&str| {
            line.split(' ').nth(4).is_some_and(|point| Path::new(point).starts_with(&directory))
        };
        ensure!(mounts.lines().find(inside).is_none(), "a mount below {} is left", directory.display());
        Ok(())
    }
}

/// Pids of all processes of Redis that this lab's keepers or daemons brought into being.
fn copies(tag: &Tag) -> Result<Vec<i32>> {
    let all = processes::all()?;
    let is_copy = |pid: i32| {
        fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|name| name.trim_end() == PROGRAM)
            && descends(&all, pid, tag)
    };
    Ok(all.iter().map(|process| process.pid).filter(|pid| is_copy(*pid)).collect())
}

/// Whether a process or one above it carries the lab's mark.
fn descends(all: &[processes::Process], mut pid: i32, tag: &Tag) -> bool {
    for _ in 0..all.len() {
        if processes::mark(pid).as_deref() == Some(tag.as_str()) {
            return true;
        }
        match all.iter().find(|process| process.pid == pid) {
            Some(process) if process.parent > 1 => pid = process.parent,
            _ => return false,
        }
    }
    false
}

fn namespace(pid: i32) -> Result<PathBuf> {
    fs::read_link(format!("/proc/{pid}/ns/pid")).with_context(|| format!("cannot look at process {pid}"))
}
