//! Small JSON files that survive a crash: written beside, synced, renamed, directory synced.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde::de::DeserializeOwned;

/// A state file could not be read or written.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "the fields are what the messages say")]
pub enum FileError {
    /// The file is missing or cannot be read.
    #[error("cannot read {path}")]
    Read { path: PathBuf, source: std::io::Error },
    /// The content is not what it should be.
    #[error("{path} is damaged")]
    Parse { path: PathBuf, source: serde_json::Error },
    /// The disk is full, read-only or failing; the old content is still there.
    #[error("cannot write {path}")]
    Write { path: PathBuf, source: std::io::Error },
}

/// Reads one JSON value.
pub(crate) fn read_json<T: DeserializeOwned>(path: &Path) -> Result<T, FileError> {
    let text = fs::read(path).map_err(|source| FileError::Read { path: path.into(), source })?;
    serde_json::from_slice(&text).map_err(|source| FileError::Parse { path: path.into(), source })
}

/// Replaces a file. Ok = the new content survives a crash of the host; Err = the old content is still there.
pub(crate) fn write_json<T: Serialize>(path: &Path, value: &T) -> Result<(), FileError> {
    let write = || -> std::io::Result<()> {
        let text = serde_json::to_vec_pretty(value)?;
        let beside = path.with_extension("new");
        let mut file = File::create(&beside)?;
        file.write_all(&text)?;
        file.sync_all()?;
        fs::rename(&beside, path)?;
        let dir = path.parent().unwrap_or_else(|| Path::new("."));
        File::open(dir)?.sync_all()
    };
    write().map_err(|source| FileError::Write { path: path.into(), source })
}

/// Removes a file; one that is not there is fine. Ok = it stays away after a crash of the host.
pub(crate) fn forget(path: &Path) -> Result<(), FileError> {
    let missing = |error: &std::io::Error| error.kind() == std::io::ErrorKind::NotFound;
    let forget = || -> std::io::Result<()> {
        match fs::remove_file(path) {
            // Whoever removed it may have been killed before this was durable.
            Err(error) if missing(&error) => {}
            removed => removed?,
        }
        match File::open(path.parent().unwrap_or_else(|| Path::new("."))) {
            Err(error) if missing(&error) => Ok(()),
            dir => dir?.sync_all(),
        }
    };
    forget().map_err(|source| FileError::Write { path: path.into(), source })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_is_read_and_damage_is_noticed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state.json");
        assert!(matches!(read_json::<u64>(&path), Err(FileError::Read { .. })));
        write_json(&path, &7u64).unwrap();
        write_json(&path, &8u64).unwrap();
        assert_eq!(read_json::<u64>(&path).unwrap(), 8);
        fs::write(&path, b"{").unwrap();
        assert!(matches!(read_json::<u64>(&path), Err(FileError::Parse { .. })));
    }
}
