//! Writes on a schedule, and the memory of those that were acknowledged.

use std::collections::VecDeque;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

use super::client::{Client, greet};
use super::resp::Reply;
use super::verify::{Expected, Verified, verify};
use crate::dial::Dialer;
use crate::pattern::Random;

/// Writes sent and not answered on one connection; what is due beyond that is skipped and counted.
const MOST_PENDING: usize = 16 * 1024;
/// Writes sent at once when a thread was not scheduled in time.
const MOST_AT_ONCE: u64 = 64;
/// Pause while nobody answers.
const RETRY: Duration = Duration::from_millis(2);

/// How to load Redis.
#[derive(Debug, Clone)]
pub struct LoadConfig {
    /// Connections, each with a thread of its own.
    pub connections: u32,
    /// Writes per second, all connections together.
    pub writes_per_second: u32,
    /// A connection on which a write is not answered for so long is given up and made anew.
    pub stall: Duration,
    /// Tells the keys of this load from those of others.
    pub seed: u64,
}

impl Default for LoadConfig {
    fn default() -> Self {
        Self { connections: 4, writes_per_second: 2500, stall: Duration::from_millis(500), seed: 1 }
    }
}

/// What a load has done so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct LoadReport {
    /// Writes that Redis acknowledged.
    pub acknowledged: u64,
    /// Writes that were sent and neither acknowledged nor refused: the connection ended before.
    pub uncertain: u64,
    /// Writes that Redis answered with an error.
    pub refused: u64,
    /// Writes that were due while there was no connection, or too many were unanswered.
    pub skipped: u64,
    /// Connections after the first of each thread.
    pub reconnects: u64,
}

/// The running load. Dropping it ends it.
#[derive(Debug)]
pub struct Load {
    seed: u64,
    stop: Arc<AtomicBool>,
    writers: Vec<Arc<Mutex<Written>>>,
    threads: Vec<JoinHandle<()>>,
}

/// What one connection's thread wrote: numbers, from which keys and values follow.
#[derive(Debug, Default)]
struct Written {
    acknowledged: Vec<u64>,
    uncertain: Vec<u64>,
    refused: u64,
    skipped: u64,
    connections: u64,
}

impl Load {
    /// Starts the connections.
    ///
    /// On `Err` not every connection had a write acknowledged within `deadline`.
    pub fn start(dialer: &Dialer, config: &LoadConfig, deadline: Duration) -> Result<Self> {
        let mut load =
            Self { seed: config.seed, stop: Arc::default(), writers: Vec::new(), threads: Vec::new() };
        let interval = Duration::from_secs(1) * config.connections / config.writes_per_second.max(1);
        for number in 0..config.connections {
            let written = Arc::new(Mutex::new(Written::default()));
            load.writers.push(Arc::clone(&written));
            let writer = Writer {
                seed: config.seed,
                connection: number.into(),
                interval,
                stall: config.stall,
                stop: Arc::clone(&load.stop),
                written,
            };
            let dialer = dialer.clone();
            let thread = thread::Builder::new().name(format!("redis load {number}"));
            load.threads.push(thread.spawn(move || writer.run(&dialer))?);
        }
        let end = Instant::now() + deadline;
        while !load.writers.iter().all(|writer| !lock(writer).acknowledged.is_empty()) {
            if Instant::now() >= end {
                bail!("not every connection could write to Redis within {deadline:?}: {:?}", load.report());
            }
            thread::sleep(RETRY);
        }
        Ok(load)
    }

    /// What was done so far.
    pub fn report(&self) -> LoadReport {
        let mut report = LoadReport::default();
        for written in self.writers.iter().map(|writer| lock(writer)) {
            report.acknowledged += written.acknowledged.len() as u64;
            report.uncertain += written.uncertain.len() as u64;
            report.refused += written.refused;
            report.skipped += written.skipped;
            report.reconnects += written.connections.saturating_sub(1);
        }
        report
    }

    /// Waits until `writes` more than now are acknowledged.
    pub fn wait_for_more(&self, writes: u64, deadline: Duration) -> Result<()> {
        let (goal, end) = (self.report().acknowledged + writes, Instant::now() + deadline);
        while self.report().acknowledged < goal {
            if Instant::now() >= end {
                bail!("{writes} writes were not acknowledged within {deadline:?}: {:?}", self.report());
            }
            thread::sleep(RETRY);
        }
        Ok(())
    }

    /// Reads back every write that was acknowledged before the call, over a connection of its own; the load goes on.
    ///
    /// On `Err` an acknowledged write is missing, or any write is there with a value that was never written.
    pub fn verify(&self, dialer: &Dialer, deadline: Duration) -> Result<Verified> {
        let mut expected = Vec::new();
        for (number, writer) in (0_u64..).zip(&self.writers) {
            let written = lock(writer);
            let entry = |write: u64, must_exist| Expected {
                key: key(self.seed, number, write),
                value: value(self.seed, number, write),
                must_exist,
            };
            expected.extend(written.acknowledged.iter().map(|write| entry(*write, true)));
            expected.extend(written.uncertain.iter().map(|write| entry(*write, false)));
        }
        verify(dialer, expected, deadline)
    }

    /// Ends the load; what it wrote can still be verified. Writes not answered yet become uncertain.
    pub fn stop(&mut self) -> LoadReport {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
        self.report()
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.stop();
    }
}

fn key(seed: u64, connection: u64, write: u64) -> Vec<u8> {
    format!("w:{seed}:{connection}:{write}").into_bytes()
}

fn value(seed: u64, connection: u64, write: u64) -> Vec<u8> {
    let mut random = Random::of(seed, connection, write);
    let mut value = vec![0; 16 + usize::try_from(random.below(240)).expect("below 240")];
    random.fill(&mut value);
    value
}

struct Writer {
    seed: u64,
    connection: u64,
    interval: Duration,
    stall: Duration,
    stop: Arc<AtomicBool>,
    written: Arc<Mutex<Written>>,
}

/// The schedule: which write is due when. It goes on whether or not anybody answers.
struct Schedule {
    write: u64,
    due: Instant,
}

impl Writer {
    fn run(&self, dialer: &Dialer) {
        if let Err(error) = dialer.enter() {
            eprintln!("testbed: a connection of the Redis load ended: {error:#}");
            return;
        }
        let mut schedule = Schedule { write: 0, due: Instant::now() };
        let mut address = 0;
        while !self.stop.load(Ordering::Relaxed) {
            let Some((index, stream)) = dialer.try_once(address, greet) else {
                self.skip_due(&mut schedule);
                thread::sleep(RETRY);
                continue;
            };
            address = index;
            self.skip_due(&mut schedule);
            lock(&self.written).connections += 1;
            let mut pending = VecDeque::new();
            // Why the connection ended does not matter: what it leaves unanswered is uncertain.
            let _ = self.write(&mut Client::over(stream), &mut schedule, &mut pending);
            lock(&self.written).uncertain.extend(pending);
        }
    }

    /// Writes until the connection breaks or stalls, or the load ends.
    fn write(
        &self,
        client: &mut Client,
        schedule: &mut Schedule,
        pending: &mut VecDeque<u64>,
    ) -> io::Result<()> {
        let mut last_reply = Instant::now();
        while !self.stop.load(Ordering::Relaxed) {
            let mut sent = 0;
            while schedule.due <= Instant::now() && sent < MOST_AT_ONCE && pending.len() < MOST_PENDING {
                if pending.is_empty() {
                    last_reply = Instant::now();
                }
                let write = self.advance(schedule);
                let (key, value) =
                    (key(self.seed, self.connection, write), value(self.seed, self.connection, write));
                client.queue(&[b"SET", &key, &value]);
                // Noted before it is sent: from now on it may be there.
                pending.push_back(write);
                sent += 1;
            }
            if pending.len() >= MOST_PENDING {
                self.skip_due(schedule);
            }
            client.flush()?;
            client.receive(schedule.due.saturating_duration_since(Instant::now()).min(self.stall))?;
            while let Some(reply) = client.take() {
                last_reply = Instant::now();
                let write = pending.pop_front().ok_or_else(|| io::Error::other("a reply to nothing"))?;
                let mut written = lock(&self.written);
                match reply {
                    Reply::Simple(word) if word == "OK" => written.acknowledged.push(write),
                    _ => written.refused += 1,
                }
            }
            if !pending.is_empty() && last_reply.elapsed() >= self.stall {
                return Err(io::ErrorKind::TimedOut.into());
            }
        }
        Ok(())
    }

    fn advance(&self, schedule: &mut Schedule) -> u64 {
        schedule.write += 1;
        schedule.due += self.interval;
        schedule.write
    }

    fn skip_due(&self, schedule: &mut Schedule) {
        while schedule.due <= Instant::now() {
            self.advance(schedule);
            lock(&self.written).skipped += 1;
        }
    }
}

fn lock(written: &Mutex<Written>) -> MutexGuard<'_, Written> {
    written.lock().unwrap_or_else(PoisonError::into_inner)
}
