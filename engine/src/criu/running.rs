//! Which CRIU runs in this pid namespace, and what a dead one has left.

use std::fs;
use std::io;

use crate::process::Stat;

/// The pid of a CRIU in our own pid namespace that dumps or did, if there is one: nothing may be done to the service that it
/// may have in its hands. One of our own session only asks the kernel, or is runc's and restores.
///
/// CRIU itself is never ended. But for a service in a user namespace it has a helper of its session, which does what only
/// the initial namespace may. If CRIU is killed, the helper waits for ever, with CRIU's socket and nothing of the service in
/// its hands: it is killed here, and no longer reported once it is gone.
///
/// `Err`: it cannot be told, so there may be one.
pub fn running() -> io::Result<Option<i32>> {
    let own = Stat::of("self").ok_or_else(|| io::Error::other("/proc/self/stat cannot be read"))?.session;
    let all = all(own)?;
    for helper in all.iter().filter(|process| is_orphan(process, &all)) {
        tracing::warn!(pid = helper.pid, "a killed CRIU has left its helper, which is ended");
        helper.kill();
    }
    Ok(all.first().map(|process| process.pid))
}

/// Whether the leader of its session is gone. A CRIU that dumps leads its own.
fn is_orphan(process: &Stat, all: &[Stat]) -> bool {
    process.session != process.pid && all.iter().all(|other| other.pid != process.session)
}

/// What a service calls `criu` is in another pid namespace.
fn all(own: i32) -> io::Result<Vec<Stat>> {
    let namespace = fs::read_link("/proc/self/ns/pid")?;
    let entries = fs::read_dir("/proc")?.collect::<io::Result<Vec<_>>>()?;
    let processes = entries.into_iter().filter_map(|entry| {
        let process = Stat::of(entry.file_name().to_str()?.parse::<i32>().ok()?)?;
        let is_here = || fs::read_link(entry.path().join("ns/pid")).is_ok_and(|other| other == namespace);
        (dumps(&process, own) && is_here()).then_some(process)
    });
    Ok(processes.collect())
}

/// Whether it is a living CRIU of another session than `own`.
fn dumps(process: &Stat, own: i32) -> bool {
    process.name == "criu" && process.session != own && !process.has_ended()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn criu(pid: i32, session: i32) -> Stat {
        Stat { pid, session, name: "criu".to_owned(), ..Stat::of("self").unwrap() }
    }

    #[test]
    fn a_helper_whose_criu_is_dead_is_an_orphan() {
        let (leader, helper) = (criu(7, 7), criu(8, 7));
        let is_orphan = |process: &Stat, all: &[&Stat]| {
            is_orphan(process, &all.iter().map(|process| (*process).clone()).collect::<Vec<_>>())
        };
        assert!(!is_orphan(&leader, &[&leader]));
        assert!(!is_orphan(&helper, &[&leader, &helper]));
        assert!(is_orphan(&helper, &[&helper]));
        // Another CRIU is not its master.
        assert!(is_orphan(&helper, &[&criu(9, 9), &helper]));
    }

    #[test]
    fn only_a_living_criu_of_another_session_dumps() {
        assert!(dumps(&criu(8, 8), 1));
        // What asks for CRIU's version, seen from a nest whose session began outside.
        assert!(!dumps(&criu(8, 0), 0));
        assert!(!dumps(&Stat { state: 'Z', ..criu(8, 8) }, 1));
        assert!(!dumps(&Stat { name: "criu) x".to_owned(), ..criu(8, 8) }, 1));
    }
}
