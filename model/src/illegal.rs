//! The one error of the state machines.

use thiserror::Error;

/// A record that must not follow what the journal already says. The state is unchanged; whoever tried to write it has
/// a defect, or the journal was damaged or rolled back.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("record {event} cannot follow {state}: {rule}")]
pub struct IllegalEvent {
    /// The state in which it was tried.
    pub state: String,
    /// The record.
    pub event: String,
    /// The rule that forbids it.
    pub rule: &'static str,
}
