//! Shows what UMS does: a Redis moves between two sites under load. `cargo xtask demo` builds and starts this.

use std::process::ExitCode;

use clap::Parser;
use ums_model::names::Bytes;
use ums_testbed::demo::{self, Options};
use ums_testbed::interrupt;

/// Moves a Redis with data in it between two sites on this machine and back, and checks every write. Needs root.
#[derive(Debug, Parser)]
#[command(name = "ums-demo")]
struct Args {
    /// Print one JSON object per line on stdout, and nothing else there
    #[arg(long)]
    json: bool,
    /// How often the service moves
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..))]
    moves: u32,
    /// How much data the service holds, in MiB
    #[arg(long, value_name = "N", default_value_t = 100)]
    mib: u32,
}

fn main() -> ExitCode {
    let args = Args::parse();
    let options = Options { moves: args.moves, fill: Bytes::mib(args.mib.into()), json: args.json };
    let outcome = interrupt::clean_up_on_signals().and_then(|()| demo::run(options));
    interrupt::stop_here_if_interrupted();
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("demo: FAILED: {error:#}");
            ExitCode::FAILURE
        }
    }
}
