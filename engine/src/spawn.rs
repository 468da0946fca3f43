//! Processes in new namespaces, with exactly the descriptors they shall have.
//!
//! What the standard library leaves out: it can neither place a child in a namespace nor give it a descriptor under
//! a chosen number, and it passes on whatever an ancestor left open. A service that inherits a stray descriptor
//! cannot be dumped, so here every descriptor above 2 is closed at `exec` unless it was [passed](Spawn::pass).

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command};
use std::sync::{Mutex, PoisonError};

use rustix::io::{FdFlags, fcntl_dupfd_cloexec, fcntl_setfd};
use rustix::mount::{MountPropagationFlags, mount_change};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{Pid, Signal};
use rustix::thread::{UnshareFlags, move_into_link_name_space, unshare_unsafe};

/// Namespaces that a child gets for itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Namespaces {
    /// The child is process 1 of its own. Only with [`Spawn::detach`].
    pub pid: bool,
    /// Its mounts are its own: a copy of the parent's, and changes pass in neither direction.
    pub mount: bool,
    /// Its own network, in which even `lo` is down.
    pub network: bool,
}

/// A child to be started.
#[derive(Debug)]
pub struct Spawn {
    command: Command,
    namespaces: Namespaces,
    enter: Vec<OwnedFd>,
    session: bool,
    dies_with_parent: bool,
    passed: Vec<(OwnedFd, RawFd)>,
}

/// The calling process inherits what its descendants leave behind: orphans become its children.
///
/// Safe to repeat.
pub fn become_subreaper() -> io::Result<()> {
    Ok(rustix::process::set_child_subreaper(Some(rustix::process::getpid()))?)
}

impl Spawn {
    /// Starts from a command: program, arguments, environment, standard streams.
    pub fn new(command: Command) -> Self {
        Self {
            command,
            namespaces: Namespaces::default(),
            enter: Vec::new(),
            session: false,
            dies_with_parent: false,
            passed: Vec::new(),
        }
    }

    /// Gives the child namespaces of its own.
    pub fn namespaces(mut self, namespaces: Namespaces) -> Self {
        self.namespaces = namespaces;
        self
    }

    /// Puts the child into an existing namespace (an open `/proc/PID/ns/*` file), before it gets its own.
    pub fn enter(mut self, namespace: OwnedFd) -> Self {
        self.enter.push(namespace);
        self
    }

    /// Makes the child the leader of a new session, away from our terminal and process group.
    pub fn session(mut self) -> Self {
        self.session = true;
        self
    }

    /// Lets the kernel kill the child when the *thread* that spawns it ends; call it from one that lives long.
    /// Has no effect with [`detach`](Self::detach).
    pub fn dies_with_parent(mut self) -> Self {
        self.dies_with_parent = true;
        self
    }

    /// Gives the child a descriptor under this number (3 or more).
    pub fn pass(mut self, descriptor: OwnedFd, number: RawFd) -> Self {
        self.passed.push((descriptor, number));
        self
    }

    /// Starts an ordinary child, which the caller has to wait for.
    ///
    /// On `Err` nothing runs.
    pub fn spawn(mut self) -> io::Result<Child> {
        let _reserved = self.prepare(None)?;
        self.command.spawn()
    }

    /// As [`spawn`](Self::spawn), for a child that tokio waits for; it is reaped even when the handle is dropped.
    pub fn spawn_async(mut self) -> io::Result<tokio::process::Child> {
        let _reserved = self.prepare(None)?;
        tokio::process::Command::from(self.command).spawn()
    }

    /// Starts a process that is not our child: it belongs to the next subreaper or init, and outlives us.
    ///
    /// On `Ok` the program has been executed; the number is its pid in our pid namespace. On `Err` nothing runs.
    pub fn detach(mut self) -> io::Result<i32> {
        let (read, write) = pipe_with(PipeFlags::CLOEXEC)?;
        self.dies_with_parent = false;
        let _reserved = self.prepare(Some(write.as_raw_fd()))?;
        let intermediate = self.command.spawn();
        drop(write);
        // The intermediate process ends at once, also where the execution of the program failed after it.
        intermediate?.wait()?;
        let mut pid = [0; 4];
        File::from(read).read_exact(&mut pid)?;
        Ok(i32::from_ne_bytes(pid))
    }

    /// Hangs everything into the command that has to happen between fork and exec. The returned descriptors must
    /// stay open until the child has been started.
    #[allow(unsafe_code)]
    fn prepare(&mut self, detach: Option<RawFd>) -> io::Result<Vec<OwnedFd>> {
        if self.namespaces.pid && detach.is_none() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "a new pid namespace needs detach"));
        }
        if self.passed.iter().any(|(_, number)| *number < 3) {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "descriptors are passed as 3 or more"));
        }
        let reserved = reserve(&self.passed)?;
        let mut child = BetweenForkAndExec {
            namespaces: self.namespaces,
            enter: std::mem::take(&mut self.enter),
            session: self.session,
            parent: self.dies_with_parent.then(rustix::process::getpid),
            detach,
            // Above every wanted number, so that putting one in its place never overwrites another.
            passed: self.passed.drain(..).map(|(descriptor, number)| (descriptor, number, -1)).collect(),
        };
        // SAFETY: between fork and exec only system calls are made on memory that was allocated before.
        unsafe { self.command.pre_exec(move || child.run()) };
        Ok(reserved)
    }
}

/// Occupies the wanted numbers in this process, so that the pipe by which the standard library reports a failed
/// `exec` does not get one of them and be overwritten in the child.
fn reserve(passed: &[(OwnedFd, RawFd)]) -> io::Result<Vec<OwnedFd>> {
    passed.iter().map(|(descriptor, number)| Ok(fcntl_dupfd_cloexec(descriptor, *number)?)).collect()
}

/// Everything that runs in the child before the program does. Nothing in here may allocate.
struct BetweenForkAndExec {
    namespaces: Namespaces,
    enter: Vec<OwnedFd>,
    session: bool,
    parent: Option<Pid>,
    detach: Option<RawFd>,
    /// The descriptor, the wanted number, and where it waits for its place.
    passed: Vec<(OwnedFd, RawFd, RawFd)>,
}

impl BetweenForkAndExec {
    fn run(&mut self) -> io::Result<()> {
        if let Some(parent) = self.parent {
            rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
            if rustix::process::getppid() != Some(parent) {
                // It died before the signal was set.
                return Err(rustix::io::Errno::SRCH.into());
            }
        }
        for namespace in &self.enter {
            move_into_link_name_space(namespace.as_fd(), None)?;
        }
        self.unshare()?;
        if let Some(report) = self.detach {
            fork_away(report)?;
        }
        if self.session {
            rustix::process::setsid()?;
        }
        if self.namespaces.mount {
            mount_change(c"/", MountPropagationFlags::REC | MountPropagationFlags::PRIVATE)?;
        }
        self.place_descriptors()
    }

    #[allow(unsafe_code)]
    fn unshare(&self) -> io::Result<()> {
        let mut flags = UnshareFlags::empty();
        flags.set(UnshareFlags::NEWPID, self.namespaces.pid);
        flags.set(UnshareFlags::NEWNS, self.namespaces.mount);
        flags.set(UnshareFlags::NEWNET, self.namespaces.network);
        if !flags.is_empty() {
            // SAFETY: no flag unshares the descriptor table, which is what the call may surprise other code with.
            unsafe { unshare_unsafe(flags) }?;
        }
        Ok(())
    }

    #[allow(unsafe_code)]
    fn place_descriptors(&mut self) -> io::Result<()> {
        // SAFETY: the call has no memory arguments; it only marks descriptors as closed by `exec`.
        if unsafe { libc::syscall(libc::SYS_close_range, 3, u32::MAX, libc::CLOSE_RANGE_CLOEXEC) } != 0 {
            return Err(io::Error::last_os_error());
        }
        let highest = self.passed.iter().map(|(_, number, _)| *number).max().unwrap_or(2);
        for (descriptor, _, waiting) in &mut self.passed {
            // SAFETY: plain numbers; the new descriptor lives until `exec` closes it.
            *waiting = unsafe { libc::fcntl(descriptor.as_raw_fd(), libc::F_DUPFD_CLOEXEC, highest + 1) };
            if *waiting < 0 {
                return Err(io::Error::last_os_error());
            }
        }
        for (_, number, waiting) in &self.passed {
            // SAFETY: plain numbers. The one overwritten belongs to the parent's image of this process, whose
            // owners never run here again.
            if unsafe { libc::dup2(*waiting, *number) } < 0 {
                return Err(io::Error::last_os_error());
            }
            // SAFETY: `number` was opened by the call above and is not closed before `exec`.
            fcntl_setfd(unsafe { BorrowedFd::borrow_raw(*number) }, FdFlags::empty())?;
        }
        Ok(())
    }
}

/// Forks once more and ends the process in between, after it has written the pid of its child to `report`.
#[allow(unsafe_code)]
fn fork_away(report: RawFd) -> io::Result<()> {
    // SAFETY: this process has one thread, and both sides only make system calls until `exec` or `_exit`.
    match unsafe { libc::fork() } {
        -1 => Err(io::Error::last_os_error()),
        0 => Ok(()),
        pid => {
            let bytes = pid.to_ne_bytes();
            // SAFETY: the buffer is 4 bytes long; `_exit` runs no destructor of the parent's image.
            unsafe {
                libc::write(report, bytes.as_ptr().cast(), bytes.len());
                libc::_exit(0)
            }
        }
    }
}

/// Takes a descriptor over that this process was started with, under a number agreed on with its starter.
///
/// `Err` if there is none of that number or it was taken before. To be called early in `main`, before anything else
/// can have opened a descriptor of that number.
#[allow(unsafe_code)]
pub fn inherited(number: RawFd) -> io::Result<OwnedFd> {
    static TAKEN: Mutex<BTreeSet<RawFd>> = Mutex::new(BTreeSet::new());
    let mut taken = TAKEN.lock().unwrap_or_else(PoisonError::into_inner);
    if number < 3 || taken.contains(&number) {
        return Err(io::ErrorKind::AlreadyExists.into());
    }
    // SAFETY: plain numbers; one that is not open gives an error.
    if unsafe { libc::fcntl(number, libc::F_SETFD, libc::FD_CLOEXEC) } < 0 {
        return Err(io::Error::last_os_error());
    }
    taken.insert(number);
    // SAFETY: it is open, it came with the process, and the set says that nobody has taken it yet.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}
