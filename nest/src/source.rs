//! The source's side of a cold migration: freeze, dump while streaming, thaw or release.

use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncReadExt as _, AsyncWrite};
use ums_engine::criu::dump::{ArmedDump, DumpDeadlines, DumpError, DumpRequest};
use ums_engine::images::{self, Tail};
use ums_frontman::fence;
use ums_model::error::{ErrorCode, WireError};
use ums_model::names::Epoch;
use ums_transfer::archive::{ArchiveError, ArchiveWriter, Limits};
use ums_transfer::frame::FrameWriter;

use crate::bundle::external_mounts;
use crate::layout::{images as images_dir, merged};
use crate::mounts::unmount_quietly;
use crate::parcel::{Item, Tree};
use crate::protocol::DumpedCopy;
use crate::right::Right;
use crate::server::{Nest, failure};

/// How much of a file is read at once, in bytes: one data frame.
const CHUNK: usize = 256 * 1024;
/// Longest time between CRIU's start and its readiness to stop tasks.
const ARM_DEADLINE: Duration = Duration::from_secs(30);
/// Under which name runc gives a restore the network namespace that was made beforehand.
const EXTERNAL_NETWORK: &str = "extRootNetNS";

impl Nest {
    /// Freezes and dumps the service, streaming images and files as an archive.
    ///
    /// Ok = the archive's End was sent, the service is frozen, complete and behind the fence, until thawed or
    /// released. Err = it runs as before (or is on its way there: then the error says so). Safe to repeat after Err.
    pub(crate) async fn dump<W: AsyncWrite + Unpin>(
        &self,
        epoch: Epoch,
        frames: &mut FrameWriter<W>,
    ) -> Result<DumpedCopy, WireError> {
        let _life = self.life.lock().await;
        self.require_epoch(epoch)?;
        self.require("dump", &[Right::Run])?;
        if !self.is_alive() {
            let message = format!("service {} does not run, so there is nothing to move", self.recipe.spec.name);
            return Err(WireError::new(ErrorCode::ServiceNotFound, message));
        }
        self.record_right(epoch, Right::Dumping, 0)?;
        self.end_sessions();
        let mut archive = ArchiveWriter::new(frames, Limits::default());
        match self.write_dump(epoch, &mut archive).await {
            Ok(dumped) => match archive.finish().await {
                Ok(_) => Ok(dumped),
                // Frozen stays frozen: the End may have arrived. The Coordinator decides.
                Err(error) => Err(failure(ErrorCode::LinkCut, &error)),
            },
            Err(error) => {
                // The receiver may be gone, which is why we are here.
                let _ = archive.abort(&error.message).await;
                match self.undo_dump(epoch).await {
                    Ok(()) => Err(error),
                    Err(undo) => {
                        let message = format!("{}; and the service could not be thawed: {}", error.message, undo.message);
                        Err(WireError::new(ErrorCode::Stuck, message))
                    }
                }
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
        unmount_quietly(&images_dir());
        images::tmpfs(&images_dir()).map_err(|error| failure(ErrorCode::DumpFailed, &error))?;
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
                .collect(),
            cgroup: self.cgroup.clone(),
            deadlines: DumpDeadlines::default(),
        };
        let armed = ArmedDump::arm(request).await.map_err(|error| dump_failed(&error))?;
        // Nothing may leave or reach the copy from the first stopped task on.
        fence::close().await.map_err(|error| failure(ErrorCode::DumpFailed, &error))?;
        let frozen_at_boot_ms = boot_ms();
        let mut tail = Tail::new(images_dir());
        let mut sent = Images::default();
        let dumping = armed.run(|| async { Ok(()) });
        let mut dumping = std::pin::pin!(dumping);
        let dumped = loop {
            tokio::select! {
                biased;
                result = &mut dumping => break result.map_err(|error| dump_failed(&error))?,
                chunk = tail.next() => sent.send(archive, chunk.map_err(|error| failure(ErrorCode::DumpFailed, &error))?).await?,
            }
        };
        let dump_ms = dumped.frozen.duration_since(dumped.stopping).as_secs_f64() * 1e3;
        tail.finish();
        while let Some(chunk) = tail.rest().map_err(|error| failure(ErrorCode::DumpFailed, &error))? {
            sent.send(archive, chunk).await?;
        }
        let memory_bytes = sent.close(archive).await?;
        unmount_quietly(&images_dir());
        let tasks = u32::try_from(dumped.tasks.processes).unwrap_or(u32::MAX);
        let mut file_bytes = 0;
        for (tree, root) in Tree::of_source(&self.recipe, self.dir.upper()) {
            file_bytes += send_tree(archive, &tree, &root).await?;
        }
        self.record_right(epoch, Right::Dumped, tasks)?;
        Ok(DumpedCopy { tasks, dump_ms, frozen_at_boot_ms, memory_bytes, file_bytes })
    }
}

impl Nest {
    /// Source, before commit or after revocation: lets the original run again. Ok = it runs, fence open. Safe to
    /// repeat.
    pub(crate) async fn thaw(&self, epoch: Epoch) -> Result<(), WireError> {
        self.require_epoch(epoch)?;
        self.require("thaw", &[Right::Run, Right::Dumping, Right::Dumped])?;
        self.undo_dump(epoch).await
    }

    /// Undoes a dump at any point of it. A dump whose CRIU still runs cannot occur here: whoever runs it waits for
    /// its end, and a nest that starts anew waits for a predecessor's.
    pub(crate) async fn undo_dump(&self, epoch: Epoch) -> Result<(), WireError> {
        ums_engine::criu::dump::wait_for_orphans(ARM_DEADLINE)
            .await
            .map_err(|error| failure(ErrorCode::Stuck, &error))?;
        // The record first: a nest that dies right after it thaws again, which is harmless; the other way round a
        // running copy would be taken for a frozen one.
        self.record_right(epoch, Right::Run, 0)?;
        unmount_quietly(&images_dir());
        self.cgroup.thaw().map_err(|error| failure(ErrorCode::Stuck, &error))?;
        fence::open().await.map_err(|error| failure(ErrorCode::Stuck, &error))
    }

    /// Source, after RUNNING(E): ends the frozen original. Ok = no process of it is left. Safe to repeat.
    pub(crate) async fn release(&self, epoch: Epoch) -> Result<(), WireError> {
        self.require_epoch(epoch)?;
        self.require("release", &[Right::Dumped, Right::Discarded])?;
        let tasks = self.record().tasks;
        self.record_right(epoch, Right::Discarded, tasks)?;
        self.kill_all().await
    }
}

/// The images on their way: those that grow stay open until the dump has ended.
#[derive(Default)]
struct Images {
    open: std::collections::BTreeMap<String, ums_transfer::frame::Channel>,
    bytes: u64,
}

impl Images {
    async fn send<W: AsyncWrite + Unpin>(
        &mut self,
        archive: &mut ArchiveWriter<'_, W>,
        (name, bytes): (String, Bytes),
    ) -> Result<(), WireError> {
        self.bytes += bytes.len() as u64;
        let channel = match self.open.get(&name) {
            Some(channel) => *channel,
            None => {
                let channel = archive.open(&name, &Item::Image).await.map_err(cut)?;
                *self.open.entry(name).or_insert(channel)
            }
        };
        archive.write(channel, bytes).await.map_err(cut)
    }

    async fn close<W: AsyncWrite + Unpin>(self, archive: &mut ArchiveWriter<'_, W>) -> Result<u64, WireError> {
        for channel in self.open.into_values() {
            archive.close(channel).await.map_err(cut)?;
        }
        Ok(self.bytes)
    }
}

/// Sends a file tree; answers the bytes of content. The service is frozen, so the tree holds still.
async fn send_tree<W: AsyncWrite + Unpin>(
    archive: &mut ArchiveWriter<'_, W>,
    tree: &Tree,
    root: &Path,
) -> Result<u64, WireError> {
    let unreadable = |error: &dyn std::error::Error| failure(ErrorCode::DumpFailed, error);
    let mut bytes = 0;
    for item in ums_engine::files::read_tree(root).map_err(|error| unreadable(&error))? {
        let (entry, content) = item.map_err(|error| unreadable(&error))?;
        let name = entry.path.to_string();
        let channel = archive.open(&name, &Item::File { tree: tree.clone(), entry }).await.map_err(cut)?;
        if let Some(file) = content {
            let mut file = tokio::fs::File::from_std(file);
            let mut buffer = BytesMut::new();
            loop {
                buffer.reserve(CHUNK);
                let read = file.read_buf(&mut buffer).await;
                match read.map_err(|error| failure(ErrorCode::DumpFailed, &error))? {
                    0 => break,
                    count => bytes += count as u64,
                }
                archive.write(channel, buffer.split().freeze()).await.map_err(cut)?;
            }
        }
        archive.close(channel).await.map_err(cut)?;
    }
    Ok(bytes)
}

/// CRIU's own failures come with what to do about them.
fn dump_failed(error: &DumpError) -> WireError {
    let wire = failure(ErrorCode::DumpFailed, error);
    match error {
        DumpError::Criu { failure, .. } => wire.with_hint(failure.remedy.clone()),
        DumpError::Harmed { .. } => WireError::new(ErrorCode::Stuck, wire.message),
        _ => wire,
    }
}

fn cut(error: ArchiveError) -> WireError {
    failure(ErrorCode::LinkCut, &error)
}

/// CLOCK_BOOTTIME in milliseconds.
fn boot_ms() -> f64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    now.tv_sec as f64 * 1e3 + now.tv_nsec as f64 / 1e6
}
