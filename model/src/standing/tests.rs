use super::*;
use crate::action::{Action, Word};
use crate::destination::Step as D;
use crate::facts::CopyState;
use crate::source::{Step as S, Verdict};

fn source(step: S, epoch: u64) -> Record {
    Record::Source(step.at(Epoch(epoch)))
}

fn destination(step: D, epoch: u64) -> Record {
    Record::Destination(step.at(Epoch(epoch)))
}

fn departure(epoch: u64) -> Vec<Record> {
    let steps =
        [S::Started, S::FreezeBegun, S::HeldArrived, S::CommitDecided, S::RunningArrived, S::StateReleased];
    steps.into_iter().map(|step| source(step, epoch)).collect()
}

fn arrival(epoch: u64) -> Vec<Record> {
    let offered = D::Offered { lease_ms: 1 };
    let steps = [
        offered,
        D::RestoreBegun,
        D::HeldReached,
        D::CommitReceived,
        D::GrantWritten,
        D::Thawed,
        D::RunningWritten,
    ];
    steps.into_iter().map(|step| destination(step, epoch)).collect()
}

fn replay(parts: &[Vec<Record>]) -> Standing {
    Standing::replay(parts.concat()).unwrap()
}

#[test]
fn a_service_goes_and_comes_back() {
    let created = vec![Record::Created];
    let gone = replay(&[created.clone(), departure(1)]);
    assert_eq!(gone.run_right(), RunRight::Moved);
    let back = replay(&[created, departure(1), arrival(2), departure(3)]);
    assert_eq!(back.epoch(), Epoch(3));
    assert_eq!(back.answer(Epoch(2)), Answer::Running, "RUNNING is answered for ever");
    assert_eq!(back.answer(Epoch(1)), Answer::Over);
    assert_eq!(back.answer(Epoch(3)), Answer::Committed);
    assert_eq!(back.answer(Epoch(4)), Answer::NeverHeard);
}

#[test]
fn the_right_to_run_follows_the_journal() {
    assert_eq!(Standing::default().run_right(), RunRight::None);
    assert_eq!(replay(&[vec![Record::Created]]).run_right(), RunRight::Run);
    let frozen = replay(&[vec![Record::Created, source(S::Started, 1), source(S::FreezeBegun, 1)]]);
    assert_eq!(frozen.run_right(), RunRight::Hold);
    assert_eq!(replay(&[arrival(1)[..3].to_vec()]).run_right(), RunRight::Restore);
    assert_eq!(replay(&[arrival(1)]).run_right(), RunRight::Run);
}

#[test]
fn a_name_is_used_once_and_never_forgotten() {
    let here = replay(&[vec![Record::Created]]);
    assert!(here.apply(Record::Created).is_err());
    let gone = replay(&[vec![Record::Created], departure(1)]);
    assert!(gone.apply(Record::Created).is_err(), "a relay may still be here: remove it first");
    let removed = gone.apply(Record::Removed).unwrap();
    let anew = removed.apply(Record::Created).unwrap();
    assert!(anew.epoch() > gone.epoch(), "a late word about the old service is not about the new one");
    let facts = Facts { copy: CopyState::Running, other: None, writes_outside: false };
    let word = Word::State { answer: Answer::Running };
    assert!(anew.receive(facts, Epoch(1), word, 1).is_empty());
    let moving = here.apply(source(S::Started, 1)).unwrap();
    assert!(moving.apply(Record::Removed).is_err());
}

#[test]
fn a_removed_arrival_still_answers_running() {
    let removed = replay(&[arrival(1), vec![Record::Removed]]);
    assert_eq!(removed.answer(Epoch(1)), Answer::Running, "or the source would take it for refused");
    let facts = Facts { copy: CopyState::Gone, other: None, writes_outside: false };
    for word in [Word::Commit, Word::Query] {
        let told = removed.receive(facts, Epoch(1), word, 1);
        let running = Word::State { answer: Answer::Running };
        assert_eq!(told, [Action::Tell { epoch: Epoch(1), word: running }]);
    }
}

#[test]
fn a_name_that_was_lost_here_is_free_again() {
    let refused =
        replay(&[vec![destination(D::Offered { lease_ms: 1 }, 1), destination(D::RefusedWritten, 1)]]);
    let lost = refused.apply(destination(D::LostHeard, 1)).unwrap();
    assert_eq!(lost.run_right(), RunRight::None);
    assert!(lost.apply(Record::Created).unwrap().epoch() > lost.epoch());
    assert!(
        lost.apply(destination(D::Offered { lease_ms: 1 }, 2)).is_ok(),
        "the source runs it anew and sends it"
    );
    let removed = lost.apply(Record::Removed).unwrap();
    assert_eq!(removed.answer(Epoch(1)), Answer::Over);
}

#[test]
fn roles_do_not_mix() {
    let here = replay(&[vec![Record::Created]]);
    assert!(here.apply(destination(D::Offered { lease_ms: 1 }, 1)).is_err());
    assert!(Standing::default().apply(source(S::Started, 1)).is_err());
    let facts = Facts { copy: CopyState::Running, other: None, writes_outside: false };
    let reject = Word::Reject { highest: Epoch::ZERO };
    let told = here.receive(facts, Epoch(1), Word::Offer, 1);
    assert_eq!(told, [Action::Tell { epoch: Epoch(1), word: reject }]);
}

#[test]
fn records_survive_the_journal() {
    let resolved = source(S::Resolved { verdict: Verdict::GiveUp }, 1);
    let records = [
        vec![Record::Created, Record::Removed, resolved],
        departure(7),
        arrival(8),
        vec![destination(D::LostHeard, 9)],
    ]
    .concat();
    for record in records {
        let json = serde_json::to_string(&record).unwrap();
        assert_eq!(serde_json::from_str::<Record>(&json).unwrap(), record, "{json}");
    }
    let json = serde_json::to_value(source(S::CommitDecided, 7)).unwrap();
    assert_eq!(json, serde_json::json!({"record": "source", "epoch": 7, "step": "commit-decided"}));
    let status = serde_json::to_value(replay(&[arrival(8)])).unwrap();
    let wanted = serde_json::json!({"role": "destination", "epoch": 8, "stage": "running", "arrivals": [8]});
    assert_eq!(status, wanted);
}

#[test]
fn a_journal_that_breaks_a_rule_is_not_believed() {
    let error = Standing::replay([Record::Created, source(S::CommitDecided, 1)]).unwrap_err();
    assert!(error.to_string().contains("CommitDecided"), "{error}");
}
