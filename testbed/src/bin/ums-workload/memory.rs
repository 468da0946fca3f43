//! Memory that knows what must be in it.

use ums_testbed::pattern::Random;

/// The unit that is written, checked and counted.
pub(crate) const PAGE: usize = 4096;

/// A run of pages. What page `n` must hold follows from the seed, its number and how often it was written.
#[derive(Debug)]
pub(crate) struct Slab {
    seed: u64,
    /// Number of the first page among all slabs of the service, so that no two pages are alike.
    first: u64,
    bytes: Vec<u8>,
    written: Vec<u32>,
    next: Random,
}

impl Slab {
    /// Allocates and fills `pages` pages; every one is touched.
    pub(crate) fn filled(seed: u64, first: u64, pages: usize) -> Self {
        let mut slab = Self {
            seed,
            first,
            bytes: vec![0; pages * PAGE],
            written: vec![0; pages],
            next: Random::of(seed, first, u64::MAX),
        };
        for page in 0..pages {
            slab.write(page);
        }
        slab
    }

    /// How many pages it has.
    pub(crate) fn pages(&self) -> usize {
        self.written.len()
    }

    /// Writes a page chosen at random anew, with content it never had.
    pub(crate) fn dirty(&mut self) {
        if let Some(page) = self.choose() {
            self.written[page] = self.written[page].wrapping_add(1);
            self.write(page);
        }
    }

    /// How many pages do not hold what they must.
    pub(crate) fn bad_pages(&self) -> usize {
        let mut expected = [0; PAGE];
        let pages = self.bytes.as_chunks::<PAGE>().0;
        let is_bad = |(page, bytes): &(usize, &[u8; PAGE])| {
            self.content(*page).fill(&mut expected);
            **bytes != expected
        };
        pages.iter().enumerate().filter(is_bad).count()
    }

    /// Spoils one bit, as a broken migration would: to show that checks find it.
    pub(crate) fn corrupt(&mut self) {
        if let Some(page) = self.choose() {
            self.bytes[page * PAGE + PAGE / 2] ^= 1;
        }
    }

    fn choose(&mut self) -> Option<usize> {
        let pages = self.pages();
        (pages > 0).then(|| usize::try_from(self.next.below(pages as u64)).expect("less than a usize"))
    }

    fn write(&mut self, page: usize) {
        self.content(page).fill(&mut self.bytes[page * PAGE..(page + 1) * PAGE]);
    }

    fn content(&self, page: usize) -> Random {
        Random::of(self.seed, self.first + page as u64, u64::from(self.written[page]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dirtied_memory_is_as_it_must_be() {
        let mut slab = Slab::filled(1, 0, 16);
        for _ in 0..100 {
            slab.dirty();
        }
        assert_eq!(slab.bad_pages(), 0);
    }

    #[test]
    fn a_flipped_bit_a_lost_page_and_an_old_page_are_found() {
        let mut slab = Slab::filled(1, 0, 16);
        let old = slab.bytes.clone();
        slab.corrupt();
        assert_eq!(slab.bad_pages(), 1);

        let mut slab = Slab::filled(1, 0, 16);
        slab.bytes[PAGE..2 * PAGE].fill(0);
        assert_eq!(slab.bad_pages(), 1);

        let mut slab = Slab::filled(1, 0, 1);
        slab.dirty();
        slab.bytes.copy_from_slice(&old[..PAGE]);
        assert_eq!(slab.bad_pages(), 1);
    }

    #[test]
    fn no_two_pages_are_alike() {
        let slab = Slab::filled(1, 0, 64);
        let other = Slab::filled(1, 64, 64);
        let pages: std::collections::BTreeSet<&[u8]> =
            slab.bytes.chunks(PAGE).chain(other.bytes.chunks(PAGE)).collect();
        assert_eq!(pages.len(), 128);
    }

    #[test]
    fn an_empty_slab_is_fine() {
        let mut slab = Slab::filled(1, 0, 0);
        slab.dirty();
        slab.corrupt();
        assert_eq!(slab.bad_pages(), 0);
    }
}
