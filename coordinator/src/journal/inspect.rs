//! Is the journal what was written? Looked at once, before anybody relies on it.

use std::path::Path;

use rusqlite::Connection;

use super::JournalError;
use super::chain::Head;
use super::row::RecordRow;
use super::slots::Found;

/// Checks the file's structure and the chain of records. `Ok` is the last record. Changes nothing.
pub(super) fn database(db: &Connection, path: &Path) -> Result<Head, JournalError> {
    let failed = |source| JournalError::Database { action: "check the database", source };
    let said: String = db.query_row("PRAGMA quick_check(1)", (), |row| row.get(0)).map_err(failed)?;
    if said != "ok" {
        return Err(JournalError::damage(path, format!("SQLite finds: {said}")));
    }
    let sql = "SELECT seq, service, migration, at_unix_ms, record, chain FROM records ORDER BY seq";
    let mut statement = db.prepare(sql).map_err(failed)?;
    let mut rows = statement.query(()).map_err(failed)?;
    let mut head = Head::default();
    while let Some(row) = rows.next().map_err(failed)? {
        let row = RecordRow::read(row).map_err(|error| {
            JournalError::damage(path, format!("the record behind {}: {error}", head.seq))
        })?;
        follows(&row, head).map_err(|found| JournalError::damage(path, found))?;
        head = row.head();
    }
    // SQLite counts in another place, which does not go back when a row is removed.
    let counted = db
        .query_row("SELECT seq FROM sqlite_sequence WHERE name = 'records'", (), |row| row.get::<_, i64>(0));
    let counted = match counted {
        Ok(counted) => counted as u64,
        Err(rusqlite::Error::QueryReturnedNoRows) => 0,
        Err(source) => return Err(failed(source)),
    };
    if counted > head.seq {
        let found = format!("records {} to {counted} are missing", head.seq + 1);
        return Err(JournalError::damage(path, found));
    }
    Ok(head)
}

/// Checks what the slots hold against a database that ends with `head`, and against the mark. `Ok` are the records that
/// are in slots only, and whether the slot that is not counted is one of theirs. Changes nothing.
pub(super) fn slots(
    db: &Connection,
    path: &Path,
    beside: &Path,
    head: Head,
    mark: Head,
    found: Found,
) -> Result<(Vec<RecordRow>, bool), JournalError> {
    if mark.seq > head.seq {
        let found = format!(
            "it ends with record {}, but had {} when journal.decisions was written: it is an older copy, or what was \
             in journal.db-wal is lost",
            head.seq, mark.seq
        );
        return Err(JournalError::damage(path, found));
    }
    let there = RecordRow::find(db, mark.seq)?.map_or(Head::default(), |row| row.head());
    if there != mark {
        let found = format!("record {} is another one than when journal.decisions was written", mark.seq);
        return Err(JournalError::damage(path, found));
    }
    let mut waiting = Vec::<RecordRow>::new();
    for (number, group) in found.counted.iter().enumerate() {
        let damage = |found: String| JournalError::damage(beside, format!("slot {number}: {found}"));
        let rows: Vec<RecordRow> =
            serde_json::from_slice(group).map_err(|error| damage(error.to_string()))?;
        for row in rows {
            if row.seq <= head.seq {
                // Brought back, but not given back.
                match RecordRow::find(db, row.seq)? {
                    Some(same) if same == row => {}
                    _ => return Err(damage(format!("its record {} is another one in journal.db", row.seq))),
                }
                continue;
            }
            let before = waiting.last().map_or(head, RecordRow::head);
            follows(&row, before).map_err(damage)?;
            waiting.push(row);
        }
    }
    // Nobody was told that it holds. It may be one of long ago, whose slot nobody has taken since.
    let uncounted: Vec<RecordRow> =
        found.uncounted.and_then(|group| serde_json::from_slice(&group).ok()).unwrap_or_default();
    let before = waiting.last().map_or(head, RecordRow::head);
    let mut at = before;
    let links = uncounted.iter().all(|row| {
        let links = follows(row, at).is_ok();
        at = row.head();
        links
    });
    let holds = links && !uncounted.is_empty();
    if holds {
        waiting.extend(uncounted);
    }
    Ok((waiting, holds))
}

/// Whether `row` is the one that comes behind `before`; `Err` says what is wrong.
fn follows(row: &RecordRow, before: Head) -> Result<(), String> {
    if row.seq != before.seq + 1 {
        let missing = if row.seq == before.seq + 2 {
            format!("record {} is missing", before.seq + 1)
        } else {
            format!("records {} to {} are missing", before.seq + 1, row.seq.saturating_sub(1))
        };
        return Err(missing);
    }
    if row.hash != row.hash_behind(before.hash) {
        return Err(format!(
            "record {}, of service {:?}, is not the one that was written behind record {}: it was changed, or it \
             stood elsewhere",
            row.seq, row.service, before.seq
        ));
    }
    Ok(())
}
