//! The audit in the journal: appended in the transaction of what it tells about, never changed, never pruned.

use std::path::Path;

use rusqlite::{Connection, OptionalExtension, params};
use ums_model::destination;
use ums_model::source::{self, Verdict};
use ums_model::standing::Record;

use super::chain::{Hash, Head};
use super::migrations::{self, MigrationRow, Role};
use super::row::RecordRow;
use super::{Journal, JournalError, schema};
use crate::audit::{AuditBroken, AuditCheck, AuditEntry, AuditKind, AuditRecord};
use crate::clock::unix_ms;
use crate::view::SideView;

const CHAIN: &str = "ums journal: audit, 1";
const DECISIONS: &str = "ums journal: decisions of a migration, 1";

/// The step of the schema that brings it. `kind` and `migration` are also in the entry; here they can be looked for.
pub(super) const TABLE: &str = "
    CREATE TABLE audit (
        seq       INTEGER PRIMARY KEY AUTOINCREMENT,
        kind      TEXT NOT NULL,
        migration TEXT NOT NULL,
        entry     TEXT NOT NULL,
        hash      BLOB NOT NULL
    ) STRICT;
    CREATE INDEX audit_by_migration ON audit (migration, kind);
";

impl Journal {
    /// The records behind number `after`, at most `limit`.
    pub(crate) async fn audit(&self, after: u64, limit: usize) -> Result<Vec<AuditRecord>, JournalError> {
        self.read(move |db| list(db, after, limit)).await
    }

    /// Walks along the whole chain, and looks for `head` in it.
    pub(crate) async fn audit_check(&self, head: Option<Hash>) -> Result<AuditCheck, JournalError> {
        self.read(move |db| check(db, head)).await
    }
}

/// Opens the database of a site that does not run and lets `look` at it. Changes nothing.
pub(crate) fn offline<T>(
    path: &Path,
    look: impl FnOnce(&Connection) -> Result<T, JournalError>,
) -> Result<T, JournalError> {
    let failed = |source| JournalError::Database { action: "open the database", source };
    let db = schema::open_to_look(path).map_err(failed)?;
    let kept: Option<i64> = db
        .query_row("SELECT 1 FROM sqlite_schema WHERE name = 'audit'", (), |row| row.get(0))
        .optional()
        .map_err(failed)?;
    match kept {
        Some(_) => look(&db),
        None => Err(JournalError::Damaged {
            what: "no audit",
            why: "an older version wrote it, which kept none; the next start of the site begins one"
                .to_owned(),
        }),
    }
}

/// The records behind number `after`, at most `limit`.
pub(crate) fn list(db: &Connection, after: u64, limit: usize) -> Result<Vec<AuditRecord>, JournalError> {
    let failed = |source| JournalError::Database { action: "read the audit", source };
    let sql = "SELECT seq, entry, hash FROM audit WHERE seq > ?1 ORDER BY seq LIMIT ?2";
    let mut statement = db.prepare_cached(sql).map_err(failed)?;
    let after = after.min(i64::MAX as u64) as i64;
    let mut rows = statement.query(params![after, limit as i64]).map_err(failed)?;
    let mut records = Vec::new();
    while let Some(row) = rows.next().map_err(failed)? {
        let (seq, entry, hash): (i64, String, [u8; 32]) =
            (|| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))().map_err(failed)?;
        let entry = serde_json::from_str(&entry).map_err(|error| JournalError::Damaged {
            what: "a record of the audit",
            why: format!("number {seq}: {error}; check it: ums audit verify"),
        })?;
        records.push(AuditRecord { seq: seq as u64, hash: Hash(hash).to_string(), entry });
    }
    Ok(records)
}

/// Walks along the whole chain, and looks for `known`, the hash of a record from earlier.
pub(crate) fn check(db: &Connection, known: Option<Hash>) -> Result<AuditCheck, JournalError> {
    let failed = |source| JournalError::Database { action: "walk along the audit", source };
    let mut statement =
        db.prepare("SELECT seq, kind, migration, entry, hash FROM audit ORDER BY seq").map_err(failed)?;
    let mut rows = statement.query(()).map_err(failed)?;
    let mut head = Head::default();
    let mut met = known.is_none_or(|known| known == head.hash);
    let mut broken = None;
    while let Some(row) = rows.next().map_err(failed)? {
        let (seq, hash): (i64, [u8; 32]) = (|| Ok((row.get(0)?, row.get(4)?)))().map_err(failed)?;
        let fields: [String; 3] = (|| Ok([row.get(1)?, row.get(2)?, row.get(3)?]))().map_err(failed)?;
        let next = Head { seq: seq as u64, hash: Hash(hash) };
        broken = if next.seq != head.seq + 1 {
            Some(AuditBroken { seq: head.seq + 1, why: format!("it is missing; the next one is {seq}") })
        } else if next.hash != link(head, &fields) {
            let why = "it is not what was written: it was changed, or it stood elsewhere".to_owned();
            Some(AuditBroken { seq: next.seq, why })
        } else {
            None
        };
        if broken.is_some() {
            break;
        }
        head = next;
        met |= known == Some(head.hash);
    }
    let counted = db
        .query_row("SELECT seq FROM sqlite_sequence WHERE name = 'audit'", (), |row| row.get::<_, i64>(0))
        .optional()
        .map_err(failed)?
        .unwrap_or(0) as u64;
    if broken.is_none() && counted > head.seq {
        let why = format!("records {} to {counted} were removed from the end", head.seq + 1);
        broken = Some(AuditBroken { seq: head.seq + 1, why });
    }
    if broken.is_none() && !met {
        let why =
            "the hash that was kept is of no record here: the newest were cut off behind this place or \
                   before it, or all of it was made anew"
                .to_owned();
        broken = Some(AuditBroken { seq: head.seq + 1, why });
    }
    Ok(AuditCheck { ok: broken.is_none(), records: head.seq, head: head.hash.to_string(), broken })
}

/// Notes the end of the migration `id`, once; a migration that the journal does not know leaves nothing.
pub(super) fn note_end(db: &Connection, id: &str) -> Result<(), JournalError> {
    let failed = |source| JournalError::Database { action: "look into the audit", source };
    let sql = "SELECT 1 FROM audit WHERE migration = ?1 AND kind = 'migration'";
    if db.query_row(sql, [id], |_| Ok(())).optional().map_err(failed)?.is_some() {
        return Ok(());
    }
    match migrations::find(db, id)? {
        Some(row) => append(db, &entry(db, AuditKind::Migration, row, None)?),
        None => Ok(()),
    }
}

/// Notes that the end of the migration `id` is another one than was noted.
pub(super) fn note_correction(db: &Connection, id: &str) -> Result<(), JournalError> {
    match migrations::find(db, id)? {
        Some(row) => append(db, &entry(db, AuditKind::Migration, row, None)?),
        None => Ok(()),
    }
}

/// Notes an operator's word, if `row` is one.
pub(super) fn note_verdict(db: &Connection, row: &RecordRow) -> Result<(), JournalError> {
    let (_, record) = row.decode()?;
    let verdict = match record {
        Record::Source(source::Event { step: source::Step::Resolved { verdict }, .. })
        | Record::Destination(destination::Event { step: destination::Step::Resolved { verdict }, .. }) => {
            verdict
        }
        _ => return Ok(()),
    };
    let Some(id) = &row.migration else { return Ok(()) };
    match migrations::find(db, id)? {
        Some(about) => append(db, &entry(db, AuditKind::Resolve, about, Some(verdict))?),
        None => Ok(()),
    }
}

fn entry(
    db: &Connection,
    kind: AuditKind,
    row: MigrationRow,
    verdict: Option<Verdict>,
) -> Result<AuditEntry, JournalError> {
    let (decisions, decisions_hash, resolved) = decisions(db, &row)?;
    let (ended_unix_ms, report) = row.ended.map(|ended| (ended.at_unix_ms, ended.report)).unzip();
    Ok(AuditEntry {
        kind,
        at_unix_ms: unix_ms(),
        migration: row.id,
        service: row.service,
        epoch: row.epoch,
        role: match row.role {
            Role::Source => SideView::Source,
            Role::Destination => SideView::Destination,
        },
        peer: row.peer_name,
        peer_fingerprint: row.peer,
        approach: row.approach,
        mode: row.mode,
        without_user_namespace: !row.spec.user_namespace,
        started_unix_ms: row.started_unix_ms,
        ended_unix_ms,
        outcome: report.as_ref().map(|report| report.outcome),
        error: report.and_then(|report| report.error).map(|error| error.code),
        verdict: verdict.or(resolved),
        decisions,
        decisions_hash: decisions_hash.to_string(),
    })
}

/// How many records a migration has left, the hash over them, and an operator's word among them.
fn decisions(db: &Connection, row: &MigrationRow) -> Result<(u64, Hash, Option<Verdict>), JournalError> {
    let failed = |source| JournalError::Database { action: "read the decisions of a migration", source };
    let sql = "SELECT seq, service, migration, at_unix_ms, record, chain FROM records
               WHERE service = ?1 AND migration = ?2 ORDER BY seq";
    let mut statement = db.prepare_cached(sql).map_err(failed)?;
    let rows = statement
        .query_map([row.service.as_str(), row.id.to_string().as_str()], RecordRow::read)
        .map_err(failed)?;
    let (mut count, mut hash, mut verdict) = (0, Hash::default(), None);
    for row in rows {
        let row = row.map_err(failed)?;
        count += 1;
        hash = hash.link(DECISIONS, count, &[&row.hash.0]);
        match row.decode()?.1 {
            Record::Source(source::Event { step: source::Step::Resolved { verdict: said }, .. })
            | Record::Destination(destination::Event {
                step: destination::Step::Resolved { verdict: said },
                ..
            }) => verdict = Some(said),
            _ => {}
        }
    }
    Ok((count, hash, verdict))
}

fn append(db: &Connection, entry: &AuditEntry) -> Result<(), JournalError> {
    let failed = |source| JournalError::Database { action: "append to the audit", source };
    let last = db
        .query_row("SELECT seq, hash FROM audit ORDER BY seq DESC LIMIT 1", (), |row| {
            Ok((row.get::<_, i64>(0)?, row.get::<_, [u8; 32]>(1)?))
        })
        .optional()
        .map_err(failed)?;
    let head = last.map_or(Head::default(), |(seq, hash)| Head { seq: seq as u64, hash: Hash(hash) });
    let json = serde_json::to_string(entry)
        .map_err(|source| JournalError::Encode { what: "a record of the audit", source })?;
    let kind = match entry.kind {
        AuditKind::Migration => "migration",
        AuditKind::Resolve => "resolve",
    };
    let fields = [kind.to_owned(), entry.migration.to_string(), json];
    let hash = link(head, &fields);
    let [kind, migration, json] = fields;
    let sql = "INSERT INTO audit (seq, kind, migration, entry, hash) VALUES (?1, ?2, ?3, ?4, ?5)";
    db.execute(sql, params![head.seq as i64 + 1, kind, migration, json, hash.0]).map_err(failed)?;
    Ok(())
}

fn link(before: Head, fields: &[String; 3]) -> Hash {
    let [kind, migration, entry] = fields;
    before.hash.link(CHAIN, before.seq + 1, &[kind.as_bytes(), migration.as_bytes(), entry.as_bytes()])
}
