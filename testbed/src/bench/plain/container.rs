//! The process of the baseline: namespaces as a plain container has them, made with nothing but `unshare`.

use std::fs::{self, File};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::mount::{MountFlags, UnmountFlags, mount, mount_bind, unmount};
use rustix::process::{Pid, Signal, kill_process, pivot_root, setsid};

use crate::command;
use crate::ns::Ns;
use crate::tag::{MARKER, Tag};

/// First argument of `ums-bench` where it is to become the first process of a container.
pub const INIT: &str = "plain-init";
/// The one device that the process has. It belongs to the host, so CRIU is told of it.
pub(super) const NULL: &str = "dev/null";

/// Every descriptor but the first three is closed: one that leaked from whoever started the benchmark could not be
/// dumped.
const CLOSE_ALL: &str =
    r#"for f in /proc/self/fd/*; do n=${f##*/}; [ "$n" -gt 2 ] && eval "exec $n>&-"; done; exec "$@""#;

/// How long `unshare` may take to have a child.
const START: Duration = Duration::from_secs(10);
const POLL: Duration = Duration::from_millis(2);

/// A container that was started and not restored.
#[derive(Debug)]
pub(super) struct Container {
    outer: Child,
    /// Its first process, as the host sees it.
    pub(super) pid: i32,
}

impl Container {
    /// Starts `words` in pid and mount namespaces of its own on the root directory `root`, in the network namespace `ns`.
    /// What it says before it has become that command goes to `log`.
    pub(super) fn start(tag: &Tag, ns: &Ns, root: &Path, words: &[String], log: &Path) -> Result<Self> {
        let file = File::create(log).with_context(|| format!("cannot create {}", log.display()))?;
        let own = std::env::current_exe().context("cannot find the running program")?;
        let mut command = Command::new("bash");
        command
            .args(["-c", CLOSE_ALL, "close-all", "unshare", "--pid", "--mount", "--fork"])
            .args(["--propagation", "private"])
            .arg(own)
            .arg(INIT)
            .arg(root)
            .args(words)
            .env_clear()
            .env(MARKER, tag.as_str())
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(file);
        // No --kill-child: CRIU would restore the wish to die with a parent, and the restored tree's parent is CRIU.
        let outer = ns.spawn(&mut command)?;
        let mut container = Self { outer, pid: 0 };
        let said = || fs::read_to_string(log).unwrap_or_default();
        container.pid = container.first_process().with_context(|| said().trim().to_owned())?;
        Ok(container)
    }

    /// Waits until `unshare` has ended, which it does when the process was dumped and killed by CRIU.
    pub(super) fn reap(mut self, deadline: Duration) -> Result<()> {
        if command::wait(&mut self.outer, deadline)?.is_none() {
            bail!("the dumped process {} is still there after {deadline:?}", self.pid);
        }
        // The number may belong to somebody else by now.
        self.pid = 0;
        Ok(())
    }

    fn first_process(&mut self) -> Result<i32> {
        let children = format!("/proc/{0}/task/{0}/children", self.outer.id());
        let end = Instant::now() + START;
        loop {
            let list = fs::read_to_string(&children).unwrap_or_default();
            if let Some(pid) = list.split_whitespace().next().and_then(|word| word.parse().ok()) {
                return Ok(pid);
            }
            if let Some(status) = self.outer.try_wait()? {
                bail!("the container ended with {status}");
            }
            if Instant::now() >= end {
                bail!("the container has no process after {START:?}");
            }
            std::thread::sleep(POLL);
        }
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        // `unshare` ends with its child. What fails here has ended before, which is the aim.
        match Pid::from_raw(self.pid) {
            Some(pid) => drop(kill_process(pid, Signal::KILL)),
            None => drop(self.outer.kill()),
        }
        let _ = self.outer.wait();
    }
}

/// A restored container: nobody's child. Dropping it ends it.
#[derive(Debug)]
pub(super) struct Restored {
    /// Its first process, as the host sees it.
    pub(super) pid: i32,
}

impl Drop for Restored {
    fn drop(&mut self) {
        // The kernel ends the whole pid namespace with it.
        if let Some(pid) = Pid::from_raw(self.pid) {
            let _ = kill_process(pid, Signal::KILL);
        }
    }
}

/// What `ums-bench plain-init ROOT COMMAND...` does as the first process of a new pid and mount namespace: makes ROOT the
/// root directory, with `/proc` and `/dev/null`, and becomes COMMAND. Returns only on failure.
pub fn init(words: &[String]) -> Result<()> {
    let [root, program, arguments @ ..] = words else { bail!("{INIT} needs a directory and a command") };
    let root = PathBuf::from(root);
    let at = |name: &str| root.join(name);
    mount_bind(&root, &root).context("cannot bind the root directory")?;
    mount("proc", at("proc"), "proc", MountFlags::empty(), None).context("cannot mount /proc")?;
    mount_bind("/dev/null", at(NULL)).context("cannot bind /dev/null")?;
    std::env::set_current_dir(&root)?;
    // The old root comes to lie on top of the new one and is taken away at once.
    pivot_root(".", ".").context("cannot change the root directory")?;
    unmount(".", UnmountFlags::DETACH).context("cannot leave the old root directory")?;
    std::env::set_current_dir("/")?;
    setsid().context("cannot begin a session")?;
    let null = || File::options().read(true).write(true).open(Path::new("/").join(NULL));
    let error = Command::new(program).args(arguments).stdin(null()?).stdout(null()?).stderr(null()?).exec();
    Err(error).with_context(|| format!("cannot start {program}"))
}
