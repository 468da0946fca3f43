//! Whether the history of one collection, to which values are only ever added, has an explanation.
//!
//! * Every read holds what was acknowledged before it began, nothing that was refused or not yet sent when it ended, and
//!   nothing twice.
//! * Of two reads one contains the other; where the collection is ordered, it begins with it. A read that began after
//!   another ended holds at least as much.
//! * Where it is ordered: an append that was answered before another was sent stands before it; one whose answer named
//!   its position stands there.

use std::collections::{HashMap, HashSet};

use super::history::{Action, Flaw, Operation, Outcome, Value, Why};

/// Whether the order of a collection means something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// A list: values are appended.
    Kept,
    /// A set: values are read in any order.
    None,
}

/// Proves that the operations on one collection that was empty at first can have happened one after the other, as far
/// as the rules above see it. `history` is in any order; operations on registers are ignored.
pub fn check(history: &[Operation], order: Order) -> Result<(), Flaw> {
    let appends = appends(history);
    let mut reads: Vec<(&Operation, &Vec<Value>)> = history
        .iter()
        .filter_map(|operation| match &operation.action {
            Action::ReadAll(values) if operation.outcome == Outcome::Ok => Some((operation, values)),
            _ => None,
        })
        .collect();
    reads.sort_by_key(|(_, values)| values.len());
    for (read, values) in &reads {
        explained(read, values, &appends)?;
    }
    for pair in reads.windows(2) {
        let ((shorter, less), (longer, more)) = (pair[0], pair[1]);
        let contained = match order {
            Order::Kept => more.starts_with(less),
            Order::None => {
                let more: HashSet<&Value> = more.iter().collect();
                less.iter().all(|value| more.contains(value))
            }
        };
        if !contained || (less.len() < more.len() && longer.precedes(shorter)) {
            return Err(Flaw { why: Why::Stale, evidence: vec![shorter.clone(), longer.clone()] });
        }
    }
    match (order, reads.last()) {
        (Order::Kept, Some((read, values))) => ordered(read, values, &appends),
        _ => Ok(()),
    }
}

/// Everything that was appended and not refused.
fn appends(history: &[Operation]) -> HashMap<Value, &Operation> {
    let of = |operation: &Operation| match operation.action {
        Action::Append { value, .. } if operation.outcome != Outcome::Failed => Some(value),
        _ => None,
    };
    history.iter().filter_map(|operation| Some((of(operation)?, operation))).collect()
}

fn explained(read: &Operation, values: &[Value], appends: &HashMap<Value, &Operation>) -> Result<(), Flaw> {
    let mut seen = HashSet::new();
    for value in values {
        let append = appends.get(value).copied();
        if append.is_none_or(|append| read.end < append.begin) {
            let evidence = [Some(read), append].into_iter().flatten().cloned().collect();
            return Err(Flaw { why: Why::Unexplained, evidence });
        }
        if !seen.insert(value) {
            let evidence = [Some(read), append].into_iter().flatten().cloned().collect();
            return Err(Flaw { why: Why::Doubled, evidence });
        }
    }
    let missing = appends.iter().filter(|(value, append)| append.precedes(read) && !seen.contains(value));
    match missing.min_by_key(|(value, _)| **value) {
        Some((_, append)) => Err(Flaw { why: Why::Lost, evidence: vec![(*append).clone(), read.clone()] }),
        None => Ok(()),
    }
}

/// `values` are the longest read of a list.
fn ordered(read: &Operation, values: &[Value], appends: &HashMap<Value, &Operation>) -> Result<(), Flaw> {
    let mut latest_begin: Option<&Operation> = None;
    for (index, value) in values.iter().enumerate() {
        let Some(append) = appends.get(value).copied() else { continue };
        let wrong_place = match append.action {
            Action::Append { length: Some(length), .. } => length != index as u64 + 1,
            _ => false,
        };
        if let Some(before) = latest_begin.filter(|before| wrong_place || append.precedes(before)) {
            let evidence = vec![before.clone(), append.clone(), read.clone()];
            return Err(Flaw { why: Why::Disordered, evidence });
        }
        if wrong_place {
            return Err(Flaw { why: Why::Disordered, evidence: vec![append.clone(), read.clone()] });
        }
        if latest_begin.is_none_or(|before| append.begin > before.begin) {
            latest_begin = Some(append);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::history::examples::{append, failed, read_all, unknown};
    use super::*;

    fn flaw(history: &[Operation], order: Order) -> Why {
        check(history, order).unwrap_err().why
    }

    #[test]
    fn a_list_that_grows_is_accepted() {
        let history = [
            read_all(&[], 1, 2),
            append(7, 1, 3, 4),
            append(8, 2, 5, 9),
            read_all(&[7], 6, 7),
            read_all(&[7, 8], 6, 8),
            unknown(append(9, 0, 10, 11)),
            read_all(&[7, 8], 12, 13),
            read_all(&[7, 8, 9], 90, 91),
        ];
        assert_eq!(check(&history, Order::Kept), Ok(()));
    }

    #[test]
    fn a_set_may_be_read_in_any_order() {
        let history = [append(7, 0, 1, 2), append(8, 0, 3, 4), read_all(&[8, 7], 5, 6)];
        assert_eq!(check(&history, Order::None), Ok(()));
        assert_eq!(flaw(&history, Order::Kept), Why::Disordered);
    }

    #[test]
    fn a_lost_append_is_found() {
        for order in [Order::Kept, Order::None] {
            assert_eq!(flaw(&[append(7, 1, 1, 2), read_all(&[], 3, 4)], order), Why::Lost);
            let later = [append(7, 1, 1, 2), read_all(&[7], 3, 4), read_all(&[], 5, 6)];
            assert_eq!(flaw(&later, order), Why::Lost);
        }
    }

    #[test]
    fn a_doubled_append_is_found() {
        assert_eq!(flaw(&[append(7, 1, 1, 2), read_all(&[7, 7], 3, 4)], Order::None), Why::Doubled);
    }

    #[test]
    fn what_nobody_appended_is_found() {
        assert_eq!(flaw(&[read_all(&[7], 3, 4)], Order::None), Why::Unexplained);
        assert_eq!(flaw(&[failed(append(7, 0, 1, 2)), read_all(&[7], 3, 4)], Order::None), Why::Unexplained);
        assert_eq!(flaw(&[append(7, 1, 5, 6), read_all(&[7], 3, 4)], Order::None), Why::Unexplained);
    }

    #[test]
    fn two_copies_are_found() {
        // Each has taken one of two appends that overlap.
        let history = [append(7, 1, 1, 9), append(8, 1, 1, 9), read_all(&[7], 2, 3), read_all(&[8], 4, 5)];
        assert_eq!(flaw(&history, Order::None), Why::Stale);
        assert_eq!(flaw(&history, Order::Kept), Why::Stale);
        // Both say that theirs is the first of the list.
        let history = [append(7, 1, 1, 9), append(8, 1, 1, 9), read_all(&[7, 8], 10, 11)];
        assert_eq!(flaw(&history, Order::Kept), Why::Disordered);
    }

    #[test]
    fn a_read_that_goes_back_in_time_is_found() {
        let lost = unknown(append(7, 0, 1, 2));
        let history = [lost, read_all(&[7], 3, 4), read_all(&[], 5, 6)];
        assert_eq!(flaw(&history, Order::Kept), Why::Stale);
    }
}
