//! Counting where everybody can see it.
//!
//! Every number is appended with a file opened for this one line. An append does not care how long the file is, so
//! the line lands at the end of whichever site's file is mounted there when it is written.

use std::fs::OpenOptions;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::io::Write;
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use crate::args::Args;

pub(crate) fn run(args: &Args) -> Result<()> {
    let interval = args.millis("interval-ms", 10)?;
    let witness: Option<PathBuf> = args.optional("witness")?;
    args.finish()?;
    count(interval, witness.as_deref())
}

/// Counts for ever; returns only if a line cannot be written.
pub(crate) fn count(interval: Duration, witness: Option<&std::path::Path>) -> Result<()> {
    // Tells this copy's line of numbers from that of one started from scratch.
    let run = RandomState::new().build_hasher().finish();
    let mut next = Instant::now();
    for number in 1_u64.. {
        let line = format!("{run:016x} {number}\n");
        match witness {
            // One write, so that the line is whole or not there.
            Some(path) => OpenOptions::new()
                .append(true)
                .open(path)
                .and_then(|mut file| file.write_all(line.as_bytes()))
                .with_context(|| format!("cannot append to {}", path.display()))?,
            None => std::io::stdout().write_all(line.as_bytes()).context("cannot write to stdout")?,
        }
        // Numbers missed while the process stood still are not made up for: the pause shall be seen.
        next = (next + interval).max(Instant::now());
        thread::sleep(next.saturating_duration_since(Instant::now()));
    }
    Ok(())
}
