//! Start, stop, signals, status: the nest's work while nothing moves.

use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use ums_engine::cgroup::CgroupError;
use ums_engine::criu::restore::unmount_below;
use ums_engine::images;
use ums_engine::process::Stat;
use ums_model::error::{ErrorCode, WireError};
use ums_model::names::Epoch;
use ums_model::nest::{Decision, Deed, Event, Refusal, Seen, Wish};

use crate::bundle::{self, Namespaces, User};
use crate::keeper::{Exit, recorded_service, unix_ms};
use crate::layout::{exit as exit_path, harm as harm_path, images as images_dir, merged, runc_root, shm};
use crate::mounts::{mount_all, provide_namespaces};
use crate::protocol::NestStatus;
use crate::server::{Nest, failure};
use crate::state::{forget, read_json, write_json};

/// Pause between looks at a service that is to end.
const POLL: Duration = Duration::from_millis(5);
/// Longest time that a service gets to end by itself, whatever was asked for.
const MAX_GRACE: Duration = Duration::from_secs(24 * 3600);

impl Nest {
    /// Builds what is missing of the place.
    pub(crate) async fn wire(&self) -> Result<(), WireError> {
        let inner = provide_namespaces(&self.recipe, self.record().right())
            .map_err(|error| failure(ErrorCode::Internal, &error))?;
        let built = ums_frontman::place::build(&self.recipe.place, inner, &self.deadlines().network).await;
        built.map_err(|error| failure(ErrorCode::Internal, &error))
    }

    /// Makes mounts and bundle. Safe to repeat.
    pub(crate) fn prepare_container(&self, namespaces: Namespaces) -> Result<(), WireError> {
        mount_all(&self.dir, &self.recipe).map_err(|error| failure(ErrorCode::Internal, &error))?;
        let user = User::resolve(&self.recipe.user, &merged()).ok_or_else(|| {
            let message = format!("the image has no user {:?}", self.recipe.user);
            WireError::new(ErrorCode::BadRequest, message)
                .with_hint("choose an existing user or a numeric id: ums run --user")
        })?;
        bundle::write(&self.recipe, user, namespaces).map_err(|error| failure(ErrorCode::Internal, &error))
    }

    /// Starts the service from its image. Ok = it runs: its process was started, or there was one. Err = no process of it
    /// was started. A copy that a dump has harmed, which nobody can let go any more, is ended first.
    pub(crate) async fn start(&self) -> Result<(), WireError> {
        if self.record().may_start() && crate::harm::is_known(&harm_path()) {
            self.kill_all().await?;
        }
        if self.grant(self.record().epoch(), Wish::Start)? == Deed::Nothing {
            return Ok(());
        }
        self.reaped().await;
        let before = self.exit();
        let _ = std::fs::remove_file(exit_path());
        // Durably: after a crash of the host it would look like a service that had ended by itself.
        if let Err(error) = forget(&self.dir.exit()) {
            tracing::warn!(%error, "cannot forget how the service ended before");
        }
        crate::harm::clear(&harm_path());
        if let Err(error) = self.create_and_start().await {
            let _ = self.runc.delete().await;
            // It is still the service that ended before: its restart policy looks at how.
            if let Some(exit) = before {
                let _ = write_json(&exit_path(), &exit).and_then(|()| write_json(&self.dir.exit(), &exit));
            }
            return Err(error);
        }
        if let Err(error) = crate::stopped::clear(&self.dir) {
            tracing::warn!(%error, "cannot take away the note that the service was stopped");
        }
        self.set_stopped(false);
        self.set_since(unix_ms());
        Ok(())
    }

    async fn create_and_start(&self) -> Result<(), WireError> {
        let internal = |error: &dyn std::error::Error| failure(ErrorCode::Internal, error);
        self.runc.delete().await.map_err(|error| internal(&error))?;
        // Shared memory belongs to a run, not to the files of a service.
        images::unmount(&shm()).map_err(|error| internal(&error))?;
        // Those of a dump that has harmed it, kept for whoever judges.
        images::unmount(&images_dir()).map_err(|error| internal(&error))?;
        self.prepare_container(Namespaces::Given)?;
        self.open_fence().await.map_err(|error| internal(&error))?;
        let hint =
            "look at the command and the image: `ums exec` needs a running service, `ums logs` shows output";
        let refused = |error| failure(ErrorCode::BadRequest, &error).with_hint(hint);
        self.runc.create().await.map_err(refused)?;
        self.runc.start().await.map_err(refused)
    }

    /// Sends a signal to the service's first process. Not to a copy that is frozen: it would hear it much later,
    /// somewhere else, or never.
    pub(crate) fn signal(&self, signal: i32) -> Result<(), WireError> {
        self.require_right("signal")?;
        let pid = self.service_pid().ok_or_else(|| {
            WireError::new(
                ErrorCode::ServiceNotFound,
                format!("service {} does not run", self.recipe.spec.name),
            )
        })?;
        let number = Signal::from_named_raw(signal)
            .ok_or_else(|| WireError::new(ErrorCode::BadRequest, format!("{signal} is no signal")))?;
        kill_process(pid, number).map_err(|errno| failure(ErrorCode::Internal, &std::io::Error::from(errno)))
    }

    /// SIGTERM, after `grace` SIGKILL to all. Ok = nothing of it runs any more.
    pub(crate) async fn stop(&self, grace: Duration) -> Result<(), WireError> {
        // First, so that nobody restarts what is being stopped. On a full disk only this nest knows.
        self.set_stopped(true);
        if let Err(error) = crate::stopped::note(&self.dir) {
            tracing::warn!(%error, "cannot note that the service was stopped by its user");
        }
        if let Some(pid) = self.service_pid() {
            let _ = kill_process(pid, Signal::TERM);
            let deadline = tokio::time::Instant::now() + grace.min(MAX_GRACE);
            while self.is_alive() && tokio::time::Instant::now() < deadline {
                tokio::time::sleep(POLL).await;
            }
        }
        self.kill_all().await
    }

    /// Ends every process of the copy without letting it run another instruction if it is frozen.
    pub(crate) async fn kill_all(&self) -> Result<(), WireError> {
        self.cgroup
            .kill_all_async(self.deadlines().kill)
            .await
            .map_err(|error| failure(ErrorCode::Internal, &error))?;
        self.reaped().await;
        // A restore that was broken off leaves the service's root mounted inside what runc is about to delete.
        let root = runc_root();
        if root.exists() {
            unmount_below(&root).map_err(|error| {
                let message =
                    format!("cannot unmount what a broken restore left below {}: {error}", root.display());
                WireError::new(ErrorCode::Internal, message)
            })?;
        }
        self.runc.delete().await.map_err(|error| failure(ErrorCode::Internal, &error))
    }

    /// Lets the copy run as far as the freezer goes. Ok also if there is nothing that could run. Refused for a copy
    /// that a dump has harmed.
    pub(crate) fn let_run(&self) -> Result<(), WireError> {
        crate::harm::none(&harm_path(), &self.recipe.spec.name)?;
        match self.cgroup.thaw().map_err(|error: CgroupError| failure(ErrorCode::Stuck, &error)) {
            // runc removes the cgroup of a service that has ended.
            Err(_) if self.cgroup.procs().is_ok_and(|procs| procs.is_empty()) => Ok(()),
            result => result,
        }
    }

    /// Gives the keeper the time to write down how a service ended that has: its pid file goes last.
    async fn reaped(&self) {
        let deadline = tokio::time::Instant::now() + self.deadlines().reap;
        while recorded_service().is_some() && !self.is_alive() && tokio::time::Instant::now() < deadline {
            tokio::time::sleep(POLL).await;
        }
    }

    /// How it ended, if it did.
    pub(crate) fn exit(&self) -> Option<Exit> {
        read_json(&exit_path()).or_else(|_| read_json(&self.dir.exit())).ok()
    }

    /// What is observed now.
    pub(crate) fn status(&self) -> NestStatus {
        let tasks = self.cgroup.procs().map_or(0, |procs| procs.len());
        NestStatus {
            record: self.record(),
            tasks: u32::try_from(tasks).unwrap_or(u32::MAX),
            frozen: self.cgroup.is_frozen().unwrap_or(false),
            harmed: crate::harm::is_known(&harm_path()),
            pid: self.service_pid().map(|pid| pid.as_raw_nonzero().get().unsigned_abs()),
            exit: self.exit(),
            since_unix_ms: self.since(),
        }
    }

    /// Pid of the service's first process, while it is more than a zombie.
    pub(crate) fn service_pid(&self) -> Option<Pid> {
        let pid = recorded_service()?;
        Stat::of(pid.as_raw_pid()).is_some_and(|stat| !stat.has_ended()).then_some(pid)
    }

    /// Whether the service's first process lives.
    pub(crate) fn is_alive(&self) -> bool {
        self.service_pid().is_some()
    }

    /// What is seen of the copy by which the record decides.
    fn seen(&self) -> Seen {
        let tasks = self.cgroup.procs().map_or(0, |procs| procs.len());
        Seen { alive: self.is_alive(), tasks: u32::try_from(tasks).unwrap_or(u32::MAX) }
    }

    /// What the record says about a wish. Nothing has happened yet.
    pub(crate) fn decide(&self, epoch: Epoch, wish: Wish) -> Result<Decision, WireError> {
        self.record().decide(epoch, wish, self.seen()).map_err(|refusal| self.refused(&wish, &refusal))
    }

    /// As [`Self::decide`]. Ok = the record that the deed needs is durable, and the deed may follow.
    pub(crate) fn grant(&self, epoch: Epoch, wish: Wish) -> Result<Deed, WireError> {
        let Decision { record, deed } = self.decide(epoch, wish)?;
        record.map_or(Ok(()), |event| self.note(event))?;
        Ok(deed)
    }

    /// Records durably what happens. Err = the record is as before.
    pub(crate) fn note(&self, event: Event) -> Result<(), WireError> {
        let record = self.record().apply(event).map_err(|error| failure(ErrorCode::Refused, &error))?;
        crate::right::write(&self.dir.right(), &record)
            .map_err(|error| failure(ErrorCode::Internal, &error))?;
        self.set_record(record);
        Ok(())
    }

    /// Does what a record has granted. Safe to repeat.
    pub(crate) async fn act(&self, deed: Deed) -> Result<(), WireError> {
        let internal = |error: &dyn std::error::Error| failure(ErrorCode::Internal, error);
        match deed {
            // These take more than the record: whoever asked for them has it.
            Deed::Nothing | Deed::Start | Deed::Dump | Deed::Arm | Deed::Restore => Ok(()),
            Deed::LetRun => self.run_as_recorded().await,
            Deed::StandStill => self.stand_still().await,
            Deed::Resume => self.let_run(),
            Deed::Open => self.open_fence().await.map_err(|error| internal(&error)),
            Deed::Disarm => {
                self.kill_all().await?;
                images::unmount(&images_dir()).map_err(|error| internal(&error))
            }
            Deed::End => self.end().await,
        }
    }

    /// Err unless the copy may run.
    pub(crate) fn require_right(&self, action: &str) -> Result<(), WireError> {
        let record = self.record();
        if record.may_run() { Ok(()) } else { Err(self.refused(&action, &Refusal::Unfit { record })) }
    }

    fn refused(&self, action: &dyn std::fmt::Display, refusal: &Refusal) -> WireError {
        let name = &self.recipe.spec.name;
        let code = match refusal {
            Refusal::Dead { .. } => ErrorCode::Lost,
            Refusal::Rule(_) | Refusal::Unfit { .. } => ErrorCode::Refused,
        };
        WireError::new(code, format!("cannot {action} service {name}: {refusal}"))
            .with_hint(format!("ums status {name}"))
    }
}
