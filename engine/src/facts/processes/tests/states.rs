//! What processes are, and what is done to them.

use std::os::unix::process::CommandExt;
use std::thread;

use rustix::process::{Pid, Signal, kill_process};
use rustix::thread::{UnshareFlags, unshare_unsafe};

use super::*;

/// A child that makes a call before it becomes `sleep`.
#[allow(unsafe_code)]
fn prepared(call: fn() -> std::io::Result<()>) -> Service {
    let mut command = sleep_command();
    // SAFETY: the callers only make system calls.
    unsafe { command.pre_exec(call) };
    Service::start(command)
}

fn checked(result: libc::c_long) -> std::io::Result<()> {
    if result < 0 { Err(std::io::Error::last_os_error()) } else { Ok(()) }
}

#[test]
#[allow(unsafe_code)]
fn nested_namespaces_are_found() {
    let first = Service::clean();
    let nested = prepared(|| {
        // SAFETY: the child has one thread and shares nothing with this process.
        Ok(unsafe { unshare_unsafe(UnshareFlags::NEWNS | UnshareFlags::NEWUTS) }?)
    });
    let facts = look(first.pid(), &[first.pid(), nested.pid()]);
    facts.assert_has(BlockerKind::NestedNamespace, "another mount namespace");
    facts.assert_has(BlockerKind::NestedNamespace, "another host name namespace");
    // What it has open while it starts is of its own mounts, which is reported as well.
    let nesting = |blocker: &&ProcessBlocker| blocker.kind == BlockerKind::NestedNamespace;
    assert_eq!(facts.blockers.iter().filter(nesting).count(), 2, "{:?}", facts.blockers);
    assert!(facts.blockers.iter().all(|blocker| blocker.pid == nested.child.id()));
    // On its own it is not nested in anything. (Its standard streams come from outside, which is another matter.)
    nested.facts().assert_lacks("another mount namespace");
}

#[test]
fn a_pid_namespace_for_children_is_found() {
    let mut command = Command::new("unshare");
    command.args(["--pid", "--fork", "--kill-child", "sleep", "1000"]).stdin(Stdio::null());
    let service = Service::start(command);
    // The child dies with its parent as soon as it is `sleep`; before that it would be left over.
    let children = format!("task/{}/children", service.pid());
    let is_ready = || {
        let child = process::read(service.pid(), &children)?.trim().parse().ok()?;
        Some(process::read(child, "comm")? == "sleep\n")
    };
    while is_ready() != Some(true) {
        thread::yield_now();
    }
    service.facts().assert_has(BlockerKind::NestedNamespace, "another pid namespace for its children");
}

#[test]
#[allow(unsafe_code)]
fn traced_processes_are_found() {
    let service = Service::clean();
    // SAFETY: plain numbers; a seized process goes on running. This thread lives until the end of the test.
    checked(unsafe { libc::ptrace(libc::PTRACE_SEIZE, service.pid(), 0, 0) }).unwrap();
    let tracer = rustix::thread::gettid().as_raw_nonzero();
    service.facts().assert_has(BlockerKind::Traced, &format!("({tracer})"));
}

#[test]
#[allow(unsafe_code)]
fn foreign_personalities_are_found() {
    let service = prepared(|| {
        // SAFETY: a plain number: PER_LINUX32.
        checked(unsafe { libc::personality(8) }.into())
    });
    service.facts().assert_has(BlockerKind::Architecture, "32-bit machine");
}

#[test]
#[allow(unsafe_code)]
fn filtered_threads_are_counted() {
    let service = prepared(|| {
        // One instruction: allow.
        let filter = [libc::sock_filter { code: 6, jt: 0, jf: 0, k: libc::SECCOMP_RET_ALLOW }];
        let program = libc::sock_fprog { len: 1, filter: filter.as_ptr().cast_mut() };
        // SAFETY: the program outlives the call, which copies it.
        unsafe {
            checked(libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0).into())?;
            checked(libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program).into())
        }
    });
    let facts = service.facts();
    assert_eq!(facts.filtered_threads, 1);
    // An unfiltered CRIU suspends it; a filtered one cannot.
    let restricted = Process::read(own_pid()).unwrap().threads.iter().any(process::Thread::has_filter);
    let reported = facts.blockers.iter().any(|blocker| blocker.kind == BlockerKind::Seccomp);
    assert_eq!(reported, restricted);
}

/// A thread that waits for the child of a `vfork` cannot be interrupted.
#[test]
#[allow(unsafe_code)]
fn uninterruptible_threads_are_found() {
    let waiting = thread::spawn(|| {
        // SAFETY: the child has its own memory, and makes only one system call until it is killed.
        let pid = unsafe { libc::syscall(libc::SYS_clone, libc::CLONE_VFORK | libc::SIGCHLD, 0, 0, 0, 0) };
        if pid == 0 {
            loop {
                // SAFETY: no arguments.
                unsafe { libc::pause() };
            }
        }
        pid as i32
    });
    let stuck = loop {
        let threads = Process::read(own_pid()).unwrap().threads;
        let stuck = threads.iter().find(|thread| thread.state == 'D').map(|thread| thread.tid);
        // The disk may make others wait as well, for a moment.
        let child = stuck.and_then(|tid| process::read(own_pid(), &format!("task/{tid}/children")));
        if let (Some(tid), Some(Ok(child))) = (stuck, child.map(|text| text.trim().parse::<i32>())) {
            break (tid, child);
        }
        thread::yield_now();
    };
    let (thread, child) = stuck;
    let facts = own();
    kill_process(Pid::from_raw(child).unwrap(), Signal::KILL).unwrap();
    assert_eq!(waiting.join().unwrap(), child);
    rustix::process::waitpid(Pid::from_raw(child), rustix::process::WaitOptions::empty()).unwrap();
    facts.assert_has(BlockerKind::Uninterruptible, &format!("thread {thread}"));
    own().assert_lacks(&format!("thread {thread}"));
}
