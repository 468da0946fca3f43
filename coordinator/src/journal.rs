//! What a site must not forget: one SQLite file, one thread that writes it.
//!
//! The heart of it is the table `records`: what this site decided and did about each service, in order, appended
//! **before** the deed. The state of a service is the fold over its records ([`ums_model::standing::Standing`]), so
//! recovery is replay. Around it lie the paired sites, the invites, the tokens of the API, and for people what each
//! migration told and how it ended.
//!
//! Two kinds of writes, through one queue, so that their order is the order in which they were asked for:
//! - *durable* ones: the call returns when the bytes are on the disk (`synchronous=FULL`);
//! - *told* ones, events for watchers: nobody waits for them, and the last of them may be lost with the power. They
//!   never cost a sync, because they are also written while a service is frozen.
//!
//! A failed durable write has no effect that anyone may rely on: nothing is done before a *later* durable write says
//! what holds. The disk may be full just when a decision is due: records then go into space that was written when the
//! journal was made ([`slots`]), and into the database as soon as it takes them.
//!
//! ```text
//! journal.db, journal.db-wal   the database, opened by this daemon alone
//! journal.decisions            space for records while the disk is full, and a mark how far the database was
//! ```
//! Records are chained by hashes ([`chain`]). At the start all of it is inspected ([`inspect`]): a journal that is not
//! what was written is refused as a whole, because who may run which service cannot be known from it.

mod audit;
mod chain;
mod error;
mod events;
mod inspect;
mod keys;
mod migrations;
mod policies;
mod records;
mod revoked;
mod row;
mod schema;
mod sites;
mod slots;
mod store;
mod tokens;
mod trust;

use std::path::Path;
use std::thread;

use rusqlite::Connection;
use tokio::sync::{mpsc, oneshot};

pub(crate) use audit::{check as audit_check, list as audit_list, offline as audit_offline};
pub(crate) use chain::Hash;
pub(crate) use error::JournalError;
pub(crate) use keys::Heard;
pub(crate) use migrations::{MigrationRow, Role};
pub(crate) use policies::ArrivalRow;
pub(crate) use sites::{Direction, PairedRow, Redeemed};
use store::Store;
pub(crate) use tokens::TokenRow;

/// Calls that may wait for the thread. Each is short, so this is memory, not time.
const QUEUE: usize = 256;

type Job = Box<dyn FnOnce(&mut Store) + Send>;

/// The journal of a site. Cheap to clone; all clones write through one thread, which ends with the last of them.
#[derive(Clone)]
pub(crate) struct Journal {
    queue: mpsc::Sender<Job>,
}

impl Journal {
    /// Whether there is a journal at `path`, of whatever version. Changes nothing. Blocks on the disk.
    pub(crate) fn exists(path: &Path) -> Result<bool, JournalError> {
        schema::exists(path)
    }

    /// Opens the journal at `path`, creates it if there is none, brings an older one up to date, inspects it. Blocks on
    /// the disk.
    ///
    /// `Err`: nothing was changed in a journal that is newer than this software, or is none; of one that is damaged
    /// the error says what was found and what to do.
    pub(crate) fn open(path: &Path) -> Result<Self, JournalError> {
        let mut store = Store::open(path)?;
        let (queue, mut jobs) = mpsc::channel::<Job>(QUEUE);
        let serve = move || {
            while let Some(job) = jobs.blocking_recv() {
                job(&mut store);
            }
        };
        thread::Builder::new().name("ums-journal".to_owned()).spawn(serve).map_err(|source| {
            JournalError::File { action: "start the thread of", path: path.to_owned(), source }
        })?;
        Ok(Self { queue })
    }

    /// Runs `act` in one durable transaction. `Ok`: all of it is on the disk. `Err`: none of it may be relied on.
    ///
    /// There is no deadline: a disk that does not answer leaves nothing to decide by. Dropped before it is ready,
    /// the write may happen or not.
    async fn write<T: Send + 'static>(
        &self,
        action: &'static str,
        act: impl FnOnce(&Connection) -> Result<T, JournalError> + Send + 'static,
    ) -> Result<T, JournalError> {
        self.ask(move |store| store.attempt(action, act)).await
    }

    /// Whether the database takes writes now, which a full disk prevents.
    pub(crate) async fn takes_writes(&self) -> bool {
        let touch = self.write("see whether it takes writes", |db| {
            let failed = |source| JournalError::Database { action: "see whether it takes writes", source };
            db.execute("UPDATE meta SET slots = 1", ()).map_err(failed)?;
            Ok(())
        });
        touch.await.is_ok()
    }

    /// Runs `look`, which changes nothing.
    async fn read<T: Send + 'static>(
        &self,
        look: impl FnOnce(&Connection) -> Result<T, JournalError> + Send + 'static,
    ) -> Result<T, JournalError> {
        self.ask(move |store| look(&store.db)).await
    }

    async fn ask<T: Send + 'static>(
        &self,
        job: impl FnOnce(&mut Store) -> Result<T, JournalError> + Send + 'static,
    ) -> Result<T, JournalError> {
        let (answer, answered) = oneshot::channel();
        // The asker may have gone away meanwhile; the job is done all the same.
        let job: Job = Box::new(move |store| drop(answer.send(job(store))));
        self.queue.send(job).await.map_err(|_| JournalError::Closed)?;
        answered.await.map_err(|_| JournalError::Closed)?
    }

    /// Brings what the log holds into the tables, now that no service is frozen. Otherwise SQLite would do so whenever
    /// the log has grown, perhaps in the middle of a commit. And notes how far the journal is. Nobody waits for it.
    async fn checkpoint(&self) {
        self.post(|store| {
            let failed = |source| JournalError::Database { action: "tidy up", source };
            store.mark();
            store.db.pragma_update(None, "wal_checkpoint", "PASSIVE").map_err(failed)
        })
        .await;
    }

    /// Queues `act`, which is for people only: written in order, not synced, not waited for.
    async fn tell(&self, act: impl FnOnce(&Connection) -> Result<(), JournalError> + Send + 'static) {
        self.post(move |store| store.lazily(act)).await;
    }

    async fn post(&self, job: impl FnOnce(&mut Store) -> Result<(), JournalError> + Send + 'static) {
        let job: Job = Box::new(move |store| {
            if let Err(error) = job(store) {
                tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    "cannot write what nobody waits for"
                );
            }
        });
        if self.queue.send(job).await.is_err() {
            tracing::warn!("cannot write what nobody waits for: the journal is closed");
        }
    }
}

#[cfg(test)]
mod tests;
