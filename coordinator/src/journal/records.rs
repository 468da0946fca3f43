//! The records that decide who runs a service.

use std::collections::BTreeMap;

use rusqlite::{Connection, params};
use ums_model::names::{MigrationId, ServiceName};
use ums_model::standing::{Record, Standing};

use super::migrations::{MigrationRow, insert};
use super::{Journal, JournalError};
use crate::clock::unix_ms;

impl Journal {
    /// Appends records about one service. `Ok`: all of them are durable. `Err`: nothing that they say may be acted
    /// upon. Not to be repeated blindly: the state has to be looked at again.
    pub(crate) async fn append(
        &self,
        service: &ServiceName,
        migration: Option<MigrationId>,
        records: Vec<Record>,
    ) -> Result<(), JournalError> {
        let service = service.clone();
        self.write("append a record", move |db| append(db, &service, migration, &records)).await
    }

    /// Begins a migration: its row and its first records, in one step. A row of the same id is replaced, so that a
    /// migration may begin again with a newer epoch.
    pub(crate) async fn begin(&self, row: MigrationRow, records: Vec<Record>) -> Result<(), JournalError> {
        self.write("begin a migration", move |db| {
            insert(db, &row)?;
            append(db, &row.service, Some(row.id), &records)
        })
        .await
    }

    /// The records that a migration has left, in order.
    pub(crate) async fn records_of(&self, id: MigrationId) -> Result<Vec<Record>, JournalError> {
        self.read(move |db| {
            let failed = |source| JournalError::Database { action: "read the records", source };
            let sql = "SELECT record FROM records WHERE migration = ?1 ORDER BY seq";
            let mut statement = db.prepare(sql).map_err(failed)?;
            let mut rows = statement.query([id.to_string()]).map_err(failed)?;
            let mut records = Vec::new();
            while let Some(row) = rows.next().map_err(failed)? {
                let json: String = row.get(0).map_err(failed)?;
                let record = serde_json::from_str(&json)
                    .map_err(|error| JournalError::Damaged { what: "a record", why: error.to_string() })?;
                records.push(record);
            }
            Ok(records)
        })
        .await
    }

    /// The standing of every service that was ever heard of: the fold over its records.
    ///
    /// `Err` if a record cannot follow those before it: the file was damaged or put together from two, and no
    /// service of it may be touched.
    pub(crate) async fn standings(&self) -> Result<BTreeMap<ServiceName, Standing>, JournalError> {
        self.read(|db| {
            let failed = |source| JournalError::Database { action: "read the records", source };
            let mut statement =
                db.prepare("SELECT service, record FROM records ORDER BY seq").map_err(failed)?;
            let mut rows = statement.query(()).map_err(failed)?;
            let mut standings = BTreeMap::<ServiceName, Standing>::new();
            while let Some(row) = rows.next().map_err(failed)? {
                let (service, record): (String, String) =
                    row.get(0).and_then(|service| Ok((service, row.get(1)?))).map_err(failed)?;
                let damaged = |why: String| JournalError::Damaged { what: "a record", why };
                let service: ServiceName = service.parse().map_err(|error| damaged(format!("{error}")))?;
                let record: Record =
                    serde_json::from_str(&record).map_err(|error| damaged(error.to_string()))?;
                let before = standings.entry(service.clone()).or_default();
                *before = before.apply(record).map_err(|error| damaged(format!("{service}: {error}")))?;
            }
            Ok(standings)
        })
        .await
    }
}

fn append(
    db: &Connection,
    service: &ServiceName,
    migration: Option<MigrationId>,
    records: &[Record],
) -> Result<(), JournalError> {
    let failed = |source| JournalError::Database { action: "append a record", source };
    let sql = "INSERT INTO records (service, migration, at_unix_ms, record) VALUES (?1, ?2, ?3, ?4)";
    let mut insert = db.prepare_cached(sql).map_err(failed)?;
    for record in records {
        let json = serde_json::to_string(record)
            .map_err(|source| JournalError::Encode { what: "a record", source })?;
        let migration = migration.map(|id| id.to_string());
        insert.execute(params![service.as_str(), migration, unix_ms() as i64, json]).map_err(failed)?;
    }
    Ok(())
}
