//! What a tree was like when CRIU had stopped it, and had done nothing else to it.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;

use super::maps::{Mapping, mappings, peek};
use super::traces::is_criu;
use crate::cgroup::Cgroup;
use crate::process::{Stat, text};

/// A signal mask that blocks all that can be blocked, as the kernel shows it.
const ALL: u64 = !(1 << (libc::SIGKILL - 1) | 1 << (libc::SIGSTOP - 1));

/// `io_pgetevents`, which the C library's list lacks.
const IO_PGETEVENTS: libc::c_long = 333;

/// So many of the first executable mappings are remembered; CRIU uses the begin of the first that is large enough.
const HEADS: usize = 4;

/// The begin of an executable mapping, where CRIU puts a system call instruction for a moment.
pub(super) type Head = [u8; 8];

/// A tree before CRIU's code came into it.
#[derive(Debug, Clone, Default)]
pub(in crate::criu) struct Before {
    /// Empty if CRIU had not stopped it.
    processes: BTreeMap<i32, Process>,
    /// Processes that a signal had stopped before CRIU came.
    stopped_by_signal: Vec<i32>,
}

#[derive(Debug, Clone)]
struct Process {
    /// Mappings that look like CRIU's and are not.
    alike: Vec<Mapping>,
    heads: BTreeMap<u64, Head>,
    threads: BTreeMap<i32, Thread>,
}

#[derive(Debug, Clone, Copy)]
struct Thread {
    /// Blocked signals.
    mask: u64,
    /// Whether it waits with a signal mask for as long as it waits, so that `mask` is not its own.
    masked_wait: bool,
}

impl Before {
    /// Looks at a tree that nobody has touched yet.
    pub(in crate::criu) fn untouched(pids: &[i32]) -> Self {
        let stopped = |pid: &&i32| Stat::of(pid).is_some_and(|process| process.state == 'T');
        let stopped_by_signal = pids.iter().filter(stopped).copied().collect();
        Self { processes: BTreeMap::new(), stopped_by_signal }
    }

    /// Looks at it again when CRIU has stopped all its tasks.
    pub(in crate::criu) fn look_at_stopped(&mut self, cgroup: &Cgroup) -> io::Result<()> {
        for pid in cgroup.procs().map_err(io::Error::other)? {
            self.processes.insert(pid, Process::look(pid)?);
        }
        Ok(())
    }

    /// All processes, if CRIU had stopped them: none of them can have ended by itself.
    pub(super) fn stopped(&self) -> impl Iterator<Item = i32> {
        self.processes.keys().copied()
    }

    pub(super) fn was_stopped_by_signal(&self, pid: i32) -> bool {
        self.stopped_by_signal.contains(&pid)
    }

    pub(super) fn is_alike(&self, pid: i32, mapping: &Mapping) -> bool {
        self.processes.get(&pid).is_some_and(|process| process.alike.contains(mapping))
    }

    /// Begins of executable mappings, as they were.
    pub(super) fn heads(&self, pid: i32) -> impl Iterator<Item = (u64, Head)> {
        let heads = self.processes.get(&pid).map(|process| &process.heads);
        heads.into_iter().flatten().map(|(address, head)| (*address, *head))
    }

    /// The mask a thread must get back, if CRIU has blocked all its signals. A thread can do that itself for a moment:
    /// CRIU does so only where it has left something else as well (`touched`).
    pub(super) fn blocked_by_criu(&self, pid: i32, tid: i32, touched: bool) -> Result<Option<u64>, String> {
        let was = self.processes.get(&pid).and_then(|process| process.threads.get(&tid));
        let Some(was) = was.filter(|was| touched && was.mask != ALL) else { return Ok(None) };
        let now =
            Thread::look(pid, tid).map_err(|error| format!("thread {tid} cannot be looked at: {error}"))?;
        match (now.mask == ALL, was.masked_wait) {
            (false, _) => Ok(None),
            (true, false) => Ok(Some(was.mask)),
            (true, true) => Err(format!("thread {tid} has all signals blocked, and its mask died with CRIU")),
        }
    }
}

impl Process {
    fn look(pid: i32) -> io::Result<Self> {
        let mappings = mappings(pid)?;
        let memory = File::open(format!("/proc/{pid}/mem"))?;
        let executable = mappings.iter().filter(|mapping| mapping.executable).take(HEADS);
        // What cannot be read is the kernel's own.
        let heads = executable.filter_map(|one| Some((one.start, peek(&memory, one.start).ok()?))).collect();
        let mut threads = BTreeMap::new();
        for entry in fs::read_dir(format!("/proc/{pid}/task"))? {
            let Some(tid) = entry?.file_name().to_str().and_then(|tid| tid.parse().ok()) else { continue };
            threads.insert(tid, Thread::look(pid, tid)?);
        }
        Ok(Self { alike: mappings.into_iter().filter(is_criu).collect(), heads, threads })
    }
}

impl Thread {
    fn look(pid: i32, tid: i32) -> io::Result<Self> {
        let file = |name: &str| text(pid, &format!("task/{tid}/{name}"));
        let status = file("status")?;
        let mask = status.lines().find_map(|line| line.strip_prefix("SigBlk:"));
        let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
        let mask = mask.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "no SigBlk"))?;
        let call = file("syscall")?;
        let number = call.split_whitespace().next().and_then(|word| word.parse::<i64>().ok());
        let masked_wait = [
            libc::SYS_ppoll,
            libc::SYS_pselect6,
            libc::SYS_epoll_pwait,
            libc::SYS_epoll_pwait2,
            libc::SYS_rt_sigsuspend,
            IO_PGETEVENTS,
        ];
        Ok(Self { mask, masked_wait: number.is_some_and(|number| masked_wait.contains(&number)) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_is_seen() {
        let own = i32::try_from(std::process::id()).unwrap();
        let process = Process::look(own).unwrap();
        assert!(process.threads.contains_key(&own));
        assert!(!process.heads.is_empty());
        assert_eq!(process.alike, []);
    }

    #[test]
    fn all_signals_are_all_but_two() {
        assert_eq!(format!("{ALL:x}"), "fffffffffffbfeff");
    }
}
