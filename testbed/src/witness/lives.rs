//! Services that are started anew: several lives, one after the other.

use super::{Record, Violation, check};
use crate::net::SiteIndex;

/// Proves that `records`, in order of arrival, were written by one copy at a time: a life begins from scratch only after the
/// one before it has written its last, and each is one service for itself. Answers where each life was, in order. On `Err`
/// lists what contradicts it.
pub fn lives(records: &[Record]) -> Result<Vec<Vec<SiteIndex>>, Vec<Violation>> {
    let mut lives: Vec<Vec<Record>> = Vec::new();
    let mut violations = Vec::new();
    for record in records {
        match lives.iter().position(|life| life[0].line.run == record.line.run) {
            None => lives.push(vec![*record]),
            Some(number) => {
                if let Some(next) = lives.get(number + 1) {
                    violations.push(Violation::Late { record: *record, after: next[0] });
                }
                lives[number].push(*record);
            }
        }
    }
    let path = |life: &Vec<Record>| {
        let mut sites: Vec<SiteIndex> = life.iter().map(|record| record.site).collect();
        sites.dedup();
        sites
    };
    let paths: Vec<_> = lives.iter().map(path).collect();
    violations.extend(lives.iter().zip(&paths).filter_map(|(life, path)| check(life, path).err()).flatten());
    if lives.is_empty() {
        violations.push(Violation::Silence);
    }
    if violations.is_empty() { Ok(paths) } else { Err(violations) }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use ums_model::names::Epoch;

    use super::*;
    use crate::clock::Boottime;
    use crate::net::{A, B};
    use crate::witness::Line;

    fn record(lines: &[(SiteIndex, u64, u64)]) -> Vec<Record> {
        let record = |(index, (site, run, number)): (usize, &(SiteIndex, u64, u64))| Record {
            site: *site,
            epoch: Epoch(0),
            at: Boottime(Duration::from_millis(index as u64)),
            line: Line { run: *run, number: *number },
        };
        lines.iter().enumerate().map(record).collect()
    }

    #[test]
    fn one_life_after_the_other_is_proved_and_two_at_once_are_found() {
        let fine = record(&[(A, 7, 1), (A, 7, 2), (B, 7, 3), (B, 8, 1), (B, 8, 2)]);
        assert_eq!(lives(&fine).unwrap(), [vec![A, B], vec![B]]);
        let both = record(&[(A, 7, 1), (B, 8, 1), (A, 7, 2)]);
        assert_eq!(lives(&both).unwrap_err(), [Violation::Late { record: both[2], after: both[1] }]);
        let twice = record(&[(A, 7, 1), (A, 7, 1)]);
        assert!(matches!(lives(&twice).unwrap_err()[..], [Violation::Twice { .. }]));
        assert_eq!(lives(&[]).unwrap_err(), [Violation::Silence]);
    }
}
