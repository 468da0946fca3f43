//! Benchmarks of UMS, and what they are measured against. `cargo xtask bench` builds and starts this.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, ValueEnum};
use ums_testbed::bench::{self, Benchmark, Contender, Options, plain};
use ums_testbed::{interrupt, matrix};

/// Measures UMS on this machine. Needs root, except for --list.
#[derive(Debug, Parser)]
#[command(name = "ums-bench")]
struct Args {
    /// Which benchmark; all of them if left out
    name: Option<String>,
    /// A small form that ends within five minutes
    #[arg(long)]
    quick: bool,
    /// Name all benchmarks and measure none
    #[arg(long)]
    list: bool,
    /// Print one JSON object per line on stdout, and nothing else there
    #[arg(long)]
    json: bool,
    /// Runs per point
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    runs: Option<u32>,
    /// Of `faults`: only cells whose name, STEP/FAULT, contains one of these
    #[arg(long, value_name = "PATTERN,...")]
    cells: Option<String>,
    /// Of `faults`: keep results in this file, and do not run again what is in it
    #[arg(long, value_name = "FILE")]
    resume: Option<PathBuf>,
    /// Of `faults`: write the tables to this file
    #[arg(long, value_name = "FILE")]
    markdown: Option<PathBuf>,
    /// Leave the other contender out
    #[arg(long, value_name = "WHO")]
    only: Option<Who>,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Who {
    Own,
    Baseline,
}

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    // The first process of a container of the baseline is this program, too, until it becomes the workload.
    if let Some((plain::INIT, rest)) = words.split_first().map(|(first, rest)| (first.as_str(), rest)) {
        return told(plain::init(rest));
    }
    let args = Args::parse();
    if args.list {
        for Benchmark { name, measures, .. } in bench::ALL {
            match args.json {
                true => println!("{}", serde_json::json!({ "name": name, "measures": measures })),
                false => println!("{name:<10}{measures}"),
            }
        }
        return ExitCode::SUCCESS;
    }
    let wanted = |known: &&Benchmark| args.name.as_deref().is_none_or(|name| name == known.name);
    let chosen: Vec<&Benchmark> = bench::ALL.iter().filter(wanted).collect();
    if let (Some(name), []) = (&args.name, &chosen[..]) {
        eprintln!("ums-bench: there is no benchmark `{name}`; `cargo xtask bench --list` names all");
        return ExitCode::from(2);
    }
    let only = args.only.map(|who| match who {
        Who::Own => Contender::Own,
        Who::Baseline => Contender::Baseline,
    });
    let options = Options { quick: args.quick, json: args.json, runs: args.runs, only };
    let Args { quick, json, cells, resume, markdown, .. } = args;
    let faults = matrix::Options { quick, json, cells, resume, markdown };
    let outcome = interrupt::clean_up_on_signals().and_then(|()| match chosen[..] {
        [Benchmark { name: "faults", .. }] => matrix::bench(&faults),
        _ => chosen.into_iter().try_for_each(|benchmark| benchmark.run(options)),
    });
    interrupt::stop_here_if_interrupted();
    told(outcome)
}

fn told(outcome: anyhow::Result<()>) -> ExitCode {
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("ums-bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}
