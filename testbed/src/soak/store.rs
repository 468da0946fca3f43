//! What a session asks of a database, whichever it is.

use std::time::Duration;

use super::collection::Order;
use super::history::{Key, Value};
use crate::dial::Dialer;

/// Why something was not done, or not known to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Trouble {
    /// The connection is of no further use, and what was asked may be done.
    Lost(String),
    /// It was refused and is not done.
    Refused(String),
    /// The answer is one that cannot be.
    Wrong(String),
}

/// An answer.
pub(super) type Answer<T> = Result<T, Trouble>;

/// One connection to a database.
pub(super) trait Store: Sized {
    /// Of the collections.
    const ORDER: Order;

    /// Tries every address once; for threads that stand at the dialer's place. No answer is awaited longer than
    /// `patience`.
    fn connect(dialer: &Dialer, patience: Duration) -> Option<Self>;

    /// Makes what the other calls need. Done once, on an empty database.
    fn prepare(&mut self) -> Answer<()>;

    /// What stays the same as long as nobody starts the server again.
    fn identity(&mut self) -> Answer<String>;

    /// Sets a register.
    fn write(&mut self, key: Key, value: Value) -> Answer<()>;

    /// Reads a register.
    fn read(&mut self, key: Key) -> Answer<Option<Value>>;

    /// Adds to a collection; how long it is then, if the database says so.
    fn append(&mut self, key: Key, value: Value) -> Answer<Option<u64>>;

    /// Reads a collection, and checks whatever else must hold at every moment.
    fn read_all(&mut self, key: Key) -> Answer<Vec<Value>>;

    /// What must hold when nobody writes any more.
    fn audit(&mut self) -> Answer<()>;
}
