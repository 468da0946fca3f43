//! One set-up at a time: runs in two terminals, or of two checkouts, share the machine's bundle and cache.

use std::fs::{File, TryLockError};
use std::path::Path;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::draft::beside;
use crate::process;

/// Longer than the longest thing that is made under a lock, which is compiling cargo-nextest.
const DEADLINE: Duration = Duration::from_mins(60);

/// How often it is tried again.
const PAUSE: Duration = Duration::from_millis(200);

/// Held until dropped; the kernel drops it when the process dies.
#[derive(Debug)]
pub(crate) struct Lock(#[expect(dead_code, reason = "the open file is the lock")] File);

impl Lock {
    /// Waits until no other process makes `place`. The lock file stays in place: removing it would let two
    /// processes hold locks on different files of the same name.
    pub(crate) fn of(place: &Path) -> Result<Self> {
        let path = beside(place, "lock")?;
        let folder = path.parent().unwrap_or(&path);
        std::fs::create_dir_all(folder)
            .with_context(|| format!("cannot make the folder {}", folder.display()))?;
        let file = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&path)
            .with_context(|| format!("cannot open the lock file {}", path.display()))?;
        let start = Instant::now();
        let mut told = false;
        loop {
            match file.try_lock() {
                Ok(()) => return Ok(Self(file)),
                Err(TryLockError::Error(error)) => {
                    return Err(error).with_context(|| format!("cannot lock {}", path.display()));
                }
                Err(TryLockError::WouldBlock) if start.elapsed() >= DEADLINE => {
                    bail!("another run holds {} for {} min", path.display(), DEADLINE.as_secs() / 60);
                }
                Err(TryLockError::WouldBlock) if !told => {
                    process::say(&format!("waiting for another run that makes {}", place.display()));
                    told = true;
                }
                Err(TryLockError::WouldBlock) => sleep(PAUSE),
            }
        }
    }
}
