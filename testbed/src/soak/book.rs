//! The record of everything that clients do, in generations.
//!
//! A generation has keys of its own, so that its history is short and can be checked while the soak goes on. Sessions
//! enter what they do into the generation in which they began it; when none of them is in an old generation any more,
//! that is complete.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use super::history::{Action, Key, Nanos, Operation, Outcome, Value};

/// Keys of one generation: registers first, one collection last.
pub(super) const KEYS: u64 = 5;

/// Shared by all sessions of one database.
#[derive(Debug)]
pub(super) struct Book {
    start: Instant,
    pages: Mutex<Pages>,
    values: AtomicU64,
    pub(super) tally: Tally,
}

/// Sums over all sessions and all of their connections.
#[derive(Debug, Default)]
pub(super) struct Tally {
    pub(super) acknowledged: AtomicU64,
    pub(super) refused: AtomicU64,
    pub(super) unknown: AtomicU64,
    pub(super) connections: AtomicU64,
}

#[derive(Debug, Default)]
struct Pages {
    generation: u64,
    open: BTreeMap<u64, Page>,
    /// When answers came in the present generation.
    signs_of_life: Vec<Nanos>,
}

#[derive(Debug, Default)]
struct Page {
    active: usize,
    operations: Vec<Operation>,
}

/// A session's place in the book, while it does one thing.
#[derive(Debug, Clone, Copy)]
pub(super) struct Entry {
    pub(super) generation: u64,
    begin: Nanos,
}

impl Book {
    pub(super) fn new() -> Self {
        Self {
            start: Instant::now(),
            pages: Mutex::default(),
            values: AtomicU64::new(1),
            tally: Tally::default(),
        }
    }

    /// A value that was never used.
    pub(super) fn fresh_value(&self) -> Value {
        Value(self.values.fetch_add(1, Ordering::Relaxed))
    }

    /// Something begins. It must be ended.
    pub(super) fn begin(&self) -> Entry {
        let mut pages = self.pages();
        let generation = pages.generation;
        self.enter(&mut pages, generation)
    }

    /// Something begins in a generation that need not be the present one.
    pub(super) fn begin_in(&self, generation: u64) -> Entry {
        self.enter(&mut self.pages(), generation)
    }

    fn enter(&self, pages: &mut Pages, generation: u64) -> Entry {
        pages.open.entry(generation).or_default().active += 1;
        // Read last: what is sent after this call begins after this moment.
        Entry { generation, begin: self.now() }
    }

    /// It is over, now.
    pub(super) fn end(&self, entry: Entry, session: u32, key: Key, action: Action, outcome: Outcome) {
        // Read first: what ended before this call ended before this moment.
        let end = self.now();
        let counter = match outcome {
            Outcome::Ok => &self.tally.acknowledged,
            Outcome::Failed => &self.tally.refused,
            Outcome::Unknown => &self.tally.unknown,
        };
        counter.fetch_add(1, Ordering::Relaxed);
        let mut pages = self.pages();
        let page = pages.open.entry(entry.generation).or_default();
        page.active = page.active.saturating_sub(1);
        page.operations.push(Operation { session, key, action, outcome, begin: entry.begin, end });
        if outcome == Outcome::Ok {
            pages.signs_of_life.push(end);
        }
    }

    /// An answer came that is of no interest but for that.
    pub(super) fn sign_of_life(&self) {
        let now = self.now();
        self.pages().signs_of_life.push(now);
    }

    /// Whether an answer came since then, in the present generation.
    pub(super) fn is_alive_since(&self, moment: Instant) -> bool {
        let moment = self.at(moment);
        self.pages().signs_of_life.iter().rev().any(|sign| *sign > moment)
    }

    /// Begins a new generation; returns the old one.
    pub(super) fn turn(&self) -> u64 {
        let mut pages = self.pages();
        pages.generation += 1;
        pages.signs_of_life.clear();
        pages.generation - 1
    }

    /// Whether nobody is in this old generation any more.
    pub(super) fn is_complete(&self, generation: u64) -> bool {
        let pages = self.pages();
        pages.generation > generation && pages.open.get(&generation).is_none_or(|page| page.active == 0)
    }

    /// Takes the operations of an old generation out of the book.
    pub(super) fn tear_out(&self, generation: u64) -> Vec<Operation> {
        self.pages().open.remove(&generation).unwrap_or_default().operations
    }

    /// The longest time without an answer between two moments of the present generation. `None` if there was none.
    pub(super) fn longest_silence(&self, from: Instant, until: Instant) -> Option<Nanos> {
        let (from, until) = (self.at(from), self.at(until));
        let mut ends = self.pages().signs_of_life.clone();
        ends.sort_unstable();
        let first = ends.partition_point(|end| *end <= from).saturating_sub(1);
        let last = ends.partition_point(|end| *end < until).min(ends.len().saturating_sub(1));
        ends.get(first..=last)?.windows(2).map(|pair| pair[1] - pair[0]).max()
    }

    pub(super) fn now(&self) -> Nanos {
        self.at(Instant::now())
    }

    fn at(&self, moment: Instant) -> Nanos {
        Nanos::try_from(moment.saturating_duration_since(self.start).as_nanos()).unwrap_or(Nanos::MAX)
    }

    fn pages(&self) -> MutexGuard<'_, Pages> {
        self.pages.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The `number`-th register of a generation.
pub(super) fn register(generation: u64, number: u64) -> Key {
    Key(generation * KEYS + number % (KEYS - 1))
}

/// The collection of a generation.
pub(super) fn collection(generation: u64) -> Key {
    Key(generation * KEYS + KEYS - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_generation_is_complete_when_nobody_is_in_it() {
        let book = Book::new();
        let entry = book.begin();
        assert!(!book.is_complete(0), "it is the present one");
        assert_eq!(book.turn(), 0);
        assert!(!book.is_complete(0), "somebody is in it");
        let later = book.begin();
        assert_eq!((entry.generation, later.generation), (0, 1));
        book.end(entry, 3, register(0, 9), Action::Read(None), Outcome::Unknown);
        book.end(later, 4, register(1, 1), Action::Read(None), Outcome::Ok);
        assert!(book.is_complete(0) && !book.is_complete(1));
        let torn = book.tear_out(0);
        assert_eq!((torn.len(), torn[0].session, torn[0].key), (1, 3, Key(1)));
        assert!(torn[0].begin <= torn[0].end);
        assert_eq!(book.tally.acknowledged.load(Ordering::Relaxed), 1);
        assert_eq!(book.tally.unknown.load(Ordering::Relaxed), 1);
        assert!(book.tear_out(0).is_empty());
    }

    #[test]
    fn the_longest_silence_lies_between_two_answers() {
        let book = Book::new();
        let begin = Instant::now();
        assert_eq!(book.longest_silence(begin, Instant::now()), None);
        book.sign_of_life();
        let quiet = Instant::now();
        while quiet.elapsed() < std::time::Duration::from_millis(2) {}
        assert!(!book.is_alive_since(quiet));
        book.sign_of_life();
        assert!(book.is_alive_since(quiet));
        assert!(book.longest_silence(begin, Instant::now()) >= Some(2_000_000));
        book.turn();
        assert_eq!(book.longest_silence(begin, Instant::now()), None, "another generation");
    }

    #[test]
    fn keys_of_generations_are_different() {
        let keys = |generation| (0..KEYS - 1).map(move |number| register(generation, number));
        let mut all: Vec<Key> = keys(0).chain(keys(1)).chain([collection(0), collection(1)]).collect();
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len() as u64, 2 * KEYS);
    }
}
