//! Taking a service away: everything that was made for it, to the last rule and directory.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use ums_engine::cgroup::Cgroup;
use ums_frontman::host;
use ums_model::error::{ErrorCode, WireError};
use ums_model::names::{Epoch, ServiceName};
use ums_model::nest::{Fate, Record, Right, Seen, Wish};
use ums_nest::layout::NestDir;
use ums_nest::protocol::Request;
use ums_nest::right;

use super::observe::keeper;
use super::{Embedded, blocking, chained, internal, recipe};
use crate::adapter::{CopyState, SiteResult};
use crate::deadlines::Deadlines;

/// How the directories of services are called while they are deleted. No service name begins like this.
const REMOVED: &str = ".removed-";
/// How often a keeper that ends is looked at.
const POLL: Duration = Duration::from_millis(2);

impl Embedded {
    /// `ums rm`. Volumes stay. By force also what cannot be looked at any more.
    pub(super) async fn remove_service(&self, name: &ServiceName, force: bool) -> SiteResult<()> {
        let _registry = self.registry.lock().await;
        match self.observe(name).await {
            Ok(status) if status.copy != CopyState::Dead && !force => {
                let message = format!("service {name} is not stopped");
                return Err(WireError::new(ErrorCode::Refused, message)
                    .with_hint(format!("ums stop {name}, or ums rm --force {name}")));
            }
            Err(error) if !force || error.code == ErrorCode::ServiceNotFound => return Err(error),
            _ => {}
        }
        self.tear_down(name).await
    }

    /// Source, after RUNNING(E): the original and what travelled with it go. Ok also if they are gone.
    pub(super) async fn release_copy(&self, name: &ServiceName, epoch: Epoch) -> SiteResult<()> {
        let _registry = self.registry.lock().await;
        match self.remains(name)? {
            None => Ok(()),
            Some(None) => self.tear_down_with_volumes(name).await,
            Some(Some(record))
                if record.epoch() == epoch && matches!(record.right(), Right::Dumped | Right::Discarded) =>
            {
                self.end_copy(name, record, epoch, Wish::Release).await
            }
            Some(Some(record)) => Err(self.not_to_end(name, epoch, record)),
        }
    }

    /// Destination: whatever exists of the copy of this epoch goes. Ok also if there is nothing, whatever else of
    /// that name is here.
    pub(super) async fn discard_copy(&self, name: &ServiceName, epoch: Epoch) -> SiteResult<()> {
        let _registry = self.registry.lock().await;
        match self.remains(name)? {
            None => Ok(()),
            Some(None) => self.tear_down_with_volumes(name).await,
            Some(Some(record)) => match record.fate(epoch) {
                Fate::Ends => self.end_copy(name, record, epoch, Wish::Discard).await,
                Fate::IsAnother => Ok(()),
                Fate::MayRun => Err(self.not_to_end(name, epoch, record)),
            },
        }
    }

    /// The record of what is here under a name; the outer `None`: nothing is.
    fn remains(&self, name: &ServiceName) -> SiteResult<Option<Option<Record>>> {
        let dir = self.nest_dir(name);
        if !dir.recipe().exists() {
            return Ok(None);
        }
        right::read(&dir.right()).map(Some).map_err(|error| chained(ErrorCode::Internal, &error))
    }

    fn not_to_end(&self, name: &ServiceName, epoch: Epoch, record: Record) -> WireError {
        let message = format!(
            "the copy of {name} at site {} is {record}, not one of epoch {epoch} to end",
            self.config.name
        );
        WireError::new(ErrorCode::Refused, message)
    }

    /// Ends a copy that must not run (again) and removes it with its volumes.
    async fn end_copy(&self, name: &ServiceName, record: Record, epoch: Epoch, wish: Wish) -> SiteResult<()> {
        let dir = self.nest_dir(name);
        let request = match wish {
            Wish::Release => Request::Release { epoch },
            _ => Request::Discard { epoch },
        };
        let told = match keeper(&dir) {
            Some(_) => self.ask_nest(&dir, &request, self.config.deadlines.change).await.map(drop),
            None => Ok(()),
        };
        match told {
            // It knows better what it may do.
            Err(error) if error.code == ErrorCode::Refused => return Err(error),
            Err(error) => {
                tracing::warn!(service = %name, error = %error.message, "a nest cannot end its copy: its keeper is ended");
            }
            Ok(()) => {}
        }
        // What a nest that could not be asked would have recorded first. A full disk must not keep the copy here.
        if let Err(error) = note(&dir, record, epoch, wish) {
            tracing::warn!(service = %name, error = %error.message, "cannot record that a copy ends");
        }
        self.tear_down_with_volumes(name).await
    }

    /// Removes every trace but the volumes. Err = some are left; safe to repeat.
    pub(super) async fn tear_down(&self, name: &ServiceName) -> SiteResult<()> {
        self.end_processes(name).await?;
        self.clear_away(name).await
    }

    /// As [`Self::tear_down`], with the volumes that travel with it, unless another service here uses them too.
    pub(super) async fn tear_down_with_volumes(&self, name: &ServiceName) -> SiteResult<()> {
        self.end_processes(name).await?;
        // Before the recipe goes, by which they are found again after a crash.
        let volumes = recipe(&self.nest_dir(name)).map(|recipe| recipe.volumes).unwrap_or_default();
        let others = self.volumes_of_others(name)?;
        let volumes: Vec<_> = volumes.into_iter().map(|volume| volume.host).collect();
        blocking(move || {
            volumes.iter().filter(|path| !others.contains(*path)).try_for_each(|path| remove_tree(path))
        })
        .await?;
        self.clear_away(name).await
    }

    /// Directories of the volumes that services other than `name` use.
    pub(super) fn volumes_of_others(&self, name: &ServiceName) -> SiteResult<BTreeSet<PathBuf>> {
        let others = self.names()?.into_iter().filter(|other| other != name);
        let recipes = others.filter_map(|other| recipe(&self.nest_dir(&other)).ok());
        Ok(recipes.flat_map(|recipe| recipe.volumes).map(|volume| volume.host).collect())
    }

    async fn end_processes(&self, name: &ServiceName) -> SiteResult<()> {
        let dir = self.nest_dir(name);
        if keeper(&dir).is_some() {
            // A nest that cannot answer any more is ended with its keeper.
            let _ = self.ask_nest(&dir, &Request::Quit, self.config.deadlines.change).await;
        }
        self.end_keeper(name).await
    }

    /// Link, rules and directory. The directory loses its name in one step, so that no half of a service is seen.
    async fn clear_away(&self, name: &ServiceName) -> SiteResult<()> {
        let dir = self.nest_dir(name);
        let link = match recipe(&dir) {
            Ok(recipe) => {
                let network = &self.config.nest_deadlines.network;
                host::disconnect(&recipe.place, network)
                    .await
                    .map_err(|error| chained(ErrorCode::Internal, &error))
            }
            Err(_) => Ok(()),
        };
        let (path, removed) = (dir.path().to_owned(), self.services_dir().join(format!("{REMOVED}{name}")));
        let files = blocking(move || {
            remove_tree(&removed)?;
            match std::fs::rename(&path, &removed) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    Err(internal(&format!("remove {}", path.display()), &error))
                }
                _ => remove_tree(&removed),
            }
        })
        .await;
        link.and(files)
    }

    /// Deletes what an earlier daemon had begun to delete. Blocking.
    pub(super) fn sweep(&self) {
        let entries = std::fs::read_dir(self.services_dir()).into_iter().flatten().flatten();
        for entry in entries.filter(|entry| entry.file_name().to_string_lossy().starts_with(REMOVED)) {
            if let Err(error) = remove_tree(&entry.path()) {
                tracing::warn!(error = %error.message, "cannot clear away a removed service");
            }
        }
    }

    /// The kernel ends everything below a keeper with it, once no frozen cgroup is in the way.
    pub(super) async fn end_keeper(&self, name: &ServiceName) -> SiteResult<()> {
        let dir = self.nest_dir(name);
        let Deadlines { keeper_quit, keeper_end, .. } = self.config.deadlines;
        let started = Instant::now();
        let cgroup = Cgroup::of_container(&Path::new("/").join(self.cgroup_path(name)))
            .map_err(|error| chained(ErrorCode::Internal, &error))?;
        // After a good Quit it ends by itself within a moment.
        while let Some(keeper) = keeper(&dir) {
            if started.elapsed() > keeper_quit
                && let Some(pid) = i32::try_from(keeper.pid).ok().and_then(Pid::from_raw)
            {
                let _ = kill_process(pid, Signal::KILL);
                let _ = cgroup.kill_all_async(keeper_end).await;
            }
            if started.elapsed() > keeper_end {
                let message = format!("the keeper of {name} (pid {}) does not end", keeper.pid);
                return Err(WireError::new(ErrorCode::Stuck, message)
                    .with_hint("look at its processes, then try again: ums rm --force"));
            }
            tokio::time::sleep(POLL).await;
        }
        cgroup.kill_all_async(keeper_end).await.map_err(|error| chained(ErrorCode::Internal, &error))?;
        // A dead process stays in its cgroup, unlisted, until its memory is freed.
        let mut removed = cgroup.remove();
        while removed.is_err() && started.elapsed() < keeper_end {
            tokio::time::sleep(POLL).await;
            removed = cgroup.remove();
        }
        removed.map_err(|error| chained(ErrorCode::Internal, &error))?;
        // The site's own cgroup goes with its last service; while there are others this fails, as it should.
        let directories = match &cgroup {
            Cgroup::V1 { freezer, others } => others.iter().chain([freezer]).collect::<Vec<_>>(),
            Cgroup::V2 { dir } => vec![dir],
        };
        for parent in directories.into_iter().filter_map(|dir| dir.parent()) {
            let _ = std::fs::remove_dir(parent);
        }
        Ok(())
    }
}

/// Records what a nest that cannot be asked, because it is gone with its keeper and its copy, would have recorded.
pub(super) fn note(dir: &NestDir, record: Record, epoch: Epoch, wish: Wish) -> SiteResult<()> {
    let decision = record.decide(epoch, wish, Seen::default()).map_err(|refusal| {
        WireError::new(ErrorCode::Refused, format!("cannot {wish} the copy of epoch {epoch}: {refusal}"))
    })?;
    let Some(event) = decision.record else { return Ok(()) };
    let record = record.apply(event).map_err(|error| chained(ErrorCode::Refused, &error))?;
    right::write(&dir.right(), &record).map_err(|error| chained(ErrorCode::Internal, &error))
}

/// Removes a directory tree; nothing there is fine.
pub(super) fn remove_tree(path: &Path) -> SiteResult<()> {
    match std::fs::remove_dir_all(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(internal(&format!("remove {}", path.display()), &error))
        }
        _ => Ok(()),
    }
}
