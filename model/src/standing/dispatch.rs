//! Which half of the rules answers: the same three questions for whichever role the site plays.

use super::{Role, Standing};
use crate::action::{Action, Word};
use crate::destination::{self, Destination};
use crate::facts::{Answer, CopyState};
use crate::names::Epoch;
use crate::source;

/// All that a site may know when it decides.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Facts {
    /// The copy here, looked at now.
    pub copy: CopyState,
    /// What the other site says about [`Standing::epoch`]; `None` if it was not asked or does not answer.
    pub other: Option<Answer>,
    /// Whether something outside of the service's own state is mounted writable into it
    /// ([`crate::spec::ServiceSpec::writes_outside`]).
    pub writes_outside: bool,
}

impl Standing {
    /// What to do after a restart or a failed step. See [`source::Source::recover`] and [`Destination::recover`].
    pub fn recover(&self, facts: Facts) -> Vec<Action> {
        match &self.role {
            Role::Source(source) => source.recover(source::Facts { own: facts.copy, other: facts.other }),
            Role::Destination(destination) => destination.recover(facts.into()),
        }
    }

    /// What to do when the other site says `word` about `epoch`; `facts.other` is ignored. `lease_ms` is the lease
    /// that would be given to an offer. A site that cannot take the service for other reasons than these (its ports
    /// are taken, its policy says no) does not ask here but rejects.
    pub fn receive(&self, facts: Facts, epoch: Epoch, word: Word, lease_ms: u64) -> Vec<Action> {
        let about = || {
            let word = Word::State { answer: self.answer(epoch) };
            vec![Action::Tell { epoch, word }]
        };
        match (&self.role, word) {
            // Answered from all that was, not only from what is under way.
            (_, Word::Query) => about(),
            (_, Word::Abort | Word::Commit | Word::Lost) if self.arrivals.contains(&epoch) => about(),
            (Role::Source(source), Word::State { answer }) => source.receive(facts.copy, epoch, answer),
            (Role::Source(source), Word::Offer | Word::Abort | Word::Commit | Word::Lost) => {
                match (source.stage(), word) {
                    (source::Stage::Released, _) => {
                        Destination::absent(source.epoch()).receive(facts.into(), epoch, word, lease_ms)
                    }
                    (_, Word::Offer) => {
                        vec![Action::Tell { epoch, word: Word::Reject { highest: source.epoch() } }]
                    }
                    _ => about(),
                }
            }
            (Role::Source(source), Word::Reject { highest }) => source.rejected(facts.copy, epoch, highest),
            (Role::Source(_), Word::Accept) => Vec::new(),
            (Role::Destination(destination), _) => destination.receive(facts.into(), epoch, word, lease_ms),
        }
    }
}

impl From<Facts> for destination::Facts {
    fn from(facts: Facts) -> Self {
        Self { copy: facts.copy, other: facts.other, writes_outside: facts.writes_outside }
    }
}
