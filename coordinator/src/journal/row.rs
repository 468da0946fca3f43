//! One row of the table `records`, and its place in the chain.

use rusqlite::{Connection, OptionalExtension, Row, params};
use serde::{Deserialize, Serialize};
use ums_model::names::{MigrationId, ServiceName};
use ums_model::standing::Record;

use super::chain::{Hash, Head};
use super::{JournalError, audit};
use crate::clock::unix_ms;

const CHAIN: &str = "ums journal: records, 1";

/// A record as the database and the slots keep it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct RecordRow {
    /// Its number: they have no gaps.
    pub(super) seq: u64,
    /// Of which service.
    pub(super) service: String,
    /// Of which migration.
    pub(super) migration: Option<String>,
    /// When; for people.
    at_unix_ms: i64,
    /// The record, in JSON. Its epoch is in it.
    pub(super) record: String,
    /// Hash over this row and all before it.
    pub(super) hash: Hash,
}

impl RecordRow {
    /// A row that has no place in the chain yet.
    pub(super) fn new(
        service: &ServiceName,
        migration: Option<MigrationId>,
        record: &Record,
    ) -> Result<Self, JournalError> {
        let record = serde_json::to_string(record)
            .map_err(|source| JournalError::Encode { what: "a record", source })?;
        Ok(Self {
            seq: 0,
            service: service.to_string(),
            migration: migration.map(|id| id.to_string()),
            at_unix_ms: unix_ms() as i64,
            record,
            hash: Hash::default(),
        })
    }

    /// The rows with their places behind `head`.
    pub(super) fn chain(mut head: Head, rows: Vec<Self>) -> Vec<Self> {
        let place = |row: Self| {
            let row = Self { seq: head.seq + 1, ..row };
            let row = Self { hash: row.hash_behind(head.hash), ..row };
            head = row.head();
            row
        };
        rows.into_iter().map(place).collect()
    }

    /// The hash that the row must have if the one before it has `before`.
    pub(super) fn hash_behind(&self, before: Hash) -> Hash {
        let migration = self.migration.as_deref();
        before.link(
            CHAIN,
            self.seq,
            &[
                self.service.as_bytes(),
                &[u8::from(migration.is_some())],
                migration.unwrap_or_default().as_bytes(),
                &self.at_unix_ms.to_le_bytes(),
                self.record.as_bytes(),
            ],
        )
    }

    /// The end of a chain that ends with this row.
    pub(super) fn head(&self) -> Head {
        Head { seq: self.seq, hash: self.hash }
    }

    /// Reads `seq, service, migration, at_unix_ms, record, chain`; a hash that is missing is all zero.
    pub(super) fn read(row: &Row<'_>) -> rusqlite::Result<Self> {
        let seq: i64 = row.get(0)?;
        let hash: Option<[u8; 32]> = row.get(5)?;
        Ok(Self {
            seq: seq as u64,
            service: row.get(1)?,
            migration: row.get(2)?,
            at_unix_ms: row.get(3)?,
            record: row.get(4)?,
            hash: hash.map(Hash).unwrap_or_default(),
        })
    }

    /// The row with this number in the database.
    pub(super) fn find(db: &Connection, seq: u64) -> Result<Option<Self>, JournalError> {
        let failed = |source| JournalError::Database { action: "look for a record", source };
        let sql = "SELECT seq, service, migration, at_unix_ms, record, chain FROM records WHERE seq = ?1";
        let mut statement = db.prepare_cached(sql).map_err(failed)?;
        statement.query_row([seq as i64], Self::read).optional().map_err(failed)
    }

    /// Puts the row into the database, and an operator's word into the audit as well. Fails where there is a row of
    /// this number.
    pub(super) fn insert(&self, db: &Connection) -> Result<(), JournalError> {
        let failed = |source| JournalError::Database { action: "append a record", source };
        let sql = "INSERT INTO records (seq, service, migration, at_unix_ms, record, chain)
                   VALUES (?1, ?2, ?3, ?4, ?5, ?6)";
        let mut insert = db.prepare_cached(sql).map_err(failed)?;
        let values =
            params![self.seq as i64, self.service, self.migration, self.at_unix_ms, self.record, self.hash.0];
        insert.execute(values).map_err(failed)?;
        audit::note_verdict(db, self)
    }

    /// The record itself.
    pub(super) fn decode(&self) -> Result<(ServiceName, Record), JournalError> {
        let damaged = |why: String| JournalError::Damaged { what: "a record", why };
        let service = self.service.parse().map_err(|error| damaged(format!("{error}")))?;
        let record = serde_json::from_str(&self.record).map_err(|error| damaged(error.to_string()))?;
        Ok((service, record))
    }
}
