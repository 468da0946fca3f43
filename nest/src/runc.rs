//! Calls runc. It creates containers and knows how to enter them; that is its job, not ours.

use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use tokio::process::{Child, Command};

use crate::deadlines::{Deadlines, DeadlinesFile};
use crate::layout::{bundle, images, runc_root, service_pid};

/// The one container below a nest.
pub(crate) const CONTAINER: &str = "service";
/// How much of runc's words is passed on.
const MAX_WORDS: usize = 4096;

/// A runc call that failed.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "the fields are what the messages say")]
pub(crate) enum RuncError {
    /// runc is missing or cannot be executed.
    #[error("cannot run {path}")]
    Spawn { path: PathBuf, source: io::Error },
    /// runc said no.
    #[error("runc {verb} failed: {words}")]
    Failed { verb: &'static str, words: String },
    /// runc did not end in time.
    #[error("runc {verb} did not end within {} s", after.as_secs_f64())]
    Timeout { verb: &'static str, after: Duration },
}

/// runc at a path, with the service's stdio.
#[derive(Debug)]
pub(crate) struct Runc {
    path: PathBuf,
    stdio: [OwnedFd; 3],
    deadlines: DeadlinesFile,
}

impl Runc {
    pub(crate) fn new(path: PathBuf, stdio: [OwnedFd; 3], deadlines: DeadlinesFile) -> Self {
        Self { path, stdio, deadlines }
    }

    /// How long it is waited for, now.
    pub(crate) fn deadlines(&self) -> Deadlines {
        self.deadlines.read()
    }

    /// The names under which CRIU knows the service's stdio pipes.
    pub(crate) fn stdio_pipes(&self) -> io::Result<[String; 3]> {
        let [stdin, stdout, stderr] = &self.stdio;
        let name =
            |fd: &OwnedFd| -> io::Result<String> { Ok(format!("pipe:[{}]", rustix::fs::fstat(fd)?.st_ino)) };
        Ok([name(stdin)?, name(stdout)?, name(stderr)?])
    }

    /// Creates the container from the bundle; its process waits for [`Runc::start`].
    pub(crate) async fn create(&self) -> Result<(), RuncError> {
        let mut command = self.command("create")?;
        command
            .arg("create")
            .arg("--bundle")
            .arg(bundle())
            .arg("--pid-file")
            .arg(service_pid())
            .arg(CONTAINER);
        // The container inherits runc's own stdio, so its complaints go to a log file instead.
        self.attach(&mut command)?;
        let mut child = command.spawn().map_err(|source| self.spawn_error(source))?;
        finish("create", &mut child, &log_path("create"), self.deadlines().runc).await
    }

    /// Lets the created process run.
    pub(crate) async fn start(&self) -> Result<(), RuncError> {
        self.simple("start", &["start", CONTAINER]).await
    }

    /// Forgets the container, killing what is left of it. Ok also if there is none.
    pub(crate) async fn delete(&self) -> Result<(), RuncError> {
        let result = self.simple("delete", &["delete", "--force", CONTAINER]).await;
        let _ = std::fs::remove_file(service_pid());
        result
    }

    /// Starts a restore that will wait for its images in our proxy, which runc finds by `environment`.
    pub(crate) fn restore(&self, environment: &[(&'static str, OsString)]) -> Result<Restore, RuncError> {
        let mut command = self.command("restore")?;
        command.args([
            "restore",
            "--detach",
            "--tcp-established",
            "--file-locks",
            "--manage-cgroups-mode",
            "soft",
        ]);
        command.arg("--bundle").arg(bundle()).arg("--pid-file").arg(service_pid());
        command.arg("--image-path").arg(images()).arg("--work-path").arg(images()).arg(CONTAINER);
        command.envs(environment.iter().map(|(name, value)| (name, value)));
        self.attach(&mut command)?;
        let child = command.spawn().map_err(|source| self.spawn_error(source))?;
        Ok(Restore { child, log: log_path("restore"), deadlines: self.deadlines() })
    }

    /// A command that runs `args` inside the container, whose pid is then in `pid_file`; stdio is the caller's
    /// business.
    pub(crate) fn exec(
        &self,
        args: &[String],
        env: &[String],
        workdir: Option<&str>,
        pid_file: &Path,
    ) -> Command {
        let mut command = Command::new(&self.path);
        command.arg("--root").arg(runc_root()).arg("exec").arg("--pid-file").arg(pid_file);
        for pair in env {
            command.arg("--env").arg(pair);
        }
        if let Some(workdir) = workdir {
            command.arg("--cwd").arg(workdir);
        }
        command.arg(CONTAINER).args(args).kill_on_drop(true);
        command
    }

    async fn simple(&self, verb: &'static str, args: &[&str]) -> Result<(), RuncError> {
        let mut command = self.command(verb)?;
        command.args(args).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let mut child = command.spawn().map_err(|source| self.spawn_error(source))?;
        finish(verb, &mut child, &log_path(verb), self.deadlines().runc).await
    }

    fn command(&self, verb: &'static str) -> Result<Command, RuncError> {
        let log = log_path(verb);
        let prepare = || -> io::Result<()> {
            std::fs::create_dir_all(runc_root())?;
            File::create(&log).map(drop)
        };
        prepare().map_err(|source| self.spawn_error(source))?;
        let mut command = Command::new(&self.path);
        command.arg("--root").arg(runc_root()).arg("--log").arg(&log).arg("--log-format").arg("json");
        Ok(command)
    }

    fn attach(&self, command: &mut Command) -> Result<(), RuncError> {
        let copy = |fd: &OwnedFd| fd.as_fd().try_clone_to_owned().map(Stdio::from);
        let [stdin, stdout, stderr] = &self.stdio;
        command.stdin(copy(stdin).map_err(|source| self.spawn_error(source))?);
        command.stdout(copy(stdout).map_err(|source| self.spawn_error(source))?);
        command.stderr(copy(stderr).map_err(|source| self.spawn_error(source))?);
        Ok(())
    }

    fn spawn_error(&self, source: io::Error) -> RuncError {
        RuncError::Spawn { path: self.path.clone(), source }
    }
}

/// A restore that was started and not finished.
#[derive(Debug)]
pub(crate) struct Restore {
    child: Child,
    log: PathBuf,
    deadlines: Deadlines,
}

impl Restore {
    /// Sees to it that runc has ended after its restore has failed or was called off: it then cleans up by itself,
    /// and only one that does not is killed.
    pub(crate) async fn end(&mut self) {
        if tokio::time::timeout(self.deadlines.runc_end, self.child.wait()).await.is_err() {
            tracing::warn!("runc restore does not end and is killed");
            let _ = self.child.start_kill();
            let _ = tokio::time::timeout(self.deadlines.runc_end, self.child.wait()).await;
        }
    }

    /// Waits until runc has written down the restored container. Ok = runc knows it. Cancel safe.
    pub(crate) async fn ended(&mut self) -> Result<(), RuncError> {
        finish("restore", &mut self.child, &self.log, self.deadlines.runc).await
    }
}

async fn finish(verb: &'static str, child: &mut Child, log: &Path, after: Duration) -> Result<(), RuncError> {
    let ended = tokio::time::timeout(after, child.wait()).await;
    let status = ended.map_err(|_| RuncError::Timeout { verb, after })?;
    match status {
        Ok(status) if status.success() => Ok(()),
        Ok(_) => Err(RuncError::Failed { verb, words: words(log) }),
        Err(source) => Err(RuncError::Spawn { path: "runc".into(), source }),
    }
}

fn log_path(verb: &str) -> PathBuf {
    runc_root().join(format!("{verb}.log"))
}

/// The messages of runc's JSON log, warnings and errors only, newest last.
fn words(log: &Path) -> String {
    let text = std::fs::read_to_string(log).unwrap_or_default();
    let mut words: Vec<String> = text
        .lines()
        .filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok())
        .filter(|line| line["level"] == "error")
        .filter_map(|line| line["msg"].as_str().map(str::to_owned))
        .collect();
    words.dedup();
    let mut words = words.join("; ");
    if words.is_empty() {
        words = "it said nothing".into();
    }
    words.truncate(words.floor_char_boundary(MAX_WORDS));
    words
}
