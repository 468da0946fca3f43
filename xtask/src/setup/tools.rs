//! Programs that cargo does not bring itself: the test runner and the dependency checker. One that is installed is
//! used; else it is compiled once per machine, in the cache, from crates.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result};

use super::draft;
use super::lock::Lock;
use super::{Places, step};
use crate::process;

/// Longest time to compile one of them; the test runner takes some minutes on two cores.
const DEADLINE: Duration = Duration::from_mins(50);

/// Compile fast rather than run fast: both tools wait for others most of the time.
const PROFILE: [(&str, &str); 5] = [
    ("CARGO_PROFILE_RELEASE_OPT_LEVEL", "1"),
    ("CARGO_PROFILE_RELEASE_LTO", "off"),
    ("CARGO_PROFILE_RELEASE_CODEGEN_UNITS", "16"),
    ("CARGO_PROFILE_RELEASE_DEBUG", "0"),
    ("CARGO_PROFILE_RELEASE_STRIP", "symbols"),
];

/// A crate with a program of the same name.
struct Tool {
    name: &'static str,
    version: &'static str,
    options: &'static [&'static str],
}

const NEXTEST: Tool = Tool { name: "cargo-nextest", version: "0.9.151", options: &["--no-default-features"] };
const DENY: Tool = Tool { name: "cargo-deny", version: "0.20.2", options: &[] };

/// The test runner.
pub(crate) fn nextest(places: &Places) -> Result<PathBuf> {
    ensure(&NEXTEST, places)
}

/// The checker of licences, banned crates and sources.
pub(crate) fn deny(places: &Places) -> Result<PathBuf> {
    ensure(&DENY, places)
}

/// Removes all tools that were compiled here.
pub(crate) fn forget(places: &Places) -> Result<()> {
    draft::remove(&folder(places))
}

fn folder(places: &Places) -> PathBuf {
    places.cache.join("tools")
}

fn ensure(tool: &Tool, places: &Places) -> Result<PathBuf> {
    let folder = folder(places);
    let compiled = folder.join("bin").join(tool.name);
    if process::is_program(&compiled) {
        return Ok(compiled);
    }
    if let Some(installed) = process::find_tool(tool.name) {
        return Ok(installed);
    }
    let _lock = Lock::of(&folder)?;
    if !process::is_program(&compiled) {
        step(&format!("compiling {} {} (once, some minutes)", tool.name, tool.version), || {
            compile(tool, places)
        })
        .with_context(|| format!("cannot get {0}; try `cargo install --locked {0}` by hand", tool.name))?;
    }
    Ok(compiled)
}

/// `cargo install` puts the program in place as its last step. It is started outside of the workspace, whose cargo
/// configuration asks for static programs, and its intermediate files are not kept.
fn compile(tool: &Tool, places: &Places) -> Result<()> {
    let folder = folder(places);
    std::fs::create_dir_all(&folder)
        .with_context(|| format!("cannot make the folder {}", folder.display()))?;
    let build = folder.join("build");
    let mut install = process::cargo();
    install.current_dir(&folder).envs(PROFILE).env_remove("CARGO_TARGET_DIR").env_remove("RUSTFLAGS");
    install.args(["install", "--locked", tool.name, "--version", tool.version]).args(tool.options);
    install.arg("--root").arg(&folder).arg("--target-dir").arg(&build);
    process::run_logged(&mut install, &places.log(tool.name), DEADLINE)?;
    draft::remove(&build)
}
