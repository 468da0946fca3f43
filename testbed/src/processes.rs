//! Ending everything a test started, also what is frozen, what was orphaned, and what hides in a pid namespace.
//!
//! A migrated service does not carry the environment of the daemon that restored it, and a task in a frozen
//! version 1 cgroup does not die of SIGKILL. So the members are found by mark, by parenthood and by pid namespace,
//! and their cgroups are thawed before the kill.

use std::collections::{BTreeSet, HashMap};
use std::fs;
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use crate::cgroups::{Cgroups, ServiceCgroup};
use crate::tag::MARKER;

/// Killing takes milliseconds per process; a restore that is being torn down may take a few seconds.
const DEADLINE: Duration = Duration::from_secs(20);
const POLL: Duration = Duration::from_millis(10);

/// One live process, as /proc/PID/stat tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Process {
    pub(crate) pid: i32,
    pub(crate) parent: i32,
    /// Clock ticks since boot; tells two processes with the same pid apart.
    started: u64,
}

/// Every process that is not a zombie.
pub(crate) fn all() -> Result<Vec<Process>> {
    let entries = fs::read_dir("/proc").context("cannot list processes")?;
    let pids = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<i32>().ok());
    Ok(pids.filter_map(read).collect())
}

/// The tag in a process's environment, if a test started it.
pub(crate) fn mark(pid: i32) -> Option<String> {
    let environment = fs::read(format!("/proc/{pid}/environ")).ok()?;
    let mut variables = environment.split(|byte| *byte == 0);
    let value = variables.find_map(|variable| {
        variable.strip_prefix(MARKER.as_bytes()).and_then(|rest| rest.strip_prefix(b"="))
    })?;
    String::from_utf8(value.to_vec()).ok()
}

/// Ends every process marked with `tag`, every process below `roots`, and all that came from either; then removes
/// the product's cgroups they lived in. Safe to repeat.
///
/// On `Err` some of them are still alive; the error names them.
pub(crate) fn end(tag: &str, roots: &[i32]) -> Result<()> {
    let cgroups = Cgroups::mounted()?;
    let own_namespace = pid_namespace(std::process::id().cast_signed());
    let mut namespaces = BTreeSet::new();
    let mut left: BTreeSet<ServiceCgroup> = BTreeSet::new();
    let end = Instant::now() + DEADLINE;
    loop {
        let members = members(&all()?, tag, roots, &namespaces);
        if members.is_empty() {
            break;
        }
        for process in &members {
            namespaces.extend(pid_namespace(process.pid).filter(|ns| Some(ns) != own_namespace.as_ref()));
            left.extend(cgroups.of_service_process(process.pid));
        }
        left.iter().for_each(ServiceCgroup::thaw);
        members.iter().for_each(kill);
        if Instant::now() >= end {
            bail!("processes of {tag} survived SIGKILL for {DEADLINE:?}: {}", names(&members));
        }
        thread::sleep(POLL);
    }
    left.iter().for_each(ServiceCgroup::remove);
    Ok(())
}

/// Ends every process for which `is_root` and all below them at the same moment, as a power failure does: also what is
/// frozen runs no further. Safe to repeat.
///
/// On `Err` some of them are still alive; the error names them.
pub(crate) fn power_off(is_root: &dyn Fn(i32) -> bool) -> Result<()> {
    let cgroups = Cgroups::mounted()?;
    let own_namespace = pid_namespace(std::process::id().cast_signed());
    let mut namespaces = BTreeSet::new();
    let mut left: BTreeSet<ServiceCgroup> = BTreeSet::new();
    let end = Instant::now() + DEADLINE;
    loop {
        let all = all()?;
        let roots: Vec<i32> = all.iter().map(|process| process.pid).filter(|pid| is_root(*pid)).collect();
        let members = members(&all, "", &roots, &namespaces);
        if members.is_empty() {
            break;
        }
        // First all of them, then the thaw: whoever is frozen finds the signal before it runs on.
        members.iter().for_each(kill);
        for process in &members {
            namespaces.extend(pid_namespace(process.pid).filter(|ns| Some(ns) != own_namespace.as_ref()));
            left.extend(cgroups.of_service_process(process.pid));
        }
        left.iter().for_each(ServiceCgroup::thaw);
        if Instant::now() >= end {
            bail!("processes survived a power failure for {DEADLINE:?}: {}", names(&members));
        }
        thread::sleep(POLL);
    }
    left.iter().for_each(ServiceCgroup::remove);
    Ok(())
}

/// Whether a process was started by the daemon of the site with this state directory, or by its nests; clients of the
/// daemon are not.
pub(crate) fn is_of_site(pid: i32, state: &str) -> bool {
    let command = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let command = String::from_utf8_lossy(&command);
    let is_one = |word: &str| command.split('\0').any(|part| part == word);
    command.contains(state) && !is_one("--socket") && !is_one("site")
}

fn members(all: &[Process], tag: &str, roots: &[i32], namespaces: &BTreeSet<PathBuf>) -> Vec<Process> {
    let own = std::process::id().cast_signed();
    let parents: HashMap<i32, i32> = all.iter().map(|process| (process.pid, process.parent)).collect();
    let is_root = |pid: i32| {
        roots.contains(&pid)
            || mark(pid).as_deref() == Some(tag)
            || (!namespaces.is_empty() && pid_namespace(pid).is_some_and(|ns| namespaces.contains(&ns)))
    };
    let rooted: BTreeSet<i32> = all
        .iter()
        .map(|process| process.pid)
        .filter(|pid| *pid > 1 && *pid != own && is_root(*pid))
        .collect();
    let descends = |process: &&Process| {
        let mut pid = process.pid;
        // A chain longer than there are processes would be a loop, seen while parents changed.
        for _ in 0..all.len() {
            if rooted.contains(&pid) {
                return true;
            }
            match parents.get(&pid) {
                Some(parent) if *parent > 1 => pid = *parent,
                _ => return false,
            }
        }
        false
    };
    all.iter().filter(|process| process.pid != own).filter(descends).cloned().collect()
}

fn kill(process: &Process) {
    let Some(pid) = Pid::from_raw(process.pid) else { return };
    // Each step fails only if the process is gone, which is the aim. The descriptor pins the pid, the second look
    // tells whether it is still the same process.
    if let Ok(fd) = pidfd_open(pid, PidfdFlags::empty())
        && read(process.pid).is_some_and(|now| now.started == process.started)
    {
        let _ = pidfd_send_signal(fd, Signal::KILL);
    }
}

fn names(members: &[Process]) -> String {
    let name = |pid: i32| fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    let words = members.iter().map(|process| format!("{} {}", process.pid, name(process.pid).trim()));
    words.collect::<Vec<_>>().join(", ")
}

fn read(pid: i32) -> Option<Process> {
    parse(pid, &fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
}

/// Whether a process has ended or is about to: one that was killed as the first of a pid namespace waits for all others
/// there.
pub(crate) fn is_ending(pid: i32) -> bool {
    /// The kernel's flag for a task that has begun to exit.
    const EXITING: u64 = 0x4;
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let flags = stat.rsplit_once(") ").and_then(|(_, rest)| rest.split(' ').nth(6)?.parse::<u64>().ok());
    read(pid).is_none() || flags.is_none_or(|flags| flags & EXITING != 0)
}

fn parse(pid: i32, stat: &str) -> Option<Process> {
    // The name may contain anything, spaces and brackets too; what follows its last bracket is plain.
    let fields: Vec<&str> = stat[stat.rfind(')')? + 1..].split_whitespace().collect();
    if matches!(*fields.first()?, "Z" | "X") {
        return None;
    }
    Some(Process { pid, parent: fields.get(1)?.parse().ok()?, started: fields.get(19)?.parse().ok()? })
}

fn pid_namespace(pid: i32) -> Option<PathBuf> {
    fs::read_link(format!("/proc/{pid}/ns/pid")).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_brackets_does_not_shift_the_fields() {
        let stat = "7 (a) S 1) S 3 7 7 0 -1 4194304 1 0 0 0 0 0 0 0 20 0 1 0 12345 0 0";
        assert_eq!(parse(7, stat), Some(Process { pid: 7, parent: 3, started: 12345 }));
    }

    #[test]
    fn zombies_are_not_counted() {
        let stat = "7 (a) Z 3 7 7 0 -1 4194304 1 0 0 0 0 0 0 0 20 0 1 0 12345 0 0";
        assert_eq!(parse(7, stat), None);
    }

    #[test]
    fn members_are_found_below_a_root_only() {
        let process = |pid, parent| Process { pid, parent, started: 0 };
        let root = i32::MAX - 10;
        let all =
            [process(root, 2), process(root + 1, root), process(root + 2, root + 1), process(root + 3, 2)];
        let found = members(&all, "umst-0-0", &[root], &BTreeSet::new());
        assert_eq!(found, all[..3]);
    }
}
