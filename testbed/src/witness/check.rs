//! The proof, as a pure function of what was recorded.

use std::fmt;

use super::Record;
use crate::net::SiteIndex;

/// Lines of the old site that may arrive after the first of the new one at a hand-over.
const STRADDLING: usize = 1;

/// Something that cannot happen to one service of which one copy runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Violation {
    /// Nothing was recorded at all.
    Silence,
    /// Something in a witness file that no workload writes.
    Garbage {
        /// Whose file.
        site: SiteIndex,
        /// What it says.
        text: String,
    },
    /// A copy was started from scratch beside the one that counts.
    Restarted {
        /// Its first line.
        record: Record,
    },
    /// A number was written twice.
    Twice {
        /// By whom first.
        first: Record,
        /// And again.
        again: Record,
    },
    /// Numbers are missing.
    Missing {
        /// The last before.
        before: Record,
        /// The first after.
        after: Record,
    },
    /// The service was not where it should have been, in this order.
    Path {
        /// Sites in the order of the successful migrations.
        expected: Vec<SiteIndex>,
        /// Sites in the order of the numbers, each with the first line there.
        seen: Vec<Record>,
    },
    /// A site went on writing after another had taken over.
    Late {
        /// The late line.
        record: Record,
        /// What had already been written elsewhere.
        after: Record,
    },
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Silence => write!(f, "the witness heard nothing"),
            Self::Garbage { site, text } => write!(f, "garbage in the file of site {site}: {text:?}"),
            Self::Restarted { record } => {
                write!(f, "another copy was started from scratch: its first line is {record}")
            }
            Self::Twice { first, again } => write!(f, "written twice: {first}, and {again}"),
            Self::Missing { before, after } => {
                let lost = after.line.number - before.line.number - 1;
                write!(f, "{lost} numbers are missing between {before} and {after}")
            }
            Self::Path { expected, seen } => {
                let expected: Vec<_> = expected.iter().map(|site| site.name()).collect();
                write!(f, "expected at sites {} in this order, seen: ", expected.join(" "))?;
                let seen: Vec<_> = seen.iter().map(|record| format!("from {record}")).collect();
                write!(f, "{}", seen.join(", "))
            }
            Self::Late { record, after } => write!(f, "{record} came after {after}"),
        }
    }
}

/// What was proved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Verdict {
    /// How many numbers were written, every one exactly once.
    pub numbers: u64,
    /// How often the site changed.
    pub moves: u64,
}

/// Proves that `records`, in order of arrival, were written by one service that was at the sites of `path` one after
/// the other. On `Err` lists what contradicts it, with evidence, at least one.
pub fn check(records: &[Record], path: &[SiteIndex]) -> Result<Verdict, Vec<Violation>> {
    let Some(first) = records.first() else { return Err(vec![Violation::Silence]) };
    let (own, others): (Vec<_>, Vec<_>) =
        records.iter().copied().partition(|record| record.line.run == first.line.run);
    let mut violations: Vec<_> =
        first_of_each_run(&others).into_iter().map(|record| Violation::Restarted { record }).collect();

    violations.extend(late(&own));
    // Stable, so of two records with one number the one that arrived first comes first.
    let mut numbered = own;
    numbered.sort_by_key(|record| record.line.number);
    violations.extend(numbered.windows(2).filter_map(|pair| step(pair[0], pair[1])));

    let mut visits = numbered.clone();
    visits.dedup_by_key(|record| record.site);
    if !visits.iter().map(|record| &record.site).eq(path) {
        violations.push(Violation::Path { expected: path.to_vec(), seen: visits.clone() });
    }
    if violations.is_empty() {
        Ok(Verdict { numbers: numbered.len() as u64, moves: visits.len() as u64 - 1 })
    } else {
        Err(violations)
    }
}

fn step(before: Record, after: Record) -> Option<Violation> {
    match after.line.number - before.line.number {
        0 => Some(Violation::Twice { first: before, again: after }),
        1 => None,
        _ => Some(Violation::Missing { before, after }),
    }
}

fn first_of_each_run(records: &[Record]) -> Vec<Record> {
    let mut firsts: Vec<Record> = Vec::new();
    for record in records {
        if firsts.iter().all(|first| first.line.run != record.line.run) {
            firsts.push(*record);
        }
    }
    firsts
}

/// Lines that arrive after a higher number of another site, more of them in a row than a hand-over explains.
fn late(records: &[Record]) -> Vec<Violation> {
    let mut violations = Vec::new();
    let Some(mut newest) = records.first().copied() else { return violations };
    let mut in_a_row = 0;
    for record in records {
        if record.line.number > newest.line.number {
            newest = *record;
            in_a_row = 0;
        } else if record.site != newest.site {
            in_a_row += 1;
            if in_a_row > STRADDLING {
                violations.push(Violation::Late { record: *record, after: newest });
            }
        }
    }
    violations
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use ums_model::names::Epoch;

    use super::*;
    use crate::clock::Boottime;
    use crate::net::{A, B};
    use crate::witness::Line;

    /// Records in order of arrival, one millisecond apart.
    fn record(lines: &[(SiteIndex, u64)]) -> Vec<Record> {
        let at = |index: usize| Boottime(Duration::from_millis(index as u64));
        let line = |number| Line { run: 7, number };
        let record = |(index, (site, number)): (usize, &(SiteIndex, u64))| Record {
            site: *site,
            epoch: Epoch(0),
            at: at(index),
            line: line(*number),
        };
        lines.iter().enumerate().map(record).collect()
    }

    #[test]
    fn a_clean_journey_is_proved() {
        let records = record(&[(A, 1), (A, 2), (B, 3), (B, 4), (A, 5)]);
        assert_eq!(check(&records, &[A, B, A]), Ok(Verdict { numbers: 5, moves: 2 }));
    }

    #[test]
    fn a_recording_that_begins_late_is_fine() {
        assert_eq!(check(&record(&[(B, 41), (B, 42)]), &[B]), Ok(Verdict { numbers: 2, moves: 0 }));
    }

    #[test]
    fn two_running_copies_cannot_hide() {
        let records = record(&[(A, 1), (A, 2), (B, 3), (A, 3), (B, 4), (A, 4), (B, 5)]);
        let violations = check(&records, &[A, B]).unwrap_err();
        assert!(
            violations.contains(&Violation::Twice { first: records[2], again: records[3] }),
            "{violations:?}"
        );
        assert!(
            violations.contains(&Violation::Twice { first: records[4], again: records[5] }),
            "{violations:?}"
        );
    }

    #[test]
    fn a_copy_that_runs_for_one_line_is_found() {
        let records = record(&[(A, 1), (A, 2), (B, 2), (A, 3)]);
        let violations = check(&records, &[A]).unwrap_err();
        assert!(violations.contains(&Violation::Twice { first: records[1], again: records[2] }));
        assert!(violations.iter().any(|violation| matches!(violation, Violation::Path { .. })));
    }

    #[test]
    fn copies_that_share_the_numbers_are_found() {
        // Not possible with one memory each, but then the proof would rest on that.
        let records = record(&[(A, 1), (B, 2), (A, 3), (B, 4)]);
        let violations = check(&records, &[A, B]).unwrap_err();
        let [Violation::Path { expected, seen }] = &violations[..] else { panic!("{violations:?}") };
        assert_eq!((expected.len(), seen.len()), (2, 4));
    }

    #[test]
    fn a_state_that_went_back_over_its_output_is_found() {
        // The destination runs a state from before what the source wrote.
        let records = record(&[(A, 1), (A, 2), (A, 3), (B, 2), (B, 3), (B, 4)]);
        let violations = check(&records, &[A, B]).unwrap_err();
        assert!(violations.contains(&Violation::Twice { first: records[1], again: records[3] }));
    }

    #[test]
    fn lost_numbers_are_found() {
        let records = record(&[(A, 1), (A, 2), (B, 5)]);
        let expected = Violation::Missing { before: records[1], after: records[2] };
        assert_eq!(check(&records, &[A, B]), Err(vec![expected]));
    }

    #[test]
    fn a_second_start_is_found() {
        let mut records = record(&[(A, 1), (A, 2), (B, 1), (B, 2), (A, 3)]);
        records[2].line.run = 8;
        records[3].line.run = 8;
        assert_eq!(check(&records, &[A]), Err(vec![Violation::Restarted { record: records[2] }]));
    }

    #[test]
    fn a_move_that_nobody_asked_for_and_one_that_did_not_happen_are_found() {
        let records = record(&[(A, 1), (B, 2)]);
        assert!(matches!(check(&records, &[A]).unwrap_err()[..], [Violation::Path { .. }]));
        assert!(matches!(check(&records, &[A, B, A]).unwrap_err()[..], [Violation::Path { .. }]));
    }

    #[test]
    fn one_line_may_straddle_a_hand_over_two_may_not() {
        let one = record(&[(A, 1), (B, 3), (A, 2), (B, 4)]);
        assert_eq!(check(&one, &[A, B]), Ok(Verdict { numbers: 4, moves: 1 }));
        let two = record(&[(A, 1), (B, 4), (A, 2), (A, 3), (B, 5)]);
        assert_eq!(check(&two, &[A, B]), Err(vec![Violation::Late { record: two[3], after: two[1] }]));
    }

    #[test]
    fn silence_is_no_proof() {
        assert_eq!(check(&[], &[A]), Err(vec![Violation::Silence]));
    }

    #[test]
    fn violations_tell_their_evidence() {
        let records = record(&[(A, 1), (B, 1)]);
        let violations = check(&records, &[A]).unwrap_err();
        let text = violations.iter().map(Violation::to_string).collect::<Vec<_>>().join("; ");
        assert!(text.contains("1 at site a in epoch 0 at 0.0000 s, and 1 at site b"), "{text}");
    }
}
