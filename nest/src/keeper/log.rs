//! Copies what the service prints into its log file, one thread per stream.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use crate::layout::NestDir;

/// A log file is rotated at this size in bytes; one older file is kept, so a service uses at most twice that.
const ROTATE_AT: u64 = 16 * 1024 * 1024;
/// How much is read from a pipe at once: its capacity.
const CHUNK: usize = 64 * 1024;

struct Log {
    path: PathBuf,
    old: PathBuf,
    file: File,
    written: u64,
}

/// Starts to log both streams.
pub(super) fn start(dir: &NestDir, streams: [OwnedFd; 2]) -> io::Result<()> {
    let path = dir.log();
    let file = File::options().create(true).append(true).open(&path)?;
    let written = file.metadata()?.len();
    let log = Arc::new(Mutex::new(Log { path, old: dir.old_log(), file, written }));
    for stream in streams {
        let log = Arc::clone(&log);
        std::thread::Builder::new().name("log".into()).spawn(move || copy(&stream, &log))?;
    }
    Ok(())
}

/// Reads to the end of the pipe, which comes with the keeper's own end. What cannot be written (disk full) is
/// dropped: a log must never stop the service.
fn copy(stream: &OwnedFd, log: &Mutex<Log>) {
    let mut buffer = vec![0; CHUNK];
    loop {
        match rustix::io::read(stream, &mut buffer) {
            Ok(0) => return,
            Ok(count) => log.lock().unwrap_or_else(PoisonError::into_inner).append(&buffer[..count]),
            Err(rustix::io::Errno::INTR) => {}
            Err(_) => return,
        }
    }
}

impl Log {
    fn append(&mut self, bytes: &[u8]) {
        if self.written >= ROTATE_AT {
            self.rotate();
        }
        // A log that cannot be rotated is full; a disk that is full takes nothing either.
        if self.written < ROTATE_AT && self.file.write_all(bytes).is_ok() {
            self.written += bytes.len() as u64;
        }
    }

    fn rotate(&mut self) {
        // Renamed already, where the last attempt got so far and could not open a new file.
        let moved = fs::rename(&self.path, &self.old).is_ok() || !self.path.exists();
        if moved && let Ok(file) = File::options().create(true).append(true).open(&self.path) {
            self.file = file;
            self.written = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn log(dir: &std::path::Path, written: u64) -> Log {
        let (path, old) = (dir.join("log"), dir.join("log.1"));
        let file = File::options().create(true).append(true).open(&path).unwrap();
        Log { path, old, file, written }
    }

    #[test]
    fn a_full_log_is_rotated_once_and_the_older_one_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let mut log = log(dir.path(), ROTATE_AT - 1);
        log.append(b"one");
        log.append(b"two");
        assert_eq!(fs::read(&log.old).unwrap(), b"one");
        assert_eq!(fs::read(&log.path).unwrap(), b"two");
        log.written = ROTATE_AT;
        log.append(b"three");
        assert_eq!(fs::read(&log.old).unwrap(), b"two");
        assert_eq!(fs::read(&log.path).unwrap(), b"three");
    }

    #[test]
    fn a_log_that_cannot_be_rotated_does_not_grow_and_recovers() {
        let dir = tempfile::tempdir().unwrap();
        let mut log = log(dir.path(), ROTATE_AT - 1);
        log.append(b"one");
        // A directory that is not empty cannot be replaced by a file.
        fs::create_dir_all(log.old.join("in the way")).unwrap();
        log.append(b"lost");
        assert_eq!(fs::read(&log.path).unwrap(), b"one");
        // As after a rename whose new file could not be opened.
        fs::remove_dir_all(&log.old).unwrap();
        fs::rename(&log.path, &log.old).unwrap();
        log.append(b"two");
        assert_eq!(fs::read(&log.old).unwrap(), b"one");
        assert_eq!(fs::read(&log.path).unwrap(), b"two");
    }
}
