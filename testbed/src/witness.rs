//! The witness: who of all copies of a service did what, written where no migration can interfere.
//!
//! The service appends one line per number to a file on an external mount that belongs to the *site*: the same path
//! inside, another file at every site. No fence, hold or migration covers this path, so a copy that runs where none
//! may run cannot hide. The [`Recorder`], not the service, adds site, epoch and time. [`check()`] then proves from the
//! merged record that there was one service all the time:
//!
//! * every number was written exactly once, at one site;
//! * the numbers changed site exactly as often as the service migrated, in the order of the sites it moved to.
//!
//! One process cannot do otherwise: an append either happened before the freeze, then it is in the source's file and
//! the number is counted, or it happens after the thaw at the destination. There is no third way, and so no
//! tolerance: a number written twice means that two copies ran, one missing means that state was rolled back
//! over output. Only the *order of arrival* is forgiven for the one line at a hand-over, because the recorder reads
//! the files one after the other.

mod check;
mod lives;
mod recorder;

use std::fmt;

use ums_model::names::Epoch;

pub use self::check::{Verdict, Violation, check};
pub use self::lives::lives;
pub use self::recorder::Recorder;
use crate::clock::Boottime;
use crate::net::SiteIndex;

/// One line of a witness file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Line {
    /// Chosen by the process when it started from scratch; a migrated copy keeps it, a restarted one has another.
    pub run: u64,
    /// The number.
    pub number: u64,
}

impl Line {
    /// Reads `RUN NUMBER`, as the workloads write it.
    pub fn parse(text: &str) -> Option<Self> {
        let (run, number) = text.split_once(' ')?;
        Some(Self { run: u64::from_str_radix(run, 16).ok()?, number: number.parse().ok()? })
    }
}

/// A line and what the recorder knows about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Record {
    /// In whose file it was.
    pub site: SiteIndex,
    /// The newest migration the recorder had been told of.
    pub epoch: Epoch,
    /// When the recorder saw it: at most one poll after it was written.
    pub at: Boottime,
    /// What was written.
    pub line: Line,
}

impl fmt::Display for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { site, epoch, at, line } = self;
        write!(f, "{} at site {site} in epoch {} at {:.4} s", line.number, epoch.0, at.0.as_secs_f64())
    }
}
