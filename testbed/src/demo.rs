//! The demonstration: a Redis with data in it moves to and fro between two sites, under load, and nothing is lost.
//!
//! Read in this order: this file (the course of it), `moves` (one migration and its checks), `reader` (a client that
//! must always read what it wrote last), `census` (which copies exist, and whether anything stayed behind), `report`
//! (the table and the result lines).
//!
//! Nothing is claimed that was not checked: every check that fails is an error, and only without one is the table
//! printed and the exit code 0.

mod census;
mod moves;
mod reader;
mod report;

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use ums_model::names::Bytes;

use self::census::Census;
use self::moves::Mover;
use self::reader::Reader;
use self::report::Finding;
use crate::interrupt;
use crate::lab::Lab;
use crate::net::A;
use crate::redis::{Fill, Load, LoadConfig};
use crate::shaper::Shape;
use crate::workload::Workload;

/// Longest wait for Redis to answer, to be filled or to be read back.
const PATIENCE: Duration = Duration::from_secs(60);
/// Connections that write.
const CONNECTIONS: u32 = 4;
/// Writes per second that are due, and those that must have been acknowledged on average while the service ran.
const WRITES_DUE: u32 = 3000;
const WRITES_NEEDED: f64 = 2000.0;
/// Seeds of what is written: fill and load have different keys all the same.
const SEED: u64 = 1;

/// What to show.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Options {
    /// How often the service moves.
    pub moves: u32,
    /// Random values in Redis.
    pub fill: Bytes,
    /// One JSON object per line on stdout instead of a table.
    pub json: bool,
}

/// Runs the demonstration.
///
/// On `Ok` all moves were made, every acknowledged write was read back after each of them, exactly one copy ran at the
/// end, nothing of it is left on the machine, and stdout says so. On `Err` stdout claims nothing; what could be removed
/// is removed. Safe to repeat.
pub fn run(options: Options) -> Result<()> {
    say("starting two sites, A and B, in network namespaces joined by a link of 1 Gbit/s");
    let lab = Lab::two_sites_over(Shape::gigabit())?;
    let (finding, census) = show(&lab, options)?;
    say("stopping everything");
    drop(lab);
    interrupt::stop_here_if_interrupted();
    census.nothing_left()?;
    match options.json {
        true => print!("{}", finding.lines()?),
        false => print!("{}", finding.table()),
    }
    Ok(())
}

fn show(lab: &Lab, options: Options) -> Result<(Finding, Census)> {
    say("starting Redis at site A");
    let redis = lab.start(A, &Workload::Redis)?;
    let dialer = redis.dialer()?;
    say(&format!("putting {} of random values into it", options.fill));
    let fill = Fill::put(&dialer, options.fill, SEED, PATIENCE)?;
    let config = LoadConfig {
        connections: CONNECTIONS,
        writes_per_second: WRITES_DUE,
        seed: SEED,
        ..LoadConfig::default()
    };
    say(&format!(
        "starting {CONNECTIONS} clients that write {WRITES_DUE} values a second, one that reads, one that measures"
    ));
    let begin = Instant::now();
    let mut load = Load::start(&dialer, &config, PATIENCE)?;
    let reader = Reader::start(&dialer, PATIENCE)?;
    let probe = redis.probe()?;

    let mut moves = Vec::new();
    for number in 1..=options.moves {
        let mover = Mover {
            lab,
            service: &redis,
            dialer: &dialer,
            load: &load,
            fill: &fill,
            reader: &reader,
            probe: &probe,
        };
        let made = mover.make(number);
        interrupt::stop_here_if_interrupted();
        let made = made.with_context(|| format!("move {number} of {}", options.moves))?;
        say(&made.told());
        moves.push(made);
    }

    let ran = begin.elapsed();
    let written = load.stop();
    let verified = load.verify(&dialer, PATIENCE).context("after the last write")?;
    ensure!(
        verified.present == written.acknowledged,
        "{} writes were acknowledged, {} were read back",
        written.acknowledged,
        verified.present
    );
    ensure!(written.refused == 0, "Redis answered {} writes with an error", written.refused);
    let reads = reader.stop()?;
    let down: f64 = moves.iter().map(|made| made.downtime_ms).sum::<f64>() / 1000.0;
    let rate = written.acknowledged as f64 / (ran.as_secs_f64() - down).max(0.001);
    ensure!(
        rate >= WRITES_NEEDED,
        "only {rate:.0} writes per second were acknowledged while Redis ran, {WRITES_NEEDED} were wanted: is the \
         machine busy with something else?"
    );
    let census = Census::take(lab, &redis)?;
    Ok((
        Finding {
            options,
            filled: fill.size(),
            moves,
            written,
            verified,
            reads,
            rate,
            connections: CONNECTIONS,
        },
        census,
    ))
}

/// Progress, for people: on stderr, so that stdout holds the result alone.
fn say(text: &str) {
    eprintln!("demo: {text}");
}
