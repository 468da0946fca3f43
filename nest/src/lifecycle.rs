//! Start, stop, signals, status: the nest's work while nothing moves.

use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use ums_engine::criu::restore::unmount_below;
use ums_model::error::{ErrorCode, WireError};
use ums_model::names::Epoch;

use crate::bundle::{self, User};
use crate::keeper::{recorded_service, unix_ms};
use crate::layout::{merged, runc_root};
use crate::mounts::mount_all;
use crate::protocol::NestStatus;
use crate::right::{Record, Right};
use crate::server::{Nest, failure};

/// Pause between looks at a service that is to end.
const POLL: Duration = Duration::from_millis(5);
/// How long SIGKILL may take; only a task stuck in the kernel needs longer.
const KILL_DEADLINE: Duration = Duration::from_secs(20);

impl Nest {
    /// Makes mounts and bundle. Safe to repeat.
    pub(crate) fn prepare_container(&self) -> Result<(), WireError> {
        mount_all(&self.dir, &self.recipe).map_err(|error| failure(ErrorCode::Internal, &error))?;
        let user = User::resolve(&self.recipe.user, &merged()).ok_or_else(|| {
            let message = format!("the image has no user {:?}", self.recipe.user);
            WireError::new(ErrorCode::BadRequest, message)
                .with_hint("choose an existing user or a numeric id")
        })?;
        bundle::write(&self.recipe, user).map_err(|error| failure(ErrorCode::Internal, &error))
    }

    /// Starts the service from its image. Ok = its process was started. Err = no process of it is left.
    pub(crate) async fn start(&self) -> Result<(), WireError> {
        if self.is_alive() {
            return Ok(());
        }
        self.require("start", &[Right::Run])?;
        let _ = std::fs::remove_file(self.dir.exit());
        let _ = std::fs::remove_file(self.dir.stopped());
        self.prepare_container()?;
        self.runc.delete().await.map_err(|error| failure(ErrorCode::Internal, &error))?;
        ums_frontman::fence::open().await.map_err(|error| failure(ErrorCode::Internal, &error))?;
        let started = async {
            self.runc.create().await?;
            self.runc.start().await
        };
        if let Err(error) = started.await {
            let _ = self.runc.delete().await;
            let hint = "look at the command and the image: `ums exec` needs a running service, `ums logs` shows output";
            return Err(failure(ErrorCode::BadRequest, &error).with_hint(hint));
        }
        self.set_since(unix_ms());
        Ok(())
    }

    /// Sends a signal to the service's first process.
    pub(crate) fn signal(&self, signal: i32) -> Result<(), WireError> {
        let pid = self.service_pid().ok_or_else(|| {
            WireError::new(
                ErrorCode::ServiceNotFound,
                format!("service {} does not run", self.recipe.spec.name),
            )
        })?;
        // Every number of the kernel's range is meaningful to the service, real-time signals included.
        let number = Signal::from_named_raw(signal)
            .ok_or_else(|| WireError::new(ErrorCode::BadRequest, format!("{signal} is no signal")))?;
        kill_process(pid, number).map_err(|errno| failure(ErrorCode::Internal, &std::io::Error::from(errno)))
    }

    /// SIGTERM, after `grace` SIGKILL to all. Ok = nothing of it runs any more.
    pub(crate) async fn stop(&self, grace: Duration) -> Result<(), WireError> {
        // First, so that nobody restarts what is being stopped.
        std::fs::write(self.dir.stopped(), b"").map_err(|error| failure(ErrorCode::Internal, &error))?;
        if let Some(pid) = self.service_pid() {
            let _ = kill_process(pid, Signal::TERM);
            let deadline = tokio::time::Instant::now() + grace;
            while self.is_alive() && tokio::time::Instant::now() < deadline {
                tokio::time::sleep(POLL).await;
            }
        }
        self.kill_all().await
    }

    /// Ends every process of the copy without letting it run another instruction if it is frozen.
    pub(crate) async fn kill_all(&self) -> Result<(), WireError> {
        self.cgroup
            .kill_all_async(KILL_DEADLINE)
            .await
            .map_err(|error| failure(ErrorCode::Internal, &error))?;
        // A restore that was broken off leaves the service's root mounted inside what runc is about to delete.
        let root = runc_root();
        if root.exists() {
            unmount_below(&root).map_err(|error| {
                let message = format!("cannot unmount what a broken restore left below {}: {error}", root.display());
                WireError::new(ErrorCode::Internal, message)
            })?;
        }
        self.runc.delete().await.map_err(|error| failure(ErrorCode::Internal, &error))
    }

    /// What is observed now.
    pub(crate) fn status(&self) -> NestStatus {
        let tasks = self.cgroup.procs().map_or(0, |procs| procs.len());
        NestStatus {
            record: self.record(),
            tasks: u32::try_from(tasks).unwrap_or(u32::MAX),
            frozen: self.cgroup.is_frozen().unwrap_or(false),
            pid: self.service_pid().map(|pid| pid.as_raw_nonzero().get().unsigned_abs()),
            exit: crate::state::read_json(&self.dir.exit()).ok(),
            since_unix_ms: self.since(),
        }
    }

    /// Pid of the service's first process, while it is more than a zombie.
    pub(crate) fn service_pid(&self) -> Option<Pid> {
        let pid = recorded_service()?;
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero())).ok()?;
        let state = stat.rsplit_once(") ")?.1.chars().next()?;
        (!matches!(state, 'Z' | 'X')).then_some(pid)
    }

    /// Whether the service's first process lives.
    pub(crate) fn is_alive(&self) -> bool {
        self.service_pid().is_some()
    }

    /// Err unless the record grants one of `allowed`.
    pub(crate) fn require(&self, action: &str, allowed: &[Right]) -> Result<Record, WireError> {
        let record = self.record();
        if allowed.contains(&record.right) {
            return Ok(record);
        }
        let name = &self.recipe.spec.name;
        let message = format!(
            "cannot {action} service {name}: its copy here is {:?} in epoch {}",
            record.right, record.epoch
        );
        Err(WireError::new(ErrorCode::Refused, message.to_lowercase())
            .with_hint(format!("ums status {name}")))
    }

    /// Err if `epoch` is older than one that was seen.
    pub(crate) fn require_epoch(&self, epoch: Epoch) -> Result<(), WireError> {
        let seen = self.record().epoch;
        if epoch >= seen {
            return Ok(());
        }
        let message = format!("epoch {epoch} is over: this nest has seen epoch {seen}");
        Err(WireError::new(ErrorCode::Refused, message))
    }

    /// Records durably what may be done from now on.
    pub(crate) fn record_right(&self, epoch: Epoch, right: Right, tasks: u32) -> Result<(), WireError> {
        let record = Record { epoch, right, tasks };
        record.write(&self.dir.right()).map_err(|error| failure(ErrorCode::Internal, &error))?;
        self.set_record(record);
        Ok(())
    }
}
