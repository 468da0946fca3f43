//! Fuzzes for as long as one likes: `cargo xtask bench fuzz --minutes 10 --target images --seed 7`.

use std::fs;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail};
use clap::Parser;
use ums_fuzz::corpus;
use ums_fuzz::run::{Until, many};
use ums_fuzz::targets::{TARGETS, Target, named};

#[derive(Debug, Parser)]
struct Arguments {
    /// How long, all targets together
    #[arg(long, default_value_t = 5)]
    minutes: u64,
    /// Only this one
    #[arg(long)]
    target: Option<String>,
    /// Where the inputs come from; another one each time if left out
    #[arg(long)]
    seed: Option<u64>,
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let targets: Vec<&Target> = match &arguments.target {
        None => TARGETS.iter().collect(),
        Some(name) => vec![named(name).with_context(|| format!("there is no target {name}: {}", names()))?],
    };
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let seed = arguments.seed.unwrap_or(now);
    let each = Duration::from_secs(arguments.minutes * 60) / u32::try_from(targets.len()).unwrap_or(1);
    let mut failed = 0;
    for target in targets {
        match many(target, seed, Until::Time(Instant::now() + each))? {
            Ok(tally) => println!(
                "{}: {} inputs with seed {seed}, {} of them taken",
                target.name, tally.inputs, tally.taken
            ),
            Err(failure) => {
                failed += 1;
                let path = corpus::folder(target.name).join(format!("found-{seed}"));
                fs::write(&path, &failure.input)
                    .with_context(|| format!("cannot write {}", path.display()))?;
                println!(
                    "{}: {} (seed {seed}); the input is in {}",
                    target.name,
                    failure.what,
                    path.display()
                );
            }
        }
    }
    if failed > 0 {
        bail!("{failed} decoders do not bear what they are given: cargo xtask test -p ums-fuzz");
    }
    Ok(())
}

fn names() -> String {
    TARGETS.iter().map(|target| target.name).collect::<Vec<_>>().join(", ")
}
