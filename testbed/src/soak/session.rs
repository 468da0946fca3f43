//! Clients: several threads per database that read and write, reconnect, and enter everything into the book.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::book::{Book, collection, register};
use super::dice::Dice;
use super::history::{Action, Key, Outcome};
use super::store::{Answer, Store, Trouble};
use crate::dial::Dialer;

/// How long a client waits for an answer before it takes the connection for broken.
pub(super) const PATIENCE: Duration = Duration::from_secs(3);
/// Between two operations of a session: the checks and the migrations need the machine as well.
const PAUSE: Duration = Duration::from_millis(8);
/// The same for the one that only wants to know when the database is back.
const IMPATIENCE: Duration = Duration::from_millis(300);
/// Between two searches for the service.
const SEARCH: Duration = Duration::from_millis(20);

/// The clients of one database. Dropping them ends them.
#[derive(Debug)]
pub(super) struct Sessions {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    book: Arc<Book>,
    stop: AtomicBool,
    wrong: Mutex<Vec<String>>,
}

impl Sessions {
    /// Starts `count` of them.
    pub(super) fn start<S: Store>(
        dialer: &Dialer,
        book: &Arc<Book>,
        count: u32,
        dice: &Dice,
    ) -> Result<Self> {
        let shared = Arc::new(Shared {
            book: Arc::clone(book),
            stop: AtomicBool::new(false),
            wrong: Mutex::default(),
        });
        let mut sessions = Self { shared, threads: Vec::new() };
        for number in 0..count {
            let (dialer, shared, dice) =
                (dialer.clone(), Arc::clone(&sessions.shared), dice.branch(number.into()));
            let thread = thread::Builder::new().name(format!("session {number}"));
            sessions.threads.push(thread.spawn(move || {
                if let Err(error) = run::<S>(&dialer, &shared, number, dice) {
                    shared.complain(format!("session {number} ended: {error:#}"));
                }
            })?);
        }
        let (dialer, shared) = (dialer.clone(), Arc::clone(&sessions.shared));
        let pulse = thread::Builder::new().name("pulse".to_owned());
        sessions.threads.push(pulse.spawn(move || {
            if let Err(error) = feel::<S>(&dialer, &shared) {
                shared.complain(format!("the pulse ended: {error:#}"));
            }
        })?);
        Ok(sessions)
    }

    /// Answers that cannot be, so far.
    pub(super) fn wrong(&self) -> Vec<String> {
        self.shared.wrong.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for Sessions {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

impl Shared {
    fn complain(&self, what: String) {
        self.wrong.lock().unwrap_or_else(PoisonError::into_inner).push(what);
    }
}

fn run<S: Store>(dialer: &Dialer, shared: &Shared, number: u32, mut dice: Dice) -> Result<()> {
    dialer.enter()?;
    while !shared.stop.load(Ordering::Relaxed) {
        let Some(mut store) = S::connect(dialer, PATIENCE) else {
            thread::sleep(SEARCH);
            continue;
        };
        shared.book.tally.connections.fetch_add(1, Ordering::Relaxed);
        while !shared.stop.load(Ordering::Relaxed) {
            match operate(&mut store, &shared.book, number, &mut dice) {
                Ok(()) | Err(Trouble::Refused(_)) => thread::sleep(PAUSE),
                Err(Trouble::Lost(_)) => break,
                Err(Trouble::Wrong(what)) => bail!("{what}"),
            }
        }
    }
    Ok(())
}

/// Reads what was never written, notes when answers come, and gives up soon where none does: its measure of a downtime
/// has not the patience of a client in it.
fn feel<S: Store>(dialer: &Dialer, shared: &Shared) -> Result<()> {
    dialer.enter()?;
    while !shared.stop.load(Ordering::Relaxed) {
        if let Some(mut store) = S::connect(dialer, IMPATIENCE) {
            while !shared.stop.load(Ordering::Relaxed) && store.read(Key(u64::from(u32::MAX))).is_ok() {
                shared.book.sign_of_life();
                thread::sleep(PAUSE);
            }
        }
        thread::sleep(SEARCH);
    }
    Ok(())
}

/// One operation, entered into the book whatever comes of it.
fn operate<S: Store>(store: &mut S, book: &Book, session: u32, dice: &mut Dice) -> Answer<()> {
    let choice = dice.below(20);
    let key_number = dice.below(64);
    let entry = book.begin();
    let register = register(entry.generation, key_number);
    let collection = collection(entry.generation);
    let (key, action, answer) = match choice {
        0..7 => {
            let value = book.fresh_value();
            let answer = store.write(register, value);
            (register, Action::Write(value), answer)
        }
        7..14 => {
            let answer = store.read(register);
            let read = answer.as_ref().ok().copied().flatten();
            (register, Action::Read(read), answer.map(drop))
        }
        14..19 => {
            let value = book.fresh_value();
            let answer = store.append(collection, value);
            let length = answer.as_ref().ok().copied().flatten();
            (collection, Action::Append { value, length }, answer.map(drop))
        }
        _ => {
            let answer = store.read_all(collection);
            let read = answer.as_ref().ok().cloned().unwrap_or_default();
            (collection, Action::ReadAll(read), answer.map(drop))
        }
    };
    book.end(entry, session, key, action, outcome(&answer));
    answer
}

pub(super) fn outcome(answer: &Answer<()>) -> Outcome {
    match answer {
        Ok(()) => Outcome::Ok,
        Err(Trouble::Refused(_)) => Outcome::Failed,
        Err(Trouble::Lost(_) | Trouble::Wrong(_)) => Outcome::Unknown,
    }
}

/// Asks something that changes nothing, with a connection of its own, until it is answered. Returns the answer, or what
/// is wrong about it.
///
/// On `Err` nobody answered within `deadline`.
pub(super) fn insist<S: Store, T>(
    dialer: &Dialer,
    deadline: Duration,
    mut ask: impl FnMut(&mut S) -> Answer<T>,
) -> Result<Result<T, String>> {
    let end = Instant::now() + deadline;
    let mut last = "no connection".to_owned();
    loop {
        if let Some(mut store) = S::connect(dialer, PATIENCE) {
            match ask(&mut store) {
                Ok(answer) => return Ok(Ok(answer)),
                Err(Trouble::Wrong(what)) => return Ok(Err(what)),
                Err(Trouble::Lost(why) | Trouble::Refused(why)) => last = why,
            }
        }
        if Instant::now() >= end {
            bail!("nobody answers within {deadline:?}: {last}");
        }
        thread::sleep(SEARCH);
    }
}

/// [`insist`] on a thread at the dialer's place.
pub(super) fn insist_there<S: Store, T: Send>(
    dialer: &Dialer,
    deadline: Duration,
    ask: impl FnMut(&mut S) -> Answer<T> + Send,
) -> Result<Result<T, String>> {
    thread::scope(|scope| {
        let worker = scope.spawn(move || {
            dialer.enter()?;
            insist(dialer, deadline, ask)
        });
        worker.join().ok().context("a thread that asks a database panicked")?
    })
}
