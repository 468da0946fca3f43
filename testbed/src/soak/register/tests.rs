//! Known cases, and a comparison with the search over all orders.

use super::super::dice::Dice;
use super::super::history::examples::{failed, read, unknown, write};
use super::super::history::{Key, Operation};
use super::*;

fn flaw(history: &[Operation]) -> Why {
    check(history).unwrap_err().why
}

#[test]
fn what_happened_one_after_the_other_is_accepted() {
    assert_eq!(check(&[]), Ok(()));
    assert_eq!(
        check(&[read(0, 1, 2), write(7, 3, 4), read(7, 5, 6), write(8, 7, 8), read(8, 9, 10)]),
        Ok(())
    );
}

#[test]
fn what_overlaps_may_be_seen_in_either_order() {
    // Two writes at once, and reads that see them in one order.
    let writes = [write(1, 10, 50), write(2, 10, 50)];
    assert_eq!(
        check(&[writes.to_vec(), vec![read(1, 20, 25), read(2, 30, 35), read(2, 60, 65)]].concat()),
        Ok(())
    );
    assert_eq!(
        check(&[writes.to_vec(), vec![read(0, 11, 12), read(2, 20, 25), read(1, 60, 65)]].concat()),
        Ok(())
    );
    // But not in both.
    let both = [writes.to_vec(), vec![read(1, 20, 25), read(2, 30, 35), read(1, 60, 65)]].concat();
    assert_eq!(flaw(&both), Why::Stale);
}

#[test]
fn a_lost_write_is_found() {
    assert_eq!(flaw(&[write(1, 1, 2), read(0, 3, 4)]), Why::Lost);
    assert_eq!(flaw(&[write(1, 1, 2), write(2, 3, 4), read(1, 5, 6)]), Why::Lost);
}

#[test]
fn a_stale_read_is_found() {
    let history = [write(1, 1, 2), write(2, 3, 4), read(2, 5, 6), read(1, 7, 8)];
    let found = check(&history).unwrap_err();
    assert_eq!(found.why, Why::Stale);
    assert!(check(&found.evidence).is_err(), "the evidence alone shows it");
}

#[test]
fn two_copies_are_found() {
    // One acknowledges 2, the other still answers with 1, then with what it was told itself.
    let history =
        [write(1, 1, 2), write(2, 3, 4), read(2, 5, 6), write(3, 7, 8), read(2, 9, 10), read(3, 11, 12)];
    assert!(check(&history).is_err());
}

#[test]
fn a_write_without_an_answer_may_come_late_or_never() {
    let lost = unknown(write(2, 3, 4));
    assert_eq!(check(&[write(1, 1, 2), lost.clone(), read(1, 5, 6)]), Ok(()));
    assert_eq!(check(&[write(1, 1, 2), lost.clone(), read(1, 5, 6), read(2, 900, 901)]), Ok(()));
    // But it comes once, and does not go again.
    assert_eq!(flaw(&[write(1, 1, 2), lost.clone(), read(2, 5, 6), read(1, 7, 8)]), Why::Stale);
    assert_eq!(flaw(&[write(1, 1, 2), lost, read(2, 2, 2)]), Why::Unexplained);
}

#[test]
fn a_value_that_nobody_wrote_is_found() {
    assert_eq!(flaw(&[read(5, 1, 2)]), Why::Unexplained);
    assert_eq!(flaw(&[failed(write(5, 1, 2)), read(5, 3, 4)]), Why::Unexplained);
    assert_eq!(flaw(&[read(5, 1, 2), write(5, 3, 4)]), Why::Unexplained);
}

#[test]
fn what_may_be_read_later_is_what_was_written_last_or_was_not_answered() {
    let some = |values: &[u64]| values.iter().map(|value| Some(Value(*value))).collect::<Vec<_>>();
    assert_eq!(may_hold(&[write(1, 1, 2), write(2, 3, 4)]), some(&[2]));
    assert_eq!(
        may_hold(&[write(1, 1, 2), unknown(write(2, 3, 4)), write(3, 5, 8), write(4, 7, 9)]),
        some(&[2, 3, 4])
    );
    assert_eq!(may_hold(&[unknown(write(2, 3, 4))]), [Some(Value(2)), None]);
    assert_eq!(may_hold(&[failed(write(2, 3, 4))]), [None]);
}

/// Wing and Gong: tries every order that respects time.
fn search(pending: &[Operation], holds: Option<Value>) -> bool {
    if pending.iter().all(|operation| operation.outcome == Outcome::Unknown) {
        return true;
    }
    (0..pending.len()).any(|index| {
        let next = &pending[index];
        let too_early = pending.iter().any(|other| other.precedes(next));
        let holds = match next.action {
            _ if too_early => return false,
            Action::Write(value) => Some(value),
            Action::Read(value) if value == holds => holds,
            _ => return false,
        };
        let mut rest = pending.to_vec();
        rest.remove(index);
        search(&rest, holds)
    })
}

/// A history of few operations on a register that mostly works.
fn random(dice: &mut Dice) -> Vec<Operation> {
    let count = 1 + dice.below(7);
    let mut written = 0;
    let mut history = Vec::new();
    for session in 0..count {
        let begin = 1 + dice.below(20);
        let end = begin + 1 + dice.below(8);
        let mut operation = match dice.below(2) {
            0 => {
                written += 1;
                write(written, begin, end)
            }
            _ => read(dice.below(4), begin, end),
        };
        operation.session = u32::try_from(session).unwrap();
        operation.key = Key(1);
        let is_write = matches!(operation.action, Action::Write(_));
        history.push(if is_write && dice.below(4) == 0 { unknown(operation) } else { operation });
    }
    history
}

#[test]
fn zones_decide_as_the_search_over_all_orders_does() {
    let mut dice = Dice::new(42);
    let mut verdicts = [0_u32; 2];
    for _ in 0..40_000 {
        let history = random(&mut dice);
        let expected = search(&history, None);
        assert_eq!(check(&history).is_ok(), expected, "{history:#?}");
        verdicts[usize::from(expected)] += 1;
    }
    assert!(verdicts.iter().all(|count| *count > 2000), "both must occur: {verdicts:?}");
}

#[test]
fn what_may_be_read_later_is_what_the_search_allows() {
    let mut dice = Dice::new(43);
    for _ in 0..5_000 {
        let history = random(&mut dice);
        if check(&history).is_err() {
            continue;
        }
        for value in 0..5 {
            let mut longer = history.clone();
            longer.push(read(value, 1000, 1001));
            let held = (value != 0).then_some(Value(value));
            // Reads narrow it down further: what is allowed by the writes alone contains what the search allows.
            assert!(check(&longer).is_err() || may_hold(&history).contains(&held), "{longer:#?}");
        }
    }
}
