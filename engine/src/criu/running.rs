//! Which CRIU runs in this pid namespace, and what a dead one has left.

use std::fs;

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

/// One process of CRIU.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Process {
    pid: i32,
    session: i32,
}

/// The pid of a process of CRIU in our own pid namespace, if there is one: nothing may be done to the service that it
/// may have in its hands.
///
/// CRIU itself is never ended. But for a service in a user namespace it has a helper of its session, which does what only
/// the initial namespace may. If CRIU is killed, the helper waits for ever, with CRIU's socket and nothing of the service in
/// its hands: it is killed here, and no longer reported once it is gone.
pub fn running() -> Option<i32> {
    let all = all();
    for helper in all.iter().filter(|process| is_orphan(process, &all)) {
        let Some(pid) = Pid::from_raw(helper.pid) else { continue };
        // The number may be another's by now, unless the same process is still there when it cannot be reused any more.
        if let Ok(handle) = pidfd_open(pid, PidfdFlags::empty())
            && read(helper.pid) == Some(*helper)
        {
            tracing::warn!(pid = helper.pid, "a killed CRIU has left its helper, which is ended");
            let _ = pidfd_send_signal(handle, Signal::KILL);
        }
    }
    all.first().map(|process| process.pid)
}

/// Whether the leader of its session is gone. A CRIU of ours leads its own.
fn is_orphan(process: &Process, all: &[Process]) -> bool {
    process.session != process.pid && all.iter().all(|other| other.pid != process.session)
}

/// What a service calls `criu` is in another pid namespace.
fn all() -> Vec<Process> {
    let Ok(own) = fs::read_link("/proc/self/ns/pid") else { return Vec::new() };
    let pids = fs::read_dir("/proc").into_iter().flatten().flatten();
    pids.filter_map(|entry| {
        let process = read(entry.file_name().to_str()?.parse().ok()?)?;
        fs::read_link(entry.path().join("ns/pid")).is_ok_and(|namespace| namespace == own).then_some(process)
    })
    .collect()
}

fn read(pid: i32) -> Option<Process> {
    parse(pid, &fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
}

/// A line of `/proc/PID/stat`; `None` if it is another program or has ended.
fn parse(pid: i32, stat: &str) -> Option<Process> {
    let (before, rest) = stat.rsplit_once(") ")?;
    let (_, name) = before.split_once(" (")?;
    let session = rest.split(' ').nth(3)?.parse().ok()?;
    (name == "criu" && !rest.starts_with(['Z', 'X'])).then_some(Process { pid, session })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_helper_whose_criu_is_dead_is_an_orphan() {
        let process = |pid, session| Process { pid, session };
        let (criu, helper) = (process(7, 7), process(8, 7));
        assert!(!is_orphan(&criu, &[criu]));
        assert!(!is_orphan(&helper, &[criu, helper]));
        assert!(is_orphan(&helper, &[helper]));
        // Another CRIU is not its master.
        assert!(is_orphan(&helper, &[process(9, 9), helper]));
    }

    #[test]
    fn only_a_living_criu_counts() {
        assert_eq!(parse(8, "8 (criu) S 1 7 7 0 -1 4194560"), Some(Process { pid: 8, session: 7 }));
        assert_eq!(parse(8, "8 (criu) Z 1 7 7 0 -1 4194560"), None);
        assert_eq!(parse(8, "8 (criu) x) S 1 7 7 0 -1 4194560"), None);
        assert_eq!(parse(8, "8 (sh) S 1 7 7 0 -1 4194560"), None);
        assert_eq!(parse(8, ""), None);
    }
}
