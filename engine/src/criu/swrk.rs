//! The client of `criu swrk`: one CRIU process, one request, its callbacks, its answer.
//!
//! ```text
//! we                            criu swrk N
//!  │──── Request ───────────────►│
//!  │◄─── Response{notify} ───────│   at each point it reaches; it waits for our answer
//!  │──── Request{notify_success}►│
//!  │             ...             │
//!  │◄─── Response{success} ──────│   then it exits
//! ```
//! The socket keeps message borders (SOCK_SEQPACKET). Descriptors named in a request by number (`images_dir_fd`) are
//! numbers *of this process*: CRIU looks who made its socket and opens them through `/proc`.
//!
//! The process is never killed here. A CRIU killed in the middle of a dump leaves its parasite code in some tasks
//! and others dead; one whose client goes away finishes or undoes what it does and then exits. So dropping [`Swrk`]
//! only closes the socket, and the child is reaped in the background.

use std::fs::File;
use std::io::{self, Read, Seek};
use std::os::fd::{AsFd, OwnedFd, RawFd};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::time::Duration;

use prost::Message;
use rustix::fs::{MemfdFlags, memfd_create};
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, recv, send, socketpair, sockopt,
};
use tokio::io::unix::AsyncFd;
use tokio::process::Child;
use tokio::time::timeout;

use super::rpc::{Kind, Request, Response};
use crate::spawn::Spawn;

/// The number under which CRIU gets its end of the socket.
const SOCKET_NUMBER: RawFd = 3;

/// Largest message: requests with thousands of external mounts stay far below.
pub(super) const MAX_MESSAGE: usize = 1 << 20;

/// Most of what CRIU says on its standard error before it has a log that goes into an error message, in bytes.
const MAX_STDERR: u64 = 4096;

/// A running `criu swrk`.
#[derive(Debug)]
pub struct Swrk {
    socket: AsyncFd<OwnedFd>,
    child: Child,
    stderr: File,
}

/// What CRIU tells.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// It has reached this point and waits for [`Swrk::answer`].
    Reached {
        /// Name of the point, as `pre-dump`.
        point: String,
        /// The root of the tree, where CRIU knows it.
        pid: Option<i32>,
    },
    /// It is done with the request.
    Done(Response),
}

/// The conversation with CRIU broke off.
#[derive(Debug, thiserror::Error)]
pub enum SwrkError {
    /// It could not be started.
    #[error("cannot start {program}")]
    Start {
        /// CRIU's program file.
        program: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A message could not be sent or received.
    #[error("cannot {action}")]
    Socket {
        /// What was tried.
        action: &'static str,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It sent something that is no message.
    #[error("cannot understand a message from CRIU")]
    Decode {
        /// Why.
        #[source]
        source: prost::DecodeError,
    },
    /// It ended in the middle.
    #[error("CRIU ended without an answer{}", said(.stderr))]
    Gone {
        /// What it said on its standard error.
        stderr: String,
    },
    /// It did not say anything for too long. It still runs.
    #[error("CRIU (pid {}) did not {what} within {} s", pid.unwrap_or(0), waited.as_secs_f64())]
    Silent {
        /// Its pid, if it has not ended meanwhile.
        pid: Option<u32>,
        /// What was waited for.
        what: &'static str,
        /// How long.
        waited: Duration,
    },
}

impl Swrk {
    /// Starts CRIU, which then waits for a request. It belongs to no terminal and outlives us.
    pub fn spawn(program: &Path) -> Result<Self, SwrkError> {
        let start = |source: io::Error| SwrkError::Start { program: program.to_owned(), source };
        let (ours, theirs) =
            socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
                .map_err(|errno| start(errno.into()))?;
        // Best effort: without it messages are limited to the system's default, some 200 KiB.
        let _ = sockopt::set_socket_send_buffer_size_force(&ours, MAX_MESSAGE);
        rustix::io::ioctl_fionbio(&ours, true).map_err(|errno| start(errno.into()))?;
        let stderr = File::from(
            memfd_create("criu-stderr", MemfdFlags::CLOEXEC).map_err(|errno| start(errno.into()))?,
        );

        let mut command = Command::new(program);
        command.arg("swrk").arg(SOCKET_NUMBER.to_string()).stdin(Stdio::null()).stdout(Stdio::null());
        command.stderr(stderr.try_clone().map_err(start)?);
        let spawn = Spawn::new(command).session().pass(theirs, SOCKET_NUMBER);
        let child = spawn.spawn_async().map_err(start)?;
        Ok(Self { socket: registered(ours).map_err(start)?, child, stderr })
    }

    /// Its pid, until it has been waited for.
    pub fn pid(&self) -> Option<u32> {
        self.child.id()
    }

    /// Sends a request. The descriptors that it names must stay open until the answer is there.
    pub async fn send(&mut self, request: &Request, deadline: Duration) -> Result<(), SwrkError> {
        let message = request.encode_to_vec();
        let socket = &self.socket;
        let sent = timeout(deadline, async {
            loop {
                let mut ready = socket.writable().await?;
                let sent = ready.try_io(|inner| Ok(send(inner.as_fd(), &message, SendFlags::NOSIGNAL)?));
                if let Ok(result) = sent {
                    return result;
                }
            }
        });
        match sent.await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(source))
                if matches!(source.kind(), io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset) =>
            {
                Err(self.gone())
            }
            Ok(Err(source)) => Err(SwrkError::Socket { action: "send a request to CRIU", source }),
            Err(_) => Err(self.silent("take a request", deadline)),
        }
    }

    /// Answers the last [`Event::Reached`]. What a refusal does depends on the point.
    pub async fn answer(&mut self, go_on: bool, deadline: Duration) -> Result<(), SwrkError> {
        self.send(&Request::answer(go_on), deadline).await
    }

    /// The next thing CRIU tells. May be dropped and called again: nothing is lost.
    pub async fn next(&mut self, deadline: Duration) -> Result<Event, SwrkError> {
        let mut buffer = vec![0; MAX_MESSAGE];
        let Self { socket, child, .. } = self;
        let received = timeout(deadline, async {
            loop {
                tokio::select! {
                    biased;
                    ready = socket.readable() => {
                        let received = ready?
                            .try_io(|inner| Ok(recv(inner.as_fd(), &mut buffer[..], RecvFlags::TRUNC)?));
                        if let Ok(result) = received {
                            return result;
                        }
                    }
                    // One that was killed leaves children that hold its socket open; they will say nothing.
                    _ = child.wait() => {
                        let last = recv(socket.as_fd(), &mut buffer[..], RecvFlags::TRUNC);
                        return match last {
                            Err(rustix::io::Errno::AGAIN) => Ok((0, 0)),
                            last => Ok(last?),
                        };
                    }
                }
            }
        });
        let action = "receive a message from CRIU";
        let length = match received.await {
            Ok(Ok((_, 0))) => return Err(self.gone()),
            Ok(Ok((_, length))) if length > buffer.len() => {
                return Err(SwrkError::Socket { action, source: io::ErrorKind::FileTooLarge.into() });
            }
            Ok(Ok((_, length))) => length,
            Ok(Err(source)) if source.kind() == io::ErrorKind::ConnectionReset => return Err(self.gone()),
            Ok(Err(source)) => return Err(SwrkError::Socket { action, source }),
            Err(_) => return Err(self.silent("report", deadline)),
        };
        let response = Response::decode(&buffer[..length]).map_err(|source| SwrkError::Decode { source })?;
        Ok(match (response.kind == Kind::Notify as i32, response.notify) {
            (true, Some(notify)) => Event::Reached {
                point: notify.script.unwrap_or_default(),
                pid: notify.pid.filter(|pid| *pid > 0),
            },
            (_, notify) => Event::Done(Response { notify, ..response }),
        })
    }

    /// Waits until the process has ended.
    ///
    /// On `Err` it still runs; it may be called again.
    pub async fn ended(&mut self, deadline: Duration) -> Result<ExitStatus, SwrkError> {
        match timeout(deadline, self.child.wait()).await {
            Ok(Ok(status)) => Ok(status),
            Ok(Err(source)) => Err(SwrkError::Socket { action: "wait for CRIU", source }),
            Err(_) => Err(self.silent("end", deadline)),
        }
    }

    fn silent(&self, what: &'static str, waited: Duration) -> SwrkError {
        SwrkError::Silent { pid: self.pid(), what, waited }
    }

    fn gone(&mut self) -> SwrkError {
        let mut text = Vec::new();
        let read = self.stderr.rewind().and_then(|()| (&self.stderr).take(MAX_STDERR).read_to_end(&mut text));
        let text = read.map(|_| String::from_utf8_lossy(&text).trim().to_owned());
        SwrkError::Gone { stderr: text.unwrap_or_default() }
    }
}

/// A socket that the runtime watches.
#[allow(unsafe_code)]
fn registered(socket: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: an `OwnedFd` is open and stays the same descriptor; nothing here replaces it in the `AsyncFd`.
    Ok(unsafe { AsyncFd::register(socket) }?)
}

fn said(stderr: &str) -> String {
    if stderr.is_empty() { String::new() } else { format!(": {stderr}") }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    /// A program that ends, and leaves a child that holds everything open.
    #[tokio::test]
    async fn one_that_was_killed_is_gone_whoever_holds_its_socket() {
        let home = tempfile::tempdir().unwrap();
        let program = home.path().join("criu");
        let script = "#!/bin/sh\nsleep 600 & echo $! > \"$0.child\"\nkill -9 $$\n";
        std::fs::write(&program, script).unwrap();
        std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
        let mut swrk = Swrk::spawn(&program).unwrap();
        let next = swrk.next(Duration::from_secs(60)).await;
        let child = std::fs::read_to_string(home.path().join("criu.child")).unwrap();
        let child = rustix::process::Pid::from_raw(child.trim().parse().unwrap()).unwrap();
        rustix::process::kill_process(child, rustix::process::Signal::KILL).unwrap();
        assert!(matches!(next, Err(SwrkError::Gone { .. })), "{next:?}");
    }
}
