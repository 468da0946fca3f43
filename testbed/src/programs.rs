//! Where the programs under test are.

use std::path::PathBuf;

use anyhow::{Context, Result, bail};

/// The path of a program of this workspace: what its environment variable says (`UMS_BIN` for `ums`, `UMS_WORKLOAD`
/// for `ums-workload`), else the file beside the running program, where cargo puts both.
pub fn find(name: &str) -> Result<PathBuf> {
    let variable = match name {
        "ums" => "UMS_BIN".to_owned(),
        _ => name.to_uppercase().replace('-', "_"),
    };
    if let Some(path) = std::env::var_os(&variable).map(PathBuf::from) {
        if path.exists() {
            return Ok(path);
        }
        bail!("{variable} names {}, which does not exist", path.display());
    }
    let own = std::env::current_exe().context("cannot find the running program")?;
    // Tests run in `deps`, one below the programs.
    let found =
        own.ancestors().skip(1).take(2).map(|directory| directory.join(name)).find(|path| path.exists());
    let package = if name == "ums" { "ums" } else { "ums-testbed" };
    found.with_context(|| format!("no program {name} beside {}: cargo build -p {package}", own.display()))
}
