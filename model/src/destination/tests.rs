use std::collections::BTreeSet;

use super::*;
use crate::action::{Action, Alarm, Word};
use crate::facts::CopyState;
use crate::standing::Record;

const E: Epoch = Epoch(5);
const OFFERED: Step = Step::Offered { lease_ms: 1000 };

/// The destination after these steps of epoch 5.
fn after(steps: &[Step]) -> Destination {
    Destination::absent(Epoch(4)).fold(steps.iter().map(|step| step.at(E))).unwrap()
}

fn refuses(state: Destination, step: Step) {
    let error = state.apply(step.at(E)).unwrap_err();
    assert!(!error.rule.is_empty() && error.to_string().contains(error.rule));
}

const RESERVED: &[Step] = &[OFFERED];
const RESTORING: &[Step] = &[OFFERED, Step::RestoreBegun];
const HELD: &[Step] = &[OFFERED, Step::RestoreBegun, Step::HeldReached];
const SEEN: &[Step] = &[OFFERED, Step::RestoreBegun, Step::HeldReached, Step::CommitReceived];
const GRANTED: &[Step] =
    &[OFFERED, Step::RestoreBegun, Step::HeldReached, Step::CommitReceived, Step::GrantWritten];

fn running() -> Destination {
    after(GRANTED).fold([Step::Thawed.at(E), Step::RunningWritten.at(E)]).unwrap()
}

/// Every step, for exhaustive loops.
const STEPS: [Step; 15] = [
    OFFERED,
    Step::RestoreBegun,
    Step::HeldReached,
    Step::LeaseExpired,
    Step::AbortReceived,
    Step::CommitReceived,
    Step::GrantWritten,
    Step::Thawed,
    Step::RunningWritten,
    Step::TreeGone,
    Step::RefusedWritten,
    Step::LostHeard,
    Step::StuckDeclared,
    Step::Resolved { verdict: Verdict::RunHere },
    Step::Resolved { verdict: Verdict::GiveUp },
];

/// Every state that legal records can reach within three epochs.
fn reachable() -> BTreeSet<Destination> {
    let mut states = BTreeSet::from([Destination::absent(Epoch::ZERO)]);
    loop {
        let events = || STEPS.iter().flat_map(|step| (0..=3).map(|epoch| step.at(Epoch(epoch))));
        let next: Vec<_> =
            states.iter().flat_map(|state| events().filter_map(|event| state.apply(event).ok())).collect();
        let before = states.len();
        states.extend(next);
        if states.len() == before {
            return states;
        }
    }
}

#[test]
fn the_good_course() {
    assert_eq!(running().stage(), Stage::Running);
    assert!(running().may_run() && running().has_right());
}

#[test]
fn a_lease_ends_at_held() {
    for steps in [RESERVED, RESTORING] {
        assert_eq!(after(steps).apply(Step::LeaseExpired.at(E)).unwrap().stage(), Stage::Aborted);
        assert!(!after(steps).lease_expired().is_empty());
    }
    for state in [after(HELD), after(SEEN), after(GRANTED), running()] {
        refuses(state, Step::LeaseExpired);
        assert!(state.lease_expired().is_empty());
    }
}

#[test]
fn held_neither_runs_nor_goes_by_itself() {
    let held = after(HELD);
    assert!(!held.may_run() && !held.has_right());
    for step in [Step::Thawed, Step::GrantWritten, Step::RunningWritten, Step::RefusedWritten] {
        refuses(held, step);
    }
    for other in [None, Some(Answer::Undecided), Some(Answer::NeverHeard), Some(Answer::Stuck)] {
        let actions = held.recover(Facts { copy: CopyState::Frozen, other, writes_outside: false });
        let harmless = |action: &Action| matches!(action, Action::Tell { .. } | Action::Report { .. });
        assert!(actions.iter().all(harmless), "{other:?}: {actions:?}");
    }
}

#[test]
fn no_thaw_without_granted() {
    for state in reachable() {
        let thaw = state.apply(Step::Thawed.at(state.epoch()));
        assert_eq!(
            thaw.is_ok(),
            matches!(state.stage(), Stage::Granted { tree: Tree::Alive, .. }),
            "{state}"
        );
    }
}

#[test]
fn a_tombstone_is_for_ever() {
    let aborted = after(HELD).apply(Step::AbortReceived.at(E)).unwrap();
    let refused = after(RESTORING).apply(Step::RefusedWritten.at(E)).unwrap();
    let lost = refused.apply(Step::LostHeard.at(E)).unwrap();
    for tombstone in [aborted, refused, lost] {
        for step in STEPS {
            let is_worse = tombstone != lost && step == Step::LostHeard;
            assert_eq!(tombstone.apply(step.at(E)).ok(), is_worse.then_some(lost), "{tombstone} {step:?}");
            assert!(tombstone.apply(step.at(Epoch(4))).is_err(), "{tombstone} {step:?}");
        }
        assert!(tombstone.apply(OFFERED.at(Epoch(6))).is_ok());
        let reply = tombstone.receive(facts(CopyState::Gone), E, Word::Offer, 1);
        assert_eq!(reply, [Action::Tell { epoch: E, word: Word::Reject { highest: E } }]);
    }
    let early = Destination::absent(Epoch(4)).apply(Step::AbortReceived.at(E)).unwrap();
    refuses(early, OFFERED);
}

/// Whatever had not ended here ends, once, and is answered with what the source waits for.
#[test]
fn the_source_says_that_no_copy_is_left() {
    let aborted = after(HELD).apply(Step::AbortReceived.at(E)).unwrap();
    let refused = after(RESTORING).apply(Step::RefusedWritten.at(E)).unwrap();
    let heard = Action::Tell { epoch: E, word: Word::State { answer: Answer::Lost } };
    let hear = |state: Destination, copy| state.receive(facts(copy), E, Word::Lost, 1);
    for state in [aborted, refused, after(RESERVED), after(HELD), Destination::absent(Epoch(4))] {
        let actions = hear(state, CopyState::Gone);
        assert_eq!(written(&actions).last(), Some(&Step::LostHeard), "{state}");
        assert_eq!(actions.last(), Some(&heard), "{state}");
        let lost = state.fold(written(&actions).into_iter().map(|step| step.at(E))).unwrap();
        assert_eq!((lost.stage(), lost.answer(E)), (Stage::Lost, Answer::Lost));
        let again = hear(lost, CopyState::Gone);
        assert!(written(&again).is_empty() && again.last() == Some(&heard), "{again:?}");
        let report = Action::Report { epoch: E, alarm: Alarm::Lost };
        assert_eq!(lost.recover(facts(CopyState::Gone)), [report]);
        assert_eq!(lost.recover(facts(CopyState::Frozen)), [Action::Discard, report]);
    }
    assert!(hear(after(HELD), CopyState::Frozen).contains(&Action::Discard));
    for state in [after(SEEN), after(GRANTED), running()] {
        let actions = hear(state, CopyState::Frozen);
        assert!(written(&actions).is_empty() && !actions.contains(&Action::Discard), "{actions:?}");
        assert!(actions.contains(&Action::Report { epoch: E, alarm: Alarm::Contradiction }));
    }
}

#[test]
fn what_was_committed_cannot_be_aborted() {
    for state in [after(SEEN), after(GRANTED), running()] {
        refuses(state, Step::AbortReceived);
        let actions = state.receive(facts(CopyState::Frozen), E, Word::Abort, 1);
        assert!(actions.contains(&Action::Report { epoch: E, alarm: Alarm::Contradiction }));
        assert!(!actions.contains(&Action::Discard));
    }
}

#[test]
fn refused_needs_the_proof_and_running_is_final() {
    for steps in [HELD, SEEN, GRANTED] {
        refuses(after(steps), Step::RefusedWritten);
        let gone = after(steps).apply(Step::TreeGone.at(E)).unwrap();
        refuses(gone, Step::GrantWritten);
        assert_eq!(gone.apply(Step::RefusedWritten.at(E)).unwrap().stage(), Stage::Refused);
    }
    for step in STEPS {
        refuses(running(), step);
    }
}

#[test]
fn whoever_may_run_has_the_right() {
    for state in reachable() {
        assert!(!state.may_run() || state.has_right(), "{state}");
    }
}

fn facts(copy: CopyState) -> Facts {
    Facts { copy, other: None, writes_outside: false }
}

/// The records that a list of actions writes.
fn written(actions: &[Action]) -> Vec<Step> {
    let record = |action: &Action| match action {
        Action::Write { record: Record::Destination(event) } => Some(event.step),
        _ => None,
    };
    actions.iter().filter_map(record).collect()
}

#[test]
fn commit_on_a_held_tree() {
    let actions = after(HELD).receive(facts(CopyState::Frozen), E, Word::Commit, 1);
    let order = [Step::CommitReceived, Step::GrantWritten, Step::Thawed, Step::RunningWritten];
    assert_eq!(written(&actions), order);
    let place = |wanted: &Action| actions.iter().position(|action| action == wanted).unwrap();
    let write = |step: Step| Action::Write { record: Record::Destination(step.at(E)) };
    assert!(place(&write(Step::GrantWritten)) < place(&Action::Thaw));
    assert!(
        place(&write(Step::RunningWritten)) < place(&Action::Open),
        "no packet before RUNNING is durable"
    );
    let gone = after(HELD).receive(facts(CopyState::Gone), E, Word::Commit, 1);
    assert_eq!(written(&gone), [Step::TreeGone, Step::RefusedWritten]);
    let again = running().receive(facts(CopyState::Running), E, Word::Commit, 1);
    assert_eq!(again, [Action::Tell { epoch: E, word: Word::State { answer: Answer::Running } }]);
}

#[test]
fn commit_for_something_that_is_not_here() {
    let absent = Destination::absent(Epoch(4));
    let actions = absent.receive(facts(CopyState::Gone), E, Word::Commit, 1);
    assert_eq!(written(&actions), [Step::RefusedWritten]);
    let actions = absent.receive(facts(CopyState::Frozen), E, Word::Commit, 1);
    assert_eq!(written(&actions), [], "a tree that the journal does not know is no proof of anything");
}

#[test]
fn recovery() {
    let decide = |steps: &[Step], copy, other, writes_outside| {
        written(&after(steps).recover(Facts { copy, other, writes_outside }))
    };
    let (frozen, gone) = (CopyState::Frozen, CopyState::Gone);
    assert_eq!(decide(RESERVED, gone, None, false), [Step::RefusedWritten]);
    assert_eq!(decide(RESTORING, frozen, None, false), [Step::RefusedWritten]);
    assert_eq!(decide(HELD, frozen, Some(Answer::Aborted), false), [Step::AbortReceived]);
    assert_eq!(decide(HELD, frozen, Some(Answer::Over), false), [Step::AbortReceived]);
    assert_eq!(decide(HELD, frozen, Some(Answer::Committed), false).len(), 4);
    assert_eq!(decide(HELD, gone, None, false), [Step::TreeGone, Step::RefusedWritten]);
    assert_eq!(decide(SEEN, frozen, None, false)[0], Step::GrantWritten);
    assert_eq!(decide(GRANTED, frozen, None, false), [Step::Thawed, Step::RunningWritten]);
    assert_eq!(decide(GRANTED, gone, None, false), [Step::TreeGone, Step::RefusedWritten]);
    assert_eq!(decide(GRANTED, gone, None, true), [Step::TreeGone, Step::StuckDeclared]);
    for steps in [HELD, SEEN, GRANTED] {
        assert_eq!(
            decide(steps, CopyState::Unknown, None, false),
            [],
            "nothing is decided on what is unknown"
        );
    }
}

#[test]
fn a_newer_offer_ends_an_older_attempt_but_not_a_granted_one() {
    let actions = after(HELD).receive(facts(CopyState::Frozen), Epoch(6), Word::Offer, 7);
    assert_eq!(written(&actions), [Step::AbortReceived, Step::Offered { lease_ms: 7 }]);
    for state in [after(SEEN), after(GRANTED)] {
        let actions = state.receive(facts(CopyState::Frozen), Epoch(6), Word::Offer, 7);
        assert_eq!(written(&actions), []);
    }
    let again = after(RESERVED).receive(facts(CopyState::Gone), E, Word::Offer, 7);
    assert_eq!(
        again,
        [Action::Tell { epoch: E, word: Word::Accept }],
        "an offer heard twice is accepted once"
    );
}

/// For every state and everything that can be known or heard: only legal records are proposed, a thaw only where the
/// copy may run, an open fence only after RUNNING, and a tree is discarded only after a tombstone.
#[test]
fn every_decision_is_legal() {
    let words: Vec<_> = Answer::ALL
        .iter()
        .map(|answer| Word::State { answer: *answer })
        .chain([Word::Offer, Word::Abort, Word::Commit, Word::Lost, Word::Query, Word::Accept])
        .collect();
    let answers = || Answer::ALL.iter().map(|answer| Some(*answer)).chain([None]);
    let cases = || {
        CopyState::ALL.iter().flat_map(move |copy| {
            answers().flat_map(move |other| {
                [false, true].map(|writes_outside| Facts { copy: *copy, other, writes_outside })
            })
        })
    };
    for state in reachable() {
        for facts in cases() {
            let mut lists = vec![state.recover(facts), state.lease_expired()];
            for epoch in (0..=4).map(Epoch) {
                lists.extend(words.iter().map(|word| state.receive(facts, epoch, *word, 1)));
            }
            for actions in lists {
                legal(state, &actions);
            }
        }
    }
}

fn legal(state: Destination, actions: &[Action]) {
    let mut now = state;
    for (index, action) in actions.iter().enumerate() {
        match action {
            Action::Write { record: Record::Destination(event) } => {
                now = now.apply(*event).unwrap_or_else(|error| panic!("{error}"));
            }
            Action::Thaw => assert!(now.may_run(), "{state}: {actions:?}"),
            Action::Open => assert_eq!(now.stage(), Stage::Running, "{state}: {actions:?}"),
            Action::Discard => {
                // Or where REFUSED follows at once, which the nest must agree with.
                let over = matches!(now.stage(), Stage::Refused | Stage::Aborted | Stage::Lost);
                let refused =
                    Action::Write { record: Record::Destination(Step::RefusedWritten.at(now.epoch())) };
                assert!(over || actions.get(index + 1) == Some(&refused), "{state}: {actions:?}");
            }
            Action::Write { .. } | Action::Release => panic!("not the destination's: {action:?}"),
            Action::Freeze | Action::Bury | Action::Tell { .. } | Action::Report { .. } => {}
        }
    }
}
