use std::collections::BTreeSet;

use super::*;
use crate::action::{Action, Alarm, Word};
use crate::facts::CopyState;
use crate::standing::Record;

const E: Epoch = Epoch(5);

/// The source after these steps of epoch 5.
fn after(steps: &[Step]) -> Source {
    Source::at_home(Epoch(4)).fold(steps.iter().map(|step| step.at(E))).unwrap()
}

fn refuses(state: Source, step: Step) {
    let error = state.apply(step.at(state.epoch())).unwrap_err();
    assert!(!error.rule.is_empty() && error.to_string().contains(error.rule));
}

const FROZEN: &[Step] = &[Step::Started, Step::FreezeBegun];
const HELD: &[Step] = &[Step::Started, Step::FreezeBegun, Step::HeldArrived];
const COMMITTED: &[Step] = &[Step::Started, Step::FreezeBegun, Step::HeldArrived, Step::CommitDecided];

/// Every step, for exhaustive loops.
const STEPS: [Step; 16] = [
    Step::Started,
    Step::FreezeBegun,
    Step::HeldArrived,
    Step::AbortDecided,
    Step::Thawed,
    Step::CommitDecided,
    Step::RunningArrived,
    Step::RefusedArrived,
    Step::RevokedDecided,
    Step::StateReleased,
    Step::OwnCopyDead,
    Step::LostDeclared,
    Step::EpochSeen,
    Step::Superseded,
    Step::Resolved { verdict: Verdict::RunHere },
    Step::Resolved { verdict: Verdict::GiveUp },
];

/// Every state that legal records can reach within three epochs.
fn reachable() -> BTreeSet<Source> {
    let mut states = BTreeSet::from([Source::at_home(Epoch::ZERO)]);
    loop {
        let events = || STEPS.iter().flat_map(|step| (0..=3).map(|epoch| step.at(Epoch(epoch))));
        let next: Vec<_> =
            states.iter().flat_map(|state| events().filter_map(|event| state.apply(event).ok())).collect();
        let before = states.len();
        states.extend(next.into_iter().filter(|state| state.epoch() <= Epoch(3)));
        if states.len() == before {
            return states;
        }
    }
}

#[test]
fn the_good_course() {
    let state = after(COMMITTED);
    let moved = state.fold([Step::RunningArrived.at(E), Step::StateReleased.at(E)]).unwrap();
    assert_eq!(moved.stage(), Stage::Released);
    assert!(!moved.may_run() && !moved.has_right());
}

#[test]
fn commit_only_after_held_arrived() {
    refuses(after(&[Step::Started]), Step::CommitDecided);
    refuses(after(FROZEN), Step::CommitDecided);
    assert!(after(HELD).apply(Step::CommitDecided.at(E)).is_ok());
}

#[test]
fn abort_at_any_time_before_commit_and_never_after() {
    for steps in [&[Step::Started], FROZEN, HELD] {
        let aborted = after(steps).apply(Step::AbortDecided.at(E)).unwrap();
        assert!(aborted.may_run());
        refuses(aborted, Step::CommitDecided);
        refuses(aborted, Step::HeldArrived);
    }
    let committed = after(COMMITTED);
    refuses(committed, Step::AbortDecided);
    for more in
        [&[Step::RunningArrived][..], &[Step::RefusedArrived], &[Step::RefusedArrived, Step::RevokedDecided]]
    {
        let later = committed.fold(more.iter().map(|step| step.at(E))).unwrap();
        refuses(later, Step::AbortDecided);
        refuses(later, Step::CommitDecided);
    }
}

#[test]
fn thaw_only_after_abort_or_revoked() {
    for state in reachable() {
        let thaw = state.apply(Step::Thawed.at(state.epoch()));
        let allowed = matches!(state.stage(), Stage::Aborted { .. } | Stage::Revoked);
        assert_eq!(thaw.is_ok(), allowed, "{state}");
    }
}

#[test]
fn only_refused_brings_the_right_back_and_takes_a_new_epoch() {
    let committed = after(COMMITTED);
    refuses(committed, Step::RevokedDecided);
    assert!(!committed.has_right());
    let revoked = committed.fold([Step::RefusedArrived.at(E), Step::RevokedDecided.at(E)]).unwrap();
    assert!(revoked.has_right() && revoked.may_run());
    let home = revoked.apply(Step::Thawed.at(E)).unwrap();
    assert_eq!((home.stage(), home.epoch()), (Stage::Idle, E.next()));
    assert!(home.apply(Step::Started.at(E.next())).is_err(), "the epoch of the new life is taken");
}

#[test]
fn the_original_is_kept_until_running_arrived() {
    for state in reachable() {
        let released = state.apply(Step::StateReleased.at(state.epoch())).is_ok();
        assert_eq!(released, matches!(state.stage(), Stage::Moved | Stage::Superseded), "{state}");
    }
}

#[test]
fn epochs_only_grow() {
    let home = after(&[Step::Started, Step::AbortDecided, Step::Thawed]);
    assert_eq!(home, Source::at_home(E));
    assert!(home.apply(Step::Started.at(E)).is_err());
    assert!(home.apply(Step::Started.at(Epoch(1))).is_err());
    assert!(home.apply(Step::Started.at(Epoch(9))).is_ok());
    let seen = home.apply(Step::EpochSeen.at(Epoch(9))).unwrap();
    assert!(seen.next_epoch() > Epoch(10), "what is said about the seen epoch is not about us");
    assert!(after(FROZEN).apply(Step::HeldArrived.at(Epoch(4))).is_err(), "an old HELD");
    for state in reachable() {
        for event in STEPS.iter().flat_map(|step| (0..=4).map(|epoch| step.at(Epoch(epoch)))) {
            assert!(!state.apply(event).is_ok_and(|next| next.epoch() < state.epoch()), "{state} {event}");
        }
    }
}

#[test]
fn an_abort_never_destroys_the_only_copy_left() {
    let stuck = after(FROZEN).apply(Step::OwnCopyDead.at(E)).unwrap();
    assert_eq!(stuck.stage(), Stage::Stuck);
    refuses(stuck, Step::AbortDecided);
    let held = stuck.apply(Step::HeldArrived.at(E)).unwrap();
    refuses(held, Step::AbortDecided);
    assert!(held.apply(Step::CommitDecided.at(E)).is_ok());
    assert!(stuck.abort(CopyState::Gone).is_empty() && held.abort(CopyState::Gone).is_empty());
}

#[test]
fn whoever_may_run_has_the_right() {
    for state in reachable() {
        assert!(!state.may_run() || state.has_right(), "{state}");
    }
}

/// The records that a list of actions writes.
fn written(actions: &[Action]) -> Vec<Step> {
    let record = |action: &Action| match action {
        Action::Write { record: Record::Source(event) } => Some(event.step),
        _ => None,
    };
    actions.iter().filter_map(record).collect()
}

#[test]
fn recovery_without_commit() {
    let facts = |own, other| Facts { own, other };
    for steps in [&[Step::Started], FROZEN, HELD] {
        for (own, other) in [(CopyState::Running, None), (CopyState::Frozen, Some(Answer::Held))] {
            let actions = after(steps).recover(facts(own, other));
            assert_eq!(written(&actions), [Step::AbortDecided, Step::Thawed], "own copy alive: abort");
            assert!(actions.contains(&Action::Tell { epoch: E, word: Word::Abort }));
        }
    }
    let dead = CopyState::Gone;
    let actions = after(FROZEN).recover(facts(dead, Some(Answer::Held)));
    assert_eq!(written(&actions), [Step::OwnCopyDead, Step::HeldArrived, Step::CommitDecided]);
    let actions = after(HELD).recover(facts(dead, None));
    assert_eq!(written(&actions), [Step::OwnCopyDead, Step::CommitDecided], "HELD has no lease");
    let actions = after(FROZEN).recover(facts(dead, None));
    assert_eq!(written(&actions), [Step::OwnCopyDead]);
    assert!(actions.contains(&Action::Report { epoch: E, alarm: Alarm::Stuck }));
    for gone in [Answer::Refused, Answer::Aborted, Answer::NeverHeard, Answer::Over, Answer::Lost] {
        let actions = after(FROZEN).recover(facts(dead, Some(gone)));
        assert_eq!(written(&actions), [Step::OwnCopyDead, Step::LostDeclared]);
        assert!(actions.contains(&Action::Report { epoch: E, alarm: Alarm::Lost }));
        assert_eq!(actions.last(), Some(&Action::Tell { epoch: E, word: Word::Lost }));
    }
    let actions = after(HELD).recover(facts(CopyState::Unknown, Some(Answer::Held)));
    assert!(written(&actions).is_empty(), "nothing is decided on what could not be found out");
}

#[test]
fn recovery_with_commit() {
    let committed = after(COMMITTED);
    let decide = |own, other| written(&committed.recover(Facts { own, other }));
    let frozen = CopyState::Frozen;
    for unclear in
        [None, Some(Answer::Held), Some(Answer::Granted), Some(Answer::NeverHeard), Some(Answer::Aborted)]
    {
        assert_eq!(decide(frozen, unclear), [], "{unclear:?}: wait");
    }
    assert_eq!(decide(frozen, Some(Answer::Running)), [Step::RunningArrived, Step::StateReleased]);
    let back = [Step::RefusedArrived, Step::RevokedDecided, Step::Thawed];
    assert_eq!(decide(frozen, Some(Answer::Refused)), back);
    let lost = [Step::OwnCopyDead, Step::RefusedArrived, Step::LostDeclared];
    assert_eq!(decide(CopyState::Gone, Some(Answer::Refused)), lost);
    assert!(committed.abort(frozen).is_empty(), "too late");
    let actions = committed.recover(Facts { own: CopyState::Running, other: None });
    assert_eq!(actions[0], Action::Freeze, "a committed original that runs is stopped at once");
}

/// For as long as the destination may not know it, and not for ever.
#[test]
fn lost_is_told_until_it_was_heard() {
    let lost = after(FROZEN).fold([Step::OwnCopyDead.at(E), Step::LostDeclared.at(E)]).unwrap();
    let tells = |other| {
        let actions = lost.recover(Facts { own: CopyState::Gone, other });
        actions.contains(&Action::Tell { epoch: E, word: Word::Lost })
    };
    for unheard in [None, Some(Answer::Refused), Some(Answer::Aborted), Some(Answer::Held)] {
        assert!(tells(unheard), "{unheard:?}");
    }
    for heard in [Answer::Lost, Answer::Over, Answer::NeverHeard] {
        assert!(!tells(Some(heard)), "{heard}");
        assert!(
            lost.receive(CopyState::Gone, E, heard)
                .iter()
                .all(|action| !matches!(action, Action::Tell { .. }))
        );
    }
}

#[test]
fn held_is_committed_in_the_ordinary_course_only_if_the_original_stood_still() {
    let receive = |own| written(&after(FROZEN).receive(own, E, Answer::Held));
    assert_eq!(receive(CopyState::Frozen), [Step::HeldArrived, Step::CommitDecided]);
    assert_eq!(receive(CopyState::Gone), [Step::OwnCopyDead, Step::HeldArrived, Step::CommitDecided]);
    assert_eq!(receive(CopyState::Running), [Step::AbortDecided, Step::Thawed]);
    assert_eq!(receive(CopyState::Unknown), []);
    let old = after(FROZEN).receive(CopyState::Frozen, Epoch(4), Answer::Held);
    assert_eq!(old, [Action::Tell { epoch: Epoch(4), word: Word::Abort }]);
    assert!(after(&[Step::Started]).receive(CopyState::Running, E, Answer::Held).is_empty());
}

#[test]
fn a_rolled_back_journal_yields_to_running() {
    for state in [Source::at_home(E), after(FROZEN), after(HELD)] {
        let actions = state.receive(CopyState::Running, E, Answer::Running);
        assert_eq!(written(&actions), [Step::Superseded]);
        assert!(actions.contains(&Action::Freeze));
        let yielded = state.apply(Step::Superseded.at(E)).unwrap();
        assert!(!yielded.may_run());
    }
    let newer = Source::at_home(E).receive(CopyState::Running, Epoch(8), Answer::Running);
    assert_eq!(written(&newer), [Step::Superseded]);
    // A late GRANTED may have ended in REFUSED since.
    let revoked = after(COMMITTED).fold([Step::RefusedArrived.at(E), Step::RevokedDecided.at(E)]).unwrap();
    assert_eq!(written(&revoked.receive(CopyState::Frozen, E, Answer::Granted)), [Step::Thawed]);
}

/// For every state and everything that can be known or heard: only legal records are proposed, and a thaw or an
/// opened fence only where the copy may run.
#[test]
fn every_decision_is_legal() {
    let answers = || Answer::ALL.iter().map(|answer| Some(*answer)).chain([None]);
    for state in reachable() {
        for (own, other) in CopyState::ALL.iter().flat_map(|own| answers().map(move |other| (*own, other))) {
            let mut lists = vec![state.recover(Facts { own, other }), state.abort(own)];
            lists.extend((0..=4).map(|epoch| state.rejected(own, Epoch(epoch), Epoch(3))));
            if let Some(answer) = other {
                lists.extend((0..=4).map(|epoch| state.receive(own, Epoch(epoch), answer)));
            }
            for actions in lists {
                let mut now = state;
                for action in &actions {
                    match action {
                        Action::Write { record: Record::Source(event) } => {
                            now =
                                now.apply(*event).unwrap_or_else(|error| panic!("{own} {other:?}: {error}"));
                        }
                        Action::Thaw | Action::Open => assert!(now.may_run(), "{state} {own} {other:?}"),
                        Action::Write { .. } | Action::Discard => panic!("not the source's: {action:?}"),
                        Action::Release => assert!(!now.has_right(), "{state} {own} {other:?}"),
                        Action::Freeze | Action::Bury | Action::Tell { .. } | Action::Report { .. } => {}
                    }
                }
            }
        }
    }
}

/// What is declared dead must stay dead: its nest may have been about to start it again.
#[test]
fn nobody_is_declared_dead_whom_a_nest_may_start_again() {
    let answers = || Answer::ALL.iter().map(|answer| Some(*answer)).chain([None]);
    let mut declared = 0;
    for (state, other) in reachable().into_iter().flat_map(|state| answers().map(move |other| (state, other)))
    {
        for own in CopyState::ALL {
            let mut lists = vec![state.recover(Facts { own: *own, other }), state.abort(*own)];
            lists.extend(other.map(|answer| state.receive(*own, state.epoch(), answer)));
            for actions in lists {
                let is_death = |action: &Action| matches!(action, Action::Write { record: Record::Source(event) } if event.step == Step::OwnCopyDead);
                let Some(death) = actions.iter().position(is_death) else { continue };
                declared += 1;
                assert!(
                    death > 0 && actions[death - 1] == Action::Bury,
                    "{state} {own} {other:?}: {actions:?}"
                );
            }
        }
    }
    assert!(declared > 10);
}

#[test]
fn a_rejected_offer_is_followed_by_a_newer_one() {
    let started = after(&[Step::Started]);
    let steps = written(&started.rejected(CopyState::Running, E, Epoch(9)));
    assert_eq!(steps, [Step::AbortDecided, Step::Thawed, Step::EpochSeen]);
    let steps = written(&started.rejected(CopyState::Running, E, E));
    assert_eq!(steps, [Step::AbortDecided, Step::Thawed], "the next epoch is newer anyway");
    assert!(after(FROZEN).rejected(CopyState::Frozen, E, Epoch(9)).is_empty(), "it was accepted before");
}

#[test]
fn an_operator_can_end_what_waits() {
    let run = Step::Resolved { verdict: Verdict::RunHere };
    let give_up = Step::Resolved { verdict: Verdict::GiveUp };
    let committed = after(COMMITTED);
    assert_eq!(committed.apply(run.at(E)).unwrap().stage(), Stage::Revoked);
    assert_eq!(committed.apply(give_up.at(E)).unwrap().stage(), Stage::Released);
    let stuck = after(FROZEN).apply(Step::OwnCopyDead.at(E)).unwrap();
    assert_eq!(stuck.apply(run.at(E)).unwrap(), Source::at_home(E.next()));
    refuses(Source::at_home(E), run);
    // Nobody is told that another site had what died after an ABORT: a held copy there would be let go.
    let dead = after(FROZEN).fold([Step::AbortDecided.at(E), Step::OwnCopyDead.at(E)]).unwrap();
    assert_eq!(dead.stage(), Stage::Lost);
    assert_eq!(dead.apply(give_up.at(E)).unwrap(), dead);
    assert_eq!(dead.apply(run.at(E)).unwrap(), Source::at_home(E.next()));
}
