//! Where the numbers go: `NAME.json` and `NAME.svg`.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde_json::json;

use super::Machine;
use super::point::Summary;

/// Directory for the files; by default `ums/bench` in cargo's target directory.
const VARIABLE: &str = "UMS_BENCH_OUT";
/// Cargo puts this file into the target directory, and into those of single targets below it.
const TARGET_MARK: &str = "CACHEDIR.TAG";

/// Writes both files and returns where they are. An earlier run's are replaced.
pub(super) fn write(
    name: &str,
    summaries: &[Summary],
    machine: &Machine,
    picture: &str,
) -> Result<Vec<PathBuf>> {
    let directory = directory()?;
    fs::create_dir_all(&directory).with_context(|| format!("cannot create {}", directory.display()))?;
    let numbers = json!({ "bench": name, "machine": machine, "results": summaries });
    let files = [("json", format!("{numbers:#}\n")), ("svg", picture.to_owned())];
    files
        .into_iter()
        .map(|(end, text)| {
            let path = directory.join(format!("{name}.{end}"));
            fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
            Ok(path)
        })
        .collect()
}

fn directory() -> Result<PathBuf> {
    if let Some(path) = std::env::var_os(VARIABLE) {
        return Ok(path.into());
    }
    let own = std::env::current_exe().context("cannot find the running program")?;
    let target = own.ancestors().filter(|path| path.join(TARGET_MARK).exists()).last();
    let fallback = || own.parent().unwrap_or(Path::new("."));
    Ok(target.unwrap_or_else(fallback).join("ums/bench"))
}
