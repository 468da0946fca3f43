//! Why the journal could not be read or written.

use std::io;
use std::path::{Path, PathBuf};

use rusqlite::{ErrorCode, ffi};
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
    #[error(
        "the journal has schema {found}, this version knows up to {known}: nothing was changed; start the version that \
         wrote it, or a newer one"
    )]
    Newer { found: i64, known: i64 },
    /// It is not what was written: who may run which service cannot be known from it.
    #[error(
        "the journal is damaged: {found}, in {}. No service was touched. Keep a copy of journal.db, journal.db-wal and \
         journal.decisions; then put all three back together from one copy that was taken while the site was down. \
         Without such a copy: move them away and start once with `ums site --new-journal`; what that means stands in \
         docs/decisions/journal.md",
        path.display()
    )]
    Damage { path: PathBuf, found: String },
    /// A value in it cannot be read.
    #[error("the journal has {what} that cannot be read: {why}")]
    Damaged { what: &'static str, why: String },
    /// A value cannot be written as JSON.
    #[error("cannot write {what} into the journal")]
    Encode { what: &'static str, source: serde_json::Error },
    /// A migration with this id is another one, or has ended.
    #[error("the journal has another migration {id}")]
    Taken { id: MigrationId },
    /// There is too little space for something that can wait.
    #[error("no migration may begin: {why}")]
    Full { why: String },
    /// The disk is full, and so is the space for decisions.
    #[error(
        "cannot {action}: the disk of the journal is full, and the space for decisions cannot take it either"
    )]
    Slots { action: &'static str, source: io::Error },
    /// The daemon is shutting down.
    #[error("the journal is closed")]
    Closed,
}

impl JournalError {
    /// Damage in the file at `path`.
    pub(super) fn damage(path: &Path, found: impl Into<String>) -> Self {
        Self::Damage { path: path.to_owned(), found: found.into() }
    }

    /// The same error, told as damage of the file at `path` if SQLite says that its file is none.
    pub(super) fn or_damage(self, path: &Path) -> Self {
        match &self {
            Self::Database { source, .. }
                if matches!(
                    source.sqlite_error_code(),
                    Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase)
                ) =>
            {
                Self::damage(path, source.to_string())
            }
            _ => self,
        }
    }

    /// Whether the database took nothing because its files could not be written, for want of space above all. What
    /// needs no new space may still be written.
    pub(crate) fn is_full(&self) -> bool {
        let Self::Database { source, .. } = self else { return false };
        let Some(error) = source.sqlite_error() else { return false };
        error.code == ErrorCode::DiskFull
            // A file system that gives out space late says so at the sync; one with quotas at the write.
            || matches!(
                error.extended_code,
                ffi::SQLITE_IOERR_WRITE
                    | ffi::SQLITE_IOERR_FSYNC
                    | ffi::SQLITE_IOERR_DIR_FSYNC
                    | ffi::SQLITE_IOERR_TRUNCATE
                    | ffi::SQLITE_IOERR_SHMSIZE
                    | ffi::SQLITE_CANTOPEN
            )
    }
}
