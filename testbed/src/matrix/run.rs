//! Many cells, one after the other, on as few pairs of sites as possible.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};
use serde::{Deserialize, Serialize};
use ums_model::names::Bytes;

use super::cell::Cell;
use super::report;
use super::sense::End;
use super::stage::Stage;
use crate::net::A;
use crate::service::Service;
use crate::workload::Workload;

/// How to run the matrix.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Options {
    /// Only the representative selection that `cargo xtask test` runs.
    pub quick: bool,
    /// One JSON object per cell on stdout, and a last one with the counts.
    pub json: bool,
    /// Only cells whose name contains one of these, separated by commas.
    pub cells: Option<String>,
    /// Results so far: cells in this file are not run again, and what is run is added.
    pub resume: Option<PathBuf>,
    /// Where the tables are written, in Markdown.
    pub markdown: Option<PathBuf>,
}

/// What came of a cell.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Held {
    /// Its name.
    pub cell: String,
    /// How it ended; `None` where something did not hold.
    pub end: Option<String>,
    /// What did not hold.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<String>,
    /// How long it took.
    pub seconds: f64,
}

/// `bench faults`. On `Ok` every cell that ran held, and those of the resumed file did.
pub fn bench(options: &Options) -> Result<()> {
    let mut results = match &options.resume {
        Some(file) if file.exists() => read(file)?,
        _ => Vec::new(),
    };
    let wanted = wanted(options);
    ensure!(!wanted.is_empty(), "no cell is called like this; cells are called STEP/FAULT");
    let known = |results: &[Held], cell: &Cell| results.iter().any(|known| known.cell == cell.name());
    let left: Vec<Cell> = wanted.into_iter().filter(|cell| !known(&results, cell)).collect();
    let count = left.len();
    let begun = Instant::now();
    run(&left, |result| {
        if options.json {
            println!("{}", serde_json::to_string(&result)?);
        } else {
            let how = result.end.as_deref().unwrap_or("FAILED");
            println!(
                "{:>4}/{count} {:<44} {how:<12} {:>6.1} s",
                results.len() + 1,
                result.cell,
                result.seconds
            );
        }
        if let Some(failure) = &result.failure {
            eprintln!("{}: {failure}", result.cell);
        }
        if let Some(file) = &options.resume {
            append(file, &result)?;
        }
        results.push(result);
        Ok(())
    })?;
    let report = report::of(&results, begun.elapsed());
    if options.json {
        println!("{}", report.closing());
    } else {
        println!("\n{}", report.text());
    }
    if let Some(file) = &options.markdown {
        fs::write(file, report.markdown()).with_context(|| format!("cannot write {}", file.display()))?;
    }
    match report.failed() {
        0 => Ok(()),
        failed => bail!("{failed} of {} cells failed", results.len()),
    }
}

/// Runs cells and hands each result on; a failed cell ends its pair of sites, and the next begins on a new one.
///
/// On `Err` sites could not be set up, or `tell` failed.
pub fn run(cells: &[Cell], mut tell: impl FnMut(Held) -> Result<()>) -> Result<()> {
    let mut left = cells;
    while !left.is_empty() {
        let stage = Stage::set().context("cannot set up two sites")?;
        let mut service: Option<Service<'_>> = None;
        while let Some((cell, rest)) = left.split_first() {
            left = rest;
            let begun = Instant::now();
            let end = on(&stage, &mut service, cell);
            let seconds = begun.elapsed().as_secs_f64();
            let failed = end.is_err();
            if let Err(error) = &end {
                eprintln!("{}: {error:#}", cell.name());
                for site in stage.rig.sites() {
                    eprintln!("=== site {} ===\n{}", site.name(), site.logs());
                }
            }
            tell(Held {
                cell: cell.name(),
                end: end.as_ref().ok().map(|end| end.word().to_owned()),
                failure: end.err().map(|error| format!("{error:#}")),
                seconds,
            })?;
            if failed {
                break;
            }
        }
    }
    Ok(())
}

/// Runs one cell with the service that is there, or a new one.
fn on<'a>(stage: &'a Stage, service: &mut Option<Service<'a>>, cell: &Cell) -> Result<End> {
    let present = match service.take() {
        Some(present) => present,
        None => stage.rig.start(A, &Workload::memhog(Bytes::mib(4)))?,
    };
    let end = cell.run(stage, &present)?;
    if matches!(end, End::Done | End::RolledBack) {
        *service = Some(present);
    }
    Ok(end)
}

/// The cells that are asked for.
fn wanted(options: &Options) -> Vec<Cell> {
    let cells = if options.quick { super::selection() } else { Cell::all() };
    let Some(patterns) = &options.cells else { return cells };
    let is_wanted = |cell: &Cell| patterns.split(',').any(|pattern| cell.name().contains(pattern.trim()));
    cells.into_iter().filter(is_wanted).collect()
}

fn read(file: &Path) -> Result<Vec<Held>> {
    let text = fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
    let line = |line| serde_json::from_str(line).with_context(|| format!("{line:?} in {}", file.display()));
    text.lines().map(line).collect()
}

fn append(file: &Path, result: &Held) -> Result<()> {
    use std::io::Write;
    let open = fs::File::options().create(true).append(true).open(file);
    let mut open = open.with_context(|| format!("cannot open {}", file.display()))?;
    writeln!(open, "{}", serde_json::to_string(result)?).context("cannot keep a result")
}
