//! Which record may follow which state at the destination.

use super::{Destination, Event, IllegalEvent, Stage, Step, Tree, Verdict};

impl Destination {
    /// The state after `event`. On `Err` the rule that forbids it is named and nothing has changed.
    pub fn apply(&self, event: Event) -> Result<Self, IllegalEvent> {
        let stage = if event.epoch > self.epoch {
            self.newer(event.step)
        } else if event.epoch < self.epoch {
            Err("this epoch is over; an epoch that is not newer than all that were seen is never accepted")
        } else {
            next(self.stage, event.step)
        };
        match stage {
            Ok(stage) => Ok(Self { epoch: event.epoch, stage }),
            Err(rule) => Err(IllegalEvent { state: self.to_string(), event: event.to_string(), rule }),
        }
    }

    /// The state after all of `events`; stops at the first illegal one.
    pub fn fold(self, events: impl IntoIterator<Item = Event>) -> Result<Self, IllegalEvent> {
        events.into_iter().try_fold(self, |state, event| state.apply(event))
    }

    /// What may begin an epoch: an offer, or a tombstone for an offer that never came or is still on its way.
    fn newer(&self, step: Step) -> Result<Stage, &'static str> {
        match step {
            _ if !self.is_resting() => Err("the epoch that is under way has to end first"),
            Step::Offered { lease_ms } => Ok(Stage::Reserved { lease_ms }),
            Step::AbortReceived => Ok(Stage::Aborted),
            Step::RefusedWritten => Ok(Stage::Refused),
            Step::LostHeard => Ok(Stage::Lost),
            _ => Err("an epoch begins with an offer or with a tombstone"),
        }
    }
}

fn next(stage: Stage, step: Step) -> Result<Stage, &'static str> {
    use Tree::{Alive, Gone};
    match (stage, step) {
        (_, Step::Offered { .. }) => Err("an epoch that was seen is never accepted again"),

        (Stage::Reserved { lease_ms }, Step::RestoreBegun) => Ok(Stage::Restoring { lease_ms }),
        (_, Step::RestoreBegun) => Err("only what is reserved is restored"),

        (Stage::Restoring { .. }, Step::HeldReached) => Ok(Stage::Held { tree: Alive }),
        (_, Step::HeldReached) => Err("HELD ends a restore"),

        (Stage::Reserved { .. } | Stage::Restoring { .. }, Step::LeaseExpired) => Ok(Stage::Aborted),
        (_, Step::LeaseExpired) => Err("there is a lease only before HELD"),

        (Stage::Reserved { .. } | Stage::Restoring { .. } | Stage::Held { .. }, Step::AbortReceived) => {
            Ok(Stage::Aborted)
        }
        (_, Step::AbortReceived) => Err("what was committed, or is over, cannot be aborted"),

        (Stage::Held { tree }, Step::CommitReceived) => Ok(Stage::CommitSeen { tree }),
        (_, Step::CommitReceived) => Err("COMMIT means something only to a HELD tree"),

        (Stage::CommitSeen { tree: Alive }, Step::GrantWritten) => {
            Ok(Stage::Granted { tree: Alive, thawed: false })
        }
        (Stage::CommitSeen { tree: Gone }, Step::GrantWritten) => Err("there is no tree left to run"),
        (_, Step::GrantWritten) => Err("the right is taken only after COMMIT, and never after a tombstone"),

        (Stage::Granted { tree: Alive, .. }, Step::Thawed) => {
            Ok(Stage::Granted { tree: Alive, thawed: true })
        }
        (_, Step::Thawed) => Err("the destination thaws only after a durable GRANTED"),

        (Stage::Granted { tree: Alive, thawed: true }, Step::RunningWritten) => Ok(Stage::Running),
        (_, Step::RunningWritten) => Err("RUNNING is written once, for a granted tree that was thawed"),

        (Stage::Held { .. }, Step::TreeGone) => Ok(Stage::Held { tree: Gone }),
        (Stage::CommitSeen { .. }, Step::TreeGone) => Ok(Stage::CommitSeen { tree: Gone }),
        (Stage::Granted { thawed, .. }, Step::TreeGone) => Ok(Stage::Granted { tree: Gone, thawed }),
        (_, Step::TreeGone) => {
            Err("only the death of a whole tree before RUNNING is a matter of the migration")
        }

        (Stage::Reserved { .. } | Stage::Restoring { .. }, Step::RefusedWritten)
        | (
            Stage::Held { tree: Gone } | Stage::CommitSeen { tree: Gone } | Stage::Granted { tree: Gone, .. },
            Step::RefusedWritten,
        ) => Ok(Stage::Refused),
        (Stage::Running, Step::RefusedWritten) => Err("RUNNING is final"),
        (_, Step::RefusedWritten) => {
            Err("REFUSED needs the proof that the tree is gone, and is written once")
        }

        (Stage::Refused | Stage::Aborted, Step::LostHeard) => Ok(Stage::Lost),
        (_, Step::LostHeard) => Err("what is lost here was refused or aborted before"),

        (Stage::Granted { tree: Gone, .. }, Step::StuckDeclared)
        | (Stage::Reserved { .. } | Stage::Restoring { .. }, Step::StuckDeclared) => Ok(Stage::Stuck),
        (_, Step::StuckDeclared) => Err(
            "stuck is a granted tree that is gone and may have left traces, or one that runs and was never granted",
        ),

        (Stage::Held { tree } | Stage::CommitSeen { tree }, Step::Resolved { verdict }) => {
            match (verdict, tree) {
                (Verdict::RunHere, Alive) => Ok(Stage::Granted { tree: Alive, thawed: false }),
                (Verdict::RunHere, Gone) => Err("there is no tree left to run"),
                (Verdict::GiveUp, _) => Ok(Stage::Refused),
            }
        }
        // Its tree is gone, but the service is at home here from now on and starts anew by its restart policy.
        (Stage::Stuck, Step::Resolved { verdict: Verdict::RunHere }) => Ok(Stage::Running),
        (Stage::Stuck, Step::Resolved { verdict: Verdict::GiveUp }) => Ok(Stage::Refused),
        (_, Step::Resolved { .. }) => Err("there is nothing for an operator to decide"),
    }
}
