//! `test`: set up, build, end leftovers, run everything.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::child_env::ChildEnv;
use crate::cli::Test;
use crate::setup::{Lab, Places, tools};
use crate::workspace::Workspace;
use crate::{authority, compile, process};

/// Name of the program of the testbed that ends what an earlier run left behind.
pub(crate) const SWEEP: &str = "ums-sweep";

/// Longest time to compile and run the examples of the documentation.
const DOCUMENTATION_DEADLINE: Duration = Duration::from_mins(20);

/// Runs documentation tests and then all others; every failure is told, none hides the next.
///
/// nextest comes last so that its summary is the last line that a reader of the output sees, be it a person or a
/// program that counts tests.
pub(crate) fn run(workspace: &Workspace, arguments: &Test) -> Result<()> {
    authority::require_lab("test")?;
    let places = Places::of(workspace)?;
    let lab = Lab::prepare(&places)?;
    let nextest = tools::nextest(&places)?;
    let programs = compile::programs(workspace)?;
    let environment = ChildEnv::of(&lab, &programs)?;
    sweep(programs.find(SWEEP))?;

    let selection = selection(&arguments.packages);
    let mut failures = Vec::new();
    if arguments.nextest.is_empty() {
        let mut documentation = workspace.cargo();
        documentation.args(["test", "--doc"]).args(&selection);
        failures.extend(run_documentation(environment.apply(&mut documentation), &places).err());
    }
    let mut all = process::command(nextest);
    all.current_dir(&workspace.root).args(["nextest", "run"]).args(&selection).args(&arguments.nextest);
    failures.extend(process::run(environment.apply(&mut all)).err());
    failures.extend(sweep(programs.find(SWEEP)).err());

    if failures.is_empty() {
        return Ok(());
    }
    bail!("{}", failures.iter().map(|error| format!("{error:#}")).collect::<Vec<_>>().join("; "))
}

/// Runs the examples of the documentation. Their many summaries, one for every crate, are shown only on failure:
/// among them the one that counts would be hard to find.
fn run_documentation(tests: &mut Command, places: &Places) -> Result<()> {
    let log = places.log("documentation-tests");
    process::say("documentation tests ...");
    let done = process::run_logged(tests, &log, DOCUMENTATION_DEADLINE);
    if done.is_err() {
        eprintln!("{}", String::from_utf8_lossy(&std::fs::read(&log).unwrap_or_default()));
    }
    done
}

/// Ends processes and removes namespaces, cgroups and mounts that an earlier, killed run left behind. They would
/// otherwise hold names and addresses that the next run needs.
pub(crate) fn sweep(program: Option<&Path>) -> Result<()> {
    let Some(program) = program else { return Ok(()) };
    process::run(process::command(program).stdout(std::io::stderr()))
        .context("cannot end what an earlier run left behind")
}

fn selection(packages: &[String]) -> Vec<String> {
    if packages.is_empty() {
        return vec!["--workspace".to_owned()];
    }
    packages.iter().flat_map(|package| ["--package".to_owned(), package.clone()]).collect()
}
