//! What a client sees of a migration: the downtime.
//!
//! A probe asks every millisecond, whether or not it was answered before, and notes when answers come. It does so at
//! every site's address at once, with a connection of its own to each, because the answer after a migration comes
//! from another address than the one before.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

use crate::dial::{Dialer, wait_readable};

/// Time between two questions.
pub const INTERVAL: Duration = Duration::from_millis(1);
/// Unanswered questions after which nothing more is asked on a connection: 10 s.
const MOST_UNANSWERED: u64 = 10_000;

/// How to ask a service for a sign of life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Question {
    /// `PING` to Redis.
    RedisPing,
    /// One byte to an echo.
    Echo,
}

impl Question {
    fn bytes(self) -> &'static [u8] {
        match self {
            Self::RedisPing => b"PING\r\n",
            Self::Echo => b"?",
        }
    }

    /// Length of one answer. Every answer is as long as any other, so bytes count answers.
    fn answer_length(self) -> u64 {
        match self {
            Self::RedisPing => b"+PONG\r\n".len() as u64,
            Self::Echo => 1,
        }
    }
}

/// A running probe. Dropping it ends it.
#[derive(Debug)]
pub struct Probe {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Shared {
    stop: AtomicBool,
    connections: AtomicU64,
    answers: Mutex<Vec<Instant>>,
}

impl Probe {
    /// Starts asking at all addresses. A connection that does not answer for `stall` is made anew.
    ///
    /// On `Err` nobody answered within `deadline`.
    pub fn start(dialer: &Dialer, question: Question, stall: Duration, deadline: Duration) -> Result<Self> {
        let mut probe = Self { shared: Arc::default(), threads: Vec::new() };
        for address in dialer.addresses() {
            let (dialer, address, shared) = (dialer.only(*address), *address, Arc::clone(&probe.shared));
            let thread = thread::Builder::new().name(format!("probe {address}"));
            probe.threads.push(thread.spawn(move || run(&dialer, address, question, stall, &shared))?);
        }
        probe.wait_for_answer(deadline)?;
        Ok(probe)
    }

    /// Waits for an answer that comes after the call.
    pub fn wait_for_answer(&self, deadline: Duration) -> Result<()> {
        let start = Instant::now();
        loop {
            if self.answers().last().is_some_and(|last| *last >= start) {
                return Ok(());
            }
            if start.elapsed() >= deadline {
                bail!("the probe had no answer within {deadline:?}");
            }
            thread::sleep(INTERVAL);
        }
    }

    /// The downtime between two moments: the longest time from one answer to the next, less the interval at which the
    /// probe asks. Answers just outside of the two moments count as its ends.
    ///
    /// `None` if there was no answer before `until`, or none after it yet: then the end of the downtime is unknown.
    pub fn downtime(&self, from: Instant, until: Instant) -> Option<Duration> {
        let (last, first) = self.silence(from, until)?;
        Some((first - last).saturating_sub(INTERVAL))
    }

    /// The last answer before and the first after the downtime between two moments, as in [`Probe::downtime`].
    pub fn silence(&self, from: Instant, until: Instant) -> Option<(Instant, Instant)> {
        let mut answers = self.answers().clone();
        // The threads of different addresses note their answers independently.
        answers.sort_unstable();
        longest_gap(&answers, from, until)
    }

    /// How many connections were made after the first.
    pub fn reconnects(&self) -> u64 {
        self.shared.connections.load(Ordering::Relaxed).saturating_sub(1)
    }

    fn answers(&self) -> MutexGuard<'_, Vec<Instant>> {
        lock(&self.shared.answers)
    }
}

impl Drop for Probe {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

fn longest_gap(answers: &[Instant], from: Instant, until: Instant) -> Option<(Instant, Instant)> {
    let last = answers.partition_point(|answer| *answer < until);
    if last == 0 || last == answers.len() {
        return None;
    }
    let first = answers.partition_point(|answer| *answer <= from).saturating_sub(1);
    answers[first..=last].windows(2).map(|pair| (pair[0], pair[1])).max_by_key(|(last, first)| *first - *last)
}

fn run(dialer: &Dialer, address: SocketAddr, question: Question, stall: Duration, shared: &Shared) {
    if let Err(error) = dialer.enter() {
        eprintln!("testbed: the probe of {address} ended: {error:#}");
        return;
    }
    while !shared.stop.load(Ordering::Relaxed) {
        let start = Instant::now();
        if let Some((_, mut stream)) = dialer.try_once(0, |stream| ask_once(stream, question, stall)) {
            lock(&shared.answers).push(Instant::now());
            shared.connections.fetch_add(1, Ordering::Relaxed);
            // Why a connection ended does not matter here, only when the next answer comes.
            let _ = probe(&mut stream, question, stall, shared);
        }
        thread::sleep(INTERVAL.saturating_sub(start.elapsed()));
    }
}

fn ask_once(stream: &mut TcpStream, question: Question, stall: Duration) -> io::Result<()> {
    stream.set_read_timeout(Some(stall))?;
    stream.set_write_timeout(Some(stall))?;
    stream.write_all(question.bytes())?;
    let mut answer = [0; 16];
    let length = usize::try_from(question.answer_length()).expect("a few bytes");
    stream.read_exact(&mut answer[..length])
}

/// Asks on one connection until it breaks or stalls.
fn probe(stream: &mut TcpStream, question: Question, stall: Duration, shared: &Shared) -> io::Result<()> {
    let mut buffer = [0; 1024];
    let (mut asked, mut bytes) = (0, 0);
    let mut last_answer = Instant::now();
    let mut next = Instant::now();
    while !shared.stop.load(Ordering::Relaxed) {
        if asked - bytes / question.answer_length() < MOST_UNANSWERED {
            stream.write_all(question.bytes())?;
            asked += 1;
        }
        next += INTERVAL;
        loop {
            let left = next.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            if !wait_readable(stream, left)? {
                break;
            }
            let read = stream.read(&mut buffer)?;
            if read == 0 {
                return Err(ErrorKind::UnexpectedEof.into());
            }
            last_answer = Instant::now();
            let answered = bytes / question.answer_length();
            bytes += read as u64;
            if bytes / question.answer_length() > answered {
                lock(&shared.answers).push(last_answer);
            }
        }
        if last_answer.elapsed() >= stall {
            return Err(ErrorKind::TimedOut.into());
        }
        // A probe that was not scheduled for long does not ask a hundred times at once.
        next = next.max(Instant::now().checked_sub(INTERVAL * 10).unwrap_or(next));
    }
    Ok(())
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(n: u64) -> Duration {
        Duration::from_millis(n)
    }

    #[test]
    fn the_gap_that_matters_is_the_one_between_the_two_moments() {
        let start = Instant::now();
        let answers: Vec<Instant> = [0, 50, 51, 52, 90, 91, 200].map(|n| start + ms(n)).to_vec();
        let gap = |from, until| {
            longest_gap(&answers, start + ms(from), start + ms(until)).map(|(last, first)| first - last)
        };
        assert_eq!(gap(51, 91), Some(ms(38)));
        assert_eq!(gap(60, 70), Some(ms(38)), "its ends lie outside");
        assert_eq!(gap(0, 52), Some(ms(50)));
        assert_eq!(gap(60, 150), Some(ms(109)));
        assert_eq!(gap(60, 201), None, "not over yet");
        assert_eq!(longest_gap(&[], start, start + ms(1)), None);
    }
}
