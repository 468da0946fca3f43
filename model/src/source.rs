//! The source's half of the two-party commit, as a pure state machine.
//!
//! The state is a fold over journal records ([`Event`]), so recovery is replay. A record that a rule forbids is an
//! [`IllegalEvent`]: the machine, not the discipline of its callers, keeps the rules. What to do in a state is decided
//! in [`Source::recover`], [`Source::receive`] and [`Source::abort`], which only ever propose legal records.
//!
//! ```text
//!          no COMMIT: the source decides alone              │  COMMIT is durable: only the destination's word counts
//!                                                           │
//!        Started          FreezeBegun        HeldArrived    │ CommitDecided       RunningArrived  StateReleased
//!  Idle ────────► Preparing ───────► Frozen ─────────► Held ┼──────────────► Committed ─────► Moved ─────► Released
//!   ▲ ▲               │                │ │              │   │                    │
//!   │ │ Thawed        │  AbortDecided  │ │              │   │                    │ RefusedArrived
//!   │ └─── Aborted ◄──┴────────────────┴─│──────────────┘   │                    ▼
//!   │         │                          │ OwnCopyDead      │                 Refused
//!   │         │ OwnCopyDead              ▼                  │                    │ RevokedDecided
//!   │         ▼         LostDeclared   Stuck                │                    ▼
//!   │       Lost ◄───────────────────────┘ │ HeldArrived    │                 Revoked
//!   │                                      ▼                │                    │
//!   │                          Held, own copy dead ─────────┼──► Committed       │ Thawed, epoch E+1
//!   └───────────────────────────────────────────────────────┼────────────────────┘
//! ```
//! Not drawn: `Held`, `Committed` and `Refused` remember by `OwnCopyDead` that the original is gone; then neither
//! ABORT nor REVOKED is possible any more, and what was refused is `Lost`, as is a `Revoked` original that dies before
//! its thaw. `Lost` is told to the destination until that has heard it. From every state a newer decision of the other
//! site leads to `Superseded`. An operator's word (`Resolved`) leads out of the states that wait.
//!
//! `OwnCopyDead` is only ever written behind [`Action::Bury`](crate::action::Action::Bury): the nest may have been about to
//! thaw the copy or to start it again, and another nest would read so in its record and do it, after this site has said
//! that nothing of the service is left here. What the record allows is the matter of [`crate::nest`].
//!
//! Who may run, and what each failure of a phase leads to:
//!
//! | phase | state here | failure | leads to | who runs |
//! | --- | --- | --- | --- | --- |
//! | reserve, image, arm | Preparing | anything: link, refusal, crash, abort by the user | Aborted, then Idle | source, never stopped |
//! | freeze, dump, transfer, restore | Frozen | anything but the death of the own copy | Aborted, thaw, Idle | source, after a pause |
//! | | Frozen | own copy dies | Stuck: wait for HELD (then commit) or for a final no (then Lost) | nobody, then destination or nobody |
//! | commit, before the record | Held | own copy alive and the Coordinator restarts, or the user aborts | Aborted, thaw, Idle | source |
//! | | Held | own copy dies | Committed: the destination holds the only copy | destination |
//! | commit, resume | Committed | link cut, crash of either side | stays Committed, tells COMMIT again: *in doubt* | destination, perhaps already |
//! | | Committed | REFUSED arrives, own copy alive | Revoked, thaw, Idle in epoch E+1 | source |
//! | | Committed | REFUSED arrives, own copy dead | Lost | nobody, and both sites say so |
//! | release | Moved | crash | released again | destination |

mod apply;
mod decide;

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::facts::Answer;
use crate::names::Epoch;

pub use crate::illegal::IllegalEvent;
pub use decide::Facts;

/// What the source's journal says about one service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
pub struct Source {
    epoch: Epoch,
    #[serde(flatten)]
    stage: Stage,
}

/// Whether the frozen original is still there, as far as the journal knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Own {
    /// Nothing says otherwise.
    Alive,
    /// It is proven gone.
    Dead,
}

/// Where the source stands. The diagram and the table of failures stand at the [module](self).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(tag = "stage", rename_all = "kebab-case")]
pub enum Stage {
    /// The service is at home here and no migration is under way. The epoch is the newest one seen.
    Idle,
    /// The service runs; both sites prepare.
    Preparing,
    /// The freeze has begun. The run-right is still here, the copy stays frozen until ABORT is durable.
    Frozen,
    /// The own copy died in the freeze before HELD arrived: only the destination's answer can help.
    Stuck,
    /// HELD(E) arrived. From here COMMIT is allowed.
    Held {
        /// The original.
        own: Own,
    },
    /// ABORT(E) is durable, the thaw may be outstanding.
    Aborted {
        /// Whether the freeze had begun, so that the copy's death before the thaw is a loss of state.
        frozen: bool,
    },
    /// COMMIT(E) is durable: the run-right is given away. The original stays frozen and untouched.
    Committed {
        /// The original.
        own: Own,
    },
    /// REFUSED(E) arrived: the right comes back as soon as REVOKED is durable.
    Refused {
        /// The original.
        own: Own,
    },
    /// REVOKED(E) is durable: the service runs here again, in epoch E+1 once it is thawed.
    Revoked,
    /// RUNNING(E) arrived: the service runs at the destination; the original is not released yet.
    Moved,
    /// The state of the original is given up. The end of a successful migration.
    Released,
    /// The other site has a newer decision than this journal: the copy here is frozen and kept for an operator.
    Superseded,
    /// Both copies are gone. The destination is told so.
    Lost,
}

/// A journal record of the source.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Event {
    /// The epoch it belongs to.
    pub epoch: Epoch,
    /// What happened or was decided.
    #[serde(flatten)]
    pub step: Step,
}

/// What happened or was decided at the source.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(tag = "step", rename_all = "kebab-case")]
pub enum Step {
    /// A migration with this epoch begins. Written before the offer is sent.
    Started,
    /// The freeze begins. Written before anything is stopped.
    FreezeBegun,
    /// HELD(E) arrived. May share a transaction with `CommitDecided`.
    HeldArrived,
    /// ABORT(E): decided against. Written before the thaw.
    AbortDecided,
    /// The copy was thawed after ABORT or REVOKED (or did not need it).
    Thawed,
    /// COMMIT(E): decided for. Written before it is told.
    CommitDecided,
    /// RUNNING(E) arrived.
    RunningArrived,
    /// REFUSED(E) arrived after COMMIT.
    RefusedArrived,
    /// REVOKED(E): the right is taken back. Written before the thaw.
    RevokedDecided,
    /// Tasks, memory and files of the original are gone.
    StateReleased,
    /// The frozen original is proven gone.
    OwnCopyDead,
    /// Neither site has a copy.
    LostDeclared,
    /// The other site said that it has seen this newer epoch: the next migration must be newer still.
    EpochSeen,
    /// The other site has a decision about this epoch which this journal lacks (it was rolled back, or an operator
    /// decided there). Written before the copy here is frozen.
    Superseded,
    /// An operator took the decision upon himself: from here on at-most-one rests on his word.
    Resolved {
        /// What he said.
        verdict: Verdict,
    },
}

/// What an operator says about a service that cannot be decided by rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// The copy here shall run; the other is certainly dead.
    RunHere,
    /// The copy here shall never run.
    GiveUp,
}

impl Step {
    /// The record of this step in `epoch`.
    pub const fn at(self, epoch: Epoch) -> Event {
        Event { epoch, step: self }
    }
}

impl Source {
    /// A service that is at home here, `highest` being the newest epoch that this site has seen of its name.
    pub const fn at_home(highest: Epoch) -> Self {
        Self { epoch: highest, stage: Stage::Idle }
    }

    /// The epoch of the stage; while idle, the newest epoch seen.
    pub const fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// Where it stands.
    pub const fn stage(&self) -> Stage {
        self.stage
    }

    /// The epoch that a migration beginning now would have.
    pub const fn next_epoch(&self) -> Epoch {
        self.epoch.next()
    }

    /// Whether the unrevoked run-right is here. At most one site ever says yes.
    pub const fn has_right(&self) -> bool {
        match self.stage {
            Stage::Idle
            | Stage::Preparing
            | Stage::Frozen
            | Stage::Stuck
            | Stage::Held { .. }
            | Stage::Aborted { .. }
            | Stage::Revoked => true,
            Stage::Committed { .. }
            | Stage::Refused { .. }
            | Stage::Moved
            | Stage::Released
            | Stage::Superseded
            | Stage::Lost => false,
        }
    }

    /// Whether the copy here may run, that is: be thawed. Narrower than [`has_right`](Self::has_right): from the
    /// begin of the freeze on a durable ABORT or REVOKED is needed first.
    pub const fn may_run(&self) -> bool {
        matches!(self.stage, Stage::Idle | Stage::Preparing | Stage::Aborted { .. } | Stage::Revoked)
    }

    /// What this journal says about `epoch`.
    pub fn answer(&self, epoch: Epoch) -> Answer {
        if epoch > self.epoch {
            return Answer::NeverHeard;
        }
        if self.stage == Stage::Superseded {
            // What was decided, in this epoch or before, is not in this journal. A held copy may be out of date, or the only
            // one, and what was granted here may run.
            return Answer::Stuck;
        }
        if epoch < self.epoch {
            return Answer::Over;
        }
        match self.stage {
            Stage::Preparing | Stage::Frozen | Stage::Stuck | Stage::Held { .. } => Answer::Undecided,
            // To a copy that stands HELD, what matters is that it never runs; `lost` is told, not asked for.
            Stage::Aborted { .. } | Stage::Lost => Answer::Aborted,
            Stage::Committed { .. } | Stage::Moved | Stage::Released => Answer::Committed,
            Stage::Superseded => Answer::Stuck,
            Stage::Idle | Stage::Refused { .. } | Stage::Revoked => Answer::Over,
        }
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "source {:?}({})", self.stage, self.epoch)
    }
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}({})", self.step, self.epoch)
    }
}

#[cfg(test)]
mod tests;
