//! Waiting for a condition, with a deadline that no busy machine reaches.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

/// For what must come: generous, because the machine may be busy.
pub const PATIENCE: Duration = Duration::from_secs(120);
/// Between two looks at a condition that costs a program.
pub const POLL: Duration = Duration::from_millis(20);

/// Waits until `look` finds something. On `Err` it found nothing within [`PATIENCE`], or failed; the error says `what`
/// was waited for.
pub fn eventually<T>(what: &str, look: impl FnMut() -> Result<Option<T>>) -> Result<T> {
    within(PATIENCE, what, look)
}

/// [`eventually`] with another deadline.
pub fn within<T>(deadline: Duration, what: &str, mut look: impl FnMut() -> Result<Option<T>>) -> Result<T> {
    let end = Instant::now() + deadline;
    loop {
        if let Some(found) = look()? {
            return Ok(found);
        }
        if Instant::now() >= end {
            bail!("{what}: not within {deadline:?}");
        }
        thread::sleep(POLL);
    }
}
