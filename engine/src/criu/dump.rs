//! Taking a running tree into images, and leaving the original frozen.
//!
//! ```text
//! arm ──► CRIU starts, detects features, waits at `pre-dump`          service runs
//! run ──► all tasks stopped ──► `on_stopped`: the last look           service stopped by CRIU (ptrace)
//!         files, memory, ... written to the images
//!         `post-dump`: freeze the cgroup, read back FROZEN, answer    stopped by CRIU and frozen
//!         CRIU lets go of the tasks and exits                         frozen, and nothing else
//! ```
//! So there is no moment at which a task could run between the dump and the decision of what becomes of it, and
//! resuming it is one write. CRIU would otherwise kill the tasks or leave them stopped one by one.

use std::error::Error;
use std::fs;
use std::future::Future;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::time::Instant;

use rustix::fs::{Mode, OFlags, open};

pub use super::deadlines::DumpDeadlines;

use super::failure::CriuFailure;
use super::frozen::{NotFrozen, confirm_frozen, tracer};
use super::mend::{Before, Mended, mend};
use super::mounts;
use super::rpc::{CgroupMode, ExternalMount, Kind, NetworkLock, Options, Request};
use super::swrk::{Event, Swrk, SwrkError};
use super::tree::{Tasks, TreeError};
use crate::cgroup::{Cgroup, CgroupError};

/// Name of CRIU's log in the image directory.
pub(super) const LOG: &str = "dump.log";

/// Debug messages included: they are what an error is explained from.
const LOG_LEVEL: i32 = 4;

/// Deleted files that are open go into the images up to this size. CRIU's own limit of 1 MiB is met by ordinary
/// services (buffers in unlinked temporary files); more than this would be felt in the time the service is frozen.
pub const GHOST_LIMIT: u32 = 64 << 20;

/// What is to be dumped, and where to.
#[derive(Debug, Clone)]
pub struct DumpRequest {
    /// CRIU's program file.
    pub criu: PathBuf,
    /// The tree's first process, in our pid namespace.
    pub pid: i32,
    /// Its root directory, as we see it.
    pub root: PathBuf,
    /// An empty directory for the images, in memory.
    pub images: PathBuf,
    /// Name under which restore is given the network namespace. Without one its content is dumped as well, which
    /// is slow.
    pub external_network: Option<String>,
    /// Mounts whose content is not dumped: mount point inside, and the name under which restore is given them (runc
    /// uses the mount point). Device nodes and masked files are found without being named.
    pub external_mounts: Vec<(PathBuf, String)>,
    /// The tree's cgroup; all of the tree and nothing else is in it.
    pub cgroup: Cgroup,
    /// How long it may take.
    pub deadlines: DumpDeadlines,
}

/// CRIU is ready and waits; the service runs.
#[derive(Debug)]
pub struct ArmedDump {
    request: DumpRequest,
    criu: Swrk,
    /// CRIU opens it by its number in this process.
    _images: OwnedFd,
}

/// A service that is frozen, with all its state in the images.
#[derive(Debug, Clone)]
pub struct Dumped {
    /// Its size, counted alive and in the images.
    pub tasks: Tasks,
    /// When the first task was about to be stopped: where `frozen` begins.
    pub stopping: Instant,
    /// When all were stopped.
    pub stopped: Instant,
    /// When the cgroup read back FROZEN.
    pub frozen: Instant,
}

/// Why there is no dump.
#[derive(Debug, thiserror::Error)]
pub enum DumpError {
    /// Something about the service could not be found out.
    #[error("cannot prepare the dump of process {pid}: {what}")]
    Prepare {
        /// The tree's first process.
        pid: i32,
        /// What was tried.
        what: &'static str,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
    /// CRIU could not do it.
    #[error("cannot dump process {pid}")]
    Criu {
        /// The tree's first process.
        pid: i32,
        /// Why, in words.
        #[source]
        failure: Box<CriuFailure>,
    },
    /// The conversation with CRIU broke off.
    #[error("lost CRIU while dumping process {pid}")]
    Swrk {
        /// The tree's first process.
        pid: i32,
        /// How.
        #[source]
        source: SwrkError,
    },
    /// The caller's last look said no.
    #[error("the dump of process {pid} was called off with all its tasks stopped")]
    CalledOff {
        /// The tree's first process.
        pid: i32,
        /// Why.
        #[source]
        source: Box<dyn Error + Send + Sync>,
    },
    /// The dump is complete, but the original cannot be held.
    #[error("cannot freeze process {pid} after its dump")]
    Freeze {
        /// The tree's first process.
        pid: i32,
        /// Why.
        #[source]
        source: CgroupError,
    },
    /// The dump is complete, but the original does not stand still.
    #[error("the original of process {pid} is not held after its dump")]
    NotFrozen {
        /// The tree's first process.
        pid: i32,
        /// Why not.
        #[source]
        source: NotFrozen,
    },
    /// The images cannot be counted.
    #[error("cannot count the dumped tasks of process {pid}")]
    Count {
        /// The tree's first process.
        pid: i32,
        /// Why.
        #[source]
        source: TreeError,
    },
    /// The dump does not agree with what is there.
    #[error("the dump of process {pid} cannot be trusted: {reason}")]
    Mismatch {
        /// The tree's first process.
        pid: i32,
        /// What does not agree.
        reason: String,
    },
    /// CRIU was killed, or died by itself, and what it had done to the service was undone: it runs as before.
    #[error("CRIU ended in the middle of the dump of process {pid} ({how}): {mended}")]
    Killed {
        /// The tree's first process.
        pid: i32,
        /// How CRIU ended.
        how: String,
        /// What had to be put right.
        mended: Mended,
        /// Where it was.
        #[source]
        source: SwrkError,
    },
    /// There is no dump, and the service does not run as it did before.
    #[error("the service of process {pid} was harmed by a failed dump: {harm}")]
    Harmed {
        /// The tree's first process.
        pid: i32,
        /// What is wrong with it now.
        harm: String,
        /// Why there is no dump.
        #[source]
        source: Box<DumpError>,
    },
}

impl ArmedDump {
    /// Starts CRIU and brings it to where it is about to stop the first task.
    ///
    /// On `Ok` the service runs and CRIU waits, for as long as need be. On `Err` the service runs, untouched. Safe
    /// to repeat with an empty image directory.
    pub async fn arm(request: DumpRequest) -> Result<Self, DumpError> {
        let pid = request.pid;
        let prepare = |what| move |source| DumpError::Prepare { pid, what, source };
        let images = open_directory(&request.images).map_err(prepare("open the image directory"))?;
        let options = options(&request, &images)?;
        let criu = Swrk::spawn(&request.criu).map_err(|source| DumpError::Swrk { pid, source })?;
        let mut armed = Self { request, criu, _images: images };
        match armed.start(options).await {
            Ok(()) => Ok(armed),
            Err(error) => Err(armed.undo(error, &[]).await),
        }
    }

    /// The pid of the CRIU that waits.
    pub fn criu(&self) -> Option<u32> {
        self.criu.pid()
    }

    /// Lets CRIU go away without having touched the service.
    ///
    /// On `Ok` it has. On `Err` it may still be there, and the service should not be dumped again before it ended.
    pub async fn abort(mut self) -> Result<(), DumpError> {
        let before = self.request.cgroup.procs().unwrap_or_default();
        self.dismiss().await?;
        self.examine(&before).map_or(Ok(()), |harm| {
            let source = Box::new(self.mismatch("the dump was called off before it began".to_owned()));
            Err(DumpError::Harmed { pid: self.request.pid, harm, source })
        })
    }

    /// Dumps. `on_stopped` is called once, with every task stopped and before any state has been read: the place
    /// for last checks and last copies. An error from it calls the dump off.
    ///
    /// On `Ok` all tasks of the service are in its cgroup, which is FROZEN, CRIU is gone, and the images are
    /// complete: resuming is `cgroup.thaw()`. On `Err` the service runs as before, except where the error is
    /// [`DumpError::Harmed`]: then it stands frozen, if it was CRIU's death that harmed it. If the future is dropped, the service is let go on as well.
    pub async fn run<F, Fut>(mut self, on_stopped: F) -> Result<Dumped, DumpError>
    where
        F: FnOnce() -> Fut + Send,
        Fut: Future<Output = Result<(), Box<dyn Error + Send + Sync>>> + Send,
    {
        let before = self.request.cgroup.procs().unwrap_or_default();
        let mut untouched = Before::untouched(&before);
        let mut thaw = ThawOnDrop(Some(self.request.cgroup.clone()));
        match self.dump(on_stopped, &mut untouched).await {
            Ok(dumped) => {
                thaw.0 = None;
                Ok(dumped)
            }
            Err(DumpError::Swrk { source: source @ SwrkError::Gone { .. }, .. }) => {
                // From here on only a tree that is proven to be whole is let go, also if this future is dropped.
                thaw.0 = None;
                Err(self.mend(source, untouched).await)
            }
            Err(error) => Err(self.undo(error, &before).await),
        }
    }

    async fn start(&mut self, options: Options) -> Result<(), DumpError> {
        let deadline = self.request.deadlines.arm;
        let request = Request { kind: Kind::Dump as i32, opts: Some(options), notify_success: None };
        let pid = self.request.pid;
        let lost = |source| DumpError::Swrk { pid, source };
        self.criu.send(&request, deadline).await.map_err(lost)?;
        loop {
            match self.criu.next(deadline).await.map_err(lost)? {
                Event::Reached { point, .. } if point == "pre-dump" => return Ok(()),
                Event::Reached { .. } => self.criu.answer(true, deadline).await.map_err(lost)?,
                Event::Done(_) => return Err(self.failure()),
            }
        }
    }

    async fn dump<F, Fut>(&mut self, on_stopped: F, before: &mut Before) -> Result<Dumped, DumpError>
    where
        F: FnOnce() -> Fut + Send,
        Fut: Future<Output = Result<(), Box<dyn Error + Send + Sync>>> + Send,
    {
        let pid = self.request.pid;
        let step = self.request.deadlines.step;
        let lost = |source| DumpError::Swrk { pid, source };
        let mut on_stopped = Some(on_stopped);
        let (mut stopped, mut frozen) = (None, None);

        let stopping = Instant::now();
        self.criu.answer(true, step).await.map_err(lost)?;
        let succeeded = loop {
            match self.criu.next(step).await.map_err(lost)? {
                Event::Reached { point, .. } => match point.as_str() {
                    // The first comes only where CRIU handles a network namespace, the second always.
                    "network-lock" | "query-ext-files" => {
                        if let Some(on_stopped) = on_stopped.take() {
                            stopped = Some(Instant::now());
                            before.look_at_stopped(&self.request.cgroup).map_err(|source| {
                                DumpError::Prepare { pid, what: "look at its stopped tasks", source }
                            })?;
                            on_stopped().await.map_err(|source| DumpError::CalledOff { pid, source })?;
                        }
                    }
                    "post-dump" => {
                        self.freeze().await?;
                        frozen = Some(Instant::now());
                    }
                    _ => {}
                },
                Event::Done(response) => break response.success,
            }
            self.criu.answer(true, step).await.map_err(lost)?;
        };
        let status = self.criu.ended(self.request.deadlines.abort).await.map_err(lost)?;
        if status.signal().is_some() {
            return Err(lost(SwrkError::Gone { stderr: String::new() }));
        }
        match (succeeded && status.success(), stopped, frozen) {
            (true, Some(stopped), Some(frozen)) => {
                // Again: what CRIU has just let go of counts as running with version 2, until it has stopped once more.
                self.freeze().await?;
                Ok(Dumped { tasks: self.verify()?, stopping, stopped, frozen })
            }
            (true, ..) => {
                Err(self.mismatch("CRIU left out a point at which it had to be stopped".to_owned()))
            }
            (false, ..) => Err(self.failure()),
        }
    }

    async fn freeze(&self) -> Result<(), DumpError> {
        let frozen = self.request.cgroup.freeze_async(self.request.deadlines.freeze).await;
        frozen.map_err(|source| DumpError::Freeze { pid: self.request.pid, source })
    }

    /// With CRIU gone: everything that was dumped is frozen, and everything that is frozen was dumped.
    fn verify(&self) -> Result<Tasks, DumpError> {
        let pid = self.request.pid;
        let alive = confirm_frozen(pid, &self.request.cgroup)
            .map_err(|source| DumpError::NotFrozen { pid, source })?;
        let dumped =
            Tasks::in_images(&self.request.images).map_err(|source| DumpError::Count { pid, source })?;
        match alive == dumped {
            true => Ok(alive),
            false => Err(self.mismatch(format!("{alive} are there, {dumped} are in the images"))),
        }
    }

    /// After a failure: CRIU undoes what it did, the service goes on, and that is looked at.
    async fn undo(&mut self, error: DumpError, before: &[i32]) -> DumpError {
        let dismissed = self.dismiss().await;
        // Not frozen, or not any more, is what is wanted; the look below tells.
        let _ = self.request.cgroup.thaw();
        let harm = match dismissed {
            Ok(()) => self.examine(before),
            Err(error) => Some(format!("CRIU still holds its tasks ({error})")),
        };
        match harm {
            None => error,
            Some(harm) => DumpError::Harmed { pid: self.request.pid, harm, source: Box::new(error) },
        }
    }

    /// After the death of CRIU: the tree is frozen at once, and goes on only if all of it is whole.
    async fn mend(&mut self, source: SwrkError, before: Before) -> DumpError {
        let DumpRequest { pid, cgroup, images, deadlines, .. } = self.request.clone();
        // Asked for at once, and again where it is waited for: CRIU traces its tasks until its very end.
        let _ = cgroup.freeze_async(deadlines.freeze).await;
        let how = match self.criu.ended(deadlines.abort).await {
            Ok(status) => status.to_string(),
            Err(error) => error.to_string(),
        };
        let mended = mend(cgroup.clone(), before, images, deadlines.freeze).await;
        let mended = mended.and_then(|mended| match cgroup.thaw() {
            Ok(()) => Ok(mended),
            Err(error) => Err(format!("it cannot be thawed: {error}")),
        });
        match mended {
            Ok(mended) => DumpError::Killed { pid, how, mended, source },
            Err(harm) => {
                let harm = format!("CRIU ended in the middle ({how}); {harm}");
                DumpError::Harmed { pid, harm, source: Box::new(DumpError::Swrk { pid, source }) }
            }
        }
    }

    /// Says no to everything until CRIU has ended. It is never killed: see [`super::swrk`].
    async fn dismiss(&mut self) -> Result<(), DumpError> {
        let deadline = self.request.deadlines.abort;
        // Whatever it reached last is refused. If it waits for nothing it reads this as a request, and ends.
        let mut told = self.criu.answer(false, deadline).await;
        while told.is_ok() {
            told = match self.criu.next(deadline).await {
                Ok(Event::Reached { .. }) => self.criu.answer(false, deadline).await,
                Ok(Event::Done(_)) | Err(_) => break,
            };
        }
        let ended = self.criu.ended(deadline).await;
        ended.map(|_| ()).map_err(|source| DumpError::Swrk { pid: self.request.pid, source })
    }

    /// What is wrong with the service, if anything is.
    fn examine(&self, before: &[i32]) -> Option<String> {
        let Ok(now) = self.request.cgroup.procs() else { return None };
        if now.is_empty() && !before.is_empty() {
            return Some("none of its processes is left".to_owned());
        }
        if self.request.cgroup.is_frozen().unwrap_or(false) && !now.is_empty() {
            return Some("it is still frozen".to_owned());
        }
        let held = now.iter().find(|pid| before.contains(pid) && tracer(**pid) != 0)?;
        Some(format!("process {held} is still stopped by a tracer"))
    }

    fn failure(&self) -> DumpError {
        let log = fs::read(self.request.images.join(LOG)).unwrap_or_default();
        let failure = Box::new(CriuFailure::from_log(&String::from_utf8_lossy(&log)));
        DumpError::Criu { pid: self.request.pid, failure }
    }

    fn mismatch(&self, reason: String) -> DumpError {
        DumpError::Mismatch { pid: self.request.pid, reason }
    }
}

/// Lets a service go on whose dump was dropped half-way.
struct ThawOnDrop(Option<Cgroup>);

impl Drop for ThawOnDrop {
    fn drop(&mut self) {
        if let Some(cgroup) = &self.0 {
            let _ = cgroup.thaw();
        }
    }
}

fn options(request: &DumpRequest, images: &OwnedFd) -> Result<Options, DumpError> {
    let pid = request.pid;
    let prepare = |what| move |source| DumpError::Prepare { pid, what, source };
    let mut ext_mnt = mounts::devices(pid).map_err(prepare("read its mounts"))?;
    for (point, name) in &request.external_mounts {
        let point = text(point).map_err(prepare("name an external mount"))?;
        ext_mnt.push(ExternalMount { key: point, val: name.clone() });
    }
    let mut external = Vec::new();
    if let Some(name) = &request.external_network {
        let namespace = fs::metadata(format!("/proc/{pid}/ns/net")).map_err(prepare("find its network"))?;
        external.push(format!("net[{}]:{name}", namespace.ino()));
    }
    Ok(Options {
        images_dir_fd: images.as_raw_fd(),
        pid: Some(pid),
        leave_running: Some(true),
        tcp_established: Some(true),
        file_locks: Some(true),
        log_level: Some(LOG_LEVEL),
        log_file: Some(LOG.to_owned()),
        notify_scripts: Some(true),
        root: Some(text(&request.root).map_err(prepare("name its root directory"))?),
        link_remap: Some(true),
        ext_mnt,
        manage_cgroups: Some(true),
        manage_cgroups_mode: Some(CgroupMode::Soft as i32),
        ghost_limit: Some(GHOST_LIMIT),
        external,
        timeout: Some(u32::try_from(request.deadlines.stop.as_secs().max(1)).unwrap_or(u32::MAX)),
        orphan_pts_master: Some(true),
        // The caller cuts the service off; CRIU's own rules would stay behind after a dump that succeeded.
        network_lock: Some(NetworkLock::Skip as i32),
        ..Options::default()
    })
}

fn text(path: &Path) -> io::Result<String> {
    path.to_str().map(str::to_owned).ok_or_else(|| io::Error::from(io::ErrorKind::InvalidFilename))
}

fn open_directory(path: &Path) -> io::Result<OwnedFd> {
    Ok(open(path, OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?)
}
