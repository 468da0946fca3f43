//! What the rules tell a Coordinator to do.
//!
//! A list of actions is done in order, each to its end before the next begins. [`Action::Write`] is at its end only
//! when the record is durable: write first, act second. If one fails or the Coordinator dies in between, the rest is
//! dropped and recovery asks the rules again: every action is safe to repeat.

use serde::{Deserialize, Serialize};

use crate::facts::Answer;
use crate::names::Epoch;
use crate::standing::Record;

/// One thing to do for one service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Action {
    /// Make this record durable in the journal. Neighbouring writes may share one transaction.
    Write {
        /// The record.
        record: Record,
    },
    /// Take from the nest the right to run the copy here, durably, freeze it, and read back that it is frozen.
    Freeze,
    /// Have it made certain that the dead copy here is never started again: not by its restart policy, by a nest that
    /// starts, or by a host that boots. Not done if it turns out that the copy lives.
    Bury,
    /// Let the copy here run: thaw its cgroup and resume what was stopped in it.
    Thaw,
    /// Lift the fence: let the copy here speak and be spoken to.
    Open,
    /// Destroy the copy here silently, behind the fence, and prove that no task is left; give back what was reserved.
    Discard,
    /// Give up the state of the original after its successor runs: the silent end of its tasks, its memory, its files.
    Release,
    /// Say this to the other site. May get lost; whoever needs an answer says it again.
    Tell {
        /// About which epoch.
        epoch: Epoch,
        /// What to say.
        word: Word,
    },
    /// Say this to people, loudly.
    Report {
        /// About which epoch.
        epoch: Epoch,
        /// What to say.
        alarm: Alarm,
    },
}

/// The safety core of what two sites say to each other; the messages on the wire carry more than this.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(tag = "word", rename_all = "kebab-case")]
pub enum Word {
    /// Source: would you take the service with this epoch?
    Offer,
    /// Destination: reserved, for the length of the lease.
    Accept,
    /// Destination: not with this epoch.
    Reject {
        /// The newest epoch it has seen: the next offer must be newer.
        highest: Epoch,
    },
    /// Source: it is decided, against. Answered with [`Word::State`].
    Abort,
    /// Source: it is decided, for: run it. Answered with [`Word::State`].
    Commit,
    /// Source: no copy is left, here or there. Answered with [`Word::State`], and repeated until the answer says that it
    /// was heard.
    Lost,
    /// Either: what do you know about this epoch? Answered with [`Word::State`].
    Query,
    /// Either: what this site's journal says about the epoch.
    State {
        /// The answer.
        answer: Answer,
    },
}

words! {
    /// What people must be told.
    pub enum Alarm ("alarm") {
        /// COMMIT is durable and the destination's answer is outstanding; recovery goes on by itself.
        InDoubt = "in-doubt",
        /// Nobody may run the service until the other site answers or an operator decides.
        Stuck = "stuck",
        /// What is decided cannot be carried out at this site, and the site says why; it is tried again.
        Blocked = "blocked",
        /// Both copies are gone.
        Lost = "lost",
        /// The other site has a newer decision than this journal: the copy here was frozen.
        Superseded = "superseded",
        /// The other site said what the rules exclude. Nothing was done about it.
        Contradiction = "contradiction",
    }
}
