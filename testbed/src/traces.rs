//! What is there because of services: nothing of it may be left when they are removed.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

use crate::lab::Lab;
use crate::site::Site;

/// What the kernel removes itself, and what a killed daemon left to its successor, takes a while on a busy machine.
const PATIENCE: Duration = Duration::from_secs(120);
/// Between two looks.
const POLL: Duration = Duration::from_millis(20);

/// Everything that the services of all sites of a lab have caused, one line each.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Traces(BTreeSet<String>);

impl Traces {
    /// What is there now.
    pub fn of(lab: &Lab) -> Result<Self> {
        let mut lines = BTreeSet::new();
        for site in lab.sites() {
            lines.append(&mut Self::of_site(lab, site)?.0);
        }
        Ok(Self(lines))
    }

    /// [`Traces::of`] one site of the lab.
    pub fn of_site(lab: &Lab, site: &Site) -> Result<Self> {
        let mut lines = BTreeSet::new();
        {
            let mut add = |kind: &str, what: &str| {
                lines.insert(format!("site {site} {kind} {what}", site = site.name()));
            };
            for name in names(&site.state().join("services")) {
                add("directory", &name);
            }
            let ns = lab.net().site(site.index());
            for line in ns.command("ip", &["-oneline", "link"], "")?.lines() {
                // Number, name and flags; the rest are counters and addresses.
                add("interface", line.split_whitespace().nth(1).unwrap_or(line));
            }
            for line in ns.command("nft", &["list", "tables"], "")?.lines() {
                add("nft", line);
            }
            let cgroup = site.cgroup()?;
            cgroups(&cgroup).iter().for_each(|path| add("cgroup", path));
            processes(site, &cgroup).iter().for_each(|line| add("process", line));
        }
        let directory = format!("{}/", lab.net().tag().directory().join(site.name()).display());
        let mounts = fs::read_to_string("/proc/self/mountinfo")?;
        // Root and mount point; the numbers before them change when a disk is mounted again.
        let mounts = mounts.lines().map(|line| line.split(' ').skip(3).take(2).collect::<Vec<_>>().join(" "));
        lines.extend(mounts.filter(|line| line.contains(&directory)).map(|line| format!("mount {line}")));
        Ok(Self(lines))
    }

    /// Waits until at one site nothing is there but what was there `before`.
    pub fn wait_for_site(lab: &Lab, site: &Site, before: &Self) -> Result<()> {
        Self::wait(|| Self::of_site(lab, site), before)
    }

    /// Waits until nothing is there but what was there `before`: what the kernel removes itself takes a moment.
    pub fn wait_for(lab: &Lab, before: &Self) -> Result<()> {
        Self::wait(|| Self::of(lab), before)
    }

    fn wait(look: impl Fn() -> Result<Self>, before: &Self) -> Result<()> {
        let end = Instant::now() + PATIENCE;
        loop {
            let now = look()?;
            if now == *before {
                return Ok(());
            }
            if Instant::now() >= end {
                let left: Vec<_> = now.0.difference(&before.0).collect();
                let missing: Vec<_> = before.0.difference(&now.0).collect();
                bail!("left behind: {left:#?}; gone that was there before: {missing:#?}");
            }
            thread::sleep(POLL);
        }
    }
}

/// The cgroups of a site's services, in all hierarchies.
fn cgroups(name: &str) -> Vec<String> {
    let root = Path::new("/sys/fs/cgroup");
    let hierarchies = names(root).into_iter().map(|name| root.join(name)).chain([root.to_owned()]);
    let sites = hierarchies.map(|hierarchy| hierarchy.join(name));
    sites.flat_map(|site| directories(&site)).collect()
}

fn processes(site: &Site, cgroup: &str) -> Vec<String> {
    let state = site.state().display().to_string();
    let describe = |pid: String| {
        let directory = Path::new("/proc").join(&pid);
        let command = fs::read(directory.join("cmdline")).unwrap_or_default();
        let command = String::from_utf8_lossy(&command).replace('\0', " ");
        let cgroups = fs::read_to_string(directory.join("cgroup")).unwrap_or_default();
        // Neither the daemon nor a client of it is a trace of a service.
        let is_ours =
            command.contains(&state) && !command.contains(" site --name ") && !command.contains("--socket");
        (is_ours || cgroups.contains(cgroup)).then(|| format!("{pid} {command}"))
    };
    names(Path::new("/proc"))
        .into_iter()
        .filter(|name| name.parse::<u32>().is_ok())
        .filter_map(describe)
        .collect()
}

fn directories(path: &Path) -> Vec<String> {
    let inside = names(path).into_iter().map(|name| path.join(name)).filter(|path| path.is_dir());
    inside.map(|path| path.display().to_string()).collect()
}

fn names(directory: &Path) -> Vec<String> {
    let Ok(entries) = fs::read_dir(directory) else { return Vec::new() };
    entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok()).collect()
}
