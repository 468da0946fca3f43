//! The destination's side: arm, restore into HELD, resume, discard.

use std::collections::BTreeMap;
use std::time::Instant;

use bytes::Bytes;
use tokio::io::AsyncRead;
use ums_engine::criu::restore::{
    ArmedRestore, ProxyListener, RestoreError, Restoring, make_path, write_descriptors,
};
use ums_engine::files::{FileWriter, FilesError, Refusal, TreeWriter, WritePolicy, open_root};
use ums_engine::images::admit::{Intake, IntakeError};
use ums_engine::images::namespaces::adopt;
use ums_engine::images::{self, Tmpfs};
use ums_engine::userns::IdRange;
use ums_model::error::{ErrorCode, WireError};
use ums_model::message::RestoreRequirements;
use ums_model::names::Epoch;
use ums_model::nest::{Right, Step, Wish};
use ums_model::policy::FilePolicy;
use ums_transfer::archive::{ArchiveEvent, ArchiveReader, Limits};
use ums_transfer::frame::{Channel, FrameReader};

use crate::admission::{HostShare, admission};
use crate::bundle::Namespaces;
use crate::layout::{images as images_dir, proxy_path, proxy_socket};
use crate::mounts::adopt_namespaces;
use crate::parcel::{Item, Tree};
use crate::protocol::RestoredCopy;
use crate::runc::Restore;
use crate::server::{Nest, failure};
use crate::source::new_images;

/// A restore that waits for its images: runc has prepared the container, CRIU is started, our proxy holds its request.
pub(crate) struct Armed {
    epoch: Epoch,
    tasks: u32,
    proxy: ArmedRestore,
    runc: Restore,
    memory: Tmpfs,
}

impl Nest {
    /// Makes everything ready that can be before the freeze. Ok = images may come, the fence is closed. Err = nothing
    /// of the copy exists. Safe to repeat: an earlier attempt is discarded first.
    pub(crate) async fn arm(
        &self,
        epoch: Epoch,
        requirements: &RestoreRequirements,
    ) -> Result<(), WireError> {
        self.grant(epoch, Wish::Arm { tasks: requirements.tasks })?;
        let armed = match self.try_arm(epoch, requirements).await {
            Ok(armed) => armed,
            Err(error) => {
                self.discard(epoch).await?;
                return Err(error);
            }
        };
        *self.armed.lock().await = Some(armed);
        Ok(())
    }

    async fn try_arm(&self, epoch: Epoch, requirements: &RestoreRequirements) -> Result<Armed, WireError> {
        let failed = |error: &dyn std::error::Error| failure(ErrorCode::RestoreFailed, error);
        self.disarm().await;
        // Before a socket can exist, and long before it could answer a packet. Where CRIU makes the namespace, it is
        // closed as soon as there is one.
        if self.recipe.ids.is_none() {
            self.close_fence().await.map_err(|error| failed(&error))?;
        }
        self.runc.delete().await.map_err(|error| failed(&error))?;
        self.prepare_container(Namespaces::Restored)?;
        let memory = new_images().map_err(|error| failed(&error))?;
        // runc maps the dump's stdio pipes to its own stdio by these names, and reads them when it starts.
        let pipes = pipe_names(requirements)?;
        write_descriptors(&images_dir(), &pipes).map_err(|error| failed(&error))?;
        let program = std::env::current_exe().map_err(|error| failed(&error))?;
        make_path(&proxy_path(), &program).map_err(|error| failed(&error))?;
        let listener =
            ProxyListener::bind(&proxy_socket(), self.deadlines().restore).map_err(|error| failed(&error))?;
        let environment = listener.environment(&proxy_path(), &self.tools.criu, &self.cgroup);
        let environment = environment.map_err(|error| failed(&error))?;
        let mut runc = self.runc.restore(&environment).map_err(|error| failed(&error))?;
        // Where runc fails the proxy never comes, and only runc's own words explain it.
        let proxy = tokio::select! {
            armed = listener.armed() => armed.map_err(|error| failed(&error)),
            ended = runc.ended() => Err(ended.err().map_or_else(
                || WireError::new(ErrorCode::RestoreFailed, "runc restore ended before there was anything to restore"),
                |error| failed(&error),
            )),
        };
        match proxy {
            Ok(proxy) => Ok(Armed { epoch, tasks: requirements.tasks, proxy, runc, memory }),
            Err(error) => {
                runc.end().await;
                Err(error)
            }
        }
    }

    /// Calls an armed restore off, if there is one. Afterwards its runc is gone.
    pub(crate) async fn disarm(&self) {
        if let Some(Armed { proxy, mut runc, memory, .. }) = self.armed.lock().await.take() {
            // First: a proxy that loses its nest before the word to go refuses, and CRIU restores nothing.
            drop(proxy);
            runc.end().await;
            drop(memory);
        }
    }

    /// Restores from an archive. Ok = HELD: CRIU has ended well, every task of the manifest sits in a cgroup that
    /// reads back frozen, files are synced, runc knows the container, the record says so. Err = nothing of the copy
    /// is left and nothing of it ran.
    pub(crate) async fn restore<R: AsyncRead + Unpin>(
        &self,
        epoch: Epoch,
        frames: &mut FrameReader<R>,
    ) -> Result<RestoredCopy, WireError> {
        let _life = self.life.lock().await;
        self.decide(epoch, Wish::Restore)?;
        let armed = self.armed.lock().await.take().filter(|armed| armed.epoch == epoch).ok_or_else(|| {
            WireError::new(ErrorCode::RestoreFailed, format!("nothing is prepared for epoch {epoch}"))
        })?;
        let Armed { tasks, proxy, mut runc, memory, .. } = armed;
        let restored = async {
            self.grant(epoch, Wish::Restore)?;
            self.try_restore(epoch, (proxy, tasks), &mut runc, memory, frames).await
        };
        match restored.await {
            Ok(restored) => Ok(restored),
            Err(error) => {
                // Before its container is taken away from under it: it ends when its CRIU has.
                runc.end().await;
                self.discard(epoch).await?;
                Err(error)
            }
        }
    }

    /// How the restore of `epoch` ended. A nest that was started after it knows the record, but not its numbers.
    pub(crate) async fn restore_result(&self, epoch: Epoch) -> Result<RestoredCopy, WireError> {
        if let Some(result) = self.restored.wait(epoch, self.deadlines().begin).await {
            return result;
        }
        let record = self.record();
        if record.epoch() == epoch && record.right() == Right::Held {
            return Ok(RestoredCopy { tasks: record.tasks(), restore_ms: 0.0 });
        }
        let message = format!("no restore in epoch {epoch} is under way; the copy is {record}");
        Err(WireError::new(ErrorCode::RestoreFailed, message))
    }

    async fn try_restore<R: AsyncRead + Unpin>(
        &self,
        epoch: Epoch,
        (proxy, tasks): (ArmedRestore, u32),
        runc: &mut Restore,
        memory: Tmpfs,
        frames: &mut FrameReader<R>,
    ) -> Result<RestoredCopy, WireError> {
        let failed = |error: &dyn std::error::Error| failure(ErrorCode::RestoreFailed, error);
        let mut unpack = Unpack::new(self, tasks)?;
        let mut archive = ArchiveReader::new(frames, Limits::default());
        loop {
            match archive.next().await.map_err(|error| failure(ErrorCode::LinkCut, &error))? {
                ArchiveEvent::Open { channel, name, meta } => {
                    let item = meta.decode::<Item>().map_err(|error| failed(&error))?;
                    tokio::task::block_in_place(|| unpack.open(channel, &name, item))?;
                }
                ArchiveEvent::Data { channel, data } => {
                    tokio::task::block_in_place(|| unpack.write(channel, &data))?;
                }
                ArchiveEvent::Close { channel, .. } => tokio::task::block_in_place(|| unpack.close(channel))?,
                ArchiveEvent::End { .. } => break,
            }
        }
        let complete = Instant::now();
        // Acknowledged writes must survive a crash of this host from the moment at which the source may forget them.
        tokio::task::block_in_place(|| unpack.finish())?;
        let synced = complete.elapsed();
        adopt(&images_dir(), self.recipe.ids).map_err(|error| failed(&error))?;
        let restoring = self.go(proxy).await?;
        let held = restoring.held().await.map_err(|error| restore_failed(&error))?;
        let held_after = complete.elapsed();
        runc.ended().await.map_err(|error| failed(&error))?;
        tracing::info!(?synced, ?held_after, runc_ended = ?complete.elapsed(), "restored");
        // Giving a gigabyte back takes longer than everything that is still to do here.
        tokio::task::spawn_blocking(move || drop(memory));
        let tasks =
            u32::try_from(self.cgroup.procs().map_err(|error| failed(&error))?.len()).unwrap_or(u32::MAX);
        let restored = held.tasks.processes;
        if !self.cgroup.is_frozen().map_err(|error| failed(&error))? || tasks == 0 || tasks > restored {
            let message =
                format!("the restored copy is not whole: {restored} tasks restored, {tasks} frozen");
            return Err(WireError::new(ErrorCode::RestoreFailed, message));
        }
        self.note(Step::HeldReached { tasks }.at(epoch))?;
        // With its zombies, as the dump was counted; they are in no cgroup.
        Ok(RestoredCopy { tasks: restored, restore_ms: complete.elapsed().as_secs_f64() * 1e3 })
    }

    /// Lets CRIU restore. Where it makes the network namespace, that is fenced and wired on the way.
    async fn go(&self, proxy: ArmedRestore) -> Result<Restoring, WireError> {
        if self.recipe.ids.is_none() {
            return proxy.go().await.map_err(|error| restore_failed(&error));
        }
        let wiring = proxy.go_wiring().await.map_err(|error| restore_failed(&error))?;
        let unwired = wiring.namespaces().await.map_err(|error| restore_failed(&error))?;
        let failed = |error: &dyn std::error::Error| failure(ErrorCode::RestoreFailed, error);
        adopt_namespaces(unwired.pid).map_err(|error| failed(&error))?;
        self.close_fence().await.map_err(|error| failed(&error))?;
        let network = self.deadlines().network;
        ums_frontman::place::wire(&self.recipe.place, &network).await.map_err(|error| failed(&error))?;
        unwired.wired().await.map_err(|error| restore_failed(&error))
    }

    /// After GRANTED(E): thaws. Ok = every task is thawed; the fence stays closed. Safe to repeat.
    pub(crate) async fn resume(&self, epoch: Epoch) -> Result<(), WireError> {
        let was_held = self.record().right() == Right::Held;
        let deed = self.grant(epoch, Wish::Resume)?;
        if was_held {
            self.set_since(crate::keeper::unix_ms());
        }
        self.act(deed).await
    }

    /// After RUNNING(E): opens the fence. Safe to repeat.
    pub(crate) async fn open(&self, epoch: Epoch) -> Result<(), WireError> {
        let decision = self.decide(epoch, Wish::Open)?;
        // Whoever asks knows that it is allowed: a full disk only means that the next nest has to be asked again.
        if let Some(event) = decision.record
            && let Err(error) = self.note(event)
        {
            tracing::warn!(error = %error.message, "cannot record that the fence is open");
        }
        self.act(decision.deed).await
    }

    /// Ends whatever exists of the copy. Ok = no process of it is left, and none ever ran. Safe to repeat.
    pub(crate) async fn discard(&self, epoch: Epoch) -> Result<(), WireError> {
        let deed = self.grant(epoch, Wish::Discard)?;
        self.act(deed).await
    }

    /// Ends every task of a copy, and drops what a dump or a restore has left. Ok = none is left.
    pub(crate) async fn end(&self) -> Result<(), WireError> {
        self.disarm().await;
        if self.cgroup.procs().is_ok_and(|procs| !procs.is_empty()) {
            // Where a CRIU still has tasks in its hands, none of them shall run when it dies first. If they cannot be
            // stopped they die one by one, behind the fence.
            let _ = self.cgroup.freeze_async(self.deadlines().break_off).await;
        }
        self.kill_all().await?;
        images::unmount(&images_dir()).map_err(|error| failure(ErrorCode::Internal, &error))
    }
}

/// The names of the dump's pipes as they may be handed on to runc: `pipe:[NUMBER]`, or nothing.
fn pipe_names(requirements: &RestoreRequirements) -> Result<Vec<String>, WireError> {
    let valid = |name: &str| {
        let number = name.strip_prefix("pipe:[").and_then(|rest| rest.strip_suffix(']'));
        number.is_some_and(|digits| {
            (1..=20).contains(&digits.len()) && digits.bytes().all(|byte| byte.is_ascii_digit())
        })
    };
    let names = requirements.stdio_pipes.iter().map(|name| match name {
        None => Ok(String::new()),
        Some(name) if valid(name) => Ok(name.clone()),
        Some(name) => {
            let shown: String = name.chars().take(40).collect();
            let message = format!("the source names {shown:?} as a pipe of the service");
            Err(WireError::new(ErrorCode::RestoreFailed, message))
        }
    });
    names.collect()
}

/// How many files a service may bring.
const FILES: ums_engine::files::Limits =
    ums_engine::files::Limits { entries: 2_000_000, bytes: ums_model::names::Bytes::gib(1024), depth: 256 };

/// A file that the policy for the source does not allow comes with the option that would.
fn not_accepted(error: &FilesError, tree: &Tree) -> WireError {
    let option = match error {
        FilesError::Refused { reason: Refusal::Privileged, .. } => FilePolicy::SET_UID,
        FilesError::Refused { reason: Refusal::Device { .. }, .. } => FilePolicy::DEVICES,
        _ => return refused(error),
    };
    let message = format!("cannot take in the files of {tree}: {error}");
    WireError::new(ErrorCode::Refused, message).with_hint(option)
}

/// CRIU's own failures come with what to do about them.
fn restore_failed(error: &RestoreError) -> WireError {
    let wire = failure(ErrorCode::RestoreFailed, error);
    match error {
        RestoreError::Failed(failure) => {
            wire.with_hint(format!("{}; then check this host: ums doctor", failure.remedy))
        }
        _ => wire,
    }
}

/// Where arriving items are written. Blocking; every name and entry is checked by what writes it.
struct Unpack {
    images: Intake,
    trees: BTreeMap<Tree, TreeWriter>,
    ids: Option<IdRange>,
    open: BTreeMap<Channel, Writing>,
}

enum Writing {
    Image(String),
    File(Option<FileWriter>),
}

/// What a service may not have is the source's doing; that it cannot be written is this host's.
fn not_admitted(error: &IntakeError) -> WireError {
    match error {
        IntakeError::Refused(_) => failure(ErrorCode::ImageRefused, error),
        IntakeError::Sink(_) => refused(error),
    }
}

fn refused(error: &dyn std::error::Error) -> WireError {
    failure(ErrorCode::RestoreFailed, error)
}

impl Unpack {
    fn new(nest: &Nest, tasks: u32) -> Result<Self, WireError> {
        let mut trees = BTreeMap::new();
        for (tree, root) in Tree::of_destination(&nest.recipe) {
            let root = open_root(&root).map_err(|error| refused(&error))?;
            let FilePolicy { set_uid: setuid, devices } = nest.recipe.files;
            let policy = WritePolicy { devices, setuid, limits: FILES };
            let writer = TreeWriter::new(root, policy).map_err(|error| refused(&error))?;
            trees.insert(tree, writer);
        }
        Ok(Self {
            images: Intake::open(&images_dir(), admission(&nest.recipe, tasks, &HostShare::read()))
                .map_err(|error| not_admitted(&error))?,
            trees,
            ids: nest.recipe.ids,
            open: BTreeMap::new(),
        })
    }

    fn open(&mut self, channel: Channel, name: &str, item: Item) -> Result<(), WireError> {
        let writing = match item {
            Item::Image => {
                self.images.begin(name).map_err(|error| not_admitted(&error))?;
                Writing::Image(name.to_owned())
            }
            Item::File { tree, mut entry } => {
                if let Some(ids) = self.ids.filter(|_| tree.is_shifted()) {
                    entry.shift_outwards(ids).map_err(|error| refused(&error))?;
                }
                let writer = self.trees.get_mut(&tree).ok_or_else(|| {
                    let message =
                        format!("the source sends files of {tree:?}, which this service does not have");
                    WireError::new(ErrorCode::RestoreFailed, message)
                })?;
                let file = writer.begin(&entry).map_err(|error| not_accepted(&error, &tree))?;
                Writing::File(file)
            }
        };
        self.open.insert(channel, writing);
        Ok(())
    }

    fn write(&mut self, channel: Channel, data: &Bytes) -> Result<(), WireError> {
        match self.open.get_mut(&channel) {
            Some(Writing::Image(name)) => self.images.write(name, data).map_err(|error| not_admitted(&error)),
            Some(Writing::File(Some(file))) => file.write(data).map_err(|error| refused(&error)),
            Some(Writing::File(None)) | None => {
                Err(WireError::new(ErrorCode::RestoreFailed, "the source sends content for what is no file"))
            }
        }
    }

    fn close(&mut self, channel: Channel) -> Result<(), WireError> {
        match self.open.remove(&channel) {
            Some(Writing::File(Some(file))) => file.finish().map_err(|error| refused(&error)),
            Some(Writing::Image(name)) => self.images.end(&name).map_err(|error| not_admitted(&error)),
            Some(Writing::File(None)) | None => Ok(()),
        }
    }

    /// Ok = all files are whole and synced, and the images say nothing that this service may not have.
    fn finish(self) -> Result<(), WireError> {
        self.images.finish().map_err(|error| not_admitted(&error))?;
        for writer in self.trees.into_values() {
            writer.complete().map_err(|error| refused(&error))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_pipes_are_handed_on_to_runc() {
        let named = |name: &str| {
            let name = (!name.is_empty()).then(|| name.to_owned());
            pipe_names(&RestoreRequirements { stdio_pipes: [name, None, None], tasks: 1 })
        };
        assert_eq!(named("pipe:[123]").unwrap(), ["pipe:[123]", "", ""]);
        assert_eq!(named("").unwrap(), ["", "", ""]);
        let long = format!("pipe:[{}]", "1".repeat(1000));
        for hostile in ["pipe:[]", "pipe:[1", "pipe:[-1]", "/dev/pipe:[1]", "pipe:[1]\n", "pipe:[1]x", &long]
        {
            assert!(named(hostile).is_err(), "{hostile:?}");
        }
    }
}
