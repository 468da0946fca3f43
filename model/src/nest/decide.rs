//! What a nest does: for every wish, and when it starts where another has died.

use std::cmp::Ordering;
use std::fmt;

use thiserror::Error;

use super::{Event, IllegalNestEvent, Record, Right, Step};
use crate::names::Epoch;

/// What a nest is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Wish {
    /// Start the service from its files: by its restart policy, its orchestrator, or its user.
    Start,
    /// Freeze the service and dump it.
    Dump,
    /// Let the original run again: after ABORT or REVOKED.
    Thaw,
    /// Give back the right to be started: the journal says that the service is at home here.
    ComeHome,
    /// Take away the right to run the copy or to start it, and stop what runs.
    Freeze,
    /// End the original: after RUNNING.
    Release,
    /// Prepare a restore.
    Arm {
        /// Tasks that the restored copy will have.
        tasks: u32,
    },
    /// Restore, into HELD.
    Restore,
    /// Let the held copy run, unheard: after GRANTED.
    Resume,
    /// Open the fence: after RUNNING.
    Open,
    /// End the copy: after ABORTED or REFUSED.
    Discard,
}

/// What a nest sees of its copy, now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Seen {
    /// Whether its first process lives.
    pub alive: bool,
    /// Tasks in its cgroup.
    pub tasks: u32,
}

/// What is to be done: make the record durable first, then the deed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Decision {
    /// What happens to the record; `None` if it stays.
    pub record: Option<Event>,
    /// What follows.
    pub deed: Deed,
}

/// A deed. Each is safe to repeat, and to be interrupted anywhere if it is begun again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Deed {
    /// Nothing is left to be done.
    Nothing,
    /// Start the service from its files.
    Start,
    /// Freeze and dump; at its end comes [`Step::DumpComplete`], and only then the end of the dump is sent.
    Dump,
    /// Thaw, with the fence as the record says, and drop what a dump has left.
    LetRun,
    /// Close the fence and freeze.
    StandStill,
    /// Prepare a restore.
    Arm,
    /// Drop what was prepared for a restore.
    Disarm,
    /// Restore; at its end comes [`Step::HeldReached`], and only then HELD is said.
    Restore,
    /// Thaw behind the fence.
    Resume,
    /// Open the fence.
    Open,
    /// End every task of the copy without letting it run, and prove that none is left.
    End,
}

/// What a nest does not do. Nothing has happened.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Refusal {
    /// A rule forbids it.
    #[error("the copy here is {}: {}", .0.record, .0.rule)]
    Rule(IllegalNestEvent),
    /// The record is in the way.
    #[error("the copy here is {record}")]
    Unfit {
        /// The record.
        record: Record,
    },
    /// The copy that it is about is dead or not whole any more.
    #[error("{left} of {tasks} tasks are left: the copy is dead")]
    Dead {
        /// Tasks that it had.
        tasks: u32,
        /// Tasks that are left.
        left: u32,
    },
}

/// What discarding an epoch means for the copy that is here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// It is of that epoch or an older one, and can never run.
    Ends,
    /// It is of another epoch, and there is none of that one.
    IsAnother,
    /// It has run in that epoch or later, or may.
    MayRun,
}

impl fmt::Display for Wish {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Start => "start",
            Self::Dump => "dump",
            Self::Thaw => "thaw",
            Self::ComeHome => "take home",
            Self::Freeze => "freeze",
            Self::Release => "release",
            Self::Arm { .. } => "prepare a restore of",
            Self::Restore => "restore",
            Self::Resume => "resume",
            Self::Open => "open the fence of",
            Self::Discard => "discard",
        })
    }
}

impl Record {
    /// What to do about `wish` in `epoch`. For [`Wish::Start`] the epoch means nothing. Every wish is safe to repeat.
    pub fn decide(self, epoch: Epoch, wish: Wish, seen: Seen) -> Result<Decision, Refusal> {
        let unfit = Err(Refusal::Unfit { record: self });
        let (step, deed) = match wish {
            Wish::Start if !self.may_start() => return unfit,
            Wish::Start => {
                let deed = if seen.alive { Deed::Nothing } else { Deed::Start };
                return Ok(Decision { record: None, deed });
            }
            Wish::Dump => (Step::DumpBegun, Deed::Dump),
            Wish::Thaw => (Step::ThawBegun, Deed::LetRun),
            Wish::ComeHome => (Step::CameHome, Deed::LetRun),
            Wish::Freeze if self.is_whole(seen) && self.right != Right::Discarded => {
                (Step::FreezeBegun { tasks: seen.tasks }, Deed::StandStill)
            }
            // What is dead cannot stand still; but nobody shall start it either.
            Wish::Freeze => (Step::GivenUp, Deed::End),
            Wish::Release => (Step::ReleaseBegun, Deed::End),
            Wish::Arm { tasks } => (Step::Armed { tasks }, Deed::Arm),
            Wish::Restore => (Step::RestoreBegun, Deed::Restore),
            Wish::Resume if self.right == Right::Held && !self.is_whole(seen) && epoch == self.epoch => {
                return Err(Refusal::Dead { tasks: self.tasks, left: seen.tasks });
            }
            Wish::Resume => (Step::ResumeBegun, Deed::Resume),
            Wish::Open => (Step::Opened, Deed::Open),
            Wish::Discard => (Step::DiscardBegun, Deed::End),
        };
        let event = step.at(epoch);
        let after = self.apply(event).map_err(Refusal::Rule)?;
        // Where a resume or an open is repeated there is nothing new to write, and no disk to wait for.
        let repeated = after == self && matches!(wish, Wish::Resume | Wish::Open);
        Ok(Decision { record: (!repeated).then_some(event), deed })
    }

    /// What a nest does that starts where another has died, before it serves anybody. The predecessor may have died
    /// before, in, or after the deed that this record granted.
    pub const fn settle(self) -> Decision {
        let (step, deed) = match self.right {
            Right::Run => (None, Deed::LetRun),
            // Nobody can have committed to a dump that was not complete.
            Right::Dumping => (Some(Step::ThawBegun), Deed::LetRun),
            Right::Dumped | Right::Held => (None, Deed::StandStill),
            Right::Prepared => (None, Deed::Disarm),
            // The restore may have gone on to frozen without its nest; it was never HELD.
            Right::Restoring => (Some(Step::DiscardBegun), Deed::End),
            Right::Discarded => (None, Deed::End),
        };
        let record = match step {
            Some(step) => Some(step.at(self.epoch)),
            None => None,
        };
        Decision { record, deed }
    }

    /// What discarding `epoch` means for the copy that is here.
    pub fn fate(self, epoch: Epoch) -> Fate {
        let never_heard = match self.right {
            Right::Prepared | Right::Restoring | Right::Held | Right::Discarded => true,
            Right::Run => self.fenced,
            Right::Dumping | Right::Dumped => false,
        };
        let is_undecided = matches!(self.right, Right::Held | Right::Run);
        match self.epoch.cmp(&epoch) {
            // An undecided copy of an older epoch is not this one's to end.
            Ordering::Less if never_heard && !is_undecided => Fate::Ends,
            Ordering::Less => Fate::IsAnother,
            Ordering::Equal if never_heard => Fate::Ends,
            // It was replaced by a later attempt.
            Ordering::Greater if never_heard => Fate::IsAnother,
            Ordering::Equal | Ordering::Greater => Fate::MayRun,
        }
    }
}
