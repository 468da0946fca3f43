//! The nest's durable record: which epoch it has seen and what it may do. Written before acting, so that a nest that
//! starts again knows what its predecessor was about to do.
//!
//! ```text
//! source:        Run ── dump ──► Dumping ── End sent ──► Dumped ── release ──► (removed)
//!                 ▲                 │ anything fails        │ thaw
//!                 └─────────────────┴───────────────────────┘
//! destination:   Prepared ── restore ──► Restoring ── HELD ──► Held ── resume ──► Run
//!                    └── discard, failure, nest killed ──► Discarded ◄──┘
//! ```

use std::path::Path;

use serde::{Deserialize, Serialize};
use ums_model::names::Epoch;

use crate::state::{FileError, read_json, write_json};

/// What the nest may do with its copy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Right {
    /// The copy may run. Nobody else's may.
    Run,
    /// Source: a dump is being written; whoever finds this after a crash thaws, because nobody can have committed.
    Dumping,
    /// Source: the dump is complete, the original is frozen; only the Coordinator knows what was decided.
    Dumped,
    /// Destination: nothing of the copy exists yet.
    Prepared,
    /// Destination: a restore is under way; whoever finds this after a crash discards.
    Restoring,
    /// Destination: the copy is complete and frozen; only the Coordinator knows what was decided.
    Held,
    /// Destination: this epoch will never run here.
    Discarded,
}

/// The record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// Highest epoch seen; 0 before the first migration.
    pub epoch: Epoch,
    /// What may be done.
    pub right: Right,
    /// Tasks of the copy when it was dumped or held, zombies not counted.
    #[serde(default)]
    pub tasks: u32,
    /// Whether the copy may run but nothing may leave it yet: between resume and open at a destination.
    #[serde(default)]
    pub fenced: bool,
}

impl Record {
    /// A record with the fence as the right asks for it: open for a copy that runs, else closed.
    pub const fn new(epoch: Epoch, right: Right, tasks: u32) -> Self {
        Self { epoch, right, tasks, fenced: !matches!(right, Right::Run) }
    }

    /// Reads the record; `None` only if there is certainly none. One that cannot be read is an error and never taken
    /// for a missing one.
    pub fn read(path: &Path) -> Result<Option<Self>, FileError> {
        match read_json(path) {
            Ok(record) => Ok(Some(record)),
            Err(FileError::Read { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Writes it durably. Ok = it survives a crash of the host.
    pub fn write(&self, path: &Path) -> Result<(), FileError> {
        write_json(path, self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_read_is_not_taken_for_a_nest_that_never_wrote() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("right.json");
        assert_eq!(Record::read(&path).unwrap(), None);
        let record = Record::new(Epoch(7), Right::Held, 3);
        record.write(&path).unwrap();
        assert_eq!(Record::read(&path).unwrap(), Some(record));
        std::fs::write(&path, b"").unwrap();
        assert!(Record::read(&path).is_err());
        // A path through something that is no directory says nothing about the record.
        assert!(Record::read(&path.join("right.json")).is_err());
    }

    #[test]
    fn a_record_of_an_older_version_is_not_fenced() {
        let record: Record = serde_json::from_str(r#"{"epoch":1,"right":"run"}"#).unwrap();
        assert!(!record.fenced);
    }
}
