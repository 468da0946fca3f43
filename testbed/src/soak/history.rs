//! What clients did and what came of it: the material of every check.
//!
//! An operation has a begin, an end and an outcome. One whose connection broke has no end: it may have taken effect, may
//! do so at any later time (a request that waits in a socket travels with the service), or never.

use std::fmt;

/// Nanoseconds since the soak began, by the monotonic clock.
pub type Nanos = u64;

/// A place in a database: a register, or a collection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key(pub u64);

/// What is written: every write of a soak has a value of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Value(pub u64);

/// One operation of one client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Operation {
    /// Whose.
    pub session: u32,
    /// On what.
    pub key: Key,
    /// What was asked, and answered.
    pub action: Action,
    /// How it ended.
    pub outcome: Outcome,
    /// When it was sent.
    pub begin: Nanos,
    /// When its end was known: the answer, or the loss of the connection.
    pub end: Nanos,
}

/// What a client asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Sets a register.
    Write(Value),
    /// Reads a register; `None` was never written.
    Read(Option<Value>),
    /// Adds to a collection, at its end where it is ordered.
    Append {
        /// What.
        value: Value,
        /// How long the collection was said to be afterwards, where the database says so.
        length: Option<u64>,
    },
    /// Reads a collection.
    ReadAll(Vec<Value>),
}

/// How an operation ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It was answered: a write is acknowledged.
    Ok,
    /// It was refused: it has no effect, ever.
    Failed,
    /// No answer came.
    Unknown,
}

impl Operation {
    /// When it had taken effect at the latest; `None` is never, or at any time.
    pub(super) fn settled(&self) -> Option<Nanos> {
        (self.outcome == Outcome::Ok).then_some(self.end)
    }

    /// Whether this one was over before the other began.
    pub(super) fn precedes(&self, other: &Self) -> bool {
        self.settled().is_some_and(|end| end < other.begin)
    }
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = |nanos: Nanos| nanos as f64 / 1e9;
        let Self { session, key, action, outcome, begin, end } = self;
        let (begin, end) = (seconds(*begin), seconds(*end));
        write!(f, "{begin:.6} to {end:.6} s, session {session}, key {}: {action} {outcome:?}", key.0)
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Write(value) => write!(f, "write {}", value.0),
            Self::Read(Some(value)) => write!(f, "read {}", value.0),
            Self::Read(None) => write!(f, "read nothing"),
            Self::Append { value, length: Some(length) } => write!(f, "append {} as {length}.", value.0),
            Self::Append { value, length: None } => write!(f, "append {}", value.0),
            Self::ReadAll(values) => {
                write!(f, "read all {}:", values.len())?;
                values.iter().try_for_each(|value| write!(f, " {}", value.0))
            }
        }
    }
}

/// Something that no order of the operations explains.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Flaw {
    /// What is wrong.
    pub why: Why,
    /// The operations that show it.
    pub evidence: Vec<Operation>,
}

/// Kinds of flaws.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Why {
    /// A value was read that nobody can have written by then, or whose write was refused.
    Unexplained,
    /// An acknowledged write is not there.
    Lost,
    /// A value was read after another had replaced it, or two values were there at once.
    Stale,
    /// A value is there twice.
    Doubled,
    /// Two appends are in another order than their answers.
    Disordered,
    /// What holds at all times did not: money appeared or vanished, or another server answered.
    Broken,
}

impl Why {
    /// As it is counted.
    pub fn word(self) -> &'static str {
        match self {
            Self::Unexplained => "unexplained-read",
            Self::Lost => "lost-write",
            Self::Stale => "stale-read",
            Self::Doubled => "doubled-write",
            Self::Disordered => "disordered-writes",
            Self::Broken => "broken-invariant",
        }
    }
}

impl fmt::Display for Flaw {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.why.word())?;
        self.evidence.iter().try_for_each(|operation| write!(f, "\n    {operation}"))
    }
}

/// Makes histories of a few operations.
#[cfg(test)]
pub(super) mod examples {
    use super::*;

    fn operation(action: Action, begin: Nanos, end: Nanos) -> Operation {
        Operation { session: 0, key: Key(1), action, outcome: Outcome::Ok, begin, end }
    }

    pub(crate) fn write(value: u64, begin: Nanos, end: Nanos) -> Operation {
        operation(Action::Write(Value(value)), begin, end)
    }

    /// Of 0 it is a read of nothing.
    pub(crate) fn read(value: u64, begin: Nanos, end: Nanos) -> Operation {
        operation(Action::Read((value != 0).then_some(Value(value))), begin, end)
    }

    pub(crate) fn append(value: u64, length: u64, begin: Nanos, end: Nanos) -> Operation {
        let length = (length != 0).then_some(length);
        operation(Action::Append { value: Value(value), length }, begin, end)
    }

    pub(crate) fn read_all(values: &[u64], begin: Nanos, end: Nanos) -> Operation {
        operation(Action::ReadAll(values.iter().map(|value| Value(*value)).collect()), begin, end)
    }

    pub(crate) fn unknown(operation: Operation) -> Operation {
        Operation { outcome: Outcome::Unknown, ..operation }
    }

    pub(crate) fn failed(operation: Operation) -> Operation {
        Operation { outcome: Outcome::Failed, ..operation }
    }
}
