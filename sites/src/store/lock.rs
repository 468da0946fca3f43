//! Locks between processes, and between threads that ask for the same thing.

use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::hash::Hash;
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

use super::error::StoreError;

/// How often to look whether a lock is free.
const POLL: Duration = Duration::from_millis(5);

/// A lock on a file or directory, held until dropped. The kernel gives it back when the process dies. Two locks of one
/// process exclude each other like those of two processes.
#[derive(Debug)]
pub(super) struct Lock {
    _file: File,
}

impl Lock {
    /// Waits at most `wait`.
    pub(super) fn exclusive(path: &Path, wait: Duration) -> Result<Self, StoreError> {
        Self::wait_for(path, FlockOperation::NonBlockingLockExclusive, wait)
    }

    /// Shared with others of its kind. Waits at most `wait`.
    pub(super) fn shared(path: &Path, wait: Duration) -> Result<Self, StoreError> {
        Self::wait_for(path, FlockOperation::NonBlockingLockShared, wait)
    }

    /// `None` if somebody else has it.
    pub(super) fn try_exclusive(path: &Path) -> Result<Option<Self>, StoreError> {
        Self::take(open(path)?, path, FlockOperation::NonBlockingLockExclusive)
    }

    /// For a directory that was just made.
    pub(super) fn exclusive_directory(path: &Path) -> Result<Self, StoreError> {
        Self::try_exclusive_directory(path)?.ok_or_else(|| StoreError::Locked { path: path.to_owned() })
    }

    /// `None` if somebody else has it, or if it is gone.
    pub(super) fn try_exclusive_directory(path: &Path) -> Result<Option<Self>, StoreError> {
        match File::open(path) {
            Ok(directory) => Self::take(directory, path, FlockOperation::NonBlockingLockExclusive),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(StoreError::io("open", path)(source)),
        }
    }

    fn wait_for(path: &Path, operation: FlockOperation, wait: Duration) -> Result<Self, StoreError> {
        let deadline = Instant::now() + wait;
        loop {
            if let Some(lock) = Self::take(open(path)?, path, operation)? {
                return Ok(lock);
            }
            if Instant::now() >= deadline {
                return Err(StoreError::Locked { path: path.to_owned() });
            }
            thread::sleep(POLL);
        }
    }

    fn take(file: File, path: &Path, operation: FlockOperation) -> Result<Option<Self>, StoreError> {
        match flock(&file, operation) {
            Ok(()) => Ok(Some(Self { _file: file })),
            Err(Errno::WOULDBLOCK) => Ok(None),
            Err(errno) => Err(StoreError::io("lock", path)(errno)),
        }
    }
}

fn open(path: &Path) -> Result<File, StoreError> {
    OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .mode(0o600)
        .open(path)
        .map_err(StoreError::io("open", path))
}

/// One lock per key among the threads of this process, so that two that want the same thing do not make it twice.
#[derive(Debug)]
pub(super) struct Keyed<K> {
    locks: Mutex<HashMap<K, Arc<Mutex<()>>>>,
}

impl<K> Default for Keyed<K> {
    fn default() -> Self {
        Self { locks: Mutex::default() }
    }
}

impl<K: Eq + Hash + Clone> Keyed<K> {
    /// Runs `work` while no other thread runs work for the same `key`.
    pub(super) fn alone<T>(&self, key: &K, work: impl FnOnce() -> T) -> T {
        let lock = Arc::clone(self.map().entry(key.clone()).or_default());
        let done = {
            let _alone = lock.lock().unwrap_or_else(PoisonError::into_inner);
            work()
        };
        drop(lock);
        // The last one out forgets the key.
        let mut locks = self.map();
        if locks.get(key).is_some_and(|lock| Arc::strong_count(lock) == 1) {
            locks.remove(key);
        }
        done
    }

    /// The map is consistent whatever a panicking thread was doing: it is never left half changed.
    fn map(&self) -> MutexGuard<'_, HashMap<K, Arc<Mutex<()>>>> {
        self.locks.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
