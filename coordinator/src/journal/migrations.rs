//! One row per migration and role: what it is about, with whom, and how it ended.

use rusqlite::{Connection, Row, params};
use ums_model::error::WireError;
use ums_model::event::MigrationEvent;
use ums_model::names::{Epoch, Fingerprint, MigrationId, ServiceName, SiteName};
use ums_model::phase::{Approach, Mode, Outcome};
use ums_model::report::Report;
use ums_model::spec::ServiceSpec;

use super::events::{correct_last_event, insert_event};
use super::{Journal, JournalError, audit};
use crate::clock::unix_ms;

/// Which side of a migration this site is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Role {
    /// It gives the service away.
    Source,
    /// It takes it.
    Destination,
}

impl Role {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Source => "source",
            Self::Destination => "destination",
        }
    }
}

/// One migration, as this site knows it.
#[derive(Debug, Clone)]
pub(crate) struct MigrationRow {
    /// Which.
    pub(crate) id: MigrationId,
    /// Of which service.
    pub(crate) service: ServiceName,
    /// Its epoch.
    pub(crate) epoch: Epoch,
    /// Which side this site is.
    pub(crate) role: Role,
    /// The identity of the other one. The migration is bound to it: no other site may say a word about it.
    pub(crate) peer: Fingerprint,
    /// What the other one was called then.
    pub(crate) peer_name: SiteName,
    /// How the state travels.
    pub(crate) mode: Mode,
    /// On which level.
    pub(crate) approach: Approach,
    /// The service.
    pub(crate) spec: ServiceSpec,
    /// When it began; for people.
    pub(crate) started_unix_ms: u64,
    /// Source: the other site knows that it was aborted, or never heard of it.
    pub(crate) told: bool,
    /// How it ended, if it did.
    pub(crate) ended: Option<Ended>,
}

/// How a migration ended.
#[derive(Debug, Clone)]
pub(crate) struct Ended {
    /// When; for people.
    pub(crate) at_unix_ms: u64,
    /// All its numbers, its outcome among them.
    pub(crate) report: Report,
}

impl Journal {
    /// One migration.
    pub(crate) async fn migration(&self, id: MigrationId) -> Result<Option<MigrationRow>, JournalError> {
        Ok(self.select("WHERE id = ?1", vec![id.to_string()]).await?.pop())
    }

    /// The migration of `service` with this epoch in which this site has `role`.
    pub(crate) async fn migration_of(
        &self,
        service: &ServiceName,
        epoch: Epoch,
        role: Role,
    ) -> Result<Option<MigrationRow>, JournalError> {
        let clause =
            "WHERE service = ?1 AND epoch = CAST(?2 AS INTEGER) AND role = ?3 ORDER BY started_unix_ms";
        let values = vec![service.to_string(), epoch.to_string(), role.as_str().to_owned()];
        Ok(self.select(clause, values).await?.pop())
    }

    /// The newest `limit` migrations, newest first, of one service or of all.
    pub(crate) async fn history(
        &self,
        service: Option<&ServiceName>,
        limit: usize,
    ) -> Result<Vec<MigrationRow>, JournalError> {
        let order = format!("ORDER BY started_unix_ms DESC, id DESC LIMIT {limit}");
        match service {
            Some(service) => {
                self.select(&format!("WHERE service = ?1 {order}"), vec![service.to_string()]).await
            }
            None => self.select(&order, Vec::new()).await,
        }
    }

    /// All that have not ended, oldest first.
    pub(crate) async fn unfinished(&self) -> Result<Vec<MigrationRow>, JournalError> {
        self.select("WHERE ended_unix_ms IS NULL ORDER BY started_unix_ms", Vec::new()).await
    }

    /// All that ended at the source without the other site having heard so.
    pub(crate) async fn untold(&self) -> Result<Vec<MigrationRow>, JournalError> {
        self.select("WHERE ended_unix_ms IS NOT NULL AND role = 'source' AND told = 0", Vec::new()).await
    }

    /// The other site knows how it ended.
    pub(crate) async fn mark_told(&self, id: MigrationId) -> Result<(), JournalError> {
        self.write("note that a site was told", move |db| {
            let failed = |source| JournalError::Database { action: "note that a site was told", source };
            db.execute("UPDATE migrations SET told = 1 WHERE id = ?1", [id.to_string()]).map_err(failed)?;
            Ok(())
        })
        .await
    }

    /// A migration ended, with its `last` event; the audit has it too. Of those that ended before, only the newest `keep` stay, with their
    /// events.
    pub(crate) async fn end(
        &self,
        last: MigrationEvent,
        report: Report,
        told: bool,
        keep: usize,
    ) -> Result<(), JournalError> {
        let id = last.migration;
        let ended = self.write("end a migration", move |db| {
            insert_event(db, &last)?;
            let failed = |source| JournalError::Database { action: "end a migration", source };
            let json = serde_json::to_string(&report)
                .map_err(|source| JournalError::Encode { what: "a report", source })?;
            let sql = "UPDATE migrations SET ended_unix_ms = ?2, report = ?3, told = told OR ?4 WHERE id = ?1";
            db.execute(sql, params![id.to_string(), unix_ms() as i64, json, told]).map_err(failed)?;
            audit::note_end(db, &id.to_string())?;
            // What another site may still ask about is answered from the records, which stay.
            let sql = "DELETE FROM migrations WHERE ended_unix_ms IS NOT NULL AND (told = 1 OR role = 'destination')
                       AND id NOT IN (SELECT id FROM migrations ORDER BY started_unix_ms DESC LIMIT ?1)";
            if db.execute(sql, [keep as i64]).map_err(failed)? > 0 {
                let sql = "DELETE FROM events WHERE migration NOT IN (SELECT id FROM migrations)";
                db.execute(sql, ()).map_err(failed)?;
            }
            Ok(())
        });
        ended.await?;
        self.checkpoint().await;
        Ok(())
    }

    /// A migration that has ended in another way than it was told: its report and its last event say so from now on, and
    /// the audit in one more record. Safe to repeat.
    pub(crate) async fn correct_end(
        &self,
        id: MigrationId,
        outcome: Outcome,
        error: WireError,
    ) -> Result<(), JournalError> {
        self.write("correct the end of a migration", move |db| {
            let id = id.to_string();
            let Some(Ended { report, .. }) = find(db, &id)?.and_then(|row| row.ended) else { return Ok(()) };
            if report.outcome == outcome {
                return Ok(());
            }
            let report = Report { outcome, error: Some(error), ..report };
            let failed = |source| JournalError::Database { action: "correct the end of a migration", source };
            let json = serde_json::to_string(&report)
                .map_err(|source| JournalError::Encode { what: "a report", source })?;
            db.execute("UPDATE migrations SET report = ?2 WHERE id = ?1", params![id, json])
                .map_err(failed)?;
            correct_last_event(db, &id, report)?;
            audit::note_correction(db, &id)
        })
        .await
    }

    async fn select(&self, clause: &str, values: Vec<String>) -> Result<Vec<MigrationRow>, JournalError> {
        let sql = format!("SELECT {COLUMNS} FROM migrations {clause}");
        self.read(move |db| {
            let failed = |source| JournalError::Database { action: "read the migrations", source };
            let mut statement = db.prepare_cached(&sql).map_err(failed)?;
            let mut rows = statement.query(rusqlite::params_from_iter(values)).map_err(failed)?;
            let mut found = Vec::new();
            while let Some(row) = rows.next().map_err(failed)? {
                found.push(decode(row)?);
            }
            Ok(found)
        })
        .await
    }
}

const COLUMNS: &str = "id, service, epoch, role, peer, peer_name, mode, approach, spec, started_unix_ms, told, \
                       ended_unix_ms, report";

pub(super) fn insert(db: &Connection, row: &MigrationRow) -> Result<(), JournalError> {
    let failed = |source| JournalError::Database { action: "begin a migration", source };
    let spec =
        serde_json::to_string(&row.spec).map_err(|source| JournalError::Encode { what: "a spec", source })?;
    // An id that is taken belongs to the migration that has it: no other site may put its own in that place.
    let sql = "INSERT INTO migrations
               (id, service, epoch, role, peer, peer_name, mode, approach, spec, started_unix_ms, told)
               VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)
               ON CONFLICT (id) DO UPDATE SET epoch = excluded.epoch, mode = excluded.mode,
                   approach = excluded.approach, spec = excluded.spec, peer_name = excluded.peer_name,
                   started_unix_ms = excluded.started_unix_ms, told = excluded.told
               WHERE service = excluded.service AND role = excluded.role AND peer = excluded.peer
                   AND ended_unix_ms IS NULL";
    let values = params![
        row.id.to_string(),
        row.service.as_str(),
        row.epoch.0 as i64,
        row.role.as_str(),
        row.peer.to_string(),
        row.peer_name.as_str(),
        row.mode.as_str(),
        row.approach.as_str(),
        spec,
        row.started_unix_ms as i64,
        row.told,
    ];
    match db.execute(sql, values).map_err(failed)? {
        0 => Err(JournalError::Taken { id: row.id }),
        _ => Ok(()),
    }
}

/// One migration.
pub(super) fn find(db: &Connection, id: &str) -> Result<Option<MigrationRow>, JournalError> {
    let failed = |source| JournalError::Database { action: "read a migration", source };
    let sql = format!("SELECT {COLUMNS} FROM migrations WHERE id = ?1");
    let mut statement = db.prepare_cached(&sql).map_err(failed)?;
    let mut rows = statement.query([id]).map_err(failed)?;
    rows.next().map_err(failed)?.map(decode).transpose()
}

fn decode(row: &Row<'_>) -> Result<MigrationRow, JournalError> {
    let text = |column: &str| -> Result<String, JournalError> {
        row.get(column).map_err(|source| JournalError::Database { action: "read a migration", source })
    };
    let number = |column: &str| -> Result<u64, JournalError> {
        let number: i64 = row
            .get(column)
            .map_err(|source| JournalError::Database { action: "read a migration", source })?;
        Ok(number as u64)
    };
    let report: Option<String> =
        row.get("report").map_err(|source| JournalError::Database { action: "read a migration", source })?;
    let ended = match report {
        Some(report) => Some(Ended { at_unix_ms: number("ended_unix_ms")?, report: json(&report)? }),
        None => None,
    };
    let role = match text("role")?.as_str() {
        "source" => Role::Source,
        "destination" => Role::Destination,
        other => return Err(damaged(format!("unknown role {other:?}"))),
    };
    Ok(MigrationRow {
        id: parse(&text("id")?)?,
        service: parse(&text("service")?)?,
        epoch: Epoch(number("epoch")?),
        role,
        peer: parse(&text("peer")?)?,
        peer_name: parse(&text("peer_name")?)?,
        mode: parse(&text("mode")?)?,
        approach: parse(&text("approach")?)?,
        spec: json(&text("spec")?)?,
        started_unix_ms: number("started_unix_ms")?,
        told: number("told")? != 0,
        ended,
    })
}

fn parse<T: std::str::FromStr<Err: std::fmt::Display>>(text: &str) -> Result<T, JournalError> {
    text.parse().map_err(|error: T::Err| damaged(error.to_string()))
}

fn json<T: serde::de::DeserializeOwned>(text: &str) -> Result<T, JournalError> {
    serde_json::from_str(text).map_err(|error| damaged(error.to_string()))
}

fn damaged(why: String) -> JournalError {
    JournalError::Damaged { what: "a migration", why }
}
