use std::collections::BTreeSet;

use super::*;

const E: Epoch = Epoch(5);
const WHOLE: Seen = Seen { alive: true, tasks: 2 };
const DEAD: Seen = Seen { alive: false, tasks: 0 };
const PART: Seen = Seen { alive: true, tasks: 1 };

const STEPS: [Step; 13] = [
    Step::DumpBegun,
    Step::DumpComplete { tasks: 2 },
    Step::FreezeBegun { tasks: 2 },
    Step::ThawBegun,
    Step::ReleaseBegun,
    Step::Armed { tasks: 2 },
    Step::RestoreBegun,
    Step::HeldReached { tasks: 2 },
    Step::ResumeBegun,
    Step::Opened,
    Step::DiscardBegun,
    Step::GivenUp,
    Step::CameHome,
];

const WISHES: [Wish; 11] = [
    Wish::Start,
    Wish::Dump,
    Wish::Thaw,
    Wish::ComeHome,
    Wish::Freeze,
    Wish::Release,
    Wish::Arm { tasks: 2 },
    Wish::Restore,
    Wish::Resume,
    Wish::Open,
    Wish::Discard,
];

fn events() -> impl Iterator<Item = Event> {
    STEPS.iter().flat_map(|step| (0..=3).map(|epoch| step.at(Epoch(epoch))))
}

/// Every record that events can reach within three epochs.
fn reachable() -> BTreeSet<Record> {
    let mut records = BTreeSet::from([Record::at_home(Epoch::ZERO), Record::prepared(Epoch(1), 2)]);
    loop {
        let next: Vec<_> =
            records.iter().flat_map(|record| events().filter_map(|event| record.apply(event).ok())).collect();
        let before = records.len();
        records.extend(next);
        if records.len() == before {
            return records;
        }
    }
}

fn after(record: Record, steps: &[Step]) -> Record {
    steps.iter().try_fold(record, |record, step| record.apply(step.at(E))).unwrap()
}

fn refuses(record: Record, step: Step) {
    let error = record.apply(step.at(record.epoch())).unwrap_err();
    assert!(error.to_string().contains(error.rule));
}

fn dumped() -> Record {
    after(Record::at_home(Epoch(4)), &[Step::DumpBegun, Step::DumpComplete { tasks: 2 }])
}

fn held() -> Record {
    after(Record::prepared(E, 2), &[Step::RestoreBegun, Step::HeldReached { tasks: 2 }])
}

#[test]
fn the_good_course_at_both_ends() {
    assert_eq!((dumped().right(), dumped().tasks(), dumped().epoch()), (Right::Dumped, 2, E));
    assert_eq!(after(dumped(), &[Step::ReleaseBegun]).right(), Right::Discarded);
    assert_eq!(after(dumped(), &[Step::ThawBegun]), Record::at_home(E));
    let resumed = after(held(), &[Step::ResumeBegun]);
    assert!(resumed.may_run() && resumed.is_fenced() && !resumed.may_start());
    assert!(after(resumed, &[Step::Opened]).may_start());
    refuses(dumped(), Step::DumpBegun);
    refuses(dumped(), Step::ResumeBegun);
    refuses(held(), Step::ThawBegun);
    refuses(resumed, Step::DumpBegun);
    refuses(after(resumed, &[Step::Opened]), Step::DiscardBegun);
}

#[test]
fn the_highest_epoch_is_never_lowered() {
    for record in reachable() {
        for event in events() {
            match record.apply(event) {
                Ok(next) => assert_eq!(next.epoch(), event.epoch.max(record.epoch()), "{record}: {event}"),
                Err(error) => assert_eq!(error.record, record),
            }
        }
    }
}

/// Whoever may be stopped by a record is stopped by it, and whoever is let run has a record that says so.
#[test]
fn every_decision_is_legal_and_its_record_grants_its_deed() {
    for record in reachable() {
        let wishes = WISHES.iter().flat_map(|wish| {
            let epochs = (0..=3).map(Epoch);
            epochs.flat_map(move |epoch| [WHOLE, DEAD, PART].map(|seen| record.decide(epoch, *wish, seen)))
        });
        for decision in wishes.filter_map(Result::ok).chain([record.settle()]) {
            let now = decision.record.map_or(record, |event| record.apply(event).unwrap());
            let granted = match decision.deed {
                Deed::LetRun | Deed::Resume => now.may_run(),
                Deed::Start | Deed::Nothing => now.may_start(),
                Deed::Open => now.may_run() && !now.is_fenced(),
                Deed::StandStill => matches!(now.right(), Right::Dumped | Right::Held),
                Deed::End => now.right() == Right::Discarded,
                Deed::Dump => now.right() == Right::Dumping,
                Deed::Arm | Deed::Disarm => now.right() == Right::Prepared,
                Deed::Restore => now.right() == Right::Restoring,
            };
            assert!(granted, "{record}: {decision:?}");
        }
    }
}

#[test]
fn what_is_safe_to_repeat_leads_to_the_same_record() {
    use Wish::{Arm, ComeHome, Discard, Freeze, Open, Release, Resume, Thaw};
    for record in reachable() {
        for wish in [Thaw, ComeHome, Freeze, Release, Arm { tasks: 2 }, Resume, Open, Discard] {
            for seen in [WHOLE, DEAD] {
                let note = |record: Record| -> Option<(Record, Deed)> {
                    let Decision { record: event, deed } = record.decide(record.epoch(), wish, seen).ok()?;
                    Some((event.map_or(record, |event| record.apply(event).unwrap()), deed))
                };
                let Some(once) = note(record) else { continue };
                // What was held when it was resumed may have died meanwhile; that is seen elsewhere.
                assert_eq!(note(once.0), Some(once), "{record}: {wish:?}, {seen:?}");
            }
        }
        // A nest that dies while it settles is followed by one that settles.
        let settled = record.settle();
        let next = settled.record.map_or(record, |event| record.apply(event).unwrap());
        assert_eq!(next.settle().deed, settled.deed, "{record}");
    }
}

#[test]
fn what_is_given_up_is_started_only_by_a_newer_word_or_at_home() {
    for record in reachable() {
        let Ok(given_up) = record.apply(Step::GivenUp.at(record.epoch())) else {
            assert!(matches!(record.right(), Right::Prepared | Right::Restoring), "{record}");
            continue;
        };
        let others = events().filter(|event| event.step != Step::CameHome);
        for event in others.filter(|event| event.epoch <= record.epoch()) {
            assert!(!given_up.apply(event).is_ok_and(|next| next.may_run()), "{record}: {event}");
        }
        assert!(given_up.apply(Step::ThawBegun.at(record.epoch().next())).unwrap().may_start());
        assert!(given_up.apply(Step::CameHome.at(record.epoch())).unwrap().may_start());
    }
}

#[test]
fn what_is_at_home_may_be_started_whatever_a_dead_coordinator_asked_for() {
    let resumed = after(held(), &[Step::ResumeBegun]);
    for record in [dumped(), after(dumped(), &[Step::ReleaseBegun]), Record::at_home(E), resumed] {
        assert_eq!(after(record, &[Step::CameHome]), Record::at_home(E), "{record}");
    }
    refuses(held(), Step::CameHome);
    refuses(Record::prepared(E, 2), Step::CameHome);
    assert!(dumped().apply(Step::CameHome.at(Epoch(4))).is_err(), "a newer epoch was seen");
}

#[test]
fn a_freeze_gives_up_what_is_dead_and_keeps_what_is_whole() {
    let freeze = |record: Record, seen| {
        let decision = record.decide(E, Wish::Freeze, seen).unwrap();
        (record.apply(decision.record.unwrap()).unwrap().right(), decision.deed)
    };
    let home = Record::at_home(Epoch(4));
    for record in [home, after(home, &[Step::DumpBegun]), dumped()] {
        assert_eq!(freeze(record, WHOLE), (Right::Dumped, Deed::StandStill));
        assert_eq!(freeze(record, DEAD), (Right::Discarded, Deed::End));
    }
    // It was counted when it was dumped: to count it again would make it whole.
    assert_eq!(freeze(dumped(), PART), (Right::Discarded, Deed::End));
    assert_eq!(freeze(held(), WHOLE), (Right::Held, Deed::StandStill));
    assert_eq!(freeze(after(held(), &[Step::ResumeBegun]), WHOLE), (Right::Held, Deed::StandStill));
    assert!(Record::prepared(E, 2).decide(E, Wish::Freeze, DEAD).is_err());
}

#[test]
fn only_a_whole_copy_is_resumed() {
    assert!(held().decide(E, Wish::Resume, WHOLE).is_ok());
    for seen in [PART, DEAD] {
        let refusal = held().decide(E, Wish::Resume, seen).unwrap_err();
        assert_eq!(refusal, Refusal::Dead { tasks: 2, left: seen.tasks });
    }
    let again = after(held(), &[Step::ResumeBegun]).decide(E, Wish::Resume, PART).unwrap();
    assert_eq!(again.record, None, "one that runs may end tasks as it likes");
}

#[test]
fn discarding_an_epoch_ends_what_cannot_run_and_nothing_else() {
    let at = |right, epoch| Record::new(Epoch(epoch), right, 0).fate(E);
    for right in [Right::Prepared, Right::Restoring, Right::Held, Right::Discarded] {
        assert_eq!(at(right, 5), Fate::Ends, "{right}");
        assert_eq!(at(right, 6), Fate::IsAnother, "{right}");
    }
    for right in [Right::Run, Right::Dumping, Right::Dumped] {
        assert_eq!(at(right, 4), Fate::IsAnother, "{right}");
        assert_eq!(at(right, 5), Fate::MayRun, "{right}");
        assert_eq!(at(right, 6), Fate::MayRun, "{right}");
    }
    assert_eq!(at(Right::Prepared, 4), Fate::Ends);
    assert_eq!(at(Right::Held, 4), Fate::IsAnother);
    // Resumed, but never heard: refused, if it died.
    assert_eq!(after(held(), &[Step::ResumeBegun]).fate(E), Fate::Ends);
}
