//! The end of a process that is nobody's child here, told by the kernel instead of looked for.

use std::io;
use std::os::fd::OwnedFd;

use rustix::process::{Pid, PidfdFlags, pidfd_open};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

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
