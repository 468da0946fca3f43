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
    /// Tasks of the copy when it was dumped or held.
    #[serde(default)]
    pub tasks: u32,
}

impl Record {
    /// Reads the record; `None` if the nest never wrote one.
    pub fn read(path: &Path) -> Result<Option<Self>, FileError> {
        if path.exists() { read_json(path).map(Some) } else { Ok(None) }
    }

    /// Writes it durably. Ok = it survives a crash of the host.
    pub fn write(&self, path: &Path) -> Result<(), FileError> {
        write_json(path, self)
    }
}
