//! One service at one site, through all its migrations: now source, now destination, now neither.
//!
//! [`Standing`] is the fold over *all* journal records of a service's name at a site. It owns the change of roles (a
//! destination whose RUNNING is durable becomes the source of the next migration, a released source may be asked to
//! take the service back) and what must outlive them: the newest epoch ever seen, and which epochs ever ran here.
//!
//! A Coordinator keeps one per service and uses it in one way only: it asks [`Standing::recover`] or
//! [`Standing::receive`] for a list of [actions](crate::action), and carries the list out; for each record it appends
//! to the journal, waits until that is durable, and then replaces the state by [`Standing::apply`]. The steps of a
//! migration that the rules do not propose (`Started`, `FreezeBegun`, `RestoreBegun`, `HeldReached`) it appends the
//! same way when it takes them. After a restart [`Standing::replay`] gives the state back.

mod dispatch;

use std::collections::BTreeSet;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::destination::{self, Destination};
use crate::facts::Answer;
use crate::illegal::IllegalEvent;
use crate::names::Epoch;
use crate::source::{self, Source};

pub use dispatch::Facts;

/// What the journal of a site says about one service's name. The default is a name that was never heard of.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
pub struct Standing {
    #[serde(flatten)]
    role: Role,
    /// Epochs whose RUNNING was written here. RUNNING is final, so it must be answered for ever, also after the
    /// service has moved on; eight bytes per migration that ended here.
    arrivals: BTreeSet<Epoch>,
}

/// Which half of the commit the site plays, or played last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(tag = "role", rename_all = "kebab-case")]
pub enum Role {
    /// The service is or was at home here.
    Source(Source),
    /// The service comes, came, or was never here.
    Destination(Destination),
}

/// One record of the journal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(tag = "record", rename_all = "kebab-case")]
pub enum Record {
    /// The service was created here by a user.
    Created,
    /// The service was removed here by a user. Written when its copy is gone, for a copy of which the journal knows
    /// nothing is never destroyed. The newest epoch is remembered.
    Removed,
    /// A step of the source.
    Source(source::Event),
    /// A step of the destination.
    Destination(destination::Event),
}

words! {
    /// What a nest is told that starts and asks whether it may run its service. The epoch goes beside it.
    pub enum RunRight ("run right") {
        /// Run it; if it is not there, start it.
        Run = "run",
        /// Keep a copy that is there exactly as it is; never start one. The Coordinator thaws or discards it.
        Hold = "hold",
        /// This is the destination of a migration: wait for a restore, never start anything.
        Restore = "restore",
        /// It runs at another site: serve as a relay, never start it.
        Moved = "moved",
        /// The service is none of this site's business.
        None = "none",
    }
}

impl Default for Standing {
    fn default() -> Self {
        Self { role: Role::Destination(Destination::absent(Epoch::ZERO)), arrivals: BTreeSet::new() }
    }
}

impl Standing {
    /// Which half of the commit the site plays, or played last.
    pub const fn role(&self) -> &Role {
        &self.role
    }

    /// The newest epoch seen.
    pub const fn epoch(&self) -> Epoch {
        match &self.role {
            Role::Source(source) => source.epoch(),
            Role::Destination(destination) => destination.epoch(),
        }
    }

    /// Whether the unrevoked run-right is here. At most one site ever says yes.
    pub const fn has_right(&self) -> bool {
        match &self.role {
            Role::Source(source) => source.has_right(),
            Role::Destination(destination) => destination.has_right(),
        }
    }

    /// Whether the copy here may run, that is: be thawed.
    pub const fn may_run(&self) -> bool {
        match &self.role {
            Role::Source(source) => source.may_run(),
            Role::Destination(destination) => destination.may_run(),
        }
    }

    /// Whether the service is at home here and not in a migration, so that one may start.
    pub const fn is_home(&self) -> bool {
        match &self.role {
            Role::Source(source) => matches!(source.stage(), source::Stage::Idle),
            Role::Destination(destination) => matches!(destination.stage(), destination::Stage::Running),
        }
    }

    /// What a nest is told that asks for the run-right.
    pub const fn run_right(&self) -> RunRight {
        use destination::Stage as D;
        use source::Stage as S;
        match &self.role {
            Role::Source(source) => match source.stage() {
                S::Idle | S::Preparing => RunRight::Run,
                S::Moved | S::Released => RunRight::Moved,
                S::Frozen
                | S::Stuck
                | S::Held { .. }
                | S::Aborted { .. }
                | S::Committed { .. }
                | S::Refused { .. }
                | S::Revoked
                | S::Superseded
                | S::Lost => RunRight::Hold,
            },
            Role::Destination(destination) => match destination.stage() {
                D::Running => RunRight::Run,
                D::Reserved { .. }
                | D::Restoring { .. }
                | D::Held { .. }
                | D::CommitSeen { .. }
                | D::Granted { .. } => RunRight::Restore,
                D::Stuck => RunRight::Hold,
                D::Idle | D::Refused | D::Aborted | D::Lost => RunRight::None,
            },
        }
    }

    /// What this journal says about `epoch`.
    pub fn answer(&self, epoch: Epoch) -> Answer {
        if self.arrivals.contains(&epoch) {
            return Answer::Running;
        }
        match &self.role {
            Role::Source(source) => source.answer(epoch),
            Role::Destination(destination) => destination.answer(epoch),
        }
    }

    /// The state after `record`. On `Err` the rule that forbids it is named and nothing has changed.
    pub fn apply(&self, record: Record) -> Result<Self, IllegalEvent> {
        let role = match record {
            Record::Created => self.created()?,
            Record::Removed => self.removed()?,
            Record::Source(event) => Role::Source(self.as_source(event)?.apply(event)?),
            Record::Destination(event) => Role::Destination(self.as_destination(event)?.apply(event)?),
        };
        let mut arrivals = self.arrivals.clone();
        if let Role::Destination(destination) = role
            && destination.stage() == destination::Stage::Running
        {
            arrivals.insert(destination.epoch());
        }
        Ok(Self { role, arrivals })
    }

    /// Whether a Coordinator that comes back asks the other site before it thaws what its journal lets it thaw: an operator may
    /// have decided there meanwhile, or this journal is an older copy. Without an answer it goes on.
    pub const fn asks_on_return(&self) -> bool {
        use source::Stage::{Aborted, Frozen, Held, Preparing};
        match &self.role {
            Role::Source(half) => matches!(half.stage(), Preparing | Frozen | Held { .. } | Aborted { .. }),
            Role::Destination(_) => false,
        }
    }

    /// What a nest means that has seen `epoch`, newer than all that this journal knows. The journal is written before a nest
    /// hears of an epoch, so this one was put back to an older copy, or begun anew. What was decided since is not known here:
    /// the service may have been given away. The records lead to a copy that is kept, stopped, for an operator; `None` where
    /// the rules allow none, because the service is on its way in and nothing of it may run anyway.
    pub fn overtaken(&self, epoch: Epoch) -> Option<Vec<Record>> {
        let superseded = Record::Source(source::Step::Superseded.at(epoch));
        let after = |records: &Vec<Record>| {
            records.iter().try_fold(self.clone(), |standing, record| standing.apply(*record))
        };
        // A name that rests, or was never heard of, has a copy all the same.
        let ways = [vec![superseded], vec![Record::Created, superseded]];
        ways.into_iter().find(|records| after(records).is_ok())
    }

    /// The state after all of `records`, from a name that was never heard of. This is recovery: replay.
    pub fn replay(records: impl IntoIterator<Item = Record>) -> Result<Self, IllegalEvent> {
        records.into_iter().try_fold(Self::default(), |state, record| state.apply(record))
    }

    fn created(&self) -> Result<Role, IllegalEvent> {
        match &self.role {
            Role::Destination(destination) if destination.is_resting() => {
                // What other sites may still say about an older service of this name is not about the new one, so
                // the new one begins behind everything that was seen.
                let seen = destination.epoch();
                let first = if seen == Epoch::ZERO { seen } else { seen.next() };
                Ok(Role::Source(Source::at_home(first)))
            }
            _ => {
                Err(self.illegal("created", "a service of this name is here, on its way, or was not removed"))
            }
        }
    }

    fn removed(&self) -> Result<Role, IllegalEvent> {
        let ended = match &self.role {
            Role::Source(source) => matches!(
                source.stage(),
                source::Stage::Released | source::Stage::Lost | source::Stage::Superseded
            ),
            Role::Destination(destination) => destination.is_resting(),
        };
        if self.is_home() || ended {
            Ok(Role::Destination(Destination::absent(self.epoch())))
        } else {
            Err(self.illegal("removed", "a service in a migration cannot be removed"))
        }
    }

    /// The source that `event` is about: a destination that runs the service is the source of what comes next.
    fn as_source(&self, event: source::Event) -> Result<Source, IllegalEvent> {
        match &self.role {
            Role::Source(source) => Ok(*source),
            Role::Destination(destination) if destination.stage() == destination::Stage::Running => {
                Ok(Source::at_home(destination.epoch()))
            }
            Role::Destination(_) => Err(self.illegal(&event.to_string(), "the service is not at home here")),
        }
    }

    /// The destination that `event` is about: a source that has released the service may get it back.
    fn as_destination(&self, event: destination::Event) -> Result<Destination, IllegalEvent> {
        match &self.role {
            Role::Destination(destination) => Ok(*destination),
            Role::Source(source) if source.stage() == source::Stage::Released => {
                Ok(Destination::absent(source.epoch()))
            }
            Role::Source(_) => Err(self.illegal(&event.to_string(), "the service is still here")),
        }
    }

    fn illegal(&self, event: &str, rule: &'static str) -> IllegalEvent {
        IllegalEvent { state: self.to_string(), event: event.to_owned(), rule }
    }
}

impl fmt::Display for Standing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.role {
            Role::Source(source) => source.fmt(f),
            Role::Destination(destination) => destination.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests;
