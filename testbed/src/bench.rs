//! Benchmarks: the product against what one gets without it, on the same machine, in the same run.
//!
//! Read in this order: [`point`] (what is measured and how runs become one number), `own` and [`plain`] (the two
//! contenders), `chart`, `table` and `output` (what becomes of the numbers).
//!
//! A benchmark asserts that what was moved is whole; never that it was fast.

mod abort;
mod chart;
pub mod criu_kill;
mod output;
mod own;
pub mod plain;
pub mod point;
mod table;

use anyhow::{Context, Result, bail};
use serde::Serialize;

pub(crate) use self::own::report;
use self::plain::Plain;
use self::point::{MEMORY, Point, Sample, Summary, points};
use crate::interrupt;
use crate::lab::Lab;
use crate::matrix;
use crate::net::{A, B, Net};
use crate::shaper::Shape;

/// One benchmark.
#[derive(Debug, Clone, Copy)]
pub struct Benchmark {
    /// As it is called on the command line.
    pub name: &'static str,
    /// What it measures.
    pub measures: &'static str,
    run: fn(Options) -> Result<()>,
}

/// Every benchmark.
pub const ALL: [Benchmark; 4] = [
    Benchmark {
        name: "cold",
        measures: "stop-and-copy over 1 Gbit/s: total time over memory and over processes, against criu + tar over TLS + criu",
        run: cold,
    },
    Benchmark {
        name: "abort",
        measures: "how soon a service runs again after `ums abort`, wherever in a migration it comes",
        run: abort::abort,
    },
    Benchmark {
        name: "criu-kill",
        measures: "what becomes of a service whose CRIU is killed in the middle of a dump: unharmed, cured or lost",
        run: criu_kill::criu_kill,
    },
    Benchmark {
        name: "faults",
        measures: "every fault at every step of a migration: how each cell ended (--cells, --resume, --markdown)",
        run: |options| {
            matrix::bench(&matrix::Options { quick: options.quick, json: options.json, ..Default::default() })
        },
    },
];

impl Benchmark {
    /// Measures. `Ok`: every attempt was verified. `Err`: what was measured is printed nonetheless, if anything was.
    pub fn run(&self, options: Options) -> Result<()> {
        (self.run)(options)
    }
}

/// Runs per point if nobody says how many.
const RUNS: u32 = 5;

/// How to run a benchmark.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Options {
    /// Few points, one run each.
    pub quick: bool,
    /// JSON on stdout instead of a table.
    pub json: bool,
    /// Runs per point; `None` is five, or one if quick.
    pub runs: Option<u32>,
    /// Only one of the contenders.
    pub only: Option<Contender>,
}

/// Who moves the service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Contender {
    /// The product, cold.
    Own,
    /// The outside baseline.
    Baseline,
}

impl Contender {
    fn mode(self) -> &'static str {
        match self {
            Self::Own => "cold",
            Self::Baseline => "baseline",
        }
    }
}

/// What the benchmark ran on. A number without its machine says nothing.
#[derive(Debug, Clone, Serialize)]
struct Machine {
    kernel: String,
    processors: usize,
    link: &'static str,
}

/// Measures `cold` and writes `cold.json` and `cold.svg`.
///
/// On `Ok` every attempt of every point succeeded and was verified. On `Err` what was measured is printed and written
/// nonetheless, if anything was.
fn cold(options: Options) -> Result<()> {
    let runs = options.runs.unwrap_or(if options.quick { 1 } else { RUNS });
    let contenders: Vec<Contender> = match options.only {
        Some(one) => vec![one],
        None => vec![Contender::Own, Contender::Baseline],
    };
    let stage = Stage::set(&contenders)?;
    let plain = match contenders.contains(&Contender::Baseline) {
        true => Some(Plain::prepare(stage.net()).context("cannot prepare the baseline")?),
        false => None,
    };
    let mut summaries = Vec::new();
    for point in points(options.quick) {
        for contender in &contenders {
            let what = (*contender, &point, runs);
            let outcomes = match (&stage, &plain) {
                (Stage::Lab(lab), _) if *contender == Contender::Own => measure(
                    what,
                    || own::start(lab, &point),
                    |service| own::migrate(&service).map(|sample| (service, sample)),
                    |service| own::end(&service),
                ),
                (_, Some(plain)) => {
                    measure(what, || plain.start(&point), |running| plain.migrate(running), drop)
                }
                _ => Vec::new(),
            };
            let summary = Summary::of(&point, contender.mode(), &outcomes);
            if options.json {
                println!("{}", serde_json::to_string(&summary)?);
            }
            summaries.push(summary);
        }
    }
    drop(stage);
    let machine = machine()?;
    let files = output::write("cold", &summaries, &machine, &chart::cold(&summaries))?;
    if !options.json {
        print!("{}", table::cold(&summaries, runs));
        println!("\n{}", files.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join("\n"));
    }
    let (attempts, ok) =
        summaries.iter().fold((0, 0), |(runs, ok), summary| (runs + summary.runs, ok + summary.ok));
    if ok < attempts {
        bail!("{} of {attempts} migrations failed; the reasons are above", attempts - ok);
    }
    Ok(())
}

/// The network both contenders share, and what each prepared on it.
enum Stage {
    /// The product's sites run.
    Lab(Box<Lab>),
    /// Only the baseline is measured.
    Bare(Box<Net>),
}

impl Stage {
    fn set(contenders: &[Contender]) -> Result<Self> {
        eprintln!("bench: two sites, joined by a link of 1 Gbit/s");
        let stage = match contenders.contains(&Contender::Own) {
            true => Self::Lab(Box::new(Lab::two_sites_over(Shape::gigabit())?)),
            false => {
                let net = Net::new(2)?;
                net.link(A, B).shape(Shape::gigabit())?;
                Self::Bare(Box::new(net))
            }
        };
        if let Self::Lab(lab) = &stage {
            // The image travels once, here: the baseline has it at both sites from the beginning.
            let point = Point { scenario: MEMORY, memory_mib: 0, processes: 1 };
            let service =
                own::start(lab, &point).context("cannot start the service that takes the image over")?;
            own::migrate(&service).context("cannot take the image over")?;
            own::end(&service);
        }
        Ok(stage)
    }

    fn net(&self) -> &Net {
        match self {
            Self::Lab(lab) => lab.net(),
            Self::Bare(net) => net,
        }
    }
}

/// One outcome per run, there and back in turns; a failed one does not keep the others from being tried, on a new
/// service.
fn measure<R>(
    (contender, point, runs): (Contender, &Point, u32),
    start: impl Fn() -> Result<R>,
    migrate: impl Fn(R) -> Result<(R, Sample)>,
    end: impl Fn(R),
) -> Vec<Result<Sample>> {
    let mut current = None;
    let mut outcomes = Vec::new();
    for run in 1..=runs {
        let running = current.take().map_or_else(&start, Ok);
        let outcome = running.and_then(&migrate);
        interrupt::stop_here_if_interrupted();
        tell(contender, point, run, &outcome);
        outcomes.push(outcome.map(|(running, sample)| {
            current = Some(running);
            sample
        }));
    }
    current.into_iter().for_each(end);
    outcomes
}

fn tell<R>(contender: Contender, point: &Point, run: u32, outcome: &Result<(R, Sample)>) {
    let (mode, mib, processes) = (contender.mode(), point.memory_mib, point.processes);
    let head = format!("bench: {mode}, {mib} MiB, {processes} process(es), run {run}");
    match outcome {
        Ok((_, sample)) => eprintln!(
            "{head}: total {:.0} ms, frozen {:.0} ms, downtime {:.0} ms",
            sample.total_ms, sample.frozen_ms, sample.downtime_ms
        ),
        Err(error) => eprintln!("{head}: FAILED: {error:#}"),
    }
}

fn machine() -> Result<Machine> {
    let kernel =
        std::fs::read_to_string("/proc/sys/kernel/osrelease").context("cannot read the kernel's version")?;
    let processors = std::thread::available_parallelism().context("cannot count the processors")?.get();
    Ok(Machine { kernel: kernel.trim().to_owned(), processors, link: "1 Gbit/s, no delay, no loss" })
}
