//! Processes that really hold such things. Where one test process can hold a thing itself, it is its own service.

mod connections;
mod objects;
mod states;

use std::fs::File;
use std::process::{Child, Command, Stdio};

use super::*;

/// A child that is ended with its handle.
struct Service {
    child: Child,
}

impl Service {
    fn start(mut command: Command) -> Self {
        command.stdout(Stdio::null()).stderr(Stdio::null());
        Self { child: command.spawn().unwrap() }
    }

    /// A process that does nothing, with this as its standard input.
    fn holding(stdin: impl Into<Stdio>) -> Self {
        let mut command = sleep_command();
        command.stdin(stdin);
        Self::start(command)
    }

    fn clean() -> Self {
        Self::holding(Stdio::null())
    }

    fn pid(&self) -> i32 {
        self.child.id().cast_signed()
    }

    fn facts(&self) -> ServiceProcesses {
        look(self.pid(), &[self.pid()])
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn sleep_command() -> Command {
    let mut command = Command::new("sleep");
    command.arg("1000").stdin(Stdio::null());
    command
}

fn own_pid() -> i32 {
    std::process::id().cast_signed()
}

fn look(first: i32, pids: &[i32]) -> ServiceProcesses {
    service_facts(first, pids, &ServiceQuery::default()).unwrap()
}

/// This process as a service.
fn own() -> ServiceProcesses {
    look(own_pid(), &[own_pid()])
}

impl ServiceProcesses {
    /// Whether a blocker of the kind mentions `text`.
    #[track_caller]
    fn assert_has(&self, kind: BlockerKind, text: &str) {
        let found = self.blockers.iter().any(|one| one.kind == kind && one.detail.contains(text));
        assert!(found, "no {kind} with {text:?} in {:?}", self.blockers);
    }

    /// That no blocker mentions `text`.
    #[track_caller]
    fn assert_lacks(&self, text: &str) {
        let found = self.blockers.iter().find(|one| one.detail.contains(text));
        assert!(found.is_none(), "{found:?}");
    }
}

/// How messages call a descriptor of this process.
fn name_of(descriptor: &impl std::os::fd::AsRawFd) -> String {
    format!("descriptor {} ", descriptor.as_raw_fd())
}

#[test]
fn a_clean_process_has_no_blockers() {
    let service = Service::clean();
    // Until it is itself and no longer a copy of this process.
    while process::read(service.pid(), "comm").unwrap() != "sleep\n" {
        std::thread::yield_now();
    }
    let facts = service.facts();
    assert_eq!(facts.blockers, []);
    assert_eq!(facts.unchecked, Vec::<String>::new());
    assert_eq!((facts.tasks, facts.threads), (1, 1));
    assert!(facts.memory > Bytes::ZERO && facts.memory < Bytes::mib(16), "{}", facts.memory);
}

#[test]
fn who_is_gone_is_not_described() {
    let mut gone = Service::clean();
    gone.child.kill().unwrap();
    let pid = gone.pid();
    gone.child.wait().unwrap();
    let living = Service::clean();
    assert!(matches!(
        service_facts(pid, &[living.pid()], &ServiceQuery::default()),
        Err(FactsError::Gone { pid: gone }) if gone == pid
    ));
    assert_eq!(look(living.pid(), &[pid]).tasks, 1);
}

#[test]
fn zombies_are_counted_and_nothing_else() {
    let service = Service::clean();
    let mut command = Command::new("true");
    command.stdin(Stdio::null());
    let zombie = Service::start(command);
    while !Process::read(zombie.pid()).unwrap().is_zombie() {
        std::thread::yield_now();
    }
    let facts = look(service.pid(), &[service.pid(), zombie.pid()]);
    assert_eq!(facts.tasks, 2);
    assert!(facts.blockers.iter().all(|blocker| blocker.pid != zombie.child.id()), "{:?}", facts.blockers);
}

#[test]
fn memory_that_travels_is_measured() {
    let before = own().memory;
    let size = 32 << 20;
    let private = std::hint::black_box(vec![1_u8; size]);
    let with_private = own().memory;
    assert!(with_private >= before + Bytes::mib(31), "{with_private} after {before}");
    drop(private);
    // A page of the program file is on the disk of the other site as well.
    let program = std::fs::read("/proc/self/exe").unwrap();
    std::hint::black_box(&program);
    drop(program);
    assert!(own().memory < before + Bytes::mib(16));
}

/// Something to open.
fn file_of(size: usize) -> File {
    let mut file = tempfile::tempfile().unwrap();
    std::io::Write::write_all(&mut file, &vec![1; size]).unwrap();
    file.sync_all().unwrap();
    file
}
