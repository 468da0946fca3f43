//! The data of one file that is being written.

use std::ops::Range;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use rustix::fs::ftruncate;
use rustix::io::{Errno, pwrite};

use super::error::failed;
use super::place::dress;
use super::{Attributes, FilesError, Refusal, TreePath, layout};

/// Zeros of this length, aligned, are left out: file systems allocate in such blocks.
const BLOCK: u64 = 4096;

/// How many files of a tree were begun and are not finished.
pub(super) type Unfinished = Arc<AtomicUsize>;

/// Takes the data of one file. It may be used on another thread than the [`TreeWriter`](super::TreeWriter) that made
/// it, and while other files are written.
///
/// Dropped before [`finish`](Self::finish), it leaves the tree incomplete.
#[derive(Debug)]
pub struct FileWriter {
    path: TreePath,
    file: OwnedFd,
    attributes: Attributes,
    size: u64,
    data: u64,
    ranges: std::vec::IntoIter<Range<u64>>,
    current: Range<u64>,
    unfinished: Unfinished,
}

impl FileWriter {
    /// For the file of `size` bytes that was just created, empty, with data in `ranges`.
    pub(super) fn new(
        path: TreePath,
        file: OwnedFd,
        attributes: Attributes,
        size: u64,
        ranges: Vec<Range<u64>>,
        unfinished: Unfinished,
    ) -> Self {
        unfinished.fetch_add(1, Ordering::Relaxed);
        let data = layout::length(&ranges);
        Self { path, file, attributes, size, data, ranges: ranges.into_iter(), current: 0..0, unfinished }
    }

    /// Appends data. Blocks of zeros become holes.
    ///
    /// On `Err` the file is unusable and the attempt to write the tree over.
    pub fn write(&mut self, mut data: &[u8]) -> Result<(), FilesError> {
        while !data.is_empty() {
            if self.current.is_empty() {
                let Some(range) = self.ranges.next() else { return Err(self.wrong_length("longer")) };
                self.current = range;
            }
            let left = usize::try_from(self.current.end - self.current.start).unwrap_or(usize::MAX);
            let (now, later) = data.split_at(data.len().min(left));
            self.write_range(now)?;
            data = later;
        }
        Ok(())
    }

    /// Writes data that lies within one range, all but its blocks of zeros, in as few calls as possible.
    fn write_range(&mut self, data: &[u8]) -> Result<(), FilesError> {
        let mut pending = 0;
        let mut position = 0;
        while position < data.len() {
            let into_block = (self.current.start + position as u64) % BLOCK;
            let end = data.len().min(position + (BLOCK - into_block) as usize);
            // The file is new, so what is not written reads as zeros.
            if is_zero(&data[position..end]) {
                self.write_at(&data[pending..position], pending)?;
                pending = end;
            }
            position = end;
        }
        self.write_at(&data[pending..], pending)?;
        self.current.start += data.len() as u64;
        Ok(())
    }

    fn write_at(&self, mut data: &[u8], from: usize) -> Result<(), FilesError> {
        let mut offset = self.current.start + from as u64;
        while !data.is_empty() {
            match pwrite(&self.file, data, offset) {
                Ok(0) => return Err(failed("write", &self.path)(Errno::IO)),
                Ok(written) => {
                    data = &data[written..];
                    offset += written as u64;
                }
                Err(Errno::INTR) => {}
                Err(errno) => return Err(failed("write", &self.path)(errno)),
            }
        }
        Ok(())
    }

    /// Ends the file and gives it its attributes. On `Ok` it is complete, and durable with
    /// [`TreeWriter::complete`](super::TreeWriter::complete). An error if less data came than was announced.
    pub fn finish(self) -> Result<(), FilesError> {
        if !self.current.is_empty() || self.ranges.len() > 0 {
            return Err(self.wrong_length("shorter"));
        }
        ftruncate(&self.file, self.size).map_err(failed("set the length of", &self.path))?;
        dress(&self.file, &self.path, &self.attributes)?;
        self.unfinished.fetch_sub(1, Ordering::Relaxed);
        Ok(())
    }

    fn wrong_length(&self, side: &'static str) -> FilesError {
        FilesError::refused(&self.path, Refusal::WrongLength { side, expected: self.data })
    }
}

fn is_zero(data: &[u8]) -> bool {
    let (words, rest) = data.as_chunks::<16>();
    words.iter().all(|word| u128::from_ne_bytes(*word) == 0) && rest.iter().all(|byte| *byte == 0)
}
