//! Ends a soak that hangs.

use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Result;

use crate::interrupt;

/// How often it looks.
const LOOK: Duration = Duration::from_millis(500);

/// Waits for signs of life. Dropping it sends it home.
#[derive(Debug)]
pub(super) struct Watchdog(Arc<Mutex<Option<(Instant, String)>>>);

impl Watchdog {
    /// Ends this process with an error, and removes what it made, when `longest` passes between two signs of life.
    pub(super) fn start(longest: Duration, seed: u64) -> Result<Self> {
        let life = Arc::new(Mutex::new(Some((Instant::now(), "starting".to_owned()))));
        let seen = Arc::clone(&life);
        thread::Builder::new().name("watchdog".to_owned()).spawn(move || {
            loop {
                match &*seen.lock().unwrap_or_else(PoisonError::into_inner) {
                    None => return,
                    Some((last, what)) if last.elapsed() >= longest => interrupt::give_up(&format!(
                        "the soak with seed {seed} hangs for {longest:?} while {what}"
                    )),
                    Some(_) => {}
                }
                thread::sleep(LOOK);
            }
        })?;
        Ok(Self(life))
    }

    /// A sign of life: something else begins.
    pub(super) fn feed(&self, what: String) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some((Instant::now(), what));
    }
}

impl Drop for Watchdog {
    fn drop(&mut self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}
