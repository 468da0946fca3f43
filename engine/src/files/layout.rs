//! Where a file has data and where it has holes.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::ops::Range;
use std::os::fd::AsFd;

use rustix::fs::{SeekFrom, seek};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

/// Most holes that are told of one file, so that an entry stays small. Of more, the largest are told and the others
/// travel as zeros, which the writing end makes holes again.
pub const MAX_HOLES: usize = 256;

/// A range of a file without data. On the wire a pair of offset and length.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(from = "(u64, u64)", into = "(u64, u64)")]
pub struct Hole {
    /// Where it begins, in bytes from the beginning of the file.
    pub offset: u64,
    /// How long it is, in bytes.
    pub length: u64,
}

impl From<(u64, u64)> for Hole {
    fn from((offset, length): (u64, u64)) -> Self {
        Self { offset, length }
    }
}

impl From<Hole> for (u64, u64) {
    fn from(hole: Hole) -> Self {
        (hole.offset, hole.length)
    }
}

/// The holes of a file contradict each other or its size.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("holes that are empty, overlap, touch, lie beyond the end or are more than {MAX_HOLES}")]
pub struct InvalidLayout;

/// The ranges of a file of `size` bytes that have data: what is left between `holes`.
pub(super) fn data_ranges(size: u64, holes: &[Hole]) -> Result<Vec<Range<u64>>, InvalidLayout> {
    // The kernel counts in signed numbers.
    if holes.len() > MAX_HOLES || i64::try_from(size).is_err() {
        return Err(InvalidLayout);
    }
    let mut ranges = Vec::with_capacity(holes.len() + 1);
    let mut begin = 0;
    for (index, hole) in holes.iter().enumerate() {
        let end = hole.offset.checked_add(hole.length).filter(|end| *end <= size).ok_or(InvalidLayout)?;
        let apart = hole.offset > begin || (index == 0 && hole.offset == 0);
        if hole.length == 0 || !apart {
            return Err(InvalidLayout);
        }
        ranges.push(begin..hole.offset);
        begin = end;
    }
    ranges.push(begin..size);
    ranges.retain(|range| !range.is_empty());
    Ok(ranges)
}

/// How many bytes `ranges` have together.
pub(super) fn length(ranges: &[Range<u64>]) -> u64 {
    ranges.iter().map(|range| range.end - range.start).sum()
}

/// The holes in the first `size` bytes of an open file, or none where the file system cannot tell. Moves its offset.
pub(super) fn holes(file: impl AsFd, size: u64) -> Result<Vec<Hole>, Errno> {
    let mut largest = BinaryHeap::with_capacity(MAX_HOLES + 1);
    let mut position = 0;
    while position < size {
        let hole = match seek(&file, SeekFrom::Hole(position)) {
            Ok(offset) if offset < size => offset,
            // The end of the file counts as a hole. The errors: it became shorter, or the file system cannot tell.
            Ok(_) | Err(Errno::NXIO | Errno::INVAL | Errno::OPNOTSUPP) => break,
            Err(errno) => return Err(errno),
        };
        position = match seek(&file, SeekFrom::Data(hole)) {
            Ok(offset) => offset.min(size),
            Err(Errno::NXIO) => size,
            Err(errno) => return Err(errno),
        };
        largest.push(Reverse((position - hole, hole)));
        if largest.len() > MAX_HOLES {
            largest.pop();
        }
    }
    let mut holes: Vec<Hole> =
        largest.into_iter().map(|Reverse((length, offset))| Hole { offset, length }).collect();
    holes.sort();
    Ok(holes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hole(offset: u64, length: u64) -> Hole {
        Hole { offset, length }
    }

    #[test]
    fn data_is_what_lies_between_holes() {
        let data = |size, holes: &[Hole]| -> Vec<(u64, u64)> {
            data_ranges(size, holes).unwrap().iter().map(|range| (range.start, range.end)).collect()
        };
        assert_eq!(data(0, &[]), []);
        assert_eq!(data(10, &[]), [(0, 10)]);
        assert_eq!(data(10, &[hole(0, 10)]), []);
        assert_eq!(data(10, &[hole(0, 2), hole(4, 2), hole(9, 1)]), [(2, 4), (6, 9)]);
    }

    #[test]
    fn contradicting_holes_are_refused() {
        for holes in [
            vec![hole(0, 0)],
            vec![hole(5, 0)],
            vec![hole(0, 11)],
            vec![hole(u64::MAX, 2)],
            vec![hole(4, 2), hole(2, 1)],
            vec![hole(4, 2), hole(5, 2)],
            vec![hole(4, 2), hole(6, 2)],
            vec![hole(0, 1), hole(0, 1)],
        ] {
            assert_eq!(data_ranges(10, &holes), Err(InvalidLayout), "{holes:?}");
        }
        assert_eq!(data_ranges(u64::MAX, &[]), Err(InvalidLayout));
        let many: Vec<Hole> = (0..=MAX_HOLES as u64).map(|n| hole(2 * n, 1)).collect();
        assert_eq!(data_ranges(1 << 20, &many), Err(InvalidLayout));
    }
}
