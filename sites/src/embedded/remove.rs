//! Taking a service away: everything that was made for it, to the last rule and directory.

use std::path::Path;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use ums_engine::cgroup::Cgroup;
use ums_frontman::host;
use ums_model::error::{ErrorCode, WireError};
use ums_model::names::{Epoch, ServiceName};
use ums_nest::client::ask;
use ums_nest::protocol::Request;
use ums_nest::right::{Record, Right};

use super::observe::keeper;
use super::{Embedded, SLOW, blocking, chained, internal, recipe};
use crate::adapter::{CopyState, SiteResult};

/// How long a keeper may take to end with everything below it.
const KEEPER_DEADLINE: Duration = Duration::from_secs(20);
const POLL: Duration = Duration::from_millis(2);

impl Embedded {
    /// `ums rm`. Volumes stay.
    pub(super) async fn remove_service(&self, name: &ServiceName, force: bool) -> SiteResult<()> {
        let _registry = self.registry.lock().await;
        let status = self.observe(name).await?;
        if status.copy != CopyState::Dead && !force {
            let message = format!("service {name} is not stopped");
            return Err(WireError::new(ErrorCode::Refused, message)
                .with_hint(format!("ums stop {name}, or ums rm --force {name}")));
        }
        self.tear_down(name).await
    }

    /// Source, after RUNNING(E): the original and what travelled with it go. Ok also if they are gone.
    pub(super) async fn release_copy(&self, name: &ServiceName, epoch: Epoch) -> SiteResult<()> {
        self.end_copy(name, epoch, &Request::Release { epoch }, &[Right::Dumped, Right::Discarded]).await
    }

    /// Destination: whatever exists of the copy of this epoch goes. Ok also if there is nothing.
    pub(super) async fn discard_copy(&self, name: &ServiceName, epoch: Epoch) -> SiteResult<()> {
        let rights = [Right::Prepared, Right::Restoring, Right::Held, Right::Discarded];
        self.end_copy(name, epoch, &Request::Discard { epoch }, &rights).await
    }

    /// Ends a copy that must not run (again), if its record says that it is of this epoch and in one of `rights`.
    async fn end_copy(
        &self,
        name: &ServiceName,
        epoch: Epoch,
        request: &Request,
        rights: &[Right],
    ) -> SiteResult<()> {
        let _registry = self.registry.lock().await;
        let dir = self.nest_dir(name);
        if !dir.recipe().exists() {
            return Ok(());
        }
        let Some(record) =
            Record::read(&dir.right()).map_err(|error| chained(ErrorCode::Internal, &error))?
        else {
            return self.tear_down(name).await;
        };
        if record.epoch != epoch || !rights.contains(&record.right) {
            let (seen, right) = (record.epoch, record.right);
            let message = format!(
                "the copy of {name} at site {} is {right:?} in epoch {seen}, not one of epoch {epoch} to end",
                self.config.name
            );
            return Err(WireError::new(ErrorCode::Refused, message));
        }
        if keeper(&dir).is_some() {
            ask(&dir.socket(), request, SLOW).await?;
        }
        let volumes = recipe(&dir)?.volumes;
        self.tear_down(name).await?;
        for volume in volumes {
            remove_tree(&volume.host)?;
        }
        Ok(())
    }

    /// Removes every trace but the volumes. Goes on after errors and returns the first. Safe to repeat.
    pub(super) async fn tear_down(&self, name: &ServiceName) -> SiteResult<()> {
        let dir = self.nest_dir(name);
        if keeper(&dir).is_some() {
            // A nest that cannot answer any more is ended with its keeper.
            let _ = ask(&dir.socket(), &Request::Quit, SLOW).await;
        }
        let ended = self.end_keeper(name).await;
        let link = match recipe(&dir) {
            Ok(recipe) => {
                host::disconnect(&recipe.place).await.map_err(|error| chained(ErrorCode::Internal, &error))
            }
            Err(_) => Ok(()),
        };
        let path = dir.path().to_owned();
        let files = blocking(move || remove_tree(&path)).await;
        ended.and(link).and(files)
    }

    /// The kernel ends everything below a keeper with it, once no frozen cgroup is in the way.
    async fn end_keeper(&self, name: &ServiceName) -> SiteResult<()> {
        let dir = self.nest_dir(name);
        let started = Instant::now();
        let cgroup = Cgroup::of_container(&Path::new("/").join(self.cgroup_path(name)))
            .map_err(|error| chained(ErrorCode::Internal, &error))?;
        // After a good Quit it ends by itself within a moment.
        while let Some(keeper) = keeper(&dir) {
            if started.elapsed() > Duration::from_millis(500)
                && let Some(pid) = i32::try_from(keeper.pid).ok().and_then(Pid::from_raw)
            {
                let _ = kill_process(pid, Signal::KILL);
                let _ = cgroup.kill_all_async(KEEPER_DEADLINE).await;
            }
            if started.elapsed() > KEEPER_DEADLINE {
                let message = format!("the keeper of {name} (pid {}) does not end", keeper.pid);
                return Err(WireError::new(ErrorCode::Stuck, message)
                    .with_hint("look at its processes, then try again"));
            }
            tokio::time::sleep(POLL).await;
        }
        cgroup.kill_all_async(KEEPER_DEADLINE).await.map_err(|error| chained(ErrorCode::Internal, &error))?;
        // A dead process stays in its cgroup, unlisted, until its memory is freed.
        let mut removed = cgroup.remove();
        while removed.is_err() && started.elapsed() < KEEPER_DEADLINE {
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

/// Removes a directory tree; nothing there is fine.
fn remove_tree(path: &Path) -> SiteResult<()> {
    match std::fs::remove_dir_all(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(internal(&format!("remove {}", path.display()), &error))
        }
        _ => Ok(()),
    }
}
