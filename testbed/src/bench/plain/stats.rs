//! The one number of CRIU's `stats-dump` that only CRIU knows: how long the tasks were stopped.

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};

/// Two magic numbers and the length of the entry, four bytes each.
const HEADER: usize = 12;
/// Field of the entry: what a dump measured.
const DUMP: u64 = 1;
/// Fields of the dump's part, in microseconds: stopping the tasks, and how long they were stopped after that.
const FREEZING: u64 = 1;
const FROZEN: u64 = 2;

/// From the first task stopped to the end of the dump.
pub(super) fn frozen(path: &Path) -> Result<Duration> {
    let bytes = fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    parse(&bytes).with_context(|| format!("{} has another form than CRIU 4's", path.display()))
}

fn parse(bytes: &[u8]) -> Option<Duration> {
    let dump = Field::find(bytes.get(HEADER..)?, DUMP)?.bytes()?;
    let micros = |number| Field::find(dump, number)?.number();
    Some(Duration::from_micros(micros(FREEZING)?.checked_add(micros(FROZEN)?)?))
}

/// A field of a protocol buffer message, of the two kinds that occur here.
enum Field<'a> {
    Number(u64),
    Bytes(&'a [u8]),
}

impl<'a> Field<'a> {
    fn find(mut message: &'a [u8], wanted: u64) -> Option<Self> {
        loop {
            let key = varint(&mut message)?;
            let value = varint(&mut message)?;
            let field = match key & 7 {
                0 => Self::Number(value),
                2 => {
                    let (bytes, rest) = message.split_at_checked(usize::try_from(value).ok()?)?;
                    message = rest;
                    Self::Bytes(bytes)
                }
                _ => return None,
            };
            if key >> 3 == wanted {
                return Some(field);
            }
        }
    }

    fn number(self) -> Option<u64> {
        if let Self::Number(number) = self { Some(number) } else { None }
    }

    fn bytes(self) -> Option<&'a [u8]> {
        if let Self::Bytes(bytes) = self { Some(bytes) } else { None }
    }
}

fn varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let (first, rest) = bytes.split_first()?;
        *bytes = rest;
        value |= u64::from(first & 0x7f) << shift;
        if first & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Header, then `{1: {1: 300, 2: 70000, 3: 5}}`.
    const STATS: [u8; 23] =
        [0, 0, 0, 0, 0, 0, 0, 0, 11, 0, 0, 0, 0x0a, 9, 0x08, 0xac, 0x02, 0x10, 0xf0, 0xa2, 0x04, 0x18, 5];

    #[test]
    fn both_times_are_added() {
        assert_eq!(parse(&STATS), Some(Duration::from_micros(70_300)));
    }

    #[test]
    fn what_is_cut_short_is_not_a_number() {
        for length in 0..STATS.len() {
            assert_eq!(parse(&STATS[..length]), None, "{length}");
        }
    }
}
