//! The destination's half of the two-party commit, as a pure state machine.
//!
//! The state is a fold over journal records ([`Event`]), so recovery is replay; a record that a rule forbids is an
//! [`IllegalEvent`]. What to do in a state is decided in [`Destination::recover`], [`Destination::receive`] and
//! [`Destination::lease_expired`], which only ever propose legal records.
//!
//! ```text
//!              the lease counts                 no lease: the source decides              the right is here
//!                                           │                                      │
//!        Offered        RestoreBegun        │ HeldReached       CommitReceived     │ GrantWritten    Thawed, RunningWritten
//!  Idle ────────► Reserved ─────► Restoring ┼─────────► Held ────────────► CommitSeen ──────► Granted ─────► Running
//!                    │                │     │            │ │                  │    │            │ │          (final)
//!                    │ LeaseExpired,  │     │   AbortRe- │ │ TreeGone,        │    │  TreeGone, │ │ TreeGone,
//!                    │ AbortReceived  │     │   ceived   │ │ RefusedWritten   │    │  Refused-  │ │ StuckDeclared
//!                    ├────────────────┴─────│────────────┘ └──────────┬───────┘    │  Written   │ │
//!                    ▼                      │                         ▼            │            │ ▼
//!                 Aborted                   │                      Refused ◄───────┼────────────┘ Stuck
//!                    │                      │                         │            │
//!                    └──────────────────────┴─────────┬───────────────┘            │
//!                                                     ▼ LostHeard                  │
//!                                                    Lost                          │
//! ```
//! Not drawn: `Reserved` and `Restoring` lead to `Refused` by `RefusedWritten`, when the restore fails, and to `Stuck` where the
//! copy runs all the same: then the journal was put back to an older one. From `Idle`,
//! `Refused`, `Aborted` and `Lost` only a *newer* epoch leads on: an offer, or a tombstone for an offer that is still on its
//! way. The same holds for `Lost`: this site never runs that epoch, and it says that nobody does.
//!
//! The proof that a tree is gone stays one, because its nest starts nothing before the fence may open: see
//! [`crate::nest`].
//!
//! Two sharp edges: from `Held` on there is **no lease**, the tree neither runs nor is discarded without a word of the
//! source; and `Running` is **final**. A granted copy whose tree is gone may have written to something outside of the
//! service that is mounted writable: then REFUSED would be a lie, and the state is `Stuck` until an operator decides.
//!
//! Who may run, and what each failure of a phase leads to:
//!
//! | phase | state here | failure | leads to | who runs |
//! | --- | --- | --- | --- | --- |
//! | reserve to transfer | Reserved | link cut, source gone | the lease expires: Aborted | source |
//! | | Reserved | crash here | Refused | source |
//! | restore | Restoring | restore fails, crash here | Refused | source, thawed |
//! | | Held | link cut, source gone, crash of the Coordinator here | stays Held and asks | nobody here, until the source decides |
//! | | Held | the tree dies | Refused | source |
//! | | Refused, Aborted | the source's copy dies too, and it says so | Lost | nobody, and both sites say so |
//! | commit, resume | CommitSeen | crash of the Coordinator | Granted, thaw, Running | destination |
//! | | CommitSeen | the tree dies | Refused | source, after REVOKED |
//! | | Granted | crash of the Coordinator | thaw again, Running | destination |
//! | | Granted | the tree dies | Refused, since nothing it did was seen; with a writable outside mount Stuck | source after REVOKED; or nobody |
//! | release | Running | anything | stays Running: the service is at home here | destination |

mod apply;
mod decide;

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::facts::Answer;
use crate::names::Epoch;

pub use crate::illegal::IllegalEvent;
pub use crate::source::Verdict;
pub use decide::Facts;

/// What the destination's journal says about one service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
pub struct Destination {
    epoch: Epoch,
    #[serde(flatten)]
    stage: Stage,
}

/// Whether the restored tree is still there, as far as the journal knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Tree {
    /// Nothing says otherwise.
    Alive,
    /// It is proven gone.
    Gone,
}

/// Where the destination stands. The diagram and the table of failures stand at the [module](self).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(tag = "stage", rename_all = "kebab-case")]
pub enum Stage {
    /// Nothing of the service is here. The epoch is the newest one seen.
    Idle,
    /// Name, ports, memory and disk are promised for the length of the lease.
    Reserved {
        /// How long the promise holds, in milliseconds from its receipt, counted by the Coordinator on a clock that
        /// runs on during suspend. No safety rests on it.
        lease_ms: u64,
    },
    /// The tree is being built behind the fence. The lease still counts.
    Restoring {
        /// As in `Reserved`.
        lease_ms: u64,
    },
    /// HELD(E): the whole tree stands frozen. No lease any more.
    Held {
        /// The tree.
        tree: Tree,
    },
    /// COMMIT(E) arrived: the right may be taken.
    CommitSeen {
        /// The tree.
        tree: Tree,
    },
    /// GRANTED(E) is durable: the right is here, the thaw may have happened, nothing has left the fence.
    Granted {
        /// The tree.
        tree: Tree,
        /// Whether the thaw is recorded.
        thawed: bool,
    },
    /// RUNNING(E) is durable. Final: the service is at home here.
    Running,
    /// REFUSED(E): a tombstone, E never runs here.
    Refused,
    /// ABORTED(E): a tombstone, E never runs here.
    Aborted,
    /// A tombstone like the two before, and more: the source has said that no copy is left there either.
    Lost,
    /// Granted, died, and may have left traces outside; or it runs, and this journal does not know of a grant. Only an operator
    /// can say who runs.
    Stuck,
}

/// A journal record of the destination.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Event {
    /// The epoch it belongs to.
    pub epoch: Epoch,
    /// What happened or was decided.
    #[serde(flatten)]
    pub step: Step,
}

/// What happened or was decided at the destination.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(tag = "step", rename_all = "kebab-case")]
pub enum Step {
    /// An offer was accepted. Written before ACCEPT is told.
    Offered {
        /// How long the promise holds, in milliseconds from its receipt.
        lease_ms: u64,
    },
    /// The restore begins. Written before the first task exists.
    RestoreBegun,
    /// HELD(E): every task is in a cgroup that reads back frozen, and was counted. Written before HELD is told.
    HeldReached,
    /// The lease ran out. Only before HELD. Written before anything is discarded.
    LeaseExpired,
    /// ABORT(E) arrived, possibly for an epoch whose offer never did. Written before anything is discarded.
    AbortReceived,
    /// COMMIT(E) arrived. May share a transaction with `GrantWritten`.
    CommitReceived,
    /// GRANTED(E): the right is taken. Written before the thaw.
    GrantWritten,
    /// The tree was thawed. May share a transaction with `RunningWritten`.
    Thawed,
    /// RUNNING(E). Written before the fence is lifted and before it is told.
    RunningWritten,
    /// No task of the tree is left, proven.
    TreeGone,
    /// REFUSED(E): this site will never run E. Written when the nest has nothing left that it might run. Also for an epoch that was committed but of which nothing is here.
    RefusedWritten,
    /// The source said that no copy of E is left. Only behind a tombstone, or as one for an epoch whose offer never came.
    LostHeard,
    /// REFUSED would be a lie: it was granted and has gone, or it runs and no grant is known.
    StuckDeclared,
    /// An operator took the decision upon himself.
    Resolved {
        /// What he said.
        verdict: Verdict,
    },
}

impl Step {
    /// The record of this step in `epoch`.
    pub const fn at(self, epoch: Epoch) -> Event {
        Event { epoch, step: self }
    }
}

impl Destination {
    /// A site that has nothing of the service, `highest` being the newest epoch that it has seen of its name.
    pub const fn absent(highest: Epoch) -> Self {
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

    /// Whether a new offer could be accepted, the epoch aside.
    pub const fn is_resting(&self) -> bool {
        matches!(self.stage, Stage::Idle | Stage::Refused | Stage::Aborted | Stage::Lost)
    }

    /// Whether the run-right is here. At most one site ever says yes.
    pub const fn has_right(&self) -> bool {
        matches!(self.stage, Stage::Granted { .. } | Stage::Running)
    }

    /// Whether the copy here may run, that is: be thawed. Never without a durable GRANTED.
    pub const fn may_run(&self) -> bool {
        matches!(self.stage, Stage::Granted { tree: Tree::Alive, .. } | Stage::Running)
    }

    /// What this journal says about `epoch`.
    pub fn answer(&self, epoch: Epoch) -> Answer {
        if epoch > self.epoch {
            return Answer::NeverHeard;
        }
        if epoch < self.epoch {
            return Answer::Over;
        }
        match self.stage {
            Stage::Idle => Answer::Over,
            Stage::Reserved { .. } | Stage::Restoring { .. } => Answer::Preparing,
            Stage::Held { tree: Tree::Alive } => Answer::Held,
            // REFUSED is about to be written; before it is, it may not be said.
            Stage::Held { tree: Tree::Gone } | Stage::CommitSeen { tree: Tree::Gone } => Answer::Undecided,
            // With COMMIT the right has come; whoever does not know of a COMMIT must not take this for a copy that waits.
            Stage::CommitSeen { tree: Tree::Alive } | Stage::Granted { .. } => Answer::Granted,
            Stage::Running => Answer::Running,
            Stage::Refused => Answer::Refused,
            Stage::Aborted => Answer::Aborted,
            Stage::Lost => Answer::Lost,
            Stage::Stuck => Answer::Stuck,
        }
    }
}

impl fmt::Display for Destination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "destination {:?}({})", self.stage, self.epoch)
    }
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}({})", self.step, self.epoch)
    }
}

#[cfg(test)]
mod tests;
