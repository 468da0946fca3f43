//! The commands of `cargo xtask` and their arguments.

use anyhow::Result;
use clap::{Args, Parser, Subcommand};

use crate::setup::{Lab, Places, tools};
use crate::workspace::Workspace;
use crate::{authority, clean, process, run_checks, run_tests, testbed};

/// Builds, tests and shows UMS on this machine; installs what is missing first.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// What can be asked for.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Move a Redis with data in it between two sites on this machine and back, and check every write
    Demo(Demo),
    /// Run all tests; they need root, and a test that cannot run fails with the reason
    Test(Test),
    /// Formatting, architecture, dependencies, lints and documentation
    Check,
    /// Measure; see `bench --list` for what
    Bench(Bench),
    /// Move databases between sites under load and faults for long, and check everything
    Soak(Soak),
    /// Only get ready: host packages, CRIU and runc, the images of Redis and PostgreSQL, cargo tools
    Setup(Setup),
    /// End leftovers of earlier runs and remove what set-up made below the target directory
    Clean(Clean),
}

/// Arguments of `demo`.
#[derive(Debug, Args)]
pub(crate) struct Demo {
    /// Print one JSON object per line on stdout, and nothing else there
    #[arg(long)]
    pub(crate) json: bool,
    /// How often the service moves
    #[arg(long, value_name = "N")]
    pub(crate) moves: Option<u32>,
    /// How much data the service holds, in MiB
    #[arg(long, value_name = "N")]
    pub(crate) mib: Option<u32>,
}

/// Arguments of `bench`.
#[derive(Debug, Args)]
pub(crate) struct Bench {
    /// Which benchmark, all of them if left out; or `fuzz`: hostile bytes for every decoder, which needs no root
    #[arg(value_name = "NAME")]
    pub(crate) name: Option<String>,
    /// A small form that ends within five minutes
    #[arg(long)]
    pub(crate) quick: bool,
    /// Name all benchmarks and measure none
    #[arg(long)]
    pub(crate) list: bool,
    /// Print one JSON object per line on stdout, and nothing else there
    #[arg(long)]
    pub(crate) json: bool,
    /// Runs per point
    #[arg(long, value_name = "N")]
    pub(crate) runs: Option<u32>,
    /// Of `faults`: only cells whose name, STEP/FAULT, contains one of these
    #[arg(long, value_name = "PATTERN,...")]
    pub(crate) cells: Option<String>,
    /// Of `faults`: keep results in this file, and do not run again what is in it
    #[arg(long, value_name = "FILE")]
    pub(crate) resume: Option<String>,
    /// Of `faults`: write the tables to this file
    #[arg(long, value_name = "FILE")]
    pub(crate) markdown: Option<String>,
    /// Of `fuzz`: minutes, all targets together
    #[arg(long, value_name = "N")]
    pub(crate) minutes: Option<u64>,
    /// Of `fuzz`: only this decoder
    #[arg(long, value_name = "NAME")]
    pub(crate) target: Option<String>,
    /// Of `fuzz`: what its inputs come from; printed, to be given again
    #[arg(long, value_name = "N")]
    pub(crate) seed: Option<u64>,
}

/// Arguments of `soak`.
#[derive(Debug, Args)]
pub(crate) struct Soak {
    /// How long
    #[arg(long, value_name = "N")]
    pub(crate) minutes: Option<u64>,
    /// What is chosen at random follows from it
    #[arg(long, value_name = "S")]
    pub(crate) seed: Option<u64>,
    /// Print one JSON object on stdout at the end, and nothing else there
    #[arg(long)]
    pub(crate) json: bool,
    /// Also kill keepers, whereby services may be lost
    #[arg(long)]
    pub(crate) keepers: bool,
}

/// Arguments of `test`.
#[derive(Debug, Args)]
pub(crate) struct Test {
    /// Test only this package (repeatable); the whole workspace if left out
    #[arg(short, long = "package", value_name = "PACKAGE")]
    pub(crate) packages: Vec<String>,
    /// Handed to `cargo nextest run` as they are: name filters and options
    #[arg(last = true, value_name = "NEXTEST ARGUMENTS")]
    pub(crate) nextest: Vec<String>,
}

/// Arguments of `setup`.
#[derive(Debug, Args)]
pub(crate) struct Setup {
    /// Forget what is there, cached downloads included, and make it anew
    #[arg(long)]
    pub(crate) refresh: bool,
}

/// Arguments of `clean`.
#[derive(Debug, Args)]
pub(crate) struct Clean {
    /// Remove the CRIU bundle and all cached downloads and tools as well
    #[arg(long)]
    pub(crate) all: bool,
}

impl Command {
    /// Runs the command. `demo`, `bench` and `soak` do not return where they succeed in starting their program.
    pub(crate) fn run(self) -> Result<()> {
        let workspace = Workspace::find()?;
        match self {
            Self::Demo(arguments) => testbed::demo(&workspace, &arguments),
            Self::Bench(arguments) => testbed::bench(&workspace, &arguments),
            Self::Soak(arguments) => testbed::soak(&workspace, &arguments),
            Self::Test(arguments) => run_tests::run(&workspace, &arguments),
            Self::Check => run_checks::run(&workspace),
            Self::Setup(arguments) => prepare(&workspace, &arguments),
            Self::Clean(arguments) => clean::run(&workspace, &arguments),
        }
    }
}

/// Gets everything that any command needs, and says where it is.
fn prepare(workspace: &Workspace, arguments: &Setup) -> Result<()> {
    authority::require_root("setup")?;
    let places = Places::of(workspace)?;
    if arguments.refresh {
        places.forget()?;
    }
    let lab = Lab::prepare(&places)?;
    let nextest = tools::nextest(&places)?;
    let deny = tools::deny(&places)?;
    process::say(&format!("CRIU and runc   {}", lab.bundle.display()));
    process::say(&format!("Redis image     {}", lab.redis_rootfs.display()));
    process::say(&format!("PostgreSQL      {}", lab.postgres_rootfs.display()));
    process::say(&format!("cargo-nextest   {}", nextest.display()));
    process::say(&format!("cargo-deny      {}", deny.display()));
    Ok(())
}
