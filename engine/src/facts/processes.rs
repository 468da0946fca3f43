//! One service's processes: how much there is of them, and what they hold that CRIU cannot dump or restore.
//!
//! What is a blocker was found out with CRIU 4.2.1 itself, not from its documentation: it dumps and restores raw, ping
//! and UDP-Lite sockets, netlink sockets with groups, idle AIO rings, fanotify, pidfds of the tree's own processes, and
//! descriptors on their way through a unix socket, none of which is reported here.
//!
//! Not visible from outside, and therefore not reported: holes in System V shared memory, AIO requests under way,
//! TLS in the kernel.

mod descriptors;
mod devices;
mod findings;
mod identity;
mod inet;
mod mappings;
mod mounts;
mod process;
mod sockets;
mod transient;
mod unix;
mod unix_diag;

#[cfg(test)]
mod tests;

use std::thread::sleep;
use std::time::Duration;

use ums_model::names::Bytes;
use ums_model::plan::{BlockerKind, ProcessBlocker};

use super::FactsError;
use descriptors::Descriptors;
use findings::Findings;
use mounts::Mounts;
use process::Process;

pub(super) use inet::{InetSocket, inet_sockets};

/// What passes by itself is reported only if it is still there this many looks later.
const LOOKS: u32 = 4;

/// How to look at a service.
#[derive(Debug, Clone, Copy)]
pub struct ServiceQuery {
    /// Deleted files that are still open are carried along up to this size: what CRIU is told.
    pub ghost_limit: Bytes,
    /// Pause before another look at what may pass by itself. There are at most three.
    pub pause: Duration,
    /// How long the kernel may take for one piece of its list of unix sockets.
    pub sockets: Duration,
}

impl Default for ServiceQuery {
    fn default() -> Self {
        Self {
            ghost_limit: Bytes(u64::from(crate::criu::dump::GHOST_LIMIT)),
            pause: Duration::from_millis(20),
            sockets: Duration::from_secs(2),
        }
    }
}

/// What is known of a service's processes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ServiceProcesses {
    /// Memory that has to travel: anonymous and shared memory, resident or swapped, what several processes share
    /// once. Pages that are the same as a file on disk do not count, nor does what is only in a tmpfs.
    pub memory: Bytes,
    /// Processes, zombies included.
    pub tasks: u32,
    /// Their threads, all together.
    pub threads: u32,
    /// Threads with a seccomp filter. CRIU suspends it if it is root and unfiltered itself; see `blockers` if not.
    pub filtered_threads: u32,
    /// What CRIU cannot dump or restore.
    pub blockers: Vec<ProcessBlocker>,
    /// What could not be found out, in words.
    pub unchecked: Vec<String>,
}

/// Looks at the service whose first process is `first` and whose processes are `pids`, all of them in our pid
/// namespace.
///
/// Stops and changes nothing, but reading takes the kernel's locks for short moments. Processes that end meanwhile are
/// left out; the service must not be frozen, because then all of its threads seem to hang. An error if the first
/// process is gone.
pub fn service_facts(first: i32, pids: &[i32], query: &ServiceQuery) -> Result<ServiceProcesses, FactsError> {
    let mut pids: Vec<i32> = pids.iter().copied().chain([first]).collect();
    pids.sort_unstable();
    pids.dedup();
    let processes: Vec<Process> = pids.iter().filter_map(|pid| Process::read(*pid)).collect();
    if !processes.iter().any(|process| process.pid == first) {
        return Err(FactsError::Gone { pid: first });
    }
    let tree = Tree { first, pids, processes, patience: query.sockets };
    let mut facts = tree.count();
    let mut findings = Findings::default();
    identity::check(&tree, &mut findings);
    let mounts = Mounts::of(first)?;
    mounts::check(&tree, &mounts, &mut findings);
    mappings::check(&tree, &mounts, query.ghost_limit, &mut findings);
    let descriptors = Descriptors::of(&tree);
    descriptors::check(&tree, &descriptors, &mounts, query.ghost_limit, &mut findings);
    sockets::check(&tree, &descriptors, &mut findings);
    unix::check(&tree, &descriptors, &mut findings, &mut facts.unchecked);
    transient::check(&tree, || sleep(query.pause), &mut findings, &mut facts.unchecked);
    seccomp(&tree, facts.filtered_threads, &mut findings);
    facts.unchecked.sort();
    facts.unchecked.dedup();
    facts.blockers = findings.into_blockers();
    Ok(facts)
}

/// The processes of a service as they were a moment ago.
struct Tree {
    first: i32,
    /// All that were asked about, sorted.
    pids: Vec<i32>,
    /// Those of them that exist.
    processes: Vec<Process>,
    /// See [`ServiceQuery::sockets`].
    patience: Duration,
}

impl Tree {
    /// Those that are not zombies, of which nothing is left to look at.
    fn living(&self) -> impl Iterator<Item = &Process> {
        self.processes.iter().filter(|process| !process.is_zombie())
    }

    fn count(&self) -> ServiceProcesses {
        let number = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
        let threads = || self.processes.iter().flat_map(|process| &process.threads);
        let mut memory = Bytes::ZERO;
        let mut unchecked = Vec::new();
        for process in self.living() {
            match process.memory() {
                Some(part) => memory = memory + part,
                None if process.is_there() => {
                    unchecked.push(format!("the memory of process {} ({})", process.pid, process.name));
                }
                None => {}
            }
            if !process.shows_descriptors() && process.is_there() {
                unchecked.push(format!("the descriptors of process {} ({})", process.pid, process.name));
            }
        }
        ServiceProcesses {
            memory,
            unchecked,
            tasks: number(self.processes.len()),
            threads: number(threads().count()),
            filtered_threads: number(threads().filter(|thread| thread.has_filter()).count()),
            ..ServiceProcesses::default()
        }
    }
}

/// Filters can be suspended only by a CRIU that has none itself, and CRIU is our child.
fn seccomp(tree: &Tree, filtered_threads: u32, findings: &mut Findings) {
    let own = Process::read(rustix::process::getpid().as_raw_nonzero().get());
    let restricted = own.is_some_and(|own| own.threads.iter().any(process::Thread::has_filter));
    if !restricted || filtered_threads == 0 {
        return;
    }
    for process in tree.living().filter(|process| process.threads.iter().any(process::Thread::has_filter)) {
        let detail = "it has a filter, and so has this nest, so that CRIU cannot suspend it";
        findings.add(process, BlockerKind::Seccomp, detail);
    }
}
