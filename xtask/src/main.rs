//! `cargo xtask`: everything a developer runs that is not the product itself.
//!
//! It turns a fresh Debian machine (root, Rust and its C linker) into one on which UMS can be built, tested
//! and shown, and it is the only place that knows how. Read in this order:
//!
//! 1. [`cli`]: the commands and their arguments;
//! 2. [`setup`]: what a machine needs and how it gets it (host packages, the CRIU bundle, images, tools);
//! 3. [`compile`], [`child_env`]: one build for all commands, and what its programs are told;
//! 4. [`run_tests`], [`run_checks`], [`testbed`], [`clean`]: the commands;
//! 5. [`invariants`]: the rules of the architecture that a program can check;
//! 6. [`process`], [`workspace`], [`authority`]: what the rest stands on.
//!
//! It must never know how a migration works: what `demo`, `bench` and `soak` do lives in the testbed's own programs, which
//! are built and then take the place of this process. It writes for people on stderr; stdout belongs to them.

mod cli;

mod setup;

mod child_env;
mod compile;

mod clean;
mod run_checks;
mod run_tests;
mod testbed;

mod invariants;

mod authority;
mod process;
mod workspace;

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    match cli::Cli::parse().command.run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
