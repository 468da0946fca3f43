//! Whether the history of one register is linearizable.
//!
//! Linearizability is local: a history is linearizable if that of every key is, so each is checked alone. Since every
//! write has a value of its own, every read names its write, and the search of Wing and Gong over all orders becomes a
//! comparison of *zones* (Gibbons and Korach, "Testing Shared Memories", 1997). The operations on one value, its write
//! and the reads of it, form a cluster. From the earliest end in it to the latest begin the register must have held
//! this value all the time (a *forward* zone); if they all overlap, it held it at some moment between the latest begin
//! and the earliest end (a *backward* zone). A history is linearizable if and only if no read ends before its write
//! begins, no two forward zones overlap, and no backward zone lies within a forward one.
//!
//! A write without an answer may take effect at any later time: its end is infinite. If nobody read its value it can
//! be left out, because an order without it is one as well. A refused write is left out too: a read of it is unexplained.

use std::collections::BTreeMap;

use super::history::{Action, Flaw, Nanos, Operation, Outcome, Value, Why};

/// The operations on one value.
#[derive(Debug, Default)]
struct Cluster<'a> {
    write: Option<&'a Operation>,
    reads: Vec<&'a Operation>,
}

/// Where a cluster stands in time.
#[derive(Debug, Clone, Copy)]
struct Zone<'a> {
    /// The earliest end, and whose.
    end: (Nanos, Option<&'a Operation>),
    /// The latest begin, and whose.
    begin: (Nanos, Option<&'a Operation>),
}

/// Proves that the operations on one register can have happened one after the other. `history` is in any order and
/// belongs to one key that nobody wrote before; operations on collections are ignored.
///
/// On `Err` the evidence alone is not linearizable.
pub fn check(history: &[Operation]) -> Result<(), Flaw> {
    let clusters = clusters(history);
    for (value, cluster) in &clusters {
        explained(*value, cluster)?;
    }
    let zones: Vec<Zone<'_>> = clusters.iter().filter_map(|(value, cluster)| zone(*value, cluster)).collect();
    let (mut forward, backward): (Vec<Zone<'_>>, Vec<Zone<'_>>) =
        zones.into_iter().partition(Zone::is_forward);
    forward.sort_by_key(|zone| zone.end.0);
    for pair in forward.windows(2) {
        // Sorted by their start and disjoint so far: only neighbours can be the first to overlap.
        if pair[1].end.0 < pair[0].begin.0 {
            return Err(overlap(pair[0], pair[1]));
        }
    }
    for inner in backward {
        let before = forward.partition_point(|outer| outer.end.0 < inner.begin.0);
        let outer = before.checked_sub(1).map(|index| forward[index]);
        if let Some(outer) = outer.filter(|outer| inner.end.0 < outer.begin.0) {
            return Err(overlap(outer, inner));
        }
    }
    Ok(())
}

/// What may be read by now, if nobody writes any more: the value last written, as an order of the whole history may have
/// it, or any of the writes without an answer.
pub fn may_hold(history: &[Operation]) -> Vec<Option<Value>> {
    let writes = || {
        history.iter().filter_map(|operation| match operation.action {
            Action::Write(value) if operation.outcome != Outcome::Failed => Some((value, operation)),
            _ => None,
        })
    };
    let replaced = |operation: &Operation| {
        writes().any(|(_, other)| operation.precedes(other) && other.settled().is_some())
    };
    let mut values: Vec<_> =
        writes().filter(|(_, operation)| !replaced(operation)).map(|(value, _)| Some(value)).collect();
    if writes().all(|(_, operation)| operation.settled().is_none()) {
        values.push(None);
    }
    values
}

impl Zone<'_> {
    fn is_forward(&self) -> bool {
        self.end.0 < self.begin.0
    }
}

/// Clusters by value; `None` is what was there before any write.
fn clusters(history: &[Operation]) -> BTreeMap<Option<Value>, Cluster<'_>> {
    let mut clusters: BTreeMap<Option<Value>, Cluster<'_>> = BTreeMap::new();
    for operation in history {
        match (&operation.action, operation.outcome) {
            (Action::Write(value), Outcome::Ok | Outcome::Unknown) => {
                clusters.entry(Some(*value)).or_default().write = Some(operation);
            }
            (Action::Read(value), Outcome::Ok) => clusters.entry(*value).or_default().reads.push(operation),
            _ => {}
        }
    }
    clusters
}

fn explained(value: Option<Value>, cluster: &Cluster<'_>) -> Result<(), Flaw> {
    if value.is_none() {
        return Ok(());
    }
    let wrong = |read: &&&Operation| match cluster.write {
        None => true,
        Some(write) => read.end < write.begin,
    };
    match cluster.reads.iter().find(wrong) {
        None => Ok(()),
        Some(read) => {
            let evidence = [Some(*read), cluster.write].into_iter().flatten().cloned().collect();
            Err(Flaw { why: Why::Unexplained, evidence })
        }
    }
}

fn zone<'a>(value: Option<Value>, cluster: &Cluster<'a>) -> Option<Zone<'a>> {
    let mut ends: Vec<(Nanos, Option<&Operation>)> =
        cluster.reads.iter().map(|read| (read.end, Some(*read))).collect();
    let mut begins: Vec<(Nanos, Option<&Operation>)> =
        cluster.reads.iter().map(|read| (read.begin, Some(*read))).collect();
    match cluster.write {
        Some(write) if write.settled().is_none() && cluster.reads.is_empty() => return None,
        Some(write) => {
            ends.push((write.settled().unwrap_or(Nanos::MAX), Some(write)));
            begins.push((write.begin, Some(write)));
        }
        // Nothing was there from the very begin.
        None if value.is_none() => ends.push((0, None)),
        None => {}
    }
    let end = ends.into_iter().min_by_key(|(nanos, _)| *nanos)?;
    let begin = begins.into_iter().max_by_key(|(nanos, _)| *nanos)?;
    Some(Zone { end, begin })
}

/// The register would have had to hold both values at once.
fn overlap(one: Zone<'_>, other: Zone<'_>) -> Flaw {
    let mut evidence: Vec<Operation> = Vec::new();
    for operation in [one.end.1, one.begin.1, other.end.1, other.begin.1].into_iter().flatten() {
        if !evidence.contains(operation) {
            evidence.push(operation.clone());
        }
    }
    evidence.sort_by_key(|operation| operation.begin);
    // Where an acknowledged write was never seen and an older value was, it is gone; else a reader saw the past.
    let seen = |value: Value| evidence.iter().any(|operation| operation.action == Action::Read(Some(value)));
    let lost = evidence.iter().any(|operation| match operation.action {
        Action::Write(value) => operation.outcome == Outcome::Ok && !seen(value),
        _ => false,
    });
    Flaw { why: if lost { Why::Lost } else { Why::Stale }, evidence }
}

#[cfg(test)]
mod tests;
