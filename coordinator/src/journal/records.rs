//! The records that decide who runs a service.

use std::collections::BTreeMap;

use ums_model::names::{MigrationId, ServiceName};
use ums_model::standing::{Record, Standing};

use super::migrations::{MigrationRow, insert};
use super::row::RecordRow;
use super::store::Store;
use super::{Journal, JournalError};

impl Journal {
    /// Appends records about one service. `Ok`: all of them are durable, also if the disk is full. `Err`: nothing that
    /// they say may be acted upon. Not to be repeated blindly: the state has to be looked at again.
    pub(crate) async fn append(
        &self,
        service: &ServiceName,
        migration: Option<MigrationId>,
        records: Vec<Record>,
    ) -> Result<(), JournalError> {
        let rows = rows(service, migration, &records)?;
        self.ask(move |store| store.append("append a record", rows, None)).await
    }

    /// Begins a migration: its row and its first records, in one step. A row of the same id is replaced, so that a
    /// migration may begin again with a newer epoch. On a full disk none begins.
    pub(crate) async fn begin(&self, row: MigrationRow, records: Vec<Record>) -> Result<(), JournalError> {
        let rows = rows(&row.service, Some(row.id), &records)?;
        self.ask(move |store| store.append("begin a migration", rows, Some(&|db| insert(db, &row)))).await
    }

    /// Whether one more migration may begin beside `under_way` others, so that all its decisions will find a place even
    /// if the disk becomes full. `Err` says why not. Changes nothing.
    pub(crate) async fn admit(&self, under_way: usize) -> Result<(), JournalError> {
        self.ask(move |store| store.admit(under_way)).await
    }

    /// The records that a migration has left, in order.
    #[cfg(test)]
    pub(crate) async fn records_of(&self, id: MigrationId) -> Result<Vec<Record>, JournalError> {
        let id = id.to_string();
        let rows = self.ask(all_rows).await?;
        let of_it = rows.iter().filter(|row| row.migration.as_ref() == Some(&id));
        of_it.map(|row| Ok(row.decode()?.1)).collect()
    }

    /// Where the last record of a migration left its service.
    pub(crate) async fn standing_after(&self, row: &MigrationRow) -> Result<Standing, JournalError> {
        let (id, service) = (row.id.to_string(), row.service.as_str());
        let rows = self.ask(all_rows).await?;
        let last =
            rows.iter().rposition(|row| row.migration.as_ref() == Some(&id)).map_or(0, |last| last + 1);
        let of_it = rows[..last].iter().filter(|row| row.service == service);
        of_it.into_iter().try_fold(Standing::default(), |standing, row| follow(&standing, row))
    }

    /// The standing of every service that was ever heard of: the fold over its records.
    ///
    /// `Err` if a record cannot follow those before it: the file was put together from two, or by another software,
    /// and no service of it may be touched.
    pub(crate) async fn standings(&self) -> Result<BTreeMap<ServiceName, Standing>, JournalError> {
        let mut standings = BTreeMap::<ServiceName, Standing>::new();
        for row in self.ask(all_rows).await? {
            let before = standings.entry(row.decode()?.0).or_default();
            *before = follow(before, &row)?;
        }
        Ok(standings)
    }
}

/// The standing after one more record.
fn follow(before: &Standing, row: &RecordRow) -> Result<Standing, JournalError> {
    let (service, record) = row.decode()?;
    before.apply(record).map_err(|error| {
        let why = format!("number {} of service {service}: {error}", row.seq);
        JournalError::Damaged { what: "a record", why }
    })
}

fn rows(
    service: &ServiceName,
    migration: Option<MigrationId>,
    records: &[Record],
) -> Result<Vec<RecordRow>, JournalError> {
    records.iter().map(|record| RecordRow::new(service, migration, record)).collect()
}

/// All records, in order: those in the database, then those in slots.
fn all_rows(store: &mut Store) -> Result<Vec<RecordRow>, JournalError> {
    let failed = |source| JournalError::Database { action: "read the records", source };
    let sql = "SELECT seq, service, migration, at_unix_ms, record, chain FROM records ORDER BY seq";
    let mut statement = store.db.prepare_cached(sql).map_err(failed)?;
    let rows = statement.query_map((), RecordRow::read).map_err(failed)?;
    let mut rows = rows.collect::<Result<Vec<_>, _>>().map_err(failed)?;
    rows.extend_from_slice(store.waiting());
    Ok(rows)
}
