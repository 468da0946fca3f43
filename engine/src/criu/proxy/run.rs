//! The restore itself: arm, go, relay, freeze, check.

use std::env;
use std::error::Error;
use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use prost::Message;
use rustix::fs::{Mode, OFlags, open, openat};
use rustix::io::{FdFlags, fcntl_dupfd_cloexec, fcntl_setfd};
use rustix::net::{AddressFamily, Shutdown, SocketFlags, SocketType, shutdown, socketpair, sockopt};
use rustix::process::{Pid, Signal, kill_process};

use super::channel::{Channel, Packet};
use super::nest::Nest;
use super::{CGROUP_VARIABLE, SOCKET_VARIABLE, rewrite};
use crate::cgroup::Cgroup;
use crate::criu::failure::CriuFailure;
use crate::criu::frozen::confirm_frozen;
use crate::criu::link::{FromProxy, HeldTree};
use crate::criu::restore::RestoreDeadlines;
use crate::criu::rpc::{Kind, Options, Request, Response};
use crate::criu::swrk::MAX_MESSAGE;
use crate::criu::tree::members;

/// Name of CRIU's log where runc gives none.
const LOG: &str = "restore.log";

/// How much of that log is looked at, in bytes; it can grow without bounds if CRIU goes astray.
const MAX_LOG: u64 = 16 << 20;

/// Time between two looks at whether CRIU has ended.
const LOOK_EVERY: Duration = Duration::from_millis(1);

/// Time between two looks at whether CRIU has ended while a message of it is awaited.
const LOOK_FOR_END: Duration = Duration::from_millis(50);

const READ_LOG: &str = "read the end of CRIU's log";

/// Relays one restore. Whatever happens, runc gets an answer and the nest a word.
pub(super) fn restore(criu: &Path, runc: &Channel, deadlines: RestoreDeadlines) -> ExitCode {
    let mut nest = match connect(deadlines) {
        Ok(nest) => nest,
        Err(error) => return refuse(runc, format!("the proxy of criu cannot reach the nest: {error}")),
    };
    let mut restore = match Restore::prepare(criu, runc, &nest, deadlines) {
        Ok(restore) => restore,
        Err(error) => {
            let cause = format!("the proxy of criu cannot prepare the restore: {error}");
            nest.tell(&FromProxy::Failed(CriuFailure::ours(cause.clone(), "see the cause", "")));
            return refuse(runc, cause);
        }
    };
    nest.tell(&FromProxy::Armed { proxy: own_pid() });
    let wire = match nest.go(runc) {
        Ok(wire) => wire,
        Err(reason) => {
            // CRIU has been asked for nothing, so it ends when its socket is closed.
            let failure = CriuFailure::ours(reason.to_owned(), "start the migration again", "");
            nest.tell(&FromProxy::Failed(failure));
            return refuse(runc, reason.to_owned());
        }
    };
    restore.until = Instant::now() + deadlines.restore;
    match restore.run(wire.then_some(&mut nest)) {
        Ok(tree) => {
            nest.tell(&FromProxy::Held(tree));
            ExitCode::SUCCESS
        }
        Err(failure) => {
            let failure = restore.discard(failure);
            nest.tell(&FromProxy::Failed(failure.clone()));
            match restore.answered {
                true => ExitCode::FAILURE,
                false => refuse(runc, failure.to_string()),
            }
        }
    }
}

fn connect(deadlines: RestoreDeadlines) -> io::Result<Nest> {
    let missing = || io::Error::new(io::ErrorKind::NotFound, format!("{SOCKET_VARIABLE} is not set"));
    Nest::connect(Path::new(&env::var_os(SOCKET_VARIABLE).ok_or_else(missing)?), deadlines)
}

fn refuse(runc: &Channel, message: String) -> ExitCode {
    // Where runc is gone as well there is nobody to tell.
    let _ = runc.send(&Packet::from(Response::failed_restore(message).encode_to_vec()));
    ExitCode::FAILURE
}

/// A restore on its way.
struct Restore<'a> {
    runc: &'a Channel,
    criu: Channel,
    child: Child,
    cgroup: Cgroup,
    /// Where this process and CRIU go when they leave the container's cgroup.
    home: Cgroup,
    /// For CRIU, which opens them by their numbers here.
    _images: OwnedFd,
    work: OwnedFd,
    log: String,
    request: Vec<u8>,
    deadlines: RestoreDeadlines,
    until: Instant,
    /// runc has the final answer.
    answered: bool,
    frozen: bool,
    /// The first process of the tree, as soon as CRIU names it.
    root: Option<Pid>,
}

impl<'a> Restore<'a> {
    /// Everything that can be done before the images are complete.
    fn prepare(
        criu: &Path,
        runc: &'a Channel,
        nest: &Nest,
        deadlines: RestoreDeadlines,
    ) -> Result<Self, String> {
        let cgroup = env::var(CGROUP_VARIABLE).map_err(|_| format!("{CGROUP_VARIABLE} is not set"))?;
        let cgroup = serde_json::from_str(&cgroup).map_err(|error| format!("{CGROUP_VARIABLE}: {error}"))?;
        let home = nest.cgroup().map_err(|error| format!("no cgroup to go to: {}", chain(&error)))?;
        let (child, criu) =
            start(criu).map_err(|error| format!("cannot start {}: {error}", criu.display()))?;

        let packet = runc.receive(Instant::now() + deadlines.request).map_err(|error| error.to_string())?;
        let bytes = packet.ok_or("runc is gone")?.bytes;
        let options = Request::decode(&bytes[..]).map_err(|error| error.to_string())?.opts;
        let options = options.unwrap_or_default();
        let (images, work) =
            directories(runc, &options).map_err(|error| format!("image directory: {error}"))?;
        let request = rewrite::restore_request(&bytes, images.as_raw_fd(), work.as_raw_fd())
            .map_err(|error| error.to_string())?;
        let log = options.log_file.unwrap_or_else(|| LOG.to_owned());
        Ok(Self {
            runc,
            criu,
            child,
            cgroup,
            home,
            _images: images,
            work,
            log,
            request,
            deadlines,
            until: Instant::now(),
            answered: false,
            frozen: false,
            root: None,
        })
    }

    /// From go to HELD. `wiring`: the nest, if it wires the network namespace.
    fn run(&mut self, mut wiring: Option<&mut Nest>) -> Result<HeldTree, CriuFailure> {
        let request = Packet::from(std::mem::take(&mut self.request));
        self.criu.send(&request).map_err(|error| self.lost("CRIU", &error))?;
        let result = loop {
            let packet = self.await_criu()?;
            let response =
                Response::decode(&packet.bytes[..]).map_err(|error| self.lost("CRIU", &error.into()))?;
            let Some(notify) = response.notify.filter(|_| response.kind == Kind::Notify as i32) else {
                break (packet, response.success, response.restore.map(|restored| restored.pid));
            };
            self.root = notify.pid.and_then(Pid::from_raw).or(self.root);
            match (notify.script.as_deref(), &mut wiring) {
                (Some("pre-resume"), _) => self.freeze()?,
                // After it come the files, and with them the sockets.
                (Some("post-setup-namespaces"), Some(nest)) => self.wire(nest)?,
                _ => {}
            }
            self.runc.send(&packet).map_err(|error| self.lost("runc", &error))?;
            let answer = self.from("runc", self.runc)?;
            self.criu.send(&answer).map_err(|error| self.lost("CRIU", &error))?;
        };
        let (packet, succeeded, pid) = result;
        let pid = pid.filter(|pid| succeeded && *pid > 0).ok_or_else(|| self.logged())?;
        if !self.frozen {
            return Err(self.ours("CRIU restored the tasks without reaching the point where they are frozen"));
        }
        // runc finishes while the last checks are made.
        self.runc.send(&packet).map_err(|error| self.lost("runc", &error))?;
        self.answered = true;
        self.wait_for_criu(self.until)?;
        self.verify(pid)
    }

    /// With all namespaces made and nothing in them.
    fn wire(&self, nest: &mut Nest) -> Result<(), CriuFailure> {
        let root = self.root.ok_or_else(|| self.ours("CRIU did not name the first process of the tree"))?;
        nest.wire(root.as_raw_pid(), self.until).map_err(|reason| self.ours(reason))
    }

    /// With all tasks restored and none let go: from here on none of them runs.
    fn freeze(&mut self) -> Result<(), CriuFailure> {
        self.leave().map_err(|error| self.ours(&format!("cannot leave the container's cgroup: {error}")))?;
        let frozen = self.cgroup.freeze(self.deadlines.freeze);
        frozen
            .map_err(|error| self.ours(&format!("the restored tasks cannot be frozen: {}", chain(&error))))?;
        self.frozen = true;
        Ok(())
    }

    /// Takes this process, CRIU and its helpers out of the container's cgroup: all that are not in the container's
    /// own pid namespace.
    fn leave(&self) -> Result<(), String> {
        let namespace = |pid: i32| std::fs::read_link(format!("/proc/{pid}/ns/pid"));
        let own = namespace(own_pid()).map_err(|error| error.to_string())?;
        for pid in self.cgroup.procs().map_err(|error| chain(&error))? {
            // One that ended meanwhile has left as well.
            if namespace(pid).is_ok_and(|found| found == own) {
                self.home.admit(pid).map_err(|error| format!("process {pid}: {}", chain(&error)))?;
            }
        }
        Ok(())
    }

    /// With CRIU gone: the tree is there, all of it frozen.
    fn verify(&self, pid: i32) -> Result<HeldTree, CriuFailure> {
        match confirm_frozen(pid, &self.cgroup) {
            Ok(tasks) => Ok(HeldTree { pid, tasks }),
            Err(error) => Err(self.ours(&format!("the restored tree is not held: {}", chain(&error)))),
        }
    }

    /// After a failure: nothing that was restored stays.
    ///
    /// CRIU is killed only when none of the tasks that it has in its hands can run once it lets go: frozen, or with
    /// SIGKILL pending. Before there are any it ends by itself, without its socket.
    fn discard(&mut self, mut failure: CriuFailure) -> CriuFailure {
        let left = self.leave();
        let frozen = left.is_ok() && self.cgroup.freeze(self.deadlines.freeze).is_ok();
        if self.kill_tree() || frozen {
            let _ = self.child.kill();
        }
        let _ = shutdown(&self.criu.0, Shutdown::Both);
        // Without having left it, killing all in the cgroup would kill this process.
        let emptied =
            left.and_then(|()| self.cgroup.kill_all(self.deadlines.kill).map_err(|error| chain(&error)));
        let _ = self.wait_for_criu(Instant::now() + self.deadlines.kill);
        if let Err(error) = emptied {
            failure.cause = format!("{}; what was restored may still be there: {error}", failure.cause);
        }
        failure
    }

    /// Kills the pid namespace of the tree, its first process before the others; also where the cgroup is of no help.
    fn kill_tree(&self) -> bool {
        let Some(root) = self.root else { return false };
        let members = members(root.as_raw_pid()).unwrap_or_default();
        let others = members.iter().filter_map(|member| Pid::from_raw(member.pid)).filter(|pid| *pid != root);
        std::iter::once(root).chain(others).for_each(|pid| {
            // One that is gone is what is wanted.
            let _ = kill_process(pid, Signal::KILL);
        });
        true
    }

    /// CRIU's next message. Its end is looked for as well: the tasks that it makes hold its socket open, so that one
    /// that was killed would be waited for to the end of time.
    fn await_criu(&mut self) -> Result<Packet, CriuFailure> {
        loop {
            // In this order: whatever it sent before it ended is there once it has ended.
            let ended = self.ended();
            let until = if ended { Instant::now() } else { self.until.min(Instant::now() + LOOK_FOR_END) };
            match self.criu.receive(until) {
                Ok(Some(packet)) => return Ok(packet),
                Ok(None) => return Err(self.logged()),
                Err(error) if error.kind() == io::ErrorKind::TimedOut => match ended {
                    true => return Err(self.ours("CRIU ended in the middle of the restore")),
                    false if Instant::now() < self.until => {}
                    false => return Err(self.lost("CRIU", &error)),
                },
                Err(error) => return Err(self.lost("CRIU", &error)),
            }
        }
    }

    fn from(&self, whom: &str, channel: &Channel) -> Result<Packet, CriuFailure> {
        match channel.receive(self.until) {
            Ok(Some(packet)) => Ok(packet),
            Ok(None) => Err(self.lost(whom, &io::ErrorKind::UnexpectedEof.into())),
            Err(error) => Err(self.lost(whom, &error)),
        }
    }

    fn ended(&mut self) -> bool {
        self.child.try_wait().is_ok_and(|status| status.is_some())
    }

    fn wait_for_criu(&mut self, until: Instant) -> Result<(), CriuFailure> {
        while !self.ended() {
            if Instant::now() > until {
                return Err(self.ours("CRIU restored the tasks but does not end"));
            }
            thread::sleep(LOOK_EVERY);
        }
        Ok(())
    }

    fn lost(&self, whom: &str, error: &io::Error) -> CriuFailure {
        match error.kind() {
            io::ErrorKind::TimedOut => {
                self.ours(&format!("the restore took longer than {} s", self.deadlines.restore.as_secs_f64()))
            }
            _ => self.ours(&format!("lost {whom} during the restore: {error}")),
        }
    }

    fn logged(&self) -> CriuFailure {
        CriuFailure::from_log(&self.read_log())
    }

    fn ours(&self, cause: &str) -> CriuFailure {
        CriuFailure::ours(cause.to_owned(), READ_LOG, &self.read_log())
    }

    fn read_log(&self) -> String {
        let mut log = Vec::new();
        if let Ok(file) = openat(&self.work, &self.log, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()) {
            let _ = File::from(file).take(MAX_LOG).read_to_end(&mut log);
        }
        String::from_utf8_lossy(&log).into_owned()
    }
}

/// Starts the real CRIU with all the descriptors that runc gave this process: numbers in the request that are meant
/// for CRIU itself (`inherit_fd`) stay right.
fn start(criu: &Path) -> io::Result<(Child, Channel)> {
    let (ours, theirs) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
    let _ = sockopt::set_socket_send_buffer_size_force(&ours, MAX_MESSAGE);
    // This process has one thread: nothing else can start a child that would inherit it as well.
    fcntl_setfd(&theirs, FdFlags::empty())?;
    let number = OsString::from(theirs.as_raw_fd().to_string());
    let child = Command::new(criu).arg("swrk").arg(number).stdin(Stdio::inherit()).spawn()?;
    Ok((child, Channel(ours)))
}

/// runc's directories, opened again in this process.
fn directories(runc: &Channel, options: &Options) -> io::Result<(OwnedFd, OwnedFd)> {
    let pid = sockopt::socket_peercred(&runc.0)?.pid.as_raw_pid();
    let reopen = |number: i32| {
        let path = PathBuf::from(format!("/proc/{pid}/fd/{number}"));
        open(path, OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
    };
    let images = reopen(options.images_dir_fd)?;
    let work = match options.work_dir_fd {
        Some(number) => reopen(number)?,
        None => fcntl_dupfd_cloexec(&images, 0)?,
    };
    Ok((images, work))
}

/// An error with its sources, in one line.
fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text = format!("{text}: {error}");
        source = error.source();
    }
    text
}

fn own_pid() -> i32 {
    rustix::process::getpid().as_raw_pid()
}
