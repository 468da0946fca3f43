//! The nest as the proxy sees it.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Instant;

use rustix::net::sockopt::socket_peercred;

use super::channel::{Channel, wait};
use crate::cgroup::{Cgroup, CgroupError};
use crate::criu::link::{FromNest, FromProxy, MAX_LINE};
use crate::criu::restore::RestoreDeadlines;

#[derive(Debug)]
pub(super) struct Nest {
    stream: BufReader<UnixStream>,
    deadlines: RestoreDeadlines,
}

impl Nest {
    pub(super) fn connect(path: &Path, deadlines: RestoreDeadlines) -> io::Result<Self> {
        let stream = UnixStream::connect(path)?;
        stream.set_write_timeout(Some(deadlines.answer))?;
        Ok(Self { stream: BufReader::new(stream), deadlines })
    }

    /// The cgroup in which the nest is: a place where a process may be that is not in the container's.
    pub(super) fn cgroup(&self) -> Result<Cgroup, CgroupError> {
        let pid = socket_peercred(self.stream.get_ref()).map_err(io::Error::from);
        let pid = pid.map_err(|source| CgroupError::Read { path: "the nest's socket".into(), source })?;
        Cgroup::of_process(pid.pid.as_raw_pid())
    }

    /// Tells it something. It may be gone, and that changes nothing.
    pub(super) fn tell(&mut self, message: &FromProxy) {
        if let Ok(mut line) = serde_json::to_vec(message) {
            line.push(b'\n');
            let _ = self.stream.get_mut().write_all(&line);
        }
    }

    /// Waits for go, and whether the nest wires the namespaces. The error says who does not want it any more.
    pub(super) fn go(&mut self, runc: &Channel) -> Result<bool, &'static str> {
        let deadline = Instant::now() + self.deadlines.images;
        let ready = wait(&[runc.0.as_fd(), self.stream.get_ref().as_fd()], deadline);
        match ready {
            Ok(0) => return Err("runc gave up before the images were complete"),
            Ok(_) => {}
            Err(_) => return Err("the images did not come in time"),
        }
        match self.read() {
            Some(FromNest::Go { wire }) => Ok(wire),
            _ => Err("the nest called the restore off"),
        }
    }

    /// Has the nest wire the namespaces of the tree whose first process is `pid`. The error says why they are not.
    pub(super) fn wire(&mut self, pid: i32, deadline: Instant) -> Result<(), &'static str> {
        self.tell(&FromProxy::Namespaces { pid });
        match wait(&[self.stream.get_ref().as_fd()], deadline) {
            Ok(_) => {}
            Err(_) => return Err("the network was not wired in time"),
        }
        match self.read() {
            Some(FromNest::Wired) => Ok(()),
            _ => Err("the nest could not wire the network"),
        }
    }

    fn read(&mut self) -> Option<FromNest> {
        let mut line = String::new();
        (&mut self.stream).take(MAX_LINE).read_line(&mut line).ok()?;
        serde_json::from_str(&line).ok()
    }
}
