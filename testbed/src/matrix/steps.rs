//! The rows: every step at which a daemon can be made to wait, and what is true while it waits there.

use crate::fault::{Role, Step};

/// How far a migration is, in the terms of which copy may run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Moment {
    /// The original runs.
    Running,
    /// The original is stopped, and the destination holds no whole copy yet.
    Stopped,
    /// The destination holds a whole copy, and nothing is decided.
    Held,
    /// COMMIT is durable, the copy at the destination does not run yet.
    Committed,
    /// The source has told COMMIT: the copy at the destination may run at any moment, or runs.
    Told,
    /// The copy at the destination runs.
    Resumed,
}

/// What is true while a daemon waits at `step`.
pub fn moment(step: Step) -> Moment {
    match step {
        Step::Reserve
        | Step::Image
        | Step::Arm
        | Step::Freeze
        | Step::Dump
        | Step::DestinationReserve
        | Step::DestinationImage
        | Step::DestinationArm => Moment::Running,
        Step::Transfer | Step::Restore | Step::DestinationRestore => Moment::Stopped,
        Step::DestinationHeld | Step::Commit => Moment::Held,
        Step::Committed | Step::DestinationGranted => Moment::Committed,
        Step::Resume => Moment::Told,
        Step::Release | Step::DestinationResumed | Step::DestinationRunning => Moment::Resumed,
    }
}

/// Whether the destination has begun to make a place for the service.
pub fn has_place(step: Step) -> bool {
    !matches!(
        step,
        Step::Reserve
            | Step::Image
            | Step::Arm
            | Step::DestinationReserve
            | Step::DestinationImage
            | Step::DestinationArm
    )
}

/// Whose daemon waits there, in a word.
pub fn side(step: Step) -> &'static str {
    match step.role() {
        Role::Source => "source",
        Role::Destination => "destination",
    }
}
