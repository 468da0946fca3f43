//! Moves databases between sites under load and faults, and checks everything. `cargo xtask soak` builds and starts this.

use std::process::ExitCode;
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result};
use clap::Parser;
use ums_testbed::interrupt;
use ums_testbed::soak::{self, Options, Report};

/// Redis and PostgreSQL under checking load, random migrations, random faults. Exit code 1 on any violation. Needs root.
#[derive(Debug, Parser)]
#[command(name = "ums-soak")]
struct Args {
    /// How long
    #[arg(long, value_name = "N", default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..))]
    minutes: u64,
    /// What is chosen at random follows from it; another one each time if left out
    #[arg(long, value_name = "S")]
    seed: Option<u64>,
    /// Print one JSON object on stdout at the end, and nothing else there
    #[arg(long)]
    json: bool,
    /// Also kill keepers, whereby services may be lost
    #[arg(long)]
    keepers: bool,
}

fn main() -> ExitCode {
    let args = Args::parse();
    let outcome = interrupt::clean_up_on_signals().and_then(|()| run(&args));
    interrupt::stop_here_if_interrupted();
    match outcome {
        Ok(Report { violations: 0, .. }) => ExitCode::SUCCESS,
        Ok(_) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("soak: FAILED: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: &Args) -> Result<Report> {
    let seed = match args.seed {
        Some(seed) => seed,
        None => SystemTime::UNIX_EPOCH.elapsed().context("a clock before 1970")?.as_secs(),
    };
    let report = soak::run(Options {
        time: Duration::from_mins(args.minutes),
        rounds: u64::MAX,
        seed,
        sites: 3,
        keepers: args.keepers,
    })?;
    match args.json {
        true => println!("{}", serde_json::to_string(&report).context("cannot write the result as JSON")?),
        false => print!("{}", report.text()),
    }
    Ok(report)
}
