//! The source's side of a cold migration: freeze, dump while streaming, thaw or release.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use rustix::process::Pid;
use tokio::io::AsyncWrite;
use ums_engine::criu::dump::{ArmedDump, DumpError, DumpRequest};
use ums_engine::criu::running::running;
use ums_engine::files::{FilesError, ReadOptions, TreeForm, TreeItem, open_root, read_tree};
use ums_engine::images::{self, Chunk, Tail, TailError, Tmpfs};
use ums_engine::userns::IdRange;
use ums_model::error::{ErrorCode, WireError};
use ums_model::names::Epoch;
use ums_model::nest::{Right, Step, Wish};
use ums_transfer::archive::{ArchiveError, ArchiveWriter, Limits};
use ums_transfer::frame::{Channel, FrameWriter};

use crate::bundle::{external_mounts, host_files};
use crate::layout::{harm as harm_path, images as images_dir, merged};
use crate::parcel::{Item, Tree};
use crate::protocol::DumpedCopy;
use crate::server::{Nest, failure};

/// How much of a file is read at once, in bytes: one data frame.
const CHUNK: usize = 256 * 1024;
/// Bytes of images where the kernel does not say how much memory is free.
const FALLBACK_LIMIT: u64 = 1 << 40;
/// Bytes of free memory that images leave to everybody else.
const HEADROOM: u64 = 64 << 20;
/// How often an orphaned CRIU is looked for.
const ORPHAN_POLL: Duration = Duration::from_millis(5);
/// Under which name runc gives a restore the network namespace that was made beforehand.
pub(crate) const EXTERNAL_NETWORK: &str = "extRootNetNS";

impl Nest {
    /// Freezes and dumps the service, streaming images and files as an archive.
    ///
    /// Ok = the archive's End was sent, the service is frozen, complete and behind the fence, until thawed or
    /// released. Err = it runs as before; except with `stuck`, where it could not be let go on, and `link-cut`, where
    /// the End may or may not have arrived: then it may be frozen as after Ok. Safe to repeat after Err.
    pub(crate) async fn dump<W: AsyncWrite + Unpin>(
        &self,
        epoch: Epoch,
        frames: &mut FrameWriter<W>,
    ) -> Result<DumpedCopy, WireError> {
        let life = self.life.lock().await;
        self.decide(epoch, Wish::Dump)?;
        crate::harm::none(&harm_path(), &self.recipe.spec.name)?;
        if !self.is_alive() {
            let message =
                format!("service {} does not run, so there is nothing to move", self.recipe.spec.name);
            return Err(WireError::new(ErrorCode::ServiceNotFound, message));
        }
        let no_sessions = self.end_sessions().await?;
        self.grant(epoch, Wish::Dump)?;
        let mut archive = ArchiveWriter::new(frames, Limits::default());
        match self.write_dump(epoch, &mut archive).await {
            Ok(dumped) => match archive.finish().await {
                Ok(_) => Ok(dumped),
                // Frozen stays frozen: the End may have arrived. The Coordinator decides.
                Err(error) => Err(failure(ErrorCode::LinkCut, &error)),
            },
            Err(error) => {
                let undone = self.undo_dump(epoch).await;
                // Only now: neither the service nor anybody who wants something of it waits for a receiver, which may be gone.
                drop((life, no_sessions));
                let _ = archive.abort(&error.message).await;
                let Err(undo) = undone else { return Err(error) };
                let message =
                    format!("{}; and the service could not be thawed: {}", error.message, undo.message);
                Err(WireError::new(ErrorCode::Stuck, message))
            }
        }
    }

    async fn write_dump<W: AsyncWrite + Unpin>(
        &self,
        epoch: Epoch,
        archive: &mut ArchiveWriter<'_, W>,
    ) -> Result<DumpedCopy, WireError> {
        let pid = self.service_pid().ok_or_else(|| {
            WireError::new(ErrorCode::DumpFailed, format!("service {} ended just now", self.recipe.spec.name))
        })?;
        // They hold CRIU's log as well, which tells whoever undoes this, perhaps the next nest, whether the copy may run.
        new_images().map_err(|error| failure(ErrorCode::DumpFailed, &error))?.leave();
        let request = DumpRequest {
            criu: self.tools.criu.clone(),
            pid: pid.as_raw_nonzero().get(),
            root: merged(),
            images: images_dir(),
            external_network: Some(EXTERNAL_NETWORK.to_owned()),
            // runc gives a restore every bind mount under the name of its mount point.
            external_mounts: external_mounts(&self.recipe)
                .into_iter()
                .map(|mount| (PathBuf::from(&mount.inside), mount.inside))
                .chain(host_files(&self.recipe, &merged_of(pid)))
                .collect(),
            cgroup: self.cgroup.clone(),
            deadlines: self.deadlines().dump,
        };
        let armed = ArmedDump::arm(request).await.map_err(|error| dump_failed(&error))?;
        // Nothing may leave or reach the copy from the first stopped task on.
        self.close_fence().await.map_err(|error| failure(ErrorCode::DumpFailed, &error))?;
        crate::quiesce::accept_queues(pid.as_raw_nonzero().get(), self.deadlines().accept).await;
        let frozen_at_boot_ms = boot_ms();
        let (tail, complete) = Tail::of(&images_dir());
        crate::harm::doubt(&harm_path()).map_err(|error| failure(ErrorCode::DumpFailed, &error))?;
        let dumping = async {
            let result = known(armed.run(|| async { Ok(()) }).await);
            match result {
                Ok(_) => complete.finish(),
                // That ends the images as well.
                Err(_) => drop(complete),
            }
            result
        };
        // Beside it, never in its way: whoever does not listen to CRIU does not hear of its death. So it is waited for, too,
        // where nobody takes the images any more; CRIU would not hear of that before it has written all memory. And what
        // has failed does not wait for a receiver that stands still.
        let (dumped, memory_bytes) = {
            let (mut dumping, mut passing) =
                (std::pin::pin!(dumping), std::pin::pin!(pass_on(archive, tail)));
            let (dumped, passed) = tokio::select! {
                biased;
                dumped = &mut dumping => (dumped?, passing.await),
                passed = &mut passing => (dumping.await?, passed),
            };
            (dumped, passed?)
        };
        let dump_ms = dumped.frozen.duration_since(dumped.stopping).as_secs_f64() * 1e3;
        images::unmount(&images_dir()).map_err(|error| failure(ErrorCode::DumpFailed, &error))?;
        let tasks = dumped.tasks.processes;
        let mut file_bytes = 0;
        for (tree, root) in Tree::of_source(&self.recipe, self.dir.upper()) {
            let form = if tree == Tree::Upper { TreeForm::Overlay } else { TreeForm::Plain };
            let ids = self.recipe.ids.filter(|_| tree.is_shifted());
            file_bytes += send_tree(archive, &tree, &root, form, ids).await?;
        }
        // Zombies are in the images, but not in the cgroup, in which the copy is counted from now on.
        let alive = self.cgroup.procs().map_err(|error| failure(ErrorCode::DumpFailed, &error))?.len();
        let complete = Step::DumpComplete { tasks: u32::try_from(alive).unwrap_or(u32::MAX) };
        self.note(complete.at(epoch))?;
        Ok(DumpedCopy { tasks, dump_ms, frozen_at_boot_ms, memory_bytes, file_bytes })
    }
}

impl Nest {
    /// Stops a copy that turned out to have no right to run, without a dump: fence closed, cgroup frozen. One that is dead
    /// is given up. Ok = no task of it runs and none is started, also after a restart of the nest, until it is thawed or
    /// released. Safe to repeat.
    pub(crate) async fn freeze(&self, epoch: Epoch) -> Result<(), WireError> {
        let deed = self.grant(epoch, Wish::Freeze)?;
        self.act(deed).await
    }

    /// Gives a copy that may not run what it needs for that. Safe to repeat.
    pub(crate) async fn stand_still(&self) -> Result<(), WireError> {
        let stuck = |error: &dyn std::error::Error| failure(ErrorCode::Stuck, error);
        // Without a task there is nobody to stop, and perhaps no cgroup.
        if self.cgroup.procs().map_or(true, |procs| procs.is_empty()) {
            return Ok(());
        }
        // Also where the fence fails: a copy that is not heard is worth less than one that does not run.
        let fenced = self.close_fence().await.map_err(|error| stuck(&error));
        self.cgroup.freeze_async(self.deadlines().stand_still).await.map_err(|error| stuck(&error))?;
        fenced
    }

    /// Source, before commit or after revocation: lets the original run again. Ok = it runs, fence open. Safe to
    /// repeat.
    pub(crate) async fn thaw(&self, epoch: Epoch) -> Result<(), WireError> {
        self.decide(epoch, Wish::Thaw)?;
        self.undo_dump(epoch).await
    }

    /// The service is at home here: undoes what a dead Coordinator has asked for, and that came after the end of its
    /// migration. Ok = the copy runs if it lives and is whole, and may be started if not. Safe to repeat.
    pub(crate) async fn come_home(&self, epoch: Epoch) -> Result<(), WireError> {
        let deed = self.grant(epoch, Wish::ComeHome)?;
        // One that was harmed stands still until it is started anew.
        if crate::harm::is_known(&harm_path()) {
            return Ok(());
        }
        self.act(deed).await
    }

    /// Undoes a dump at any point of it, when its CRIU has ended.
    pub(crate) async fn undo_dump(&self, epoch: Epoch) -> Result<(), WireError> {
        self.wait_for_orphans().await?;
        // The record first: a nest that dies right after it does the rest when it starts again; the other way round a
        // running copy would be taken for a frozen one.
        let deed = self.grant(epoch, Wish::Thaw)?;
        self.act(deed).await
    }

    /// Gives a copy that may run what it needs for it. One that a dump has harmed stands still instead, which is an error.
    /// Goes on after other errors and returns the first. Safe to repeat.
    pub(crate) async fn run_as_recorded(&self) -> Result<(), WireError> {
        let stuck = |error: &dyn std::error::Error| failure(ErrorCode::Stuck, error);
        if let Some(harm) = self.held_by_harm().await? {
            return Err(harm);
        }
        let thawed = self.let_run();
        let opened = match self.record().is_fenced() {
            false => self.open_fence().await.map_err(|error| stuck(&error)),
            true => Ok(()),
        };
        // What CRIU has written is of no use any more. Last: the service does not wait for that.
        let cleared = images::unmount(&images_dir()).map_err(|error| stuck(&error));
        thawed.and(opened).and(cleared)
    }

    /// What a dump has done to the copy, if it has: then it stands still now. `Err` = it may run, although it must not.
    pub(crate) async fn held_by_harm(&self) -> Result<Option<WireError>, WireError> {
        let Err(harm) = crate::harm::none(&harm_path(), &self.recipe.spec.name) else { return Ok(None) };
        self.stand_still().await?;
        Ok(Some(harm))
    }

    /// How the dump of `epoch` ended. A nest that was started after it knows the record, but not its numbers.
    pub(crate) async fn dump_result(&self, epoch: Epoch) -> Result<DumpedCopy, WireError> {
        if let Some(result) = self.dumped.wait(epoch, self.deadlines().begin).await {
            return result;
        }
        let record = self.record();
        if record.epoch() == epoch && record.right() == Right::Dumped {
            let tasks = record.tasks();
            return Ok(DumpedCopy {
                tasks,
                dump_ms: 0.0,
                frozen_at_boot_ms: 0.0,
                memory_bytes: 0,
                file_bytes: 0,
            });
        }
        let message = format!("no dump in epoch {epoch} is under way; the copy is {record}");
        Err(WireError::new(ErrorCode::DumpFailed, message))
    }

    /// Source, after RUNNING(E): ends the frozen original. Ok = no process of it is left. Safe to repeat.
    pub(crate) async fn release(&self, epoch: Epoch) -> Result<(), WireError> {
        let deed = self.grant(epoch, Wish::Release)?;
        self.act(deed).await
    }

    /// A CRIU that a nest's predecessor started must have let go of the service before anything is done to it. It sees
    /// that nobody answers it any more and ends by itself; killing it could leave its parasite in the service.
    pub(crate) async fn wait_for_orphans(&self) -> Result<(), WireError> {
        let deadline = tokio::time::Instant::now() + self.deadlines().orphan;
        loop {
            let found = match running() {
                Ok(None) => break,
                Ok(Some(pid)) => {
                    format!("an earlier criu (pid {pid} in the nest's pid namespace) does not end")
                }
                Err(error) => format!("it cannot be told whether an earlier criu has ended: {error}"),
            };
            if tokio::time::Instant::now() >= deadline {
                return Err(WireError::new(ErrorCode::Stuck, found)
                    .with_hint("look at what it waits for, then try again: ums migrate"));
            }
            tokio::time::sleep(ORPHAN_POLL).await;
        }
        crate::harm::hold(&self.cgroup, self.deadlines().stand_still).await;
        Ok(())
    }
}

/// The root directory of a process, as it sees it.
fn merged_of(pid: Pid) -> PathBuf {
    PathBuf::from(format!("/proc/{}/root", pid.as_raw_nonzero()))
}

/// An empty file system in memory for the images of one dump or restore; whatever an earlier one left is gone.
pub(crate) fn new_images() -> std::io::Result<Tmpfs> {
    std::fs::create_dir_all(images_dir())?;
    images::unmount(&images_dir())?;
    images::tmpfs(&images_dir(), images_limit())
}

/// Images may fill what is free, so that too many of them are an error and not the end of other processes. In truth
/// they need what the link has not taken yet.
fn images_limit() -> u64 {
    let text = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"));
    let kibibytes = line.and_then(|rest| rest.trim().trim_end_matches(" kB").parse::<u64>().ok());
    kibibytes.map_or(FALLBACK_LIMIT, |free| (free * 1024).saturating_sub(HEADROOM).max(HEADROOM))
}

/// Passes the images on while they are written, and tells how many bytes they were. To the end also where nobody takes them
/// any more: they would fill the memory.
async fn pass_on<W: AsyncWrite + Unpin>(
    archive: &mut ArchiveWriter<'_, W>,
    mut tail: Tail,
) -> Result<u64, WireError> {
    let mut sent = Images::default();
    let mut taken = Ok(());
    loop {
        match tail.next().await {
            Ok(Some(chunk)) if taken.is_ok() => taken = sent.send(archive, chunk).await,
            Ok(Some(_)) => {}
            // Why there is no dump is told by the dump.
            Ok(None) | Err(TailError::Incomplete { .. }) => return taken.map(|()| sent.bytes),
            Err(error) => return taken.and(Err(failure(ErrorCode::DumpFailed, &error))),
        }
    }
}

/// The images on their way, one after the other.
#[derive(Default)]
struct Images {
    open: Option<(Arc<str>, Channel)>,
    bytes: u64,
}

impl Images {
    async fn send<W: AsyncWrite + Unpin>(
        &mut self,
        archive: &mut ArchiveWriter<'_, W>,
        Chunk { name, bytes, last }: Chunk,
    ) -> Result<(), WireError> {
        let channel = match self.open.take() {
            Some((open, channel)) if open == name => channel,
            // Only the newest of them grows: what has another one behind it has come to its end.
            Some((open, _)) => {
                let message = format!("{name} follows {open}, which has not ended");
                return Err(WireError::new(ErrorCode::Internal, message));
            }
            None => archive.open(&name, &Item::Image).await.map_err(|error| cut(&error))?,
        };
        self.bytes += bytes.len() as u64;
        if !bytes.is_empty() {
            archive.write(channel, bytes).await.map_err(|error| cut(&error))?;
        }
        if last {
            archive.close(channel).await.map_err(|error| cut(&error))?;
        } else {
            self.open = Some((name, channel));
        }
        Ok(())
    }
}

/// Sends a file tree; answers the bytes of content. The service is frozen, so the tree holds still.
async fn send_tree<W: AsyncWrite + Unpin>(
    archive: &mut ArchiveWriter<'_, W>,
    tree: &Tree,
    root: &Path,
    form: TreeForm,
    ids: Option<IdRange>,
) -> Result<u64, WireError> {
    let unreadable = |error: FilesError| failure(ErrorCode::DumpFailed, &error);
    let options = ReadOptions { form, limits: ums_engine::files::Limits::default() };
    let mut bytes = 0;
    for item in read_tree(open_root(root).map_err(unreadable)?, options) {
        let TreeItem { mut entry, content } = item.map_err(unreadable)?;
        if let Some(ids) = ids {
            entry.shift_inwards(ids).map_err(unreadable)?;
        }
        let name = entry.path.as_os_str().to_string_lossy().into_owned();
        let channel = archive
            .open(&name, &Item::File { tree: tree.clone(), entry })
            .await
            .map_err(|error| cut(&error))?;
        if let Some(mut content) = content {
            loop {
                // Small files are what trees are made of: one buffer each, no thread hops.
                let wanted = usize::try_from(content.remaining()).unwrap_or(CHUNK).clamp(1, CHUNK);
                let mut buffer = BytesMut::zeroed(wanted);
                let count = tokio::task::block_in_place(|| content.read(&mut buffer)).map_err(unreadable)?;
                if count == 0 {
                    break;
                }
                bytes += count as u64;
                buffer.truncate(count);
                archive.write(channel, buffer.freeze()).await.map_err(|error| cut(&error))?;
            }
        }
        archive.close(channel).await.map_err(|error| cut(&error))?;
    }
    Ok(bytes)
}

/// Notes what the end of a dump means for the copy, before anybody can ask for a thaw.
fn known<T>(result: Result<T, DumpError>) -> Result<T, WireError> {
    match &result {
        // Seen while CRIU may still have it in its hands: the doubt stays until CRIU has ended.
        Err(DumpError::Harmed { .. }) if !matches!(running(), Ok(None)) => {}
        Err(error @ DumpError::Harmed { .. }) => {
            crate::harm::note(&harm_path(), &ums_model::error::chain(error));
        }
        _ => crate::harm::clear(&harm_path()),
    }
    result.map_err(|error| dump_failed(&error))
}

/// CRIU's own failures come with what to do about them.
fn dump_failed(error: &DumpError) -> WireError {
    let wire = failure(ErrorCode::DumpFailed, error);
    match error {
        DumpError::Criu { failure, .. } => {
            wire.with_hint(format!("{}; then check this host: ums doctor", failure.remedy))
        }
        DumpError::Killed { .. } => wire.with_hint("find out who killed CRIU, then try again: ums migrate"),
        DumpError::Harmed { .. } => WireError::new(ErrorCode::Stuck, wire.message),
        _ => wire,
    }
}

fn cut(error: &ArchiveError) -> WireError {
    failure(ErrorCode::LinkCut, error)
}

/// CLOCK_BOOTTIME in milliseconds.
fn boot_ms() -> f64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    now.tv_sec as f64 * 1e3 + now.tv_nsec as f64 / 1e6
}
