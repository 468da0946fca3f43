//! What the source does: after a restart, when the destination says something, when somebody wants it to stop.

use super::{Own, Source, Stage, Step};
use crate::action::{Action, Alarm, Word};
use crate::facts::{Answer, CopyState};
use crate::names::Epoch;
use crate::standing::Record;

/// All that a source may know when it recovers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Facts {
    /// Its own copy, looked at now.
    pub own: CopyState,
    /// What the destination says about the epoch under way; `None` if it was not asked or does not answer.
    pub other: Option<Answer>,
}

impl Source {
    /// What to do after the Coordinator restarted or a step of the migration failed: everything in flight is gone,
    /// only the journal and the facts count. Safe to call again at any time.
    ///
    /// Without COMMIT and with its own copy alive the answer is always ABORT and thaw. The decisions that need the
    /// other side are repeated until it answers.
    pub fn recover(&self, facts: Facts) -> Vec<Action> {
        match (self.stage, facts.other) {
            (Stage::Preparing | Stage::Frozen | Stage::Held { own: Own::Alive }, other)
                if !self.is_contradicted_by(other) =>
            {
                self.give_up(facts)
            }
            _ => self.settle(facts),
        }
    }

    /// What to do when the destination says `answer` about `epoch`. In the ordinary course this is where COMMIT is
    /// decided: `Held` in [`Stage::Frozen`]. Late, repeated and foreign answers lead to nothing.
    pub fn receive(&self, own: CopyState, epoch: Epoch, answer: Answer) -> Vec<Action> {
        if epoch != self.epoch {
            return match answer {
                Answer::Running if epoch > self.epoch => supersede(epoch),
                // Held for an epoch that is over here: the destination has missed the decision.
                Answer::Held if epoch < self.epoch => vec![tell(epoch, Word::Abort)],
                _ => Vec::new(),
            };
        }
        let facts = Facts { own, other: Some(answer) };
        match (self.stage, answer) {
            (Stage::Frozen, Answer::Held) => self.commit(own, true),
            (Stage::Held { own: Own::Alive }, Answer::Held) => self.commit(own, false),
            (Stage::Preparing | Stage::Frozen | Stage::Held { own: Own::Alive }, _) => match answer {
                Answer::Refused | Answer::Aborted | Answer::Over | Answer::Lost => self.give_up(facts),
                _ if self.is_contradicted_by(Some(answer)) => self.settle(facts),
                _ => Vec::new(),
            },
            _ => self.settle(facts),
        }
    }

    /// What to do when the migration shall not go on (the user's wish, a deadline, a broken link). Empty if it is too
    /// late, that is from COMMIT on, or if the copy here is dead and the destination's may be the only one.
    pub fn abort(&self, own: CopyState) -> Vec<Action> {
        match self.stage {
            Stage::Preparing | Stage::Frozen | Stage::Held { own: Own::Alive } => {
                self.give_up(Facts { own, other: None })
            }
            _ => Vec::new(),
        }
    }

    /// What to do when the destination rejects the offer of `epoch`, having seen `highest`: the attempt ends, and the
    /// next one takes an epoch that is new to both.
    pub fn rejected(&self, own: CopyState, epoch: Epoch, highest: Epoch) -> Vec<Action> {
        if self.stage != Stage::Preparing || epoch != self.epoch || own == CopyState::Unknown {
            return Vec::new();
        }
        let mut actions = self.give_up(Facts { own, other: None });
        if highest > epoch {
            actions.push(Action::Write { record: Record::Source(Step::EpochSeen.at(highest)) });
        }
        actions
    }

    /// COMMIT, provided that the copy here has not run since it was dumped.
    fn commit(&self, own: CopyState, held_is_news: bool) -> Vec<Action> {
        match own {
            CopyState::Frozen => {}
            CopyState::Gone => {
                let mut actions = self.bury().to_vec();
                if held_is_news {
                    actions.push(self.write(Step::HeldArrived));
                }
                actions.extend([self.write(Step::CommitDecided), self.tell(Word::Commit)]);
                return actions;
            }
            // Something let it run after the dump: what the destination holds is out of date.
            CopyState::Running => return self.give_up(Facts { own, other: None }),
            CopyState::Unknown => return vec![self.report(Alarm::Stuck)],
        }
        let held = held_is_news.then(|| self.write(Step::HeldArrived));
        held.into_iter().chain([self.write(Step::CommitDecided), self.tell(Word::Commit)]).collect()
    }

    /// Before COMMIT: back to the source, if its copy is there.
    fn give_up(&self, facts: Facts) -> Vec<Action> {
        match facts.own {
            CopyState::Running | CopyState::Frozen => vec![
                self.write(Step::AbortDecided),
                Action::Thaw,
                Action::Open,
                self.write(Step::Thawed),
                self.tell(Word::Abort),
            ],
            // It ended by itself before anything was frozen: no state of the migration is lost.
            CopyState::Gone if self.stage == Stage::Preparing => {
                vec![self.write(Step::AbortDecided), self.write(Step::Thawed), self.tell(Word::Abort)]
            }
            CopyState::Gone => {
                let dead = Step::OwnCopyDead.at(self.epoch);
                let rest = self.apply(dead).map(|state| state.settle(facts)).unwrap_or_default();
                self.bury().into_iter().chain(rest).collect()
            }
            CopyState::Unknown => vec![self.report(Alarm::Stuck)],
        }
    }

    /// All states in which the facts alone decide.
    fn settle(&self, facts: Facts) -> Vec<Action> {
        let Facts { own, other } = facts;
        if self.is_contradicted_by(other) {
            return supersede(self.epoch);
        }
        match self.stage {
            Stage::Idle => match (own, other) {
                (_, Some(Answer::Held)) => vec![self.tell(Word::Abort)],
                (CopyState::Frozen, _) => vec![Action::Thaw, Action::Open],
                _ => Vec::new(),
            },
            // A run that goes on by itself: only `recover` and `abort` end it, and they never come here.
            Stage::Preparing | Stage::Frozen => Vec::new(),
            Stage::Stuck => match other {
                Some(Answer::Held) => vec![
                    self.write(Step::HeldArrived),
                    self.write(Step::CommitDecided),
                    self.tell(Word::Commit),
                ],
                Some(
                    Answer::Refused | Answer::Aborted | Answer::Over | Answer::Lost | Answer::NeverHeard,
                ) => self.lost(),
                _ => vec![self.report(Alarm::Stuck), self.tell(Word::Query)],
            },
            Stage::Held { .. } => match other {
                Some(Answer::Refused | Answer::Aborted | Answer::Over | Answer::Lost) => self.lost(),
                // HELD has no lease: it still stands, also where the destination cannot be reached now.
                _ => vec![self.write(Step::CommitDecided), self.tell(Word::Commit)],
            },
            Stage::Aborted { frozen } => match own {
                CopyState::Running | CopyState::Frozen => {
                    vec![Action::Thaw, Action::Open, self.write(Step::Thawed), self.tell(Word::Abort)]
                }
                CopyState::Gone if frozen => self.bury().into_iter().chain(self.say_lost()).collect(),
                CopyState::Gone => vec![self.write(Step::Thawed), self.tell(Word::Abort)],
                CopyState::Unknown => vec![self.report(Alarm::Stuck)],
            },
            Stage::Committed { own: known } => self.in_doubt(own, known, other),
            Stage::Refused { own: known } => self.take_back(own, known),
            Stage::Revoked => match own {
                CopyState::Running | CopyState::Frozen => {
                    vec![Action::Thaw, Action::Open, self.write(Step::Thawed)]
                }
                CopyState::Gone => self.bury().into_iter().chain(self.say_lost()).collect(),
                CopyState::Unknown => vec![self.report(Alarm::Stuck)],
            },
            Stage::Moved => vec![Action::Release, self.write(Step::StateReleased)],
            // The record was durable before the deed had ended everywhere; the deed is safe to repeat.
            Stage::Released if own != CopyState::Gone => vec![Action::Release],
            Stage::Released => Vec::new(),
            Stage::Superseded => vec![Action::Freeze, self.report(Alarm::Superseded)],
            // Until the destination has heard it, or has nothing left that would have to be told so.
            Stage::Lost => match other {
                Some(Answer::Lost | Answer::Over | Answer::NeverHeard) => vec![self.report(Alarm::Lost)],
                _ => self.say_lost().to_vec(),
            },
        }
    }

    /// COMMIT is durable: only the destination can end the doubt.
    fn in_doubt(&self, own: CopyState, known: Own, other: Option<Answer>) -> Vec<Action> {
        let mut actions: Vec<_> = freeze_if_needed(own).collect();
        if own == CopyState::Gone && known == Own::Alive {
            actions.extend(self.bury());
        }
        match other {
            Some(Answer::Running) => actions.extend([
                self.write(Step::RunningArrived),
                Action::Release,
                self.write(Step::StateReleased),
            ]),
            Some(Answer::Refused | Answer::Over | Answer::Lost) => {
                actions.push(self.write(Step::RefusedArrived));
                actions.extend(self.take_back(own, known));
            }
            // Stuck waits for an operator. Aborted cannot follow a COMMIT by the rules, so that journal was rolled
            // back, and its word is not enough to thaw.
            Some(Answer::Aborted | Answer::Stuck) => actions.push(self.report(Alarm::Stuck)),
            _ => actions.extend([self.tell(Word::Commit), self.report(Alarm::InDoubt)]),
        }
        actions
    }

    /// REFUSED is known: the service runs here again if its copy is there.
    fn take_back(&self, own: CopyState, known: Own) -> Vec<Action> {
        if own == CopyState::Gone || known == Own::Dead {
            let news = (known == Own::Alive && self.stage == Stage::Refused { own: Own::Alive })
                .then(|| self.bury());
            return news.into_iter().flatten().chain(self.lost()).collect();
        }
        if own == CopyState::Unknown {
            return vec![self.report(Alarm::Stuck)];
        }
        vec![self.write(Step::RevokedDecided), Action::Thaw, Action::Open, self.write(Step::Thawed)]
    }

    /// Whether the destination claims a run-right that this journal cannot have given: then the journal is older than
    /// the truth. RUNNING is final, so it counts whenever it comes; GRANTED may have ended in REFUSED since it was
    /// said, so it counts only where no COMMIT is known at all.
    fn is_contradicted_by(&self, other: Option<Answer>) -> bool {
        match self.stage {
            Stage::Idle
            | Stage::Preparing
            | Stage::Frozen
            | Stage::Stuck
            | Stage::Held { .. }
            | Stage::Aborted { .. } => matches!(other, Some(Answer::Granted | Answer::Running)),
            Stage::Refused { .. } | Stage::Revoked | Stage::Lost => other == Some(Answer::Running),
            Stage::Committed { .. } | Stage::Moved | Stage::Released | Stage::Superseded => false,
        }
    }

    /// The original is dead. Its nest may not know that it must stay so: it may have been about to thaw it, or to start
    /// it again by its restart policy, and another nest may read so in its record tomorrow. First that is taken from it.
    fn bury(&self) -> [Action; 2] {
        [Action::Bury, self.write(Step::OwnCopyDead)]
    }

    fn lost(&self) -> Vec<Action> {
        [self.write(Step::LostDeclared)].into_iter().chain(self.say_lost()).collect()
    }

    /// Here and there: the history of neither site may say that the service went on.
    fn say_lost(&self) -> [Action; 2] {
        [self.report(Alarm::Lost), self.tell(Word::Lost)]
    }

    fn write(&self, step: Step) -> Action {
        Action::Write { record: Record::Source(step.at(self.epoch)) }
    }

    fn tell(&self, word: Word) -> Action {
        tell(self.epoch, word)
    }

    fn report(&self, alarm: Alarm) -> Action {
        Action::Report { epoch: self.epoch, alarm }
    }
}

fn tell(epoch: Epoch, word: Word) -> Action {
    Action::Tell { epoch, word }
}

/// Frozen also where it stands still or is dead: what its nest may do with it is another matter.
fn supersede(epoch: Epoch) -> Vec<Action> {
    let written = Action::Write { record: Record::Source(Step::Superseded.at(epoch)) };
    vec![written, Action::Freeze, Action::Report { epoch, alarm: Alarm::Superseded }]
}

fn freeze_if_needed(own: CopyState) -> impl Iterator<Item = Action> {
    matches!(own, CopyState::Running | CopyState::Unknown).then_some(Action::Freeze).into_iter()
}
