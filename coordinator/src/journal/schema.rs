//! The tables, and how an older journal becomes a newer one.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::Duration;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags, OptionalExtension};

use super::chain::Head;
use super::row::RecordRow;
use super::slots::{Found, Slots};
use super::{JournalError, audit};

/// A daemon that was killed may still be closing the file.
const BUSY: Duration = Duration::from_secs(30);

/// What turns one schema into the next: SQL, and then what SQL cannot do.
struct Step {
    sql: &'static str,
    then: Option<Then>,
}

type Then = fn(&Connection, &Path) -> Result<(), JournalError>;

/// Step `n` turns schema `n` into schema `n + 1`. Steps are only ever added: a journal in the field may stand at any.
const STEPS: &[Step] = &[
    Step { sql: TABLES, then: None },
    Step { sql: super::trust::TABLES, then: None },
    Step { sql: CHAINS, then: Some(chain_records) },
    Step { sql: audit::TABLE, then: None },
];

pub(super) const TABLES: &str = "
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
";

/// Every record is chained to the one before it. `meta` has one row: which journal this is, and whether the space for
/// decisions beside it was made.
const CHAINS: &str = "
    ALTER TABLE records ADD COLUMN chain BLOB;
    CREATE TABLE meta (id BLOB NOT NULL, slots INTEGER NOT NULL) STRICT;
";

/// Whether there is a journal at `path`. `Err`: there is something else, or it cannot be read. Changes nothing.
pub(super) fn exists(path: &Path) -> Result<bool, JournalError> {
    Ok(version(path)?.is_some_and(|version| version > 0))
}

/// The schema of the journal at `path`, without a change to it; `None` if there is no file.
fn version(path: &Path) -> Result<Option<i64>, JournalError> {
    let failed_on_file = |source| JournalError::File { action: "look for", path: path.to_owned(), source };
    if !path.try_exists().map_err(failed_on_file)? {
        return Ok(None);
    }
    let look = || {
        let db = open_to_look(path)?;
        db.busy_timeout(BUSY)?;
        schema_of(&db)
    };
    let failed = |source| JournalError::Database { action: "look at the version", source };
    look().map(Some).map_err(|error| failed(error).or_damage(path))
}

/// Opens the database of a site that does not run so that nothing of it is changed. Not read-only in the sense of SQLite,
/// which would want a file for the index of the log, and space for it.
pub(super) fn open_to_look(path: &Path) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let db = Connection::open_with_flags(path, flags)?;
    db.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
    db.pragma_update(None, "locking_mode", "EXCLUSIVE")?;
    db.pragma_update(None, "query_only", true)?;
    Ok(db)
}

fn schema_of(db: &Connection) -> rusqlite::Result<i64> {
    let sql = "SELECT 1 FROM sqlite_schema WHERE name = 'schema'";
    if db.query_row(sql, (), |_| Ok(())).optional()?.is_none() {
        return Ok(0);
    }
    Ok(db.query_row("SELECT version FROM schema", (), |row| row.get(0)).optional()?.unwrap_or(0))
}

/// Opens the database so that a committed transaction survives a power cut, with all tables of this version. Nobody else
/// can open it meanwhile. A full disk is no obstacle to a journal that is up to date.
pub(super) fn open(path: &Path) -> Result<Connection, JournalError> {
    let known = STEPS.len() as i64;
    if let Some(found) = version(path)?.filter(|found| !(0..=known).contains(found)) {
        return Err(JournalError::Newer { found, known });
    }
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
    db.busy_timeout(BUSY).map_err(failed("choose how long to wait"))?;
    // One daemon, and no shared memory beside the file, which would need space just when there is none.
    db.pragma_update(None, "locking_mode", "EXCLUSIVE").map_err(failed("lock the database"))?;
    db.pragma_update(None, "journal_mode", "WAL").map_err(failed("turn on the write-ahead log"))?;
    db.pragma_update(None, "synchronous", "FULL").map_err(failed("turn on syncs"))?;
    db.pragma_update(None, "wal_autocheckpoint", 0).map_err(failed("choose when to tidy up"))?;
    match db.pragma_update(None, "wal_checkpoint", "TRUNCATE").map_err(failed("tidy up")) {
        Err(error) if !error.is_full() => return Err(error),
        _ => {}
    }
    update(&mut db, path)?;
    Ok(db)
}

fn update(db: &mut Connection, path: &Path) -> Result<(), JournalError> {
    let failed = |source| JournalError::Database { action: "bring the tables up to date", source };
    let found = schema_of(db).map_err(failed)?;
    let outstanding = STEPS.iter().enumerate().skip(usize::try_from(found).unwrap_or(0));
    for (number, step) in outstanding {
        let transaction = db.transaction().map_err(failed)?;
        transaction
            .execute_batch("CREATE TABLE IF NOT EXISTS schema (version INTEGER NOT NULL) STRICT")
            .and_then(|()| transaction.execute_batch(step.sql))
            .map_err(failed)?;
        if let Some(then) = step.then {
            then(&transaction, path)?;
        }
        transaction.execute("DELETE FROM schema", ()).map_err(failed)?;
        transaction.execute("INSERT INTO schema VALUES (?1)", [number as i64 + 1]).map_err(failed)?;
        transaction.commit().map_err(failed)?;
    }
    Ok(())
}

/// Chains the records of a journal that had no chain. What is missing among them is damage already.
fn chain_records(db: &Connection, path: &Path) -> Result<(), JournalError> {
    let failed = |source| JournalError::Database { action: "chain the records", source };
    let id = uuid::Uuid::now_v7().into_bytes();
    db.execute("INSERT INTO meta VALUES (?1, 0)", [id]).map_err(failed)?;
    let sql = "SELECT seq, service, migration, at_unix_ms, record, chain FROM records ORDER BY seq";
    let mut statement = db.prepare(sql).map_err(failed)?;
    let rows = statement.query_map((), RecordRow::read).map_err(failed)?;
    let mut head = Head::default();
    for row in rows {
        let row = row.map_err(failed)?;
        if row.seq != head.seq + 1 {
            let found = format!("record {} is missing", head.seq + 1);
            return Err(JournalError::damage(path, found));
        }
        head = Head { seq: row.seq, hash: row.hash_behind(head.hash) };
        db.execute("UPDATE records SET chain = ?2 WHERE seq = ?1", (row.seq as i64, head.hash.0))
            .map_err(failed)?;
    }
    Ok(())
}

/// Opens the space for decisions at `beside`; makes it if it never was. `head` is the last record of the database.
pub(super) fn slots(
    db: &Connection,
    path: &Path,
    beside: &Path,
    head: Head,
) -> Result<(Slots, Found), JournalError> {
    let failed = |source| JournalError::Database { action: "look which journal it is", source };
    let meta = db.query_row("SELECT id, slots FROM meta", (), |row| Ok((row.get(0)?, row.get(1)?)));
    let (id, made): ([u8; 16], bool) = match meta {
        Err(rusqlite::Error::QueryReturnedNoRows) => {
            return Err(JournalError::damage(path, "it does not say which journal it is"));
        }
        meta => meta.map_err(failed)?,
    };
    if beside.exists() {
        return Slots::open(beside, id);
    }
    if made {
        return Err(JournalError::damage(beside, "the file is missing, and decisions may have been in it"));
    }
    let slots = Slots::create(beside, id, head)?;
    db.execute("UPDATE meta SET slots = 1", ()).map_err(failed)?;
    Ok((slots, Found::default()))
}
