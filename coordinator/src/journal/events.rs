//! What a migration told, kept for those who come late.

use rusqlite::{Connection, OptionalExtension, params};
use ums_model::event::{EventKind, MigrationEvent};
use ums_model::names::MigrationId;
use ums_model::report::Report;

use super::{Journal, JournalError};

/// Most events that one look returns; who wants more looks again.
const PAGE: usize = 256;

impl Journal {
    /// Keeps an event. Nobody waits for the disk.
    pub(crate) async fn keep_event(&self, event: MigrationEvent) {
        self.tell(move |db| insert_event(db, &event)).await;
    }

    /// The next events after number `after`, in order; a page of them. Sees all that were kept before this call.
    pub(crate) async fn events(
        &self,
        id: MigrationId,
        after: u64,
    ) -> Result<Vec<MigrationEvent>, JournalError> {
        self.read(move |db| {
            let failed = |source| JournalError::Database { action: "read events", source };
            let sql = "SELECT event FROM events WHERE migration = ?1 AND seq > ?2 ORDER BY seq LIMIT ?3";
            let mut statement = db.prepare_cached(sql).map_err(failed)?;
            let mut rows = statement
                .query(params![id.to_string(), after.min(i64::MAX as u64) as i64, PAGE as i64])
                .map_err(failed)?;
            let mut events = Vec::new();
            while let Some(row) = rows.next().map_err(failed)? {
                let json: String = row.get(0).map_err(failed)?;
                let event = serde_json::from_str(&json)
                    .map_err(|error| JournalError::Damaged { what: "an event", why: error.to_string() })?;
                events.push(event);
            }
            Ok(events)
        })
        .await
    }
}

pub(super) fn insert_event(db: &Connection, event: &MigrationEvent) -> Result<(), JournalError> {
    let json =
        serde_json::to_string(event).map_err(|source| JournalError::Encode { what: "an event", source })?;
    let failed = |source| JournalError::Database { action: "keep an event", source };
    let sql = "INSERT OR REPLACE INTO events (migration, seq, event) VALUES (?1, ?2, ?3)";
    let mut insert = db.prepare_cached(sql).map_err(failed)?;
    insert.execute(params![event.migration.to_string(), event.seq as i64, json]).map_err(failed)?;
    Ok(())
}

/// The end that a migration has told was another one. Who has heard it has heard it; who comes later hears of this one.
pub(super) fn correct_last_event(db: &Connection, id: &str, report: Report) -> Result<(), JournalError> {
    let failed = |source| JournalError::Database { action: "correct an event", source };
    let sql = "SELECT event FROM events WHERE migration = ?1 ORDER BY seq DESC LIMIT 1";
    let last: Option<String> = db.query_row(sql, [id], |row| row.get(0)).optional().map_err(failed)?;
    let Some(json) = last else { return Ok(()) };
    let mut event: MigrationEvent = serde_json::from_str(&json)
        .map_err(|error| JournalError::Damaged { what: "an event", why: error.to_string() })?;
    if matches!(event.kind, EventKind::Ended { .. }) {
        event.kind = EventKind::Ended { outcome: report.outcome, report: Box::new(report) };
        insert_event(db, &event)?;
    }
    Ok(())
}
