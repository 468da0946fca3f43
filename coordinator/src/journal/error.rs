//! Why the journal could not be read or written.

use std::io;
use std::path::PathBuf;

use rusqlite::ErrorCode;
use ums_model::names::MigrationId;

/// The journal failed. After a failed write nothing that it should have said holds.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "the fields are what the messages say")]
pub(crate) enum JournalError {
    /// The file system refused.
    #[error("cannot {action} the journal {}", path.display())]
    File { action: &'static str, path: PathBuf, source: io::Error },
    /// SQLite refused.
    #[error("cannot {action} in the journal")]
    Database { action: &'static str, source: rusqlite::Error },
    /// A newer version of this software wrote it.
    #[error("the journal has schema {found}, this version knows up to {known}")]
    Newer { found: i64, known: i64 },
    /// A value in it cannot be read.
    #[error("the journal has {what} that cannot be read: {why}")]
    Damaged { what: &'static str, why: String },
    /// A value cannot be written as JSON.
    #[error("cannot write {what} into the journal")]
    Encode { what: &'static str, source: serde_json::Error },
    /// A migration with this id is another one, or has ended.
    #[error("the journal has another migration {id}")]
    Taken { id: MigrationId },
    /// The daemon is shutting down.
    #[error("the journal is closed")]
    Closed,
}

impl JournalError {
    /// Whether only space was missing.
    pub(super) fn is_full(&self) -> bool {
        matches!(self, Self::Database { source, .. } if source.sqlite_error_code() == Some(ErrorCode::DiskFull))
    }
}
