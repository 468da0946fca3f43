//! A client of `ums-workload tcp-echo` that checks every byte.
//!
//! Byte `n` of every connection follows from `n` alone, so a byte that is wrong, missing, doubled or from elsewhere
//! is noticed where it stands. Several chunks are always on their way, so a migration meets data in every buffer.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};

use crate::dial::Dialer;
use crate::pattern::Random;

/// Bytes sent at once.
const CHUNK: usize = 4096;
/// Chunks sent before the first must be back. Together they fit every socket buffer, so nobody blocks.
const ON_THEIR_WAY: u64 = 8;
/// Pause between chunks: 8 MB/s at most.
const INTERVAL: Duration = Duration::from_micros(500);
/// Reasons kept.
const MOST_BREAKS: usize = 100;
/// Pause while nobody answers.
const RETRY: Duration = Duration::from_millis(2);

/// What the client saw.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct EchoReport {
    /// Bytes that came back as they were sent.
    pub bytes: u64,
    /// Connections after the first.
    pub reconnects: u64,
    /// Why connections were given up, one sentence each (at most 100).
    pub breaks: Vec<String>,
    /// The first byte that came back wrong ends the check; this says which.
    pub wrong: Option<String>,
    /// Longest time between two chunks that came back.
    pub longest_silence: Duration,
}

/// The running client. Dropping it ends it.
#[derive(Debug)]
pub struct TcpCheck {
    stop: Arc<AtomicBool>,
    report: Arc<Mutex<EchoReport>>,
    thread: Option<JoinHandle<Result<()>>>,
}

impl TcpCheck {
    /// Connects, and goes on until stopped. A connection on which nothing comes back for `stall` is given up.
    ///
    /// On `Err` nobody echoed within `deadline`.
    pub fn start(dialer: &Dialer, stall: Duration, deadline: Duration) -> Result<Self> {
        dialer
            .connect(deadline, |stream| Connection::open(stream, stall).map(drop))
            .context("cannot start the check")?;
        let stop = Arc::new(AtomicBool::new(false));
        let report = Arc::new(Mutex::new(EchoReport::default()));
        let thread = thread::Builder::new().name("tcp check".to_owned()).spawn({
            let (dialer, stop, report) = (dialer.clone(), Arc::clone(&stop), Arc::clone(&report));
            move || {
                dialer.enter()?;
                run(&dialer, stall, &stop, &report);
                Ok(())
            }
        })?;
        Ok(Self { stop, report, thread: Some(thread) })
    }

    /// What was seen so far.
    pub fn report(&self) -> EchoReport {
        self.report.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Waits until `bytes` more than now have come back.
    pub fn wait_for_more(&self, bytes: u64, deadline: Duration) -> Result<()> {
        let (goal, end) = (self.report().bytes + bytes, Instant::now() + deadline);
        while self.report().bytes < goal {
            if let Some(wrong) = self.report().wrong {
                bail!("{wrong}");
            }
            if Instant::now() >= end {
                bail!("{bytes} bytes did not come back within {deadline:?}: {:?}", self.report());
            }
            thread::sleep(RETRY);
        }
        Ok(())
    }

    /// Ends the client. On `Err` a byte came back wrong.
    pub fn stop(mut self) -> Result<EchoReport> {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.join().map_err(|_| anyhow!("the tcp check panicked"))??;
        }
        let report = self.report();
        match &report.wrong {
            Some(wrong) => bail!("{wrong}"),
            None => Ok(report),
        }
    }
}

impl Drop for TcpCheck {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn run(dialer: &Dialer, stall: Duration, stop: &AtomicBool, report: &Mutex<EchoReport>) {
    let report = || report.lock().unwrap_or_else(PoisonError::into_inner);
    let mut address = 0;
    let mut connections = 0;
    let mut last_echo = Instant::now();
    while !stop.load(Ordering::Relaxed) {
        let mut opened = None;
        let found = dialer.try_once(address, |stream| {
            opened = Some(Connection::open(stream, stall)?);
            Ok(())
        });
        let (Some((index, _)), Some(mut connection)) = (found, opened) else {
            thread::sleep(RETRY);
            continue;
        };
        address = index;
        connections += 1;
        report().reconnects = connections - 1;
        while !stop.load(Ordering::Relaxed) {
            match connection.exchange() {
                Ok(()) => {
                    let silence = last_echo.elapsed();
                    last_echo = Instant::now();
                    let mut report = report();
                    report.bytes += CHUNK as u64;
                    report.longest_silence = report.longest_silence.max(silence);
                }
                Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                    report().wrong = Some(error.to_string());
                    return;
                }
                Err(error) => {
                    let mut report = report();
                    if report.breaks.len() < MOST_BREAKS {
                        report.breaks.push(error.to_string());
                    }
                    break;
                }
            }
            thread::sleep(INTERVAL);
        }
    }
}

struct Connection {
    stream: TcpStream,
    sent: u64,
    received: u64,
    expected: Box<[u8; CHUNK]>,
    buffer: Box<[u8; CHUNK]>,
}

impl Connection {
    /// Succeeds if a first chunk comes back.
    fn open(stream: &TcpStream, stall: Duration) -> io::Result<Self> {
        stream.set_read_timeout(Some(stall))?;
        stream.set_write_timeout(Some(stall))?;
        let mut connection = Self {
            stream: stream.try_clone()?,
            sent: 0,
            received: 0,
            expected: Box::new([0; CHUNK]),
            buffer: Box::new([0; CHUNK]),
        };
        connection.send()?;
        connection.receive()?;
        Ok(connection)
    }

    /// Sends a chunk, or several, and waits for one to come back.
    fn exchange(&mut self) -> io::Result<()> {
        while self.sent < self.received + ON_THEIR_WAY {
            self.send()?;
        }
        self.receive()
    }

    fn send(&mut self) -> io::Result<()> {
        Random::of(0, self.sent, 0).fill(&mut *self.buffer);
        self.stream.write_all(&*self.buffer)?;
        self.sent += 1;
        Ok(())
    }

    fn receive(&mut self) -> io::Result<()> {
        self.stream.read_exact(&mut *self.buffer)?;
        Random::of(0, self.received, 0).fill(&mut *self.expected);
        let wrong = self.buffer.iter().zip(&*self.expected).position(|(got, expected)| got != expected);
        if let Some(at) = wrong {
            let at = self.received * CHUNK as u64 + at as u64;
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                format!("byte {at} of a connection came back wrong"),
            ));
        }
        self.received += 1;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::net::{SocketAddr, TcpListener};

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(10);

    /// Echoes; spoils the byte at `spoil` and hangs up after `hang_up` bytes, per connection.
    fn echo(spoil: Option<usize>, hang_up: usize) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                let mut buffer = [0; 10_000];
                let mut total = 0;
                while let Ok(read @ 1..) = stream.read(&mut buffer) {
                    if let Some(at) = spoil.filter(|at| (total..total + read).contains(at)) {
                        buffer[at - total] ^= 1;
                    }
                    total += read;
                    if total > hang_up || stream.write_all(&buffer[..read]).is_err() {
                        break;
                    }
                }
            }
        });
        address
    }

    #[test]
    fn a_true_echo_is_counted() {
        let dialer = Dialer::outside(vec![echo(None, usize::MAX)]);
        let check = TcpCheck::start(&dialer, PATIENCE, PATIENCE).unwrap();
        check.wait_for_more(100_000, PATIENCE).unwrap();
        let report = check.stop().unwrap();
        assert!(report.bytes >= 100_000);
        assert_eq!(report.reconnects, 0);
    }

    #[test]
    fn one_wrong_bit_is_found() {
        let dialer = Dialer::outside(vec![echo(Some(50_001), usize::MAX)]);
        let check = TcpCheck::start(&dialer, PATIENCE, PATIENCE).unwrap();
        let error = check.wait_for_more(1 << 40, PATIENCE).unwrap_err();
        assert_eq!(error.to_string(), "byte 50001 of a connection came back wrong");
        assert!(check.stop().is_err());
    }

    #[test]
    fn a_connection_that_breaks_is_made_again_and_counted() {
        // The first address is dead from the start.
        let dead = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let dialer = Dialer::outside(vec![dead, echo(None, 40_000)]);
        let check = TcpCheck::start(&dialer, PATIENCE, PATIENCE).unwrap();
        check.wait_for_more(100_000, PATIENCE).unwrap();
        let report = check.stop().unwrap();
        assert!(report.reconnects >= 2, "{report:?}");
    }
}
