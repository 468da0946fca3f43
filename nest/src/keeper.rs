//! The keeper: a copy's life line.
//!
//! It is pid 1 of its own pid namespace, so the kernel ends nest and service with it: a copy never outlives the
//! process that holds what it needs. It does as little as possible, because it must never fail: it holds the stdio
//! pipes, writes the log, reaps, records how the service ended, and starts the nest again when that dies. Restarting
//! the site or replacing the nest's binary never touches it.

mod log;

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::io::FdFlags;
use rustix::mount::{MountFlags, MountPropagationFlags, mount, mount_change};
use rustix::process::{Pid, WaitOptions, WaitStatus};
use serde::{Deserialize, Serialize};
use ums_engine::process::Stat;

use crate::layout::{NestDir, service_pid};
use crate::state::{FileError, write_json};

/// Pause before a nest that died is started again, so that one that cannot start does not eat a core.
const NEST_PAUSE: Duration = Duration::from_millis(200);

/// Size in bytes at which [`NestDir::diagnosis`] is begun anew when a nest starts; a nest that cannot start would fill
/// the disk otherwise.
const MAX_DIAGNOSIS: u64 = 4 * 1024 * 1024;

/// How a service ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exit {
    /// Exit code, or 128 + signal.
    pub code: i32,
    /// Unix time in milliseconds.
    pub at_unix_ms: u64,
}

/// Identifies a keeper in the site's pid namespace, also after its pid was reused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeeperId {
    /// Its pid.
    pub pid: u32,
    /// Its start time since the host was started, field 22 of `/proc/PID/stat`.
    pub start: u64,
    /// In which life of the host, as a part of the kernel's own random number for it; 0 where that is not known.
    #[serde(default)]
    pub boot: u64,
}

impl KeeperId {
    /// Reads the id of a process from a `/proc` mount; `None` if it does not exist.
    pub fn of(process: &str) -> Option<Self> {
        Some(Self::from(&Stat::of(process)?))
    }

    /// Whether this very process still exists, is no zombie and is not on its way to become one: a keeper that was
    /// killed waits in the kernel until everything below it has ended, which a frozen copy does not before its thaw.
    pub fn is_alive(&self) -> bool {
        let Some(stat) = Stat::of(self.pid).filter(|stat| !stat.is_ending()) else { return false };
        let now = Self::from(&stat);
        // Written by an older version, it says nothing about the host.
        let boot = if self.boot == 0 { 0 } else { now.boot };
        *self == Self { boot, ..now }
    }
}

impl From<&Stat> for KeeperId {
    fn from(stat: &Stat) -> Self {
        Self { pid: stat.pid.unsigned_abs(), start: stat.started, boot: boot() }
    }
}

/// Which life of the host this is.
fn boot() -> u64 {
    let id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    let digits: String = id.chars().filter(char::is_ascii_hexdigit).take(16).collect();
    u64::from_str_radix(&digits, 16).unwrap_or(0)
}

/// A keeper that could not start; nothing of the service exists then.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "the fields are what the messages say")]
pub enum KeeperError {
    /// It was started by hand or by something that is no site.
    #[error("the keeper must be pid 1 of a pid namespace of its own; it is started by `ums site`")]
    NotInit,
    /// A namespace could not be prepared.
    #[error("cannot {action}")]
    Prepare { action: &'static str, source: io::Error },
    /// A state file could not be written.
    #[error("cannot record the keeper")]
    Record { source: FileError },
}

/// Runs the keeper of the nest in `dir` until the nest says that the service is gone for good. `program` is the `ums`
/// binary that is started as nest, looked up anew each time, so that an upgrade takes effect with the next nest.
pub fn main(dir: &Path, program: &Path) -> Result<(), KeeperError> {
    let prepare =
        |action| move |source: rustix::io::Errno| KeeperError::Prepare { action, source: source.into() };
    if std::process::id() != 1 {
        return Err(KeeperError::NotInit);
    }
    let dir = NestDir::new(dir);
    // The inherited /proc still shows the site's pid namespace: the only moment at which we can learn that pid.
    let id = KeeperId::of("self").ok_or(KeeperError::NotInit)?;
    mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)
        .map_err(prepare("make the mounts private"))?;
    let plain = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    mount("proc", "/proc", "proc", plain, None).map_err(prepare("mount /proc"))?;
    let run = MountFlags::NOSUID | MountFlags::NODEV;
    mount("tmpfs", "/run", "tmpfs", run, Some(c"mode=755")).map_err(prepare("mount /run"))?;
    write_json(&dir.keeper(), &id).map_err(|source| KeeperError::Record { source })?;

    let stdio =
        Stdio::new().map_err(|source| KeeperError::Prepare { action: "make the stdio pipes", source })?;
    log::start(&dir, stdio.output)
        .map_err(|source| KeeperError::Prepare { action: "open the log", source })?;
    supervise(&dir, program, &stdio.service);
    Ok(())
}

/// The service's ends of its stdio, kept open here so that they outlive every nest.
struct Stdio {
    service: [OwnedFd; 3],
    output: [OwnedFd; 2],
}

impl Stdio {
    fn new() -> io::Result<Self> {
        // Standard input reads end-of-file at once: nobody holds its writing end.
        let (stdin, _) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
        let (out, stdout) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
        let (err, stderr) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
        let service = [stdin, stdout, stderr];
        for end in &service {
            // The nest inherits these three and nothing else.
            rustix::io::fcntl_setfd(end.as_fd(), FdFlags::empty())?;
        }
        Ok(Self { service, output: [out, err] })
    }
}

/// Keeps a nest running and reaps whatever ends below us. Returns when a nest exits with status 0.
fn supervise(dir: &NestDir, program: &Path, stdio: &[OwnedFd; 3]) {
    let mut nest = start_nest(dir, program, stdio);
    loop {
        // Without a nest (its program cannot be executed just now) nobody may be waited for without end.
        let options = if nest.is_some() { WaitOptions::empty() } else { WaitOptions::NOHANG };
        let (pid, status) = match rustix::process::wait(options) {
            Ok(Some(ended)) => ended,
            // Nobody ended, there is no child at all, or a signal came.
            Ok(None) | Err(_) => {
                if nest.is_none() {
                    std::thread::sleep(NEST_PAUSE);
                    nest = start_nest(dir, program, stdio);
                }
                continue;
            }
        };
        if Some(pid) == nest {
            if status.exit_status() == Some(0) {
                return;
            }
            std::thread::sleep(NEST_PAUSE);
            nest = start_nest(dir, program, stdio);
        } else if Some(pid) == recorded_service() {
            record_exit(dir, Exit { code: code(status), at_unix_ms: unix_ms() });
        }
    }
}

/// The pid file goes last: as long as it is there, the exit is still to be written; afterwards its number is free for
/// others.
fn record_exit(dir: &NestDir, exit: Exit) {
    for path in [crate::layout::exit(), dir.exit()] {
        if let Err(error) = write_json(&path, &exit) {
            eprintln!("keeper: cannot record that the service ended with {}: {error}", exit.code);
        }
    }
    let _ = std::fs::remove_file(service_pid());
}

fn start_nest(dir: &NestDir, program: &Path, stdio: &[OwnedFd; 3]) -> Option<Pid> {
    let fds: Vec<String> = stdio.iter().map(|fd| fd.as_raw_fd().to_string()).collect();
    let mut command = Command::new(program);
    command.arg("nest").arg("--dir").arg(dir.path()).arg("--stdio").arg(fds.join(","));
    if let Ok(diagnosis) = diagnosis(&dir.diagnosis()) {
        command.stderr(diagnosis);
    }
    match command.spawn() {
        Ok(child) => i32::try_from(child.id()).ok().and_then(Pid::from_raw),
        Err(error) => {
            eprintln!("keeper: cannot start the nest {}: {error}", program.display());
            None
        }
    }
}

/// What nests say is kept until it is too much, and then begun anew.
fn diagnosis(path: &PathBuf) -> io::Result<File> {
    let file = File::options().create(true).append(true).open(path)?;
    if file.metadata()?.len() > MAX_DIAGNOSIS {
        file.set_len(0)?;
    }
    Ok(file)
}

/// The first process of the service, as runc wrote it down.
pub(crate) fn recorded_service() -> Option<Pid> {
    let text = std::fs::read_to_string(service_pid()).ok()?;
    Pid::from_raw(text.trim().parse().ok()?)
}

fn code(status: WaitStatus) -> i32 {
    status.exit_status().or_else(|| status.terminating_signal().map(|signal| 128 + signal)).unwrap_or(-1)
}

/// Milliseconds since 1970.
pub(crate) fn unix_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_process_with_the_same_number_is_another_one() {
        let own = KeeperId::of("self").unwrap();
        assert!(own.is_alive());
        assert!(!KeeperId { start: own.start + 1, ..own }.is_alive());
        // The same numbers in another life of the host are another process; an older version wrote no such number.
        assert_ne!(own.boot, 0);
        assert!(!KeeperId { boot: own.boot ^ 1, ..own }.is_alive());
        assert!(KeeperId { boot: 0, ..own }.is_alive());
    }
}
