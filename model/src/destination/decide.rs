//! What the destination does: after a restart, when the source says something, when a lease runs out.

use super::{Destination, Stage, Step, Tree};
use crate::action::{Action, Alarm, Word};
use crate::facts::{Answer, CopyState};
use crate::names::Epoch;
use crate::standing::Record;

/// All that a destination may know when it decides.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Facts {
    /// The copy here, looked at now.
    pub copy: CopyState,
    /// What the source says about the epoch under way; `None` if it was not asked or does not answer.
    pub other: Option<Answer>,
    /// Whether something outside of the service's own state is mounted writable into it
    /// ([`crate::spec::ServiceSpec::writes_outside`]).
    pub writes_outside: bool,
}

impl Destination {
    /// What to do after the Coordinator restarted or a restore failed: everything in flight is gone, only the journal
    /// and the facts count. Safe to call again at any time.
    pub fn recover(&self, facts: Facts) -> Vec<Action> {
        match self.stage {
            // What is being built does not run: the journal is older than the grant. Nobody may be told that nothing of it is
            // here.
            Stage::Reserved { .. } | Stage::Restoring { .. } if facts.copy == CopyState::Running => {
                let declared = [self.write(Step::StuckDeclared), Action::Freeze];
                declared
                    .into_iter()
                    .chain([self.state(Answer::Stuck), self.report(Alarm::Contradiction)])
                    .collect()
            }
            // What was streaming in is lost, so this attempt cannot be finished; the source is told soon.
            Stage::Reserved { .. } | Stage::Restoring { .. } => self.refused().to_vec(),
            _ => self.settle(facts),
        }
    }

    /// What to do when the source says `word` about `epoch`. Late, repeated and foreign words lead to an answer at
    /// most. The caller has made sure that it is the source of this migration who speaks, and for [`Word::Offer`]
    /// that the service would be welcome; `lease_ms` is the lease that it is willing to give.
    pub fn receive(&self, facts: Facts, epoch: Epoch, word: Word, lease_ms: u64) -> Vec<Action> {
        match word {
            Word::Offer => self.offered(epoch, lease_ms),
            Word::Abort => self.aborted(epoch),
            Word::Commit => self.committed(facts, epoch),
            Word::Lost => self.lost(facts.copy, epoch),
            Word::Query => vec![self.about(epoch)],
            Word::State { answer } if epoch == self.epoch => match self.stage {
                // Only a HELD tree depends on what the source's journal says.
                Stage::Held { .. } => self.settle(Facts { other: Some(answer), ..facts }),
                _ => Vec::new(),
            },
            Word::State { .. } | Word::Accept | Word::Reject { .. } => Vec::new(),
        }
    }

    /// What to do when the lease ran out. Empty from HELD on: there is no lease any more.
    pub fn lease_expired(&self) -> Vec<Action> {
        match self.stage {
            Stage::Reserved { .. } | Stage::Restoring { .. } => {
                vec![self.write(Step::LeaseExpired), Action::Discard, self.state(Answer::Aborted)]
            }
            _ => Vec::new(),
        }
    }

    fn offered(&self, epoch: Epoch, lease_ms: u64) -> Vec<Action> {
        let accept = [write(Step::Offered { lease_ms }, epoch), tell(epoch, Word::Accept)];
        if epoch == self.epoch && matches!(self.stage, Stage::Reserved { .. }) {
            return vec![tell(epoch, Word::Accept)];
        }
        if epoch <= self.epoch {
            return vec![tell(epoch, Word::Reject { highest: self.epoch })];
        }
        match self.stage {
            Stage::Idle | Stage::Refused | Stage::Aborted | Stage::Lost => accept.to_vec(),
            // A source that begins a newer epoch has ended the older one without COMMIT: it could not leave a
            // committed one without an answer that was never given here.
            Stage::Reserved { .. } | Stage::Restoring { .. } | Stage::Held { .. } => {
                [self.write(Step::AbortReceived), Action::Discard].into_iter().chain(accept).collect()
            }
            Stage::CommitSeen { .. } | Stage::Granted { .. } | Stage::Running | Stage::Stuck => {
                vec![tell(epoch, Word::Reject { highest: self.epoch }), self.report(Alarm::Contradiction)]
            }
        }
    }

    fn aborted(&self, epoch: Epoch) -> Vec<Action> {
        if epoch > self.epoch {
            // The offer is still on its way, or never comes: a tombstone, so that it cannot be accepted later.
            return if self.is_resting() {
                vec![write(Step::AbortReceived, epoch), tell(epoch, Word::State { answer: Answer::Aborted })]
            } else {
                vec![self.about(epoch)]
            };
        }
        if epoch < self.epoch {
            return vec![self.about(epoch)];
        }
        match self.stage {
            Stage::Reserved { .. } | Stage::Restoring { .. } | Stage::Held { .. } => self.discard_aborted(),
            Stage::CommitSeen { .. } | Stage::Granted { .. } | Stage::Running => {
                vec![self.report(Alarm::Contradiction), self.about(epoch)]
            }
            Stage::Idle | Stage::Refused | Stage::Aborted | Stage::Lost | Stage::Stuck => {
                vec![self.about(epoch)]
            }
        }
    }

    /// The source says that no copy is left. It could not say so without a final no of this site, or an ABORT of its
    /// own: whatever has not ended here by then is aborted.
    fn lost(&self, copy: CopyState, epoch: Epoch) -> Vec<Action> {
        if epoch > self.epoch && self.is_resting() {
            return vec![write(Step::LostHeard, epoch), tell(epoch, Word::State { answer: Answer::Lost })];
        }
        if epoch != self.epoch {
            return vec![self.about(epoch)];
        }
        let heard = [self.report(Alarm::Lost), self.state(Answer::Lost)];
        match self.stage {
            Stage::Reserved { .. } | Stage::Restoring { .. } | Stage::Held { .. } => {
                [self.write(Step::AbortReceived), self.write(Step::LostHeard), Action::Discard]
                    .into_iter()
                    .chain(heard)
                    .collect()
            }
            Stage::Refused | Stage::Aborted => {
                [self.write(Step::LostHeard)].into_iter().chain(discard_rest(copy)).chain(heard).collect()
            }
            Stage::Lost => discard_rest(copy).chain(heard).collect(),
            Stage::CommitSeen { .. } | Stage::Granted { .. } | Stage::Running => {
                vec![self.report(Alarm::Contradiction), self.about(epoch)]
            }
            // Removed since, or an operator's matter.
            Stage::Idle | Stage::Stuck => vec![self.about(epoch)],
        }
    }

    fn committed(&self, facts: Facts, epoch: Epoch) -> Vec<Action> {
        if epoch > self.epoch && self.is_resting() {
            // Committed, but nothing of it is here: this journal or this machine lost it.
            return match facts.copy {
                CopyState::Gone => vec![
                    write(Step::RefusedWritten, epoch),
                    tell(epoch, Word::State { answer: Answer::Refused }),
                ],
                _ => vec![Action::Report { epoch, alarm: Alarm::Stuck }],
            };
        }
        if epoch != self.epoch {
            return vec![self.about(epoch)];
        }
        match self.stage {
            Stage::Held { .. } => self.settle(Facts { other: Some(Answer::Committed), ..facts }),
            // A journal that was rolled back to before HELD: the tree cannot be trusted any more.
            Stage::Reserved { .. } | Stage::Restoring { .. } => self.recover(facts),
            Stage::CommitSeen { .. } | Stage::Granted { .. } => self.settle(facts),
            Stage::Idle | Stage::Running | Stage::Refused | Stage::Aborted | Stage::Lost | Stage::Stuck => {
                vec![self.about(epoch)]
            }
        }
    }

    /// All states in which journal and facts alone decide.
    fn settle(&self, facts: Facts) -> Vec<Action> {
        match self.stage {
            Stage::Idle => match facts.copy {
                CopyState::Gone => Vec::new(),
                // Something runs or stands here of which the journal knows nothing: keep it, but still.
                _ => vec![Action::Freeze, self.report(Alarm::Contradiction)],
            },
            Stage::Reserved { .. } | Stage::Restoring { .. } => Vec::new(),
            Stage::Held { tree } => self.held(facts, tree),
            Stage::CommitSeen { tree } => match copy_of(facts.copy, tree) {
                CopyState::Gone => self.refuse(tree),
                CopyState::Unknown => vec![self.report(Alarm::Stuck)],
                CopyState::Running | CopyState::Frozen => {
                    [self.write(Step::GrantWritten)].into_iter().chain(self.resume()).collect()
                }
            },
            Stage::Granted { tree, .. } => match copy_of(facts.copy, tree) {
                CopyState::Gone if facts.writes_outside => self
                    .tree_gone(tree)
                    .chain([
                        self.write(Step::StuckDeclared),
                        self.state(Answer::Stuck),
                        self.report(Alarm::Stuck),
                    ])
                    .collect(),
                CopyState::Gone => self.refuse(tree),
                CopyState::Unknown => vec![self.report(Alarm::Stuck)],
                CopyState::Running | CopyState::Frozen => self.resume(),
            },
            Stage::Running => match facts.copy {
                CopyState::Frozen => vec![Action::Thaw, Action::Open, self.state(Answer::Running)],
                CopyState::Running => vec![Action::Open, self.state(Answer::Running)],
                // It ended by itself; that is its restart policy's matter.
                CopyState::Gone | CopyState::Unknown => vec![self.state(Answer::Running)],
            },
            Stage::Refused => self.discard_again(facts.copy, Answer::Refused),
            Stage::Aborted => self.discard_again(facts.copy, Answer::Aborted),
            Stage::Lost => discard_rest(facts.copy).chain([self.report(Alarm::Lost)]).collect(),
            Stage::Stuck => vec![self.report(Alarm::Stuck)],
        }
    }

    /// HELD: only the source's word or the proof that the tree is gone leads out.
    fn held(&self, facts: Facts, tree: Tree) -> Vec<Action> {
        let copy = copy_of(facts.copy, tree);
        match (copy, facts.other) {
            (_, Some(Answer::Aborted | Answer::Over)) => self.discard_aborted(),
            (CopyState::Gone, _) => self.refuse(tree),
            (CopyState::Unknown, _) => vec![self.report(Alarm::Stuck)],
            // It was thawed by something else: what it holds may differ from what was dumped, and nothing came out.
            (CopyState::Running, _) => vec![Action::Freeze, self.report(Alarm::Contradiction)],
            (CopyState::Frozen, Some(Answer::Committed)) => {
                [self.write(Step::CommitReceived), self.write(Step::GrantWritten)]
                    .into_iter()
                    .chain(self.resume())
                    .collect()
            }
            // The source's journal has lost what it decided: its word is not enough to destroy what may be the only copy.
            (CopyState::Frozen, Some(Answer::NeverHeard | Answer::Stuck)) => vec![self.report(Alarm::Stuck)],
            (CopyState::Frozen, _) => vec![self.state(Answer::Held), tell(self.epoch, Word::Query)],
        }
    }

    /// From a durable GRANTED to the open fence.
    fn resume(&self) -> Vec<Action> {
        vec![
            Action::Thaw,
            self.write(Step::Thawed),
            self.write(Step::RunningWritten),
            Action::Open,
            self.state(Answer::Running),
        ]
    }

    fn refuse(&self, tree: Tree) -> Vec<Action> {
        self.tree_gone(tree).chain(self.refused()).collect()
    }

    /// The deed first: it is the nest that knows whether the copy may run, or be started, and then it refuses. Where this
    /// journal is older than a grant, a REFUSED without that would let the source run a second one.
    fn refused(&self) -> [Action; 3] {
        [Action::Discard, self.write(Step::RefusedWritten), self.state(Answer::Refused)]
    }

    fn tree_gone(&self, tree: Tree) -> impl Iterator<Item = Action> {
        (tree == Tree::Alive).then(|| self.write(Step::TreeGone)).into_iter()
    }

    fn discard_aborted(&self) -> Vec<Action> {
        vec![self.write(Step::AbortReceived), Action::Discard, self.state(Answer::Aborted)]
    }

    /// A tombstone whose deed may not have ended everywhere.
    fn discard_again(&self, copy: CopyState, answer: Answer) -> Vec<Action> {
        discard_rest(copy).chain([self.state(answer)]).collect()
    }

    /// What the journal says about `epoch`, told.
    fn about(&self, epoch: Epoch) -> Action {
        tell(epoch, Word::State { answer: self.answer(epoch) })
    }

    fn state(&self, answer: Answer) -> Action {
        tell(self.epoch, Word::State { answer })
    }

    fn write(&self, step: Step) -> Action {
        write(step, self.epoch)
    }

    fn report(&self, alarm: Alarm) -> Action {
        Action::Report { epoch: self.epoch, alarm }
    }
}

fn discard_rest(copy: CopyState) -> impl Iterator<Item = Action> {
    (copy != CopyState::Gone).then_some(Action::Discard).into_iter()
}

/// What the journal knows to be gone stays gone.
fn copy_of(copy: CopyState, tree: Tree) -> CopyState {
    match tree {
        Tree::Alive => copy,
        Tree::Gone => CopyState::Gone,
    }
}

fn write(step: Step, epoch: Epoch) -> Action {
    Action::Write { record: Record::Destination(step.at(epoch)) }
}

fn tell(epoch: Epoch, word: Word) -> Action {
    Action::Tell { epoch, word }
}
