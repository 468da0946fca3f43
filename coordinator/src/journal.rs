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
//! what holds. The disk may be full just when a decision is due; for that a reserve of space lies beside the file.

mod error;
mod events;
mod migrations;
mod policies;
mod records;
mod reserve;
mod schema;
mod sites;
mod tokens;
mod trust;

use std::path::Path;
use std::thread;

use rusqlite::Connection;
use tokio::sync::{mpsc, oneshot};

pub(crate) use error::JournalError;
pub(crate) use migrations::{MigrationRow, Role};
pub(crate) use policies::ArrivalRow;
use reserve::Reserve;
pub(crate) use sites::{Direction, PairedRow, Redeemed};
pub(crate) use tokens::TokenRow;

/// Calls that may wait for the thread. Each is short, so this is memory, not time.
const QUEUE: usize = 256;

type Job = Box<dyn FnOnce(&mut Store) + Send>;

/// The journal of a site. Cheap to clone; all clones write through one thread, which ends with the last of them.
#[derive(Clone)]
pub(crate) struct Journal {
    queue: mpsc::Sender<Job>,
}

/// What the thread owns.
pub(crate) struct Store {
    db: Connection,
    reserve: Reserve,
}

impl Journal {
    /// Opens the journal at `path`, creates it if there is none, brings an older one up to date. Blocks on the disk.
    ///
    /// `Err`: nothing was changed in a journal that is newer than this software, or is none.
    pub(crate) fn open(path: &Path) -> Result<Self, JournalError> {
        let mut store = Store { db: schema::open(path)?, reserve: Reserve::beside(path) };
        store.reserve.fill();
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
        act: impl Fn(&Connection) -> Result<T, JournalError> + Send + 'static,
    ) -> Result<T, JournalError> {
        self.ask(move |store| store.durably(action, &act)).await
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
    /// the log has grown, perhaps in the middle of a commit.
    async fn checkpoint(&self) {
        self.tell(|db| {
            let failed = |source| JournalError::Database { action: "tidy up", source };
            db.pragma_update(None, "wal_checkpoint", "PASSIVE").map_err(failed)
        })
        .await;
    }

    /// Queues `act`, which is for people only: written in order, not synced, not waited for.
    async fn tell(&self, act: impl FnOnce(&Connection) -> Result<(), JournalError> + Send + 'static) {
        let job: Job = Box::new(move |store| {
            if let Err(error) = store.lazily(act) {
                tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    "cannot write an event into the journal"
                );
            }
        });
        if self.queue.send(job).await.is_err() {
            tracing::warn!("cannot write an event: the journal is closed");
        }
    }
}

impl Store {
    fn durably<T>(
        &mut self,
        action: &'static str,
        act: &impl Fn(&Connection) -> Result<T, JournalError>,
    ) -> Result<T, JournalError> {
        match self.attempt(action, act) {
            Err(error) if error.is_full() && self.reserve.spend() => self.attempt(action, act),
            result => result,
        }
    }

    fn attempt<T>(
        &mut self,
        action: &'static str,
        act: impl Fn(&Connection) -> Result<T, JournalError>,
    ) -> Result<T, JournalError> {
        let failed = |source| JournalError::Database { action, source };
        let transaction = self.db.transaction().map_err(failed)?;
        let result = act(&transaction)?;
        transaction.commit().map_err(failed)?;
        Ok(result)
    }

    fn lazily(
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

#[cfg(test)]
mod tests;
