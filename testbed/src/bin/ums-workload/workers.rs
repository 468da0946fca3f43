//! The threads of one memhog process: each owns a part of the memory, writes to it at its rate, and checks it when
//! asked. Nobody else touches it, so a check is exact although writing never stops for long.

use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use crate::memory::{PAGE, Slab};

/// Writing happens in portions this far apart.
const TICK: Duration = Duration::from_millis(10);
/// What was missed while the process stood still is made up for up to this much, not more.
const LONGEST_BACKLOG: Duration = Duration::from_millis(100);

/// What the threads of one process hold.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Plan {
    pub(crate) seed: u64,
    /// Number of the first page of this process.
    pub(crate) first: u64,
    pub(crate) pages: usize,
    pub(crate) threads: usize,
    /// Bytes to write per second, all threads together.
    pub(crate) dirty_per_second: u64,
}

/// What one check or count found.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    pub(crate) pages: u64,
    pub(crate) bad: u64,
    pub(crate) dirtied: u64,
}

impl Tally {
    pub(crate) fn add(self, other: Self) -> Self {
        Self {
            pages: self.pages + other.pages,
            bad: self.bad + other.bad,
            dirtied: self.dirtied + other.dirtied,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Question {
    /// Is every page as it must be? Fills all fields of the [`Tally`].
    Check,
    /// How much is there, how much was written? Leaves `bad` at 0.
    Count,
    /// Spoil one page of the first thread.
    Corrupt,
}

#[derive(Debug)]
pub(crate) struct Workers(Vec<Sender<(Question, Sender<Tally>)>>);

impl Workers {
    /// Starts the threads and returns when all memory is filled.
    pub(crate) fn start(plan: &Plan) -> Result<Self> {
        let threads = plan.threads.max(1);
        let rate = plan.dirty_per_second / threads as u64;
        let mut first = 0;
        let mut senders = Vec::new();
        for thread in 0..threads {
            let end = plan.pages * (thread + 1) / threads;
            let (seed, number, pages) = (plan.seed, plan.first + first as u64, end - first);
            first = end;
            let (sender, questions) = channel();
            thread::Builder::new()
                .name(format!("memory {thread}"))
                .spawn(move || work(Slab::filled(seed, number, pages), rate, &questions))
                .context("cannot start a thread")?;
            senders.push(sender);
        }
        let workers = Self(senders);
        workers.ask(Question::Count)?;
        Ok(workers)
    }

    /// Asks every thread at the same time and adds up.
    pub(crate) fn ask(&self, question: Question) -> Result<Tally> {
        let asked = if question == Question::Corrupt { &self.0[..1] } else { &self.0[..] };
        let (sender, answers) = channel();
        for worker in asked {
            worker.send((question, sender.clone())).context("a thread has ended")?;
        }
        drop(sender);
        let tallies: Vec<Tally> = answers.iter().collect();
        anyhow::ensure!(tallies.len() == asked.len(), "a thread ended without an answer");
        Ok(tallies.into_iter().fold(Tally::default(), Tally::add))
    }
}

fn work(mut slab: Slab, rate: u64, questions: &Receiver<(Question, Sender<Tally>)>) {
    let mut dirtied = 0;
    let mut done_until = Instant::now();
    loop {
        let question = if rate == 0 || slab.pages() == 0 {
            // Nothing to write: sleep until asked, without waking up in between.
            questions.recv().map_err(|_| RecvTimeoutError::Disconnected)
        } else {
            questions.recv_timeout(TICK)
        };
        match question {
            Ok((question, answer)) => {
                let pages = slab.pages() as u64;
                let bad = if question == Question::Check { slab.bad_pages() as u64 } else { 0 };
                if question == Question::Corrupt {
                    slab.corrupt();
                }
                // Whoever asked may be gone.
                let _ = answer.send(Tally { pages, bad, dirtied });
            }
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return,
        }
        if rate > 0 {
            let now = Instant::now();
            done_until = done_until.max(now.checked_sub(LONGEST_BACKLOG).unwrap_or(now));
            let page_time = Duration::from_secs_f64(PAGE as f64 / rate as f64);
            while done_until + page_time <= now {
                slab.dirty();
                dirtied += 1;
                done_until += page_time;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(dirty_per_second: u64) -> Plan {
        Plan { seed: 9, first: 100, pages: 1000, threads: 3, dirty_per_second }
    }

    #[test]
    fn all_pages_are_counted_and_good_while_they_are_written() {
        let workers = Workers::start(&plan(64 << 20)).unwrap();
        let tally = loop {
            let tally = workers.ask(Question::Check).unwrap();
            if tally.dirtied > 100 {
                break tally;
            }
        };
        assert_eq!((tally.pages, tally.bad), (1000, 0));
    }

    #[test]
    fn a_corrupt_page_is_found() {
        let workers = Workers::start(&plan(0)).unwrap();
        workers.ask(Question::Corrupt).unwrap();
        assert_eq!(workers.ask(Question::Check).unwrap(), Tally { pages: 1000, bad: 1, dirtied: 0 });
    }
}
