//! Stopping all tasks of a cgroup at once, and letting them go on.

use std::thread;
use std::time::{Duration, Instant};

use super::{Cgroup, CgroupError, read, write};
use crate::process::Stat;

/// Time between two looks at the state. Freezing a few processes takes a fraction of a millisecond.
const LOOK_EVERY: Duration = Duration::from_micros(100);

impl Cgroup {
    /// Freezes it and reads back that it is.
    ///
    /// On `Ok` no task in it executes a user instruction until [`thaw`](Self::thaw); new tasks cannot appear by
    /// fork. On `Err` the request has been withdrawn. Safe to repeat. Blocks the thread for at most `deadline`.
    pub fn freeze(&self, deadline: Duration) -> Result<(), CgroupError> {
        let start = Instant::now();
        loop {
            match self.freeze_step(start, deadline) {
                Ok(true) => return Ok(()),
                Ok(false) => thread::sleep(LOOK_EVERY),
                Err(error) => return Err(error),
            }
        }
    }

    /// As [`freeze`](Self::freeze), without blocking the thread.
    ///
    /// If the future is dropped the request stands: thaw, or freeze again.
    pub async fn freeze_async(&self, deadline: Duration) -> Result<(), CgroupError> {
        let start = Instant::now();
        while !self.freeze_step(start, deadline)? {
            // The timer of the runtime has no finer steps than a millisecond.
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        Ok(())
    }

    /// Asks, and tells whether it is frozen. Withdraws the request on every error.
    fn freeze_step(&self, start: Instant, deadline: Duration) -> Result<bool, CgroupError> {
        let frozen = self.ask().and_then(|()| self.is_frozen());
        match frozen {
            Ok(false) if start.elapsed() > deadline => {
                let running = self.running();
                let _ = self.thaw();
                Err(CgroupError::NotFrozen {
                    dir: self.dir().to_owned(),
                    waited_ms: start.elapsed().as_millis(),
                    running,
                })
            }
            Err(error) => {
                let _ = self.thaw();
                Err(error)
            }
            known => known,
        }
    }

    fn ask(&self) -> Result<(), CgroupError> {
        match self {
            // Asked again in each step: version 1 overlooks tasks that could not be stopped the first time.
            Self::V1 { freezer, .. } => write(&freezer.join("freezer.state"), "FROZEN"),
            Self::V2 { dir } => write(&dir.join("cgroup.freeze"), "1"),
        }
    }

    /// Whether all tasks in it are frozen. An empty cgroup is, once that has been asked for.
    pub fn is_frozen(&self) -> Result<bool, CgroupError> {
        match self {
            Self::V1 { freezer, .. } => Ok(read(&freezer.join("freezer.state"))?.trim() == "FROZEN"),
            Self::V2 { dir } => Ok(read(&dir.join("cgroup.events"))?.lines().any(|line| line == "frozen 1")),
        }
    }

    /// Lets its tasks go on: one write.
    ///
    /// On `Ok` they do, or there are none. Safe to repeat. On `Err` they may still be frozen.
    pub fn thaw(&self) -> Result<(), CgroupError> {
        match self {
            Self::V1 { freezer, .. } => {
                let state = freezer.join("freezer.state");
                write(&state, "THAWED")?;
                match read(&state)?.trim() {
                    "THAWED" => Ok(()),
                    _ => Err(CgroupError::FrozenFromAbove { dir: freezer.clone() }),
                }
            }
            Self::V2 { dir } => write(&dir.join("cgroup.freeze"), "0"),
        }
    }

    /// What stands in the way of FROZEN, for the error message.
    fn running(&self) -> String {
        let pids = self.procs().unwrap_or_default();
        let named = pids.iter().filter_map(|pid| {
            let process = Stat::of(pid)?;
            Some(format!("{} ({pid}, state {})", process.name, process.state))
        });
        named.collect::<Vec<_>>().join(", ")
    }
}
