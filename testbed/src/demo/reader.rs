//! A client that writes a number, reads it back, and must never see another.
//!
//! It is alone with its key, so what it reads has one right answer: the last number it wrote. After a broken connection
//! there are two: the last number acknowledged, or the one that was on its way.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use crate::dial::Dialer;
use crate::redis::{Client, Reply};

const KEY: &[u8] = b"demo:last";
/// Between two rounds: 200 a second are many, and leave the machine to the migration.
const PAUSE: Duration = Duration::from_millis(5);
/// How long one search for the service takes before the reader looks whether it should end.
const SEARCH: Duration = Duration::from_secs(1);

/// What it did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Reads {
    /// Numbers read, every one the right one.
    pub(super) right: u64,
    /// Connections after the first.
    pub(super) reconnects: u64,
}

/// The running reader. Dropping it ends it.
#[derive(Debug)]
pub(super) struct Reader {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Shared {
    stop: AtomicBool,
    right: AtomicU64,
    connections: AtomicU64,
    wrong: Mutex<Option<String>>,
}

impl Reader {
    /// Starts it. On `Err` it could not read within `deadline`.
    pub(super) fn start(dialer: &Dialer, deadline: Duration) -> Result<Self> {
        let shared: Arc<Shared> = Arc::default();
        let (dialer, own) = (dialer.clone(), Arc::clone(&shared));
        let thread = thread::Builder::new().name("reader".to_owned()).spawn(move || {
            if let Err(error) = run(&dialer, &own) {
                *own.wrong.lock().unwrap_or_else(PoisonError::into_inner) = Some(format!("{error:#}"));
            }
        })?;
        let reader = Self { shared, thread: Some(thread) };
        reader.wait_for_more(deadline)?;
        Ok(reader)
    }

    /// Waits until it has read again, begun after the call.
    ///
    /// On `Err` it read something wrong, or nothing within `deadline`.
    pub(super) fn wait_for_more(&self, deadline: Duration) -> Result<()> {
        // One round may have begun before the call; the one after it has not.
        let goal = self.shared.right.load(Ordering::Relaxed) + 2;
        let end = Instant::now() + deadline;
        while self.shared.right.load(Ordering::Relaxed) < goal {
            self.well()?;
            ensure!(Instant::now() < end, "the reader read nothing within {deadline:?}");
            thread::sleep(PAUSE);
        }
        self.well()
    }

    /// What it did so far.
    pub(super) fn reads(&self) -> Reads {
        Reads {
            right: self.shared.right.load(Ordering::Relaxed),
            reconnects: self.shared.connections.load(Ordering::Relaxed).saturating_sub(1),
        }
    }

    /// Ends it. On `Err` it read something wrong at some time.
    pub(super) fn stop(mut self) -> Result<Reads> {
        self.end();
        self.well()?;
        Ok(self.reads())
    }

    fn well(&self) -> Result<()> {
        match &*self.shared.wrong.lock().unwrap_or_else(PoisonError::into_inner) {
            Some(wrong) => bail!("the reader: {wrong}"),
            None => Ok(()),
        }
    }

    fn end(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.end();
    }
}

/// What the key may hold.
struct Known {
    acknowledged: Option<u64>,
    sent: Option<u64>,
}

fn run(dialer: &Dialer, shared: &Shared) -> Result<()> {
    let mut known = Known { acknowledged: None, sent: None };
    while !shared.stop.load(Ordering::Relaxed) {
        let Ok(mut client) = Client::connect(dialer, SEARCH) else { continue };
        shared.connections.fetch_add(1, Ordering::Relaxed);
        if let Some(wrong) = converse(&mut client, &mut known, shared) {
            bail!("{wrong}");
        }
    }
    Ok(())
}

/// Reads, compares and writes until the connection breaks; returns what was wrong, if anything was.
fn converse(client: &mut Client, known: &mut Known, shared: &Shared) -> Option<String> {
    while !shared.stop.load(Ordering::Relaxed) {
        // Why a connection broke does not matter: what was on its way stays possible.
        let Ok(Reply::Bulk(value)) = client.call(&[b"GET", KEY]) else { return None };
        let found = match value.map(|value| number(&value)).transpose() {
            Ok(found) => found,
            Err(error) => return Some(format!("{error:#}")),
        };
        if found != known.acknowledged && found != known.sent {
            let Known { acknowledged, sent } = known;
            return Some(format!("read {found:?} where {acknowledged:?} or {sent:?} had to be"));
        }
        // Seen once, it is there for good.
        known.acknowledged = found;
        known.sent = found;
        shared.right.fetch_add(1, Ordering::Relaxed);
        let next = found.unwrap_or(0) + 1;
        known.sent = Some(next);
        match client.call(&[b"SET", KEY, next.to_string().as_bytes()]) {
            Ok(Reply::Simple(word)) if word == "OK" => known.acknowledged = known.sent,
            Ok(other) => return Some(format!("a strange reply to SET: {other:?}")),
            Err(_) => return None,
        }
        thread::sleep(PAUSE);
    }
    None
}

fn number(value: &[u8]) -> Result<u64> {
    let text = String::from_utf8_lossy(value);
    text.parse().with_context(|| format!("read `{text}` where a number had to be"))
}
