//! `check`: everything that can be said about the code without running it. Cheap checks come first, every check
//! runs, and the failed ones are named at the end.

use std::process::Command;

use anyhow::{Result, bail};

use crate::setup::{Places, tools};
use crate::workspace::Workspace;
use crate::{compile, invariants, process};

/// Runs all checks. Needs no root.
pub(crate) fn run(workspace: &Workspace) -> Result<()> {
    let places = Places::of(workspace)?;
    let mut failed = Vec::new();
    let mut note = |name: &str, result: Result<()>| {
        if let Err(error) = result {
            process::say(&format!("{name}: {error:#}"));
            failed.push(name.to_owned());
        }
    };

    note("formatting", command("formatting", workspace.cargo().args(["fmt", "--all", "--check"])));
    note("invariants", invariants(workspace));
    note("dependencies", dependencies(workspace, &places));
    let clippy = ["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"];
    note("lints", command("lints", workspace.cargo().args(clippy)));
    let mut doc = workspace.cargo();
    doc.args(["doc", "--no-deps", "--workspace", "--document-private-items"])
        .env("RUSTDOCFLAGS", "-D warnings");
    note("documentation", command("documentation", &mut doc));

    if !failed.is_empty() {
        bail!("failed checks: {}; what is wrong is told above", failed.join(", "));
    }
    process::say("all checks passed");
    Ok(())
}

fn command(name: &str, command: &mut Command) -> Result<()> {
    process::say(&format!("{name} ..."));
    process::run(command)
}

fn invariants(workspace: &Workspace) -> Result<()> {
    process::say("invariants ...");
    let report = invariants::examine(workspace)?;
    process::say(&format!("invariants: {}", report.sizes));
    for breach in &report.breaches {
        process::say(&format!("invariants: {breach}"));
    }
    if !report.breaches.is_empty() {
        bail!("{} breached", report.breaches.len());
    }
    Ok(())
}

/// Licences, banned crates and sources; also that the lock file is up to date. Crates of other platforms are neither
/// fetched nor judged. Known vulnerabilities are another
/// lane: their list has to be downloaded anew for every run.
fn dependencies(workspace: &Workspace, places: &Places) -> Result<()> {
    let deny = tools::deny(places)?;
    command("lock file", workspace.cargo().args(["fetch", "--locked", "--target", compile::TARGET]))?;
    let mut check = process::command(deny);
    check.current_dir(&workspace.root);
    check.args([
        "--offline",
        "--all-features",
        "--log-level",
        "error",
        "check",
        "bans",
        "licenses",
        "sources",
    ]);
    command("dependencies", &mut check)
}
