//! `demo`, `bench` and `soak`: set up, build, and give way to the testbed's own program.

use std::os::unix::process::CommandExt;
use std::process::Command;

use anyhow::Result;

use crate::child_env::ChildEnv;
use crate::cli::{Bench, Demo, Soak};
use crate::setup::{Lab, Places};
use crate::workspace::Workspace;
use crate::{authority, compile, process, run_tests};

/// The benchmark that is none: hostile bytes for every decoder. It needs no lab.
const FUZZ: &str = "fuzz";

/// Starts the demo in place of this process; returns only on failure.
pub(crate) fn demo(workspace: &Workspace, arguments: &Demo) -> Result<()> {
    authority::require_lab("demo")?;
    let (mut program, environment) = ready(workspace, "ums-demo")?;
    environment.apply(&mut program).args(demo_arguments(arguments));
    Err(replace(&mut program))
}

/// Starts the benchmarks in place of this process; returns only on failure. Naming them needs no set-up.
pub(crate) fn bench(workspace: &Workspace, arguments: &Bench) -> Result<()> {
    if arguments.list {
        let programs = compile::programs(workspace)?;
        let mut program = process::command(programs.get("ums-bench")?);
        program.args(bench_arguments(arguments));
        return Err(replace(&mut program));
    }
    if arguments.name.as_deref() == Some(FUZZ) {
        let programs = compile::programs(workspace)?;
        let mut program = process::command(programs.get("ums-fuzz")?);
        program.args(fuzz_arguments(arguments));
        return Err(replace(&mut program));
    }
    authority::require_lab("bench")?;
    let (mut program, environment) = ready(workspace, "ums-bench")?;
    environment.apply(&mut program).args(bench_arguments(arguments));
    Err(replace(&mut program))
}

/// Starts the soak in place of this process; returns only on failure.
pub(crate) fn soak(workspace: &Workspace, arguments: &Soak) -> Result<()> {
    authority::require_lab("soak")?;
    let (mut program, environment) = ready(workspace, "ums-soak")?;
    environment.apply(&mut program).args(soak_arguments(arguments));
    Err(replace(&mut program))
}

/// Sets up, builds and ends what an earlier run left behind.
fn ready(workspace: &Workspace, name: &str) -> Result<(Command, ChildEnv)> {
    let lab = Lab::prepare(&Places::of(workspace)?)?;
    let programs = compile::programs(workspace)?;
    run_tests::sweep(programs.find(run_tests::SWEEP))?;
    Ok((process::command(programs.get(name)?), ChildEnv::of(&lab, &programs)?))
}

/// The program takes over this process: its exit code, its stdout and its signals are those of `cargo xtask`.
fn replace(program: &mut Command) -> anyhow::Error {
    let shown = process::shown(program);
    anyhow::Error::new(program.exec()).context(format!("cannot start `{shown}`"))
}

fn demo_arguments(arguments: &Demo) -> Vec<String> {
    let mut list = Vec::new();
    list.extend(arguments.json.then(|| "--json".to_owned()));
    list.extend(arguments.moves.into_iter().flat_map(|moves| ["--moves".to_owned(), moves.to_string()]));
    list.extend(arguments.mib.into_iter().flat_map(|mib| ["--mib".to_owned(), mib.to_string()]));
    list
}

fn fuzz_arguments(arguments: &Bench) -> Vec<String> {
    let mut list = Vec::new();
    list.extend(
        arguments.minutes.into_iter().flat_map(|minutes| ["--minutes".to_owned(), minutes.to_string()]),
    );
    list.extend(arguments.target.iter().flat_map(|target| ["--target".to_owned(), target.clone()]));
    list.extend(arguments.seed.into_iter().flat_map(|seed| ["--seed".to_owned(), seed.to_string()]));
    list
}

fn bench_arguments(arguments: &Bench) -> Vec<String> {
    let mut list = Vec::new();
    list.extend(arguments.name.clone());
    list.extend(arguments.quick.then(|| "--quick".to_owned()));
    list.extend(arguments.list.then(|| "--list".to_owned()));
    list.extend(arguments.json.then(|| "--json".to_owned()));
    list.extend(arguments.runs.into_iter().flat_map(|runs| ["--runs".to_owned(), runs.to_string()]));
    let texts =
        [("--cells", &arguments.cells), ("--resume", &arguments.resume), ("--markdown", &arguments.markdown)];
    for (name, text) in texts {
        list.extend(text.iter().flat_map(|text| [name.to_owned(), text.clone()]));
    }
    list
}

fn soak_arguments(arguments: &Soak) -> Vec<String> {
    let mut list = Vec::new();
    let number = |name: &str, value: Option<u64>| {
        value.into_iter().flat_map(|value| [name.to_owned(), value.to_string()]).collect::<Vec<_>>()
    };
    list.extend(number("--minutes", arguments.minutes));
    list.extend(number("--seed", arguments.seed));
    list.extend(arguments.json.then(|| "--json".to_owned()));
    list.extend(arguments.keepers.then(|| "--keepers".to_owned()));
    list
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::cli::{Cli, Command};

    #[test]
    fn arguments_of_the_fuzzer_are_passed_through() {
        let line = ["xtask", "bench", "fuzz", "--minutes", "3", "--target", "images", "--seed", "7"];
        let Command::Bench(bench) = Cli::parse_from(line).command else { panic!("not a benchmark") };
        assert_eq!(fuzz_arguments(&bench), line[3..]);
    }

    #[test]
    fn arguments_of_the_demo_are_passed_through() {
        let line = ["xtask", "demo", "--json", "--moves", "3", "--mib", "16"];
        let Command::Demo(demo) = Cli::parse_from(line).command else { panic!("not a demo") };
        assert_eq!(demo_arguments(&demo), line[2..]);
    }

    #[test]
    fn arguments_of_the_benchmarks_are_passed_through() {
        let line = ["xtask", "bench", "cold", "--quick", "--list", "--json", "--runs", "3"];
        let Command::Bench(bench) = Cli::parse_from(line).command else { panic!("not a bench") };
        assert_eq!(bench_arguments(&bench), line[2..]);
        let line = ["xtask", "bench", "faults", "--cells", "arm/,dump/", "--resume", "r", "--markdown", "m"];
        let Command::Bench(bench) = Cli::parse_from(line).command else { panic!("not a bench") };
        assert_eq!(bench_arguments(&bench), line[2..]);
        let Command::Bench(bench) = Cli::parse_from(["xtask", "bench"]).command else {
            panic!("not a bench")
        };
        assert!(bench_arguments(&bench).is_empty());
    }

    #[test]
    fn arguments_of_the_soak_are_passed_through() {
        let line = ["xtask", "soak", "--minutes", "5", "--seed", "7", "--json", "--keepers"];
        let Command::Soak(soak) = Cli::parse_from(line).command else { panic!("not a soak") };
        assert_eq!(soak_arguments(&soak), line[2..]);
    }
}
