//! Removing what tests leave: at the end of each, and what killed runs left at the beginning of the next.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, anyhow};
use rustix::mount::{UnmountFlags, unmount};

use crate::cgroups::{Cgroups, ServiceCgroup};
use crate::command::{SETUP_DEADLINE, succeed};
use crate::{processes, tag};

/// File in a site's directory below the tag's: the name of the site's cgroup, written as soon as it is known.
pub(crate) const CGROUP_NAME_FILE: &str = "cgroup-name";

/// Held while leftovers are swept; in the temporary directory. Its name has no pid, so it is nobody's leftover.
const LOCK: &str = "umst-sweep.lock";
const NAMESPACES: &str = "/run/netns";

/// Removes everything tagged by test processes that no longer exist. What belongs to a live one is not touched.
/// Safe to repeat; several processes that sweep do it one after the other.
pub fn leftovers() -> Result<()> {
    let path = std::env::temp_dir().join(LOCK);
    let lock = File::options().create(true).append(true).open(&path);
    let lock = lock.with_context(|| format!("cannot create {}", path.display()))?;
    lock.lock().context("cannot wait for another sweep")?;
    for tag in tags()?.iter().filter(|tag| tag::is_leftover(tag)) {
        remove(tag)?;
    }
    Ok(())
}

/// Removes everything tagged with `tag`: processes, cgroups, mounts, network namespaces, the temporary directory.
/// Goes on after a failure; the error lists all of them. Safe to repeat.
pub fn remove(tag: &str) -> Result<()> {
    let directory = std::env::temp_dir().join(tag);
    // Processes first: they hold everything else.
    let steps = [
        processes::end(tag, &keepers(&directory)).context("cannot end its processes"),
        remove_cgroups(&directory).context("cannot remove its cgroups"),
        remove_mounts(&directory).context("cannot unmount"),
        remove_namespaces(tag).context("cannot remove its network namespaces"),
        crate::matrix::memory::remove(tag),
        remove_directory(&directory),
    ];
    let errors: Vec<String> =
        steps.into_iter().filter_map(Result::err).map(|error| format!("{error:#}")).collect();
    if errors.is_empty() {
        return Ok(());
    }
    Err(anyhow!("cannot remove everything of {tag}: {}", errors.join("; ")))
}

/// Every tag that something on this machine carries.
fn tags() -> Result<BTreeSet<String>> {
    let mut names: Vec<String> = names_in(Path::new(NAMESPACES));
    names.extend(names_in(&std::env::temp_dir()));
    names.extend(processes::all()?.iter().filter_map(|process| processes::mark(process.pid)));
    Ok(names.iter().filter_map(|name| tag::of(name)).map(str::to_owned).collect())
}

/// The keepers of services in a lab's directory. They carry its mark as well, unless the product one day gives them an
/// environment of their own; a pid is believed only if it is a `ums` process still.
fn keepers(directory: &Path) -> Vec<i32> {
    let sites = names_in(directory).into_iter().map(|site| directory.join(site).join("state/services"));
    let services = sites.flat_map(|path| names_in(&path).into_iter().map(move |name| path.join(name)));
    let pid = |service: PathBuf| {
        let text = fs::read_to_string(service.join("keeper.json")).ok()?;
        let pid = serde_json::from_str::<serde_json::Value>(&text).ok()?["pid"].as_i64()?;
        let program = fs::read_link(format!("/proc/{pid}/exe")).ok()?;
        program.file_name()?.to_str()?.starts_with("ums").then(|| i32::try_from(pid).ok())?
    };
    services.filter_map(pid).collect()
}

fn remove_cgroups(directory: &Path) -> Result<()> {
    let files = names_in(directory).into_iter().map(|site| directory.join(site).join(CGROUP_NAME_FILE));
    let names: Vec<String> = files.filter_map(|file| fs::read_to_string(file).ok()).collect();
    if names.is_empty() {
        return Ok(());
    }
    let cgroups = Cgroups::mounted()?;
    names
        .iter()
        .flat_map(|name| cgroups.of_site(name.trim()))
        .for_each(|cgroup| ServiceCgroup::remove(&cgroup));
    Ok(())
}

fn remove_mounts(directory: &Path) -> Result<()> {
    let table = fs::read_to_string("/proc/self/mountinfo").context("cannot read the mount table")?;
    let points = table.lines().filter_map(|line| line.split(' ').nth(4)).map(PathBuf::from);
    // Last mounted, first unmounted.
    let mut points: Vec<PathBuf> = points.filter(|point| point.starts_with(directory)).collect();
    points.reverse();
    for point in points {
        match unmount(&point, UnmountFlags::DETACH) {
            Ok(()) | Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOENT) => {}
            Err(error) => return Err(error).with_context(|| point.display().to_string()),
        }
    }
    Ok(())
}

fn remove_namespaces(tag: &str) -> Result<()> {
    for name in names_in(Path::new(NAMESPACES)).iter().filter(|name| tag::of(name) == Some(tag)) {
        let mut command = Command::new("ip");
        command.args(["netns", "delete", name]);
        let outcome = succeed(command, "", SETUP_DEADLINE);
        // Two runs may sweep the same leftover; what counts is that it is gone.
        if Path::new(NAMESPACES).join(name).exists() {
            outcome?;
        }
    }
    Ok(())
}

fn remove_directory(directory: &Path) -> Result<()> {
    match fs::remove_dir_all(directory) {
        Err(error) if directory.exists() => {
            Err(error).with_context(|| format!("cannot remove {}", directory.display()))
        }
        _ => Ok(()),
    }
}

fn names_in(directory: &Path) -> Vec<String> {
    let Ok(entries) = fs::read_dir(directory) else { return Vec::new() };
    entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok()).collect()
}
