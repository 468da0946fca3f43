//! A tree whose dump lost its CRIU half-way: is it whole, can it be made whole, or is it lost?
//!
//! Nobody here kills a CRIU that dumps, but others may: the kernel for want of memory, an operator, a fault. The kernel
//! then lets go of every task that CRIU had stopped. What a task is like at that moment depends on how far CRIU was:
//!
//! | CRIU was about to | what becomes of the task | here |
//! | --- | --- | --- |
//! | stop it, or had only stopped it | it goes on | unharmed |
//! | change its signal mask, or the code at the begin of its program | it goes on, changed | cured: put back |
//! | talk to its code in the task (the *parasite*) | the parasite sees that CRIU is gone and returns by itself | cured: awaited; what it had mapped and opened is taken away |
//! | read a connection | it is in repair mode: until it is taken out, what the task does with it fails | cured, but for an error that the task may have seen on this connection |
//! | run single system calls, or its code in another thread | the thread comes to a trap with registers that only CRIU had | lost |
//!
//! So the tree's cgroup is frozen at once, every thread is stopped before it executes another instruction, and is
//! compared with `Before`. Whoever asks may thaw the cgroup only after [`Ok`]: what cannot be proven to be whole is
//! never let go. An error on a connection is nothing that a program can take for its own state, and so no doubt: it
//! costs this connection.

mod before;
mod maps;
mod sockets;
mod tracee;
mod traces;

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

pub(super) use before::Before;
use tracee::Tracee;
use traces::Traces;

use crate::cgroup::Cgroup;
use crate::process::{Stat, text};

/// A tree that is whole.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Mended {
    /// Processes with nothing of CRIU in them.
    pub unharmed: usize,
    /// Processes of which something had to be put right, and what.
    pub cured: BTreeMap<i32, Vec<String>>,
}

impl fmt::Display for Mended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of its processes unharmed, {} cured", self.unharmed, self.cured.len())?;
        for (pid, cures) in &self.cured {
            write!(f, "; process {pid}: {}", cures.join(", "))?;
        }
        Ok(())
    }
}

/// Looks at a tree whose CRIU is dead, and puts right what can be.
///
/// On `Ok` every process is as it was, and the cgroup is FROZEN: thaw it. On `Err`, which says what is wrong in words,
/// the cgroup is FROZEN as well, unless the text says that it is not: it must not be thawed. Takes some multiple of
/// `deadline` at most.
pub(super) async fn mend(
    cgroup: Cgroup,
    before: Before,
    images: PathBuf,
    deadline: Duration,
) -> Result<Mended, String> {
    let (sender, result) = tokio::sync::oneshot::channel();
    // A thread of its own: it traces all tasks, and its end lets go of those that did not stop.
    let spawned = std::thread::Builder::new().name("mend".to_owned()).spawn(move || {
        let _ = sender.send(frozen(&cgroup, &before, &images, deadline));
    });
    spawned.map_err(|error| format!("nobody can look at it: {error}"))?;
    result.await.map_err(|error| format!("nobody has looked at it: {error}"))?
}

/// Whether the CRIU that dumped into `images`, and is gone, came to its own end and let go of every task before. For
/// whoever did not see it end.
pub fn came_to_its_end(images: &Path) -> bool {
    let log = fs::read(images.join(super::dump::LOG)).unwrap_or_default();
    let log = String::from_utf8_lossy(&log);
    // Said after the last task is let go, also where it gave up. All that follows is that nobody hears its answer; a line
    // that was cut off is none.
    let end = |line: &str| {
        ["Dumping finished successfully\n", "Dumping FAILED.\n"].iter().any(|end| line.ends_with(end))
    };
    log.split_inclusive('\n').any(end)
}

fn frozen(cgroup: &Cgroup, before: &Before, images: &Path, deadline: Duration) -> Result<Mended, String> {
    let freeze =
        || cgroup.freeze(deadline).map_err(|error| format!("it runs, and cannot be frozen: {error}"));
    freeze()?;
    let mut tracees = Vec::new();
    let examined = examine(cgroup, before, images, deadline, &mut tracees);
    // All of it is stopped by us or frozen already; in either case nothing runs before the thaw.
    let asked = freeze();
    drop(tracees);
    // On its way from our stop into the frozen one a task counts as neither for a moment.
    let frozen = asked.and_then(|()| freeze());
    match (examined, frozen) {
        (Ok(mended), Ok(())) => Ok(mended),
        (Err(harm), Ok(())) => Err(format!("{harm}; it stays frozen")),
        (Ok(_), Err(error)) => Err(error),
        (Err(harm), Err(error)) => Err(format!("{harm}; and {error}")),
    }
}

fn examine(
    cgroup: &Cgroup,
    before: &Before,
    images: &Path,
    deadline: Duration,
    tracees: &mut Vec<Tracee>,
) -> Result<Mended, String> {
    let pids = cgroup.procs().map_err(|error| format!("its processes cannot be listed: {error}"))?;
    if let Some(dead) = before.stopped().find(|pid| !pids.contains(pid)) {
        return Err(format!("process {dead} has died of it ({})", end_of(dead)));
    }
    for pid in &pids {
        for tid in threads(*pid)? {
            let seized = Tracee::seize(*pid, tid);
            tracees
                .push(seized.map_err(|error| format!("{}: it may be ending", cannot(tid, "stop", &error)))?);
        }
    }
    // None of them executes an instruction of its own: each comes to its stop first.
    cgroup.thaw().map_err(|error| format!("its tasks cannot be stopped one by one: {error}"))?;
    let until = Instant::now() + deadline;
    for tracee in tracees.iter_mut() {
        let tid = tracee.tid();
        tracee.wait(until).map_err(|error| cannot(tid, "stop", &error))?;
    }
    let mut mended = Mended::default();
    for pid in pids {
        let cures = process(pid, before, images, deadline, tracees)
            .map_err(|harm| format!("process {pid}: {harm}"))?;
        match cures.is_empty() {
            true => mended.unharmed += 1,
            false => drop(mended.cured.insert(pid, cures)),
        }
    }
    Ok(mended)
}

/// One process, all of whose threads stand. `Ok` is what had to be put right.
fn process(
    pid: i32,
    before: &Before,
    images: &Path,
    deadline: Duration,
    tracees: &mut [Tracee],
) -> Result<Vec<String>, String> {
    let mut threads: Vec<&mut Tracee> = tracees.iter_mut().filter(|tracee| tracee.pid() == pid).collect();
    let mut cures = Vec::new();
    let traces = Traces::find(pid, before, images)?;
    for thread in &mut threads {
        let tid = thread.tid();
        if leave(thread, &traces, Instant::now() + deadline)
            .map_err(|harm| format!("thread {tid}: {harm}"))?
        {
            cures.push(format!("thread {tid} came back out of CRIU's code"));
        }
    }
    // What CRIU's code closes before it returns is closed now.
    let traces = Traces::find(pid, before, images)?;
    for thread in &mut threads {
        let tid = thread.tid();
        let put = |what: &'static str| move |error| cannot(tid, what, &error);
        if thread.clear_breakpoints().map_err(put("clear the breakpoints of"))? {
            cures.push(format!("thread {tid} had a breakpoint"));
        }
        if let Some(mask) = before.blocked_by_criu(pid, tid, !traces.is_empty())? {
            thread.set_mask(mask).map_err(put("set the signal mask of"))?;
            cures.push(format!("thread {tid} had all signals blocked"));
        }
    }
    cures.extend(traces.restore_code()?);
    if let Some(first) = threads.first_mut() {
        cures.extend(traces.remove(first, Instant::now() + deadline)?);
    }
    let left = Traces::find(pid, before, images)?;
    if !left.is_empty() {
        return Err(format!("something of CRIU is still there: {left}"));
    }
    cures.extend(sockets::out_of_repair(pid)?);
    if before.was_stopped_by_signal(pid) && Stat::of(pid).is_none_or(|process| process.state != 'T') {
        stop_again(pid)?;
        cures.push("it had been stopped by a signal".to_owned());
    }
    Ok(cures)
}

/// Lets a thread that is in CRIU's code come to the end of it. `Ok(true)` if it was there.
fn leave(thread: &mut Tracee, traces: &Traces, until: Instant) -> Result<bool, String> {
    let at = |thread: &Tracee| thread.instruction().map_err(|error| format!("no registers: {error}"));
    let address = at(thread)?;
    if traces.is_changed_code(address) {
        return Err("it is in a system call of CRIU's, and its registers died with CRIU".to_owned());
    }
    if !traces.is_foreign(address) {
        return Ok(false);
    }
    thread
        .run_to_sigreturn(until)
        .map_err(|error| format!("it does not come back out of CRIU's code: {error}"))?;
    match traces.is_foreign(at(thread)?) {
        true => Err("it came back into CRIU's code".to_owned()),
        false => Ok(true),
    }
}

/// CRIU lets a process that a signal has stopped go on, and stops it again at the end.
fn stop_again(pid: i32) -> Result<(), String> {
    let process = rustix::process::Pid::from_raw(pid).ok_or("it has no pid")?;
    rustix::process::kill_process(process, rustix::process::Signal::STOP)
        .map_err(|error| format!("it cannot be stopped again: {error}"))
}

fn threads(pid: i32) -> Result<Vec<i32>, String> {
    let entries = fs::read_dir(format!("/proc/{pid}/task"))
        .map_err(|error| format!("the threads of process {pid} cannot be listed: {error}"))?;
    let tids = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    // The first thread may have ended while others go on.
    Ok(tids.filter(|tid| Stat::of(tid).is_some_and(|thread| !thread.has_ended())).collect())
}

/// How a process ended, as far as can be told.
fn end_of(pid: i32) -> String {
    let stat = text(pid, "stat").unwrap_or_default();
    let code = stat.rsplit(' ').next().and_then(|code| code.trim().parse::<i32>().ok());
    match code {
        Some(code) if code & 0x7f != 0 => format!("signal {}", code & 0x7f),
        Some(code) => format!("exit code {}", code >> 8),
        None => "it is gone".to_owned(),
    }
}

fn cannot(tid: i32, what: &str, error: &dyn fmt::Display) -> String {
    format!("cannot {what} thread {tid}: {error}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_log_with_an_end_tells_of_one() {
        let images = tempfile::tempdir().unwrap();
        assert!(!came_to_its_end(images.path()), "no log");
        for (log, ended) in [
            ("(0.1) Dumping finished successfully\n", true),
            ("(0.1) Error (criu/cr-dump.c:1): Dumping FAILED.\n", true),
            ("(0.1) Dumping finished successfully", false),
            ("(0.1) Error: Dumping FAILED.\n(0.2) Error: Can't send response: Broken pipe\n", true),
            ("(0.1) Unlock network\n(0.2) Error: Can't send response: Broken pipe\n", false),
            ("(0.1) Dumping core\n", false),
            ("", false),
        ] {
            fs::write(images.path().join("dump.log"), log).unwrap();
            assert_eq!(came_to_its_end(images.path()), ended, "{log:?}");
        }
    }
}
