//! Processes that are nobody's children here: what the kernel tells of one, and of its end.

use std::fmt::Display;
use std::io;
use std::os::fd::OwnedFd;

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// A file of `/proc/PID`. Programs and threads may have names that are no text; what is not is replaced.
pub fn text(process: impl Display, file: &str) -> io::Result<String> {
    Ok(String::from_utf8_lossy(&std::fs::read(format!("/proc/{process}/{file}"))?).into_owned())
}

/// What `/proc/PID/stat` says of a process, or of a thread (proc_pid_stat(5)).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stat {
    /// Its number, in the pid namespace of the mount.
    pub pid: i32,
    /// The name of its program, as far as the kernel keeps it. It may hold anything.
    pub name: String,
    /// Z is a zombie, X is dead, t is stopped by a tracer, T by a signal.
    pub state: char,
    /// Its session; 0 if that began outside the pid namespace.
    pub session: i32,
    /// Flags of the kernel.
    pub(crate) flags: u64,
    /// Its nice value.
    pub nice: i32,
    /// When it was started, in clock ticks since the host was: with its number it is that process and no other.
    pub started: u64,
}

impl Stat {
    /// Reads it; `process` is a number or `self`. `None` if there is no such process.
    pub fn of(process: impl Display) -> Option<Self> {
        Self::parse(&text(process, "stat").ok()?)
    }

    fn parse(line: &str) -> Option<Self> {
        // The name may contain spaces and brackets, too; what follows its last bracket is plain.
        let (before, rest) = line.rsplit_once(") ")?;
        let (pid, name) = before.split_once(" (")?;
        let fields: Vec<&str> = rest.split(' ').collect();
        Some(Self {
            pid: pid.parse().ok()?,
            name: name.to_owned(),
            state: fields.first()?.chars().next()?,
            session: fields.get(3)?.parse().ok()?,
            flags: fields.get(6)?.parse().ok()?,
            nice: fields.get(16)?.parse().ok()?,
            started: fields.get(19)?.parse().ok()?,
        })
    }

    /// Whether nothing of it runs any more, reaped or not.
    pub fn has_ended(&self) -> bool {
        matches!(self.state, 'Z' | 'X')
    }

    /// Whether it has ended or is about to: one that was killed as the first of a pid namespace waits in the kernel for all
    /// others there, and for a frozen one until its thaw.
    pub fn is_ending(&self) -> bool {
        /// The kernel's flag for a task that has begun to exit.
        const EXITING: u64 = 0x4;
        self.has_ended() || self.flags & EXITING != 0
    }

    /// Kills it, unless its number belongs to another one by now. It may take a while to end.
    pub fn kill(&self) {
        let Some(pid) = Pid::from_raw(self.pid) else { return };
        // The handle pins whoever has the number now, and the second look tells who that is. Each step fails only where the
        // process is gone.
        if let Ok(handle) = pidfd_open(pid, PidfdFlags::empty())
            && Self::of(self.pid).is_some_and(|now| now.started == self.started)
        {
            let _ = pidfd_send_signal(handle, Signal::KILL);
        }
    }
}

/// A process by a descriptor, so that another one that gets its number later is not taken for it.
#[derive(Debug)]
pub struct Process(AsyncFd<OwnedFd>);

impl Process {
    /// Takes hold of the process that has this number now; whether it is the one that is meant is to be seen afterwards.
    /// Within a runtime. `Err` also if there is none.
    #[allow(unsafe_code)]
    pub fn open(pid: u32) -> io::Result<Self> {
        let pid = i32::try_from(pid).ok().and_then(Pid::from_raw).ok_or(io::ErrorKind::InvalidInput)?;
        let fd = pidfd_open(pid, PidfdFlags::empty())?;
        // SAFETY: the descriptor is owned by what is returned, and nobody closes it before that is dropped.
        Ok(Self(unsafe { AsyncFd::register_with_interest(fd, Interest::READABLE) }?))
    }

    /// Waits until it has ended, reaped or not. `Err` if that cannot be told. A process that was killed ends only after its
    /// whole pid namespace, if it is the first one there.
    pub async fn ended(&self) -> io::Result<()> {
        self.0.readable().await.map(drop)
    }
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};
    use std::time::Duration;

    use super::*;

    fn line(name: &str, state: char, flags: u64) -> String {
        format!("7 ({name}) {state} 1 7 9 0 -1 {flags} 10 0 0 0 1 2 3 4 20 -5 1 0 4711 1000 10 1 0")
    }

    #[test]
    fn a_name_with_brackets_does_not_shift_the_fields() {
        let stat = Stat::parse(&line("a ) b) (c", 'S', 0x0040_0140)).unwrap();
        assert_eq!((stat.pid, &*stat.name, stat.state, stat.session), (7, "a ) b) (c", 'S', 9));
        assert_eq!((stat.nice, stat.started), (-5, 4711));
        assert_eq!(Stat::parse(""), None);
        assert_eq!(Stat::parse("7 (cat) S 1 7"), None);
        let own = Stat::of("self").unwrap();
        assert_eq!(u32::try_from(own.pid).unwrap(), std::process::id());
        assert_eq!(Stat::of(own.pid).unwrap().started, own.started);
    }

    #[test]
    fn a_process_that_ends_is_told_from_one_that_has_ended() {
        let of = |state, flags| {
            let stat = Stat::parse(&line("cat", state, flags)).unwrap();
            (stat.has_ended(), stat.is_ending())
        };
        assert_eq!(of('S', 0x0040_0140), (false, false));
        assert_eq!(of('Z', 0x0040_0140), (true, true));
        // Killed, and waiting in the kernel for what is below it.
        assert_eq!(of('S', 0x0040_0144), (false, true));
    }

    #[test]
    fn a_name_that_is_no_text_hides_nobody() {
        let dir = tempfile::tempdir().unwrap();
        let program =
            dir.path().join(<std::ffi::OsStr as std::os::unix::ffi::OsStrExt>::from_bytes(b"caf\xe9"));
        std::fs::copy("/bin/cat", &program).unwrap();
        let mut child = Command::new(program).stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
        let stat = Stat::of(child.id()).unwrap();
        assert!(stat.name.starts_with("caf") && !stat.is_ending(), "{stat:?}");
        stat.kill();
        child.wait().unwrap();
    }

    #[test]
    fn only_the_process_that_is_meant_is_killed() {
        let mut child = Command::new("cat").stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
        let stat = Stat::of(child.id()).unwrap();
        Stat { started: stat.started + 1, ..stat.clone() }.kill();
        assert!(child.try_wait().unwrap().is_none());
        stat.kill();
        use std::os::unix::process::ExitStatusExt;
        assert_eq!(child.wait().unwrap().signal(), Some(9));
    }

    #[tokio::test]
    async fn an_end_is_told_before_anybody_reaps() {
        let mut child = Command::new("cat").stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
        let process = Process::open(child.id()).unwrap();
        assert!(tokio::time::timeout(Duration::from_millis(20), process.ended()).await.is_err(), "it lives");
        child.kill().unwrap();
        tokio::time::timeout(Duration::from_secs(20), process.ended()).await.unwrap().unwrap();
        child.wait().unwrap();
        assert!(Process::open(0).is_err());
    }
}
