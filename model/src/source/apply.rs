//! Which record may follow which state at the source.

use super::{Event, IllegalEvent, Own, Source, Stage, Step, Verdict};
use crate::names::Epoch;

impl Source {
    /// The state after `event`. On `Err` the rule that forbids it is named and nothing has changed.
    pub fn apply(&self, event: Event) -> Result<Self, IllegalEvent> {
        let (epoch, stage) = match event.step {
            Step::Started => self.started(event.epoch),
            Step::EpochSeen => self.epoch_seen(event.epoch),
            Step::Superseded => self.superseded(event.epoch),
            _ if event.epoch != self.epoch => Err("a record must carry the epoch that is under way"),
            Step::Thawed => self.thawed(),
            Step::Resolved { verdict } => self.resolved(verdict),
            step => next(self.stage, step).map(|stage| (self.epoch, stage)),
        }
        .map_err(|rule| IllegalEvent { state: self.to_string(), event: event.to_string(), rule })?;
        Ok(Self { epoch, stage })
    }

    /// The state after all of `events`; stops at the first illegal one.
    pub fn fold(self, events: impl IntoIterator<Item = Event>) -> Result<Self, IllegalEvent> {
        events.into_iter().try_fold(self, |state, event| state.apply(event))
    }

    fn started(&self, epoch: Epoch) -> Result<(Epoch, Stage), &'static str> {
        match self.stage {
            Stage::Idle if epoch > self.epoch => Ok((epoch, Stage::Preparing)),
            Stage::Idle => Err("a migration needs an epoch newer than all that were seen"),
            _ => Err("a migration starts only where the service is at home and not in another one"),
        }
    }

    fn epoch_seen(&self, epoch: Epoch) -> Result<(Epoch, Stage), &'static str> {
        match self.stage {
            // One further: whatever may still be said about the seen epoch is not about this service.
            Stage::Idle if epoch > self.epoch => Ok((epoch.next(), Stage::Idle)),
            _ => Err("a newer epoch is adopted only between migrations"),
        }
    }

    /// RUNNING is final, so whoever has it wins over any decision of this journal about the same or an older epoch.
    fn superseded(&self, epoch: Epoch) -> Result<(Epoch, Stage), &'static str> {
        match self.stage {
            Stage::Moved | Stage::Released if epoch == self.epoch => {
                Err("this epoch is known to run elsewhere")
            }
            _ if epoch >= self.epoch => Ok((epoch, Stage::Superseded)),
            _ => Err("only a newer decision supersedes"),
        }
    }

    fn thawed(&self) -> Result<(Epoch, Stage), &'static str> {
        match self.stage {
            Stage::Aborted { .. } => Ok((self.epoch, Stage::Idle)),
            // What runs here from now on is a new life of the service: it takes the next epoch, so that nothing said
            // about the revoked one can ever be mistaken for it.
            Stage::Revoked => Ok((self.epoch.next(), Stage::Idle)),
            _ => Err("the source thaws only after a durable ABORT or REVOKED"),
        }
    }

    fn resolved(&self, verdict: Verdict) -> Result<(Epoch, Stage), &'static str> {
        let own = match self.stage {
            Stage::Held { own } | Stage::Committed { own } | Stage::Refused { own } => own,
            Stage::Superseded => Own::Alive,
            Stage::Stuck | Stage::Lost => Own::Dead,
            _ => return Err("there is nothing for an operator to decide"),
        };
        match (verdict, own) {
            (Verdict::RunHere, Own::Alive) => Ok((self.epoch, Stage::Revoked)),
            // Nothing to thaw: the service is at home here and starts anew, by its restart policy.
            (Verdict::RunHere, Own::Dead) => Ok((self.epoch.next(), Stage::Idle)),
            // Given up already; that another site had it would be something else.
            (Verdict::GiveUp, _) if self.stage == Stage::Lost => Ok((self.epoch, Stage::Lost)),
            (Verdict::GiveUp, _) => Ok((self.epoch, Stage::Released)),
        }
    }
}

fn next(stage: Stage, step: Step) -> Result<Stage, &'static str> {
    use Own::{Alive, Dead};
    match (stage, step) {
        (Stage::Preparing, Step::FreezeBegun) => Ok(Stage::Frozen),
        (_, Step::FreezeBegun) => Err("the freeze follows the preparation"),

        (Stage::Frozen, Step::HeldArrived) => Ok(Stage::Held { own: Alive }),
        (Stage::Stuck, Step::HeldArrived) => Ok(Stage::Held { own: Dead }),
        (_, Step::HeldArrived) => Err("HELD can only follow the freeze, once"),

        (Stage::Preparing, Step::AbortDecided) => Ok(Stage::Aborted { frozen: false }),
        (Stage::Frozen | Stage::Held { own: Alive }, Step::AbortDecided) => {
            Ok(Stage::Aborted { frozen: true })
        }
        (Stage::Stuck | Stage::Held { own: Dead }, Step::AbortDecided) => {
            Err("with the own copy dead an ABORT would destroy the only copy left")
        }
        (_, Step::AbortDecided) => {
            Err("after COMMIT nothing can be aborted, and before the start there is nothing to")
        }

        (Stage::Held { own }, Step::CommitDecided) => Ok(Stage::Committed { own }),
        (_, Step::CommitDecided) => Err("COMMIT is written only after HELD arrived, and never after ABORT"),

        (Stage::Committed { .. }, Step::RunningArrived) => Ok(Stage::Moved),
        (_, Step::RunningArrived) => Err("RUNNING can only follow COMMIT"),

        (Stage::Committed { own }, Step::RefusedArrived) => Ok(Stage::Refused { own }),
        (_, Step::RefusedArrived) => {
            Err("REFUSED is recorded only after COMMIT; before it the source aborts")
        }

        (Stage::Refused { own: Alive }, Step::RevokedDecided) => Ok(Stage::Revoked),
        (Stage::Refused { own: Dead }, Step::RevokedDecided) => Err("there is no copy left to run"),
        (_, Step::RevokedDecided) => Err("only REFUSED lets the source take its decision back"),

        (Stage::Moved | Stage::Superseded, Step::StateReleased) => Ok(Stage::Released),
        (_, Step::StateReleased) => Err("the original is kept untouched until RUNNING arrived"),

        (Stage::Frozen, Step::OwnCopyDead) => Ok(Stage::Stuck),
        (Stage::Held { .. }, Step::OwnCopyDead) => Ok(Stage::Held { own: Dead }),
        (Stage::Committed { .. }, Step::OwnCopyDead) => Ok(Stage::Committed { own: Dead }),
        (Stage::Refused { .. }, Step::OwnCopyDead) => Ok(Stage::Refused { own: Dead }),
        (Stage::Aborted { frozen: true } | Stage::Revoked, Step::OwnCopyDead) => Ok(Stage::Lost),
        (_, Step::OwnCopyDead) => Err("only the death of a frozen original is a matter of the migration"),

        (Stage::Stuck | Stage::Held { own: Dead } | Stage::Refused { own: Dead }, Step::LostDeclared) => {
            Ok(Stage::Lost)
        }
        (_, Step::LostDeclared) => Err("lost is what has no copy here and certainly none at the destination"),

        // Their epochs follow other rules; handled before.
        (_, Step::Started | Step::EpochSeen | Step::Superseded | Step::Thawed | Step::Resolved { .. }) => {
            Err("not expected here")
        }
    }
}
