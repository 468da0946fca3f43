//! What the journal's thread owns: the database, the space for decisions beside it, and the end of the chain of records.
//!
//! Records go into the database as long as it takes them, else into slots. What lies in slots comes into the database
//! with the next write that it takes, in the same transaction and before it, so the order is that of the decisions;
//! only then are the slots given back. A process that dies between these two steps finds records in slots that the
//! database has already, under the same numbers with the same hashes, and takes them for what they are.

use std::path::{Path, PathBuf};

use rusqlite::Connection;
use rustix::fs::statvfs;

use super::chain::Head;
use super::row::RecordRow;
use super::slots::{GROUPS_PER_MIGRATION, SLOTS, Slots};
use super::{JournalError, audit, inspect, schema};

/// What must be free before a migration may begin: its events and its end, many times over.
const LEAST_FREE: u64 = 8 * 1024 * 1024;

/// What goes into the database together with records, and nowhere else.
pub(super) type With<'a> = &'a dyn Fn(&Connection) -> Result<(), JournalError>;

/// What the thread owns.
pub(super) struct Store {
    pub(super) db: Connection,
    slots: Slots,
    dir: PathBuf,
    /// The last record, wherever it lies.
    head: Head,
    /// The records that lie in slots only, in order.
    waiting: Vec<RecordRow>,
    /// A test says that the disk is full.
    #[cfg(test)]
    pub(super) full: bool,
}

impl Store {
    /// Opens and inspects everything. `Err`: the journal is newer, damaged, or cannot be used; a newer one was not
    /// changed.
    pub(super) fn open(path: &Path) -> Result<Self, JournalError> {
        let beside = path.with_extension("decisions");
        if !schema::exists(path)? && beside.exists() {
            return Err(JournalError::damage(path, "it is missing or empty, and journal.decisions is there"));
        }
        let db = schema::open(path).map_err(|error| error.or_damage(path))?;
        let head = inspect::database(&db, path).map_err(|error| error.or_damage(path))?;
        let (mut slots, found) = schema::slots(&db, path, &beside, head)?;
        let (waiting, uncounted) = inspect::slots(&db, path, &beside, head, slots.mark(), found)?;
        if uncounted {
            // Before it is relied upon; else the next decision would take its place.
            let failed = |source| JournalError::File { action: "count a decision of", path: beside, source };
            slots.count_found().map_err(failed)?;
        }
        let dir = path.parent().map(Path::to_owned).unwrap_or_default();
        let head = waiting.last().map_or(head, RecordRow::head);
        let mut store = Self {
            db,
            slots,
            dir,
            head,
            waiting,
            #[cfg(test)]
            full: false,
        };
        match store.attempt("bring decisions back", |_| Ok(())) {
            Ok(()) => store.mark(),
            Err(error) if error.is_full() => tracing::error!(
                error = crate::failure::chain(&error),
                waiting = store.waiting.len(),
                "the disk of the journal is full: decisions stay in their own space, make room"
            ),
            Err(error) => return Err(error),
        }
        match audit::check(&store.db, None) {
            Ok(check) => {
                if let Some(broken) = check.broken {
                    tracing::error!(
                        record = broken.seq,
                        why = broken.why,
                        "the audit is not what was written"
                    );
                }
            }
            Err(error) => tracing::error!(error = crate::failure::chain(&error), "the audit cannot be read"),
        }
        // What an earlier version kept for a full disk.
        let _ = std::fs::remove_file(path.with_extension("reserve"));
        Ok(store)
    }

    /// The records that lie in slots only.
    pub(super) fn waiting(&self) -> &[RecordRow] {
        &self.waiting
    }

    /// Appends records, and does `with` them what cannot be done without them. `Ok`: all of it is durable. If the disk
    /// is full, records without a `with` go into a slot instead.
    pub(super) fn append(
        &mut self,
        action: &'static str,
        records: Vec<RecordRow>,
        with: Option<With<'_>>,
    ) -> Result<(), JournalError> {
        let rows = RecordRow::chain(self.head, records);
        let written = self.attempt(action, |db| {
            with.map_or(Ok(()), |with| with(db))?;
            rows.iter().try_for_each(|row| row.insert(db))
        });
        match written {
            Ok(()) => {}
            Err(error) if error.is_full() && with.is_none() => self.keep_in_slot(action, &rows, &error)?,
            Err(error) => return Err(error),
        }
        self.head = rows.last().map_or(self.head, RecordRow::head);
        Ok(())
    }

    fn keep_in_slot(
        &mut self,
        action: &'static str,
        rows: &[RecordRow],
        why: &JournalError,
    ) -> Result<(), JournalError> {
        let group =
            serde_json::to_vec(rows).map_err(|source| JournalError::Encode { what: "decisions", source })?;
        self.slots.put(&group).map_err(|source| JournalError::Slots { action, source })?;
        self.waiting.extend_from_slice(rows);
        tracing::error!(
            error = crate::failure::chain(why),
            left = self.slots.left(),
            "the disk of the journal is full: a decision went into the space that is kept for them, make room"
        );
        Ok(())
    }

    /// One durable transaction of `act`, behind everything that waits in slots.
    pub(super) fn attempt<T>(
        &mut self,
        action: &'static str,
        act: impl FnOnce(&Connection) -> Result<T, JournalError>,
    ) -> Result<T, JournalError> {
        let failed = |source| JournalError::Database { action, source };
        #[cfg(test)]
        if self.full {
            let full = rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_FULL);
            return Err(failed(rusqlite::Error::SqliteFailure(full, None)));
        }
        let transaction = self.db.transaction().map_err(failed)?;
        for row in &self.waiting {
            row.insert(&transaction)?;
        }
        let result = act(&transaction)?;
        transaction.commit().map_err(failed)?;
        self.give_back();
        Ok(result)
    }

    /// What waited is in the database.
    fn give_back(&mut self) {
        let Some(last) = self.waiting.last().map(RecordRow::head) else { return };
        tracing::info!(records = self.waiting.len(), "decisions of a full disk are in the database now");
        self.waiting.clear();
        if let Err(error) = self.slots.release(last) {
            tracing::error!(%error, "cannot give the space for decisions back; the next start does");
        }
    }

    /// Notes in the other file how far the database is: a moment when no service is frozen.
    pub(super) fn mark(&mut self) {
        if self.waiting.is_empty()
            && let Err(error) = self.slots.release(self.head)
        {
            tracing::error!(%error, "cannot note how far the journal is");
        }
    }

    /// Whether one more migration may begin beside `under_way` others: every decision of all of them will have a place,
    /// whatever happens to the disk. `Err`, with what to do: it must not.
    pub(super) fn admit(&self, under_way: usize) -> Result<(), JournalError> {
        let full = |why: String| Err(JournalError::Full { why });
        if !self.waiting.is_empty() {
            return full(format!(
                "the disk of {} was full, and {} decisions wait for space in the journal",
                self.dir.display(),
                self.waiting.len()
            ));
        }
        let needed = (under_way + 1).saturating_mul(GROUPS_PER_MIGRATION);
        if needed > self.slots.left() {
            return full(format!(
                "{under_way} migrations have not ended, and the journal keeps space for the decisions of {}",
                SLOTS / GROUPS_PER_MIGRATION
            ));
        }
        let free = statvfs(&self.dir).map(|stat| stat.f_bfree.saturating_mul(stat.f_frsize));
        match free {
            Ok(free) if free < LEAST_FREE => full(format!(
                "{} has {} KiB free, and the journal wants {} KiB",
                self.dir.display(),
                free / 1024,
                LEAST_FREE / 1024
            )),
            _ => Ok(()),
        }
    }

    /// A write that nobody waits for, without a sync.
    pub(super) fn lazily(
        &mut self,
        act: impl FnOnce(&Connection) -> Result<(), JournalError>,
    ) -> Result<(), JournalError> {
        let failed = |source| JournalError::Database { action: "prepare for an event", source };
        self.db.pragma_update(None, "synchronous", "NORMAL").map_err(failed)?;
        let result = act(&self.db);
        // Must succeed before the next durable write; a connection on which it does not is not used for one.
        self.db.pragma_update(None, "synchronous", "FULL").map_err(failed)?;
        result
    }
}
