//! The end of a cgroup: its processes, then its directories.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use super::{Cgroup, CgroupError, children, is_gone, write};

/// Time between two looks at whether all are dead.
const LOOK_EVERY: Duration = Duration::from_millis(1);

impl Cgroup {
    /// Kills all processes in it. Those of a frozen cgroup die without running one more user instruction: the
    /// signal comes first, the thaw second.
    ///
    /// On `Ok` it is thawed and empty (its zombies are for their parents to reap), or it does not exist. On `Err`
    /// some may live. Safe to repeat. Blocks the thread for at most `deadline`.
    pub fn kill_all(&self, deadline: Duration) -> Result<(), CgroupError> {
        let start = Instant::now();
        while !self.kill_step(start, deadline)? {
            thread::sleep(LOOK_EVERY);
        }
        Ok(())
    }

    /// As [`kill_all`](Self::kill_all), without blocking the thread.
    pub async fn kill_all_async(&self, deadline: Duration) -> Result<(), CgroupError> {
        let start = Instant::now();
        while !self.kill_step(start, deadline)? {
            tokio::time::sleep(LOOK_EVERY).await;
        }
        Ok(())
    }

    /// Kills what is there, and tells whether nothing was.
    fn kill_step(&self, start: Instant, deadline: Duration) -> Result<bool, CgroupError> {
        let pids = self.procs()?;
        if pids.is_empty() {
            let _ = self.thaw();
            return Ok(true);
        }
        if start.elapsed() > deadline {
            let _ = self.thaw();
            return Err(CgroupError::NotDead {
                dir: self.dir().to_owned(),
                count: pids.len(),
                waited_ms: start.elapsed().as_millis(),
            });
        }
        let at_once = match self {
            // Kernels before 5.14 do not have it.
            Self::V2 { dir } => write(&dir.join("cgroup.kill"), "1").is_ok(),
            Self::V1 { .. } => false,
        };
        if !at_once {
            for pid in pids.into_iter().filter_map(Pid::from_raw) {
                // One that is gone already is what is wanted; one that cannot be killed shows by staying.
                let _ = kill_process(pid, Signal::KILL);
            }
        }
        let _ = self.thaw();
        Ok(false)
    }

    /// Removes its directories, and those below, in all hierarchies.
    ///
    /// On `Ok` none is left. On `Err` all that could be removed are. Safe to repeat.
    pub fn remove(&self) -> Result<(), CgroupError> {
        let directories = match self {
            Self::V1 { freezer, others } => std::iter::once(freezer).chain(others).collect(),
            Self::V2 { dir } => vec![dir],
        };
        let mut failures = Vec::new();
        for directory in directories {
            remove(directory, &mut failures);
        }
        match failures.is_empty() {
            true => Ok(()),
            false => Err(CgroupError::Remove { failures }),
        }
    }
}

fn remove(dir: &Path, failures: &mut Vec<(PathBuf, io::Error)>) {
    for child in children(dir) {
        remove(&child, failures);
    }
    match fs::remove_dir(dir) {
        Ok(()) => {}
        Err(error) if is_gone(&error) => {}
        Err(error) => failures.push((dir.to_owned(), error)),
    }
}
