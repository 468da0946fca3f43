//! The tables, and how an older journal becomes a newer one.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use rusqlite::{Connection, OptionalExtension};

use super::JournalError;

/// What turns schema `n` into schema `n + 1`. Steps are only ever added: a journal in the field may stand at any.
const STEPS: &[&str] = &[
    "
    CREATE TABLE records (
        seq        INTEGER PRIMARY KEY AUTOINCREMENT,
        service    TEXT NOT NULL,
        migration  TEXT,
        at_unix_ms INTEGER NOT NULL,
        record     TEXT NOT NULL
    ) STRICT;
    CREATE INDEX records_by_service ON records (service, seq);

    CREATE TABLE migrations (
        id              TEXT NOT NULL PRIMARY KEY,
        service         TEXT NOT NULL,
        epoch           INTEGER NOT NULL,
        role            TEXT NOT NULL,
        peer            TEXT NOT NULL,
        peer_name       TEXT NOT NULL,
        mode            TEXT NOT NULL,
        approach        TEXT NOT NULL,
        spec            TEXT NOT NULL,
        started_unix_ms INTEGER NOT NULL,
        told            INTEGER NOT NULL DEFAULT 0,
        ended_unix_ms   INTEGER,
        report          TEXT
    ) STRICT;
    CREATE INDEX migrations_by_service ON migrations (service, epoch);

    CREATE TABLE events (
        migration TEXT NOT NULL,
        seq       INTEGER NOT NULL,
        event     TEXT NOT NULL,
        PRIMARY KEY (migration, seq)
    ) STRICT, WITHOUT ROWID;

    CREATE TABLE sites (
        fingerprint    TEXT NOT NULL PRIMARY KEY,
        name           TEXT NOT NULL UNIQUE,
        addresses      TEXT NOT NULL,
        we_can_dial    INTEGER NOT NULL,
        they_can_dial  INTEGER NOT NULL,
        paired_unix_ms INTEGER NOT NULL
    ) STRICT;

    CREATE TABLE invites (
        id              TEXT NOT NULL PRIMARY KEY,
        secret          BLOB NOT NULL,
        expires_unix_ms INTEGER NOT NULL,
        redeemed_by     TEXT
    ) STRICT;

    CREATE TABLE tokens (
        name            TEXT NOT NULL PRIMARY KEY,
        role            TEXT NOT NULL,
        hash            BLOB NOT NULL,
        created_unix_ms INTEGER NOT NULL
    ) STRICT;
",
    super::trust::TABLES,
];

/// Opens the database so that a committed transaction survives a power cut, with all tables of this version.
pub(super) fn open(path: &Path) -> Result<Connection, JournalError> {
    let failed_on_file = |action| move |source| JournalError::File { action, path: path.to_owned(), source };
    // SQLite would create it with whatever the umask leaves.
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false).mode(0o600);
    options.open(path).map_err(failed_on_file("create"))?;
    if let Some(dir) = path.parent() {
        File::open(dir).and_then(|dir| dir.sync_all()).map_err(failed_on_file("sync the directory of"))?;
    }
    let failed = |action| move |source| JournalError::Database { action, source };
    let mut db = Connection::open(path).map_err(failed("open a database"))?;
    db.pragma_update(None, "journal_mode", "WAL").map_err(failed("turn on the write-ahead log"))?;
    db.pragma_update(None, "synchronous", "FULL").map_err(failed("turn on syncs"))?;
    db.pragma_update(None, "wal_checkpoint", "TRUNCATE").map_err(failed("tidy up"))?;
    db.pragma_update(None, "wal_autocheckpoint", 0).map_err(failed("choose when to tidy up"))?;
    update(&mut db)?;
    Ok(db)
}

fn update(db: &mut Connection) -> Result<(), JournalError> {
    let failed = |source| JournalError::Database { action: "bring the tables up to date", source };
    let transaction = db.transaction().map_err(failed)?;
    transaction
        .execute("CREATE TABLE IF NOT EXISTS schema (version INTEGER NOT NULL) STRICT", ())
        .map_err(failed)?;
    let found: Option<i64> = transaction
        .query_row("SELECT version FROM schema", (), |row| row.get(0))
        .optional()
        .map_err(failed)?;
    let (found, known) = (found.unwrap_or(0), STEPS.len() as i64);
    let Some(outstanding) = usize::try_from(found).ok().and_then(|found| STEPS.get(found..)) else {
        return Err(JournalError::Newer { found, known });
    };
    for step in outstanding {
        transaction.execute_batch(step).map_err(failed)?;
    }
    transaction.execute("DELETE FROM schema", ()).map_err(failed)?;
    transaction.execute("INSERT INTO schema VALUES (?1)", [known]).map_err(failed)?;
    transaction.commit().map_err(failed)
}
