//! Whole sites, real services: `ums`, runc, CRIU and namespaces, seen only from outside.
//!
//! [`lifecycle`] and [`images`] are about services that stay, [`journeys`], [`content`] and [`databases`] about services
//! that move, [`refusals`] about what is refused before anything is stopped, [`breakdowns`] about what fails on the
//! way, [`faults`] about links that are cut and daemons that are killed at every step.
//!
//! They stand on [`rig`] (sites with short deadlines, and with whatever is wrong with them), [`script`] (services made of a
//! line of shell or Perl), [`verdict`] (what an error must say), [`histories`] (what two sites tell about one
//! migration) and [`gate`] (a daemon that waits at a step).

mod rig;

mod gate;
mod histories;
mod script;
mod verdict;

mod images;
mod lifecycle;
mod namespaces;

mod content;
mod databases;
mod journeys;

mod breakdowns;
mod crowds;
mod faults;
mod operators;
mod refusals;

use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use ums_testbed::traces;

/// For what must come: generous, because the machine may be busy.
const PATIENCE: Duration = Duration::from_secs(120);
/// Between two looks at a condition that costs a program.
const POLL: Duration = Duration::from_millis(20);

/// Waits until `look` finds something. On `Err` it found nothing within [`PATIENCE`], or failed; the error says `what`
/// was waited for.
fn eventually<T>(what: &str, mut look: impl FnMut() -> Result<Option<T>>) -> Result<T> {
    let end = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = look()? {
            return Ok(found);
        }
        if Instant::now() >= end {
            bail!("{what}: not within {PATIENCE:?}");
        }
        std::thread::sleep(POLL);
    }
}
