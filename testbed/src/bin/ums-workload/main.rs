//! The program that plays the services of the tests. One static binary, nothing else in the image.
//!
//! It runs inside the service's container as any program would, knows nothing of migration, and checks itself: its
//! memory, its counting, its connections. What it must do exactly is computable again from a seed, so a wrong byte is
//! found wherever it comes from.

mod args;
mod counter;
mod echo;
mod memhog;
mod memory;
mod signals;
mod uring;
mod workers;

use std::process::ExitCode;
use std::thread;

use anyhow::{Result, bail};

use crate::args::Args;

const USAGE: &str = "\
usage: ums-workload COMMAND [--OPTION VALUE]...
  counter  --interval-ms N [--witness PATH]     counts; a line per number to the witness or to stdout
  memhog   --mib N [--processes P] [--threads T] [--dirty-mib-s D] [--seed S] [--port PORT]
           [--echo-port PORT] [--witness PATH] [--interval-ms N] [--allow-corrupt yes]
                                                holds incompressible memory; answers `check` and `stats` on PORT
  tcp-echo --port N                             sends back what it receives
  io-uring                                      holds an io_uring, which cannot be dumped
  exit     --code N [--after-ms N]              ends by itself
  signals  [--exit-code N]                      prints SIGTERM and SIGHUP; ends on SIGTERM if given a code
";

fn main() -> ExitCode {
    let mut words = std::env::args().skip(1);
    let command = words.next().unwrap_or_default();
    let outcome = Args::parse(words).and_then(|args| run(&command, &args));
    match outcome {
        Ok(code) => code,
        Err(error) => {
            eprintln!("ums-workload {command}: {error:#}");
            eprint!("{USAGE}");
            ExitCode::from(2)
        }
    }
}

fn run(command: &str, args: &Args) -> Result<ExitCode> {
    match command {
        "counter" => counter::run(args)?,
        "memhog" => memhog::run(args)?,
        memhog::PART => memhog::run_part(args)?,
        "tcp-echo" => echo::run(args)?,
        "io-uring" => uring::run(args)?,
        "signals" => return signals::run(args),
        "exit" => {
            let code: u8 = args.required("code")?;
            let after = args.millis("after-ms", 0)?;
            args.finish()?;
            thread::sleep(after);
            return Ok(ExitCode::from(code));
        }
        _ => bail!("unknown command"),
    }
    Ok(ExitCode::SUCCESS)
}
