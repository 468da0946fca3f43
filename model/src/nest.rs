//! The nest's half of the rules: what a nest may do with its copy, as a pure state machine over one durable record.
//!
//! A Coordinator decides, by its journal ([`crate::standing`]); the nest executes what its own [`Record`] grants, also
//! when no Coordinator is there. The record is one small file. It is written *before* the deed that it grants, so that
//! a nest that dies in between is followed by one that knows what was about to be done; only what is a fact and not a
//! grant (the dump is complete, the copy is HELD) is written after it became one. [`Record::decide`] says for every
//! wish which record is written and which deed follows, [`Record::settle`] what a nest does that starts after another
//! has died, [`Record::apply`] which record may follow which.
//!
//! ```text
//! source                                                 ThawBegun (also when a nest finds Dumping)
//!           ┌──────────────────────────────┬──────────────────────────────────┐
//!           ▼      DumpBegun               │         DumpComplete             │
//!          Run ───────────────────────► Dumping ─────────────────────────► Dumped
//!           │ ▲                            │                                  │
//!           │ │ FreezeBegun: Run ──────────│──────────────────────────────► Dumped
//!           │ │                            │                                  │
//!           │ │ ThawBegun, newer epoch     │ GivenUp: it is dead              │ ReleaseBegun, GivenUp
//!           │ └──────────────── Discarded ◄┴──────────────────────────────────┘
//!           └────────GivenUp──────▲
//!
//! destination      RestoreBegun              HeldReached         ResumeBegun              Opened
//!      Prepared ─────────────► Restoring ─────────────► Held ─────────────► Run, fenced ────────► Run
//!        │ ▲ Armed                 │                      │                      │
//!        └─┘                       │                      │                      │ DiscardBegun, GivenUp
//!        └────────DiscardBegun─────┴──────────► Discarded ◄──────────────────────┘
//! ```
//! Not drawn: `FreezeBegun` leaves `Held` where it is and takes a fenced `Run` back to it. `CameHome` makes an open `Run` of
//! everything but what was never HELD or not resumed: the journal says that the service is at home here in this epoch. It is
//! what undoes a `FreezeBegun` or a `GivenUp` that a dead Coordinator had asked for and that came after the end of its
//! migration; and as it stays true until a newer epoch, it may itself come late.
//!
//! What each failure leads to and who runs then. *Nest killed*: the keeper starts another one, which settles. *Keeper
//! killed*: the copy dies with it, the record stays. *Host crash*: as if the keeper was killed, and the todo list of the
//! Coordinator is gone as well. *Started* is what an orchestrator, a restart policy or a user may do with it then.
//!
//! | record | nest killed | keeper killed, host crash | started | who runs |
//! | --- | --- | --- | --- | --- |
//! | Run | thawed and opened again, in case that is what is missing | the copy is dead | yes, from its files | the copy here |
//! | Run, fenced | thawed again, the fence stays closed | the copy is dead: the destination refuses, or is *stuck* | no: what was restored is not what would start | the copy here, unheard; after REFUSED the source |
//! | Dumping | Run, then thawed: nobody can have committed to a dump that was not complete | the copy is dead | no; the next nest makes it Run first | the copy here |
//! | Dumped | stands still, in case that is what is missing | the copy is dead: the source commits if HELD, else *lost* | no | nobody here before a word of the Coordinator |
//! | Prepared | what the predecessor had armed is cleared away | the same | no | the source |
//! | Restoring | ended: it was never HELD | the same | no | the source |
//! | Held | stands still | the copy is dead: REFUSED | no | nobody here before GRANTED |
//! | Discarded | ended again | the same | no, but for a newer epoch's word, or one that it is at home here | another site, or nobody |
//!
//! The highest epoch seen is never lowered: a wish of an older one is refused, whoever repeats it how late. What was
//! seen of a name whose service was removed is remembered by the journal
//! ([`Record::Removed`](crate::standing::Record::Removed)).

mod apply;
mod decide;

use std::fmt;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::names::Epoch;

pub use decide::{Decision, Deed, Fate, Refusal, Seen, Wish};

words! {
    /// What the nest may do with its copy.
    pub enum Right ("right") {
        /// The copy may run. Nobody else's may.
        Run = "run",
        /// Source: a dump is being written; whoever finds this after a crash thaws, because nobody can have committed.
        Dumping = "dumping",
        /// Source: the original is frozen, its dump complete; only the Coordinator knows what was decided.
        Dumped = "dumped",
        /// Destination: nothing of the copy exists yet.
        Prepared = "prepared",
        /// Destination: a restore is under way; whoever finds this after a crash discards.
        Restoring = "restoring",
        /// Destination: the copy is complete and frozen; only the Coordinator knows what was decided.
        Held = "held",
        /// This epoch will never run here (again).
        Discarded = "discarded",
    }
}

/// What a nest may do, durably. The diagram and the table of failures stand at the [module](self).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Record {
    epoch: Epoch,
    right: Right,
    #[serde(default)]
    tasks: u32,
    #[serde(default)]
    fenced: bool,
}

/// What happens to a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Event {
    /// The epoch in which it happens.
    pub epoch: Epoch,
    /// What happens.
    pub step: Step,
}

/// What happens to a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Step {
    /// A dump begins. Written before anything is stopped.
    DumpBegun,
    /// The dump is complete and this many tasks stand frozen. Written before the end of the dump is sent.
    DumpComplete {
        /// Tasks in the copy's cgroup.
        tasks: u32,
    },
    /// The copy shall stand still. Written before it is stopped.
    FreezeBegun {
        /// Tasks in the copy's cgroup.
        tasks: u32,
    },
    /// The original shall run again. Written before the thaw.
    ThawBegun,
    /// The original is ended. Written before it is.
    ReleaseBegun,
    /// A restore is prepared. Written before anything is.
    Armed {
        /// Tasks that the restored copy will have.
        tasks: u32,
    },
    /// The restore begins. Written before the first task exists.
    RestoreBegun,
    /// HELD: every task stands frozen and was counted. Written before it is said.
    HeldReached {
        /// Tasks in the copy's cgroup.
        tasks: u32,
    },
    /// The held copy shall run, unheard. Written before the thaw.
    ResumeBegun,
    /// The fence shall open. Written before it does.
    Opened,
    /// The copy is ended. Written before it is.
    DiscardBegun,
    /// The service is at home here in this epoch, whatever was asked for before that was known. Written before it is started.
    CameHome,
    /// The copy is dead, and shall be neither thawed nor started: that is what lets its Coordinator say so.
    GivenUp,
}

/// A record that must not follow the one that is there. Nothing has changed.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{event} cannot follow {record}: {rule}")]
pub struct IllegalNestEvent {
    /// The record that is there.
    pub record: Record,
    /// What was to happen.
    pub event: Event,
    /// The rule that forbids it.
    pub rule: &'static str,
}

impl Step {
    /// This step in `epoch`.
    pub const fn at(self, epoch: Epoch) -> Event {
        Event { epoch, step: self }
    }
}

impl Record {
    /// A service that is at home here. `highest` is the newest epoch seen, 0 before the first migration.
    pub const fn at_home(highest: Epoch) -> Self {
        Self::new(highest, Right::Run, 0)
    }

    /// A nest that waits for a restore of `tasks` tasks.
    pub const fn prepared(epoch: Epoch, tasks: u32) -> Self {
        Self::new(epoch, Right::Prepared, tasks)
    }

    /// The fence is as the right asks for it: open for a copy that runs, else closed.
    const fn new(epoch: Epoch, right: Right, tasks: u32) -> Self {
        Self { epoch, right, tasks, fenced: !matches!(right, Right::Run) }
    }

    /// Highest epoch seen.
    pub const fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// What may be done.
    pub const fn right(&self) -> Right {
        self.right
    }

    /// Tasks of the copy when it was dumped or held, zombies not counted.
    pub const fn tasks(&self) -> u32 {
        self.tasks
    }

    /// Whether nothing may leave the copy: also for one that runs, between resume and open at a destination.
    pub const fn is_fenced(&self) -> bool {
        self.fenced
    }

    /// Whether the copy that is there may run, that is: be thawed.
    pub const fn may_run(&self) -> bool {
        matches!(self.right, Right::Run)
    }

    /// Whether a service that is not there may be started from its files, by its restart policy, its orchestrator or its
    /// user. Not before the fence may open: until then the restored copy counts, and if that dies the source's.
    pub const fn may_start(&self) -> bool {
        self.may_run() && !self.fenced
    }

    /// Whether the copy that is seen can be what the record says. One that waits for a decision is whole or dead; one
    /// that runs forks as it likes.
    pub const fn is_whole(&self, seen: Seen) -> bool {
        let counted = matches!(self.right, Right::Dumped | Right::Held);
        seen.alive && seen.tasks > 0 && (!counted || seen.tasks >= self.tasks)
    }
}

impl fmt::Display for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let fence = if self.fenced && self.may_run() { ", fenced" } else { "" };
        write!(f, "{}{fence} in epoch {}", self.right, self.epoch)
    }
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}({})", self.step, self.epoch)
    }
}

#[cfg(test)]
mod tests;
