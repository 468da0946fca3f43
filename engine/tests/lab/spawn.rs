//! Processes in new namespaces.

use std::fs::{self, File};
use std::os::fd::OwnedFd;
use std::process::{Child, Command, Stdio};

use ums_engine::spawn::{Namespaces, Spawn, become_subreaper};

use crate::machine::{helper, reap, wait_until};

fn helper_as(role: &str) -> Command {
    let mut command = Command::new(helper());
    command.arg(role).stdin(Stdio::null());
    command
}

#[test]
fn lab_a_detached_process_is_the_first_of_its_namespaces() {
    assert!(rustix::process::geteuid().is_root(), "this test needs root");
    become_subreaper().expect("become a subreaper");
    let namespaces = Namespaces { pid: true, mount: true, network: true };
    let spawn = Spawn::new(helper_as("sleep")).namespaces(namespaces).session();
    let pid = spawn.detach().expect("detach");
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("status");
    let numbers = status.lines().find(|line| line.starts_with("NSpid:")).expect("NSpid").to_owned();
    for name in ["pid", "mnt", "net"] {
        let namespace = |pid: &str| fs::read_link(format!("/proc/{pid}/ns/{name}")).expect("namespace");
        assert_ne!(namespace(&pid.to_string()), namespace("self"), "{name}");
    }
    let mounts = fs::read_to_string(format!("/proc/{pid}/mountinfo")).expect("mounts");
    rustix::process::kill_process(
        rustix::process::Pid::from_raw(pid).expect("pid"),
        rustix::process::Signal::KILL,
    )
    .expect("kill");
    wait_until("it is gone", || {
        reap();
        !fs::exists(format!("/proc/{pid}")).expect("/proc")
    });
    assert!(numbers.ends_with("\t1"), "{numbers}");
    assert!(!mounts.contains(" shared:"), "mounts are shared with ours");
}

/// Starts a helper that only waits, in a network namespace of its own.
fn sleeper() -> Child {
    let namespaces = Namespaces { network: true, ..Namespaces::default() };
    Spawn::new(helper_as("sleep")).namespaces(namespaces).spawn().expect("spawn")
}

#[test]
fn lab_a_child_can_enter_a_namespace() {
    assert!(rustix::process::geteuid().is_root(), "this test needs root");
    let mut first = sleeper();
    let path = |child: &Child| format!("/proc/{}/ns/net", child.id());
    let namespace = OwnedFd::from(File::open(path(&first)).expect("namespace"));
    let mut second = Spawn::new(helper_as("sleep")).enter(namespace).spawn().expect("spawn");
    let found = [&first, &second].map(|child| fs::read_link(path(child)).expect("namespace"));
    for child in [&mut first, &mut second] {
        child.kill().expect("kill");
        child.wait().expect("reap");
    }
    assert_eq!(found[0], found[1]);
    assert_ne!(found[0], fs::read_link("/proc/self/ns/net").expect("namespace"));
}

#[test]
fn lab_a_child_can_be_made_to_die_with_its_parent() {
    let parent =
        std::thread::spawn(|| Spawn::new(helper_as("sleep")).dies_with_parent().spawn().expect("spawn"));
    let mut child = parent.join().expect("the thread that was its parent");
    wait_until("it is dead", || child.try_wait().expect("look").is_some());
}

#[test]
fn lab_a_program_that_cannot_be_executed_is_an_error() {
    become_subreaper().expect("become a subreaper");
    let spawn = || Spawn::new(Command::new("/none"));
    let kind = |error: std::io::Error| error.kind();
    assert_eq!(spawn().spawn().map(|_| ()).map_err(kind), Err(std::io::ErrorKind::NotFound));
    let file = || OwnedFd::from(File::open("/dev/null").expect("/dev/null"));
    let crowded = spawn().pass(file(), 3).pass(file(), 4).pass(file(), 5).detach();
    assert_eq!(crowded.map_err(kind), Err(std::io::ErrorKind::NotFound));
    reap();
}

#[test]
fn lab_a_child_has_the_descriptors_it_was_given_and_no_other() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = |name: &str| OwnedFd::from(File::create(folder.path().join(name)).expect("a file"));
    // One that an ancestor left open for all its descendants.
    let stray = File::open("/dev/zero").expect("/dev/zero");
    rustix::io::fcntl_setfd(&stray, rustix::io::FdFlags::empty()).expect("leave it open");
    let mut command = helper_as("descriptors");
    let output = folder.path().join("output");
    command.stdout(File::create(&output).expect("output"));
    let (a, b) = (file("a"), file("b"));
    // Numbers that are in use here, also by each other.
    let (first, second) = (std::os::fd::AsRawFd::as_raw_fd(&a), std::os::fd::AsRawFd::as_raw_fd(&b));
    let mut child =
        Spawn::new(command).pass(a, second).pass(b, first).pass(file("c"), 99).spawn().expect("spawn");
    assert!(child.wait().expect("wait").success());
    let found = fs::read_to_string(output).expect("output");
    let mut expected: Vec<_> = [0, 1, 2, first, second, 99].iter().map(ToString::to_string).collect();
    expected.sort_unstable();
    // The one more is the listing itself.
    let extra: Vec<_> =
        found.split_whitespace().filter(|number| !expected.iter().any(|one| one == number)).collect();
    assert!(extra.len() == 1, "{found}");
    assert_eq!(found.split_whitespace().count(), expected.len() + 1);
}
