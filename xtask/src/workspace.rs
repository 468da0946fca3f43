//! What cargo says about this workspace: where it is, where it builds, which packages it has.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use serde::Deserialize;

use crate::process;

/// The workspace that the current directory belongs to.
#[derive(Debug, Deserialize)]
pub(crate) struct Workspace {
    /// Its root folder.
    #[serde(rename = "workspace_root")]
    pub(crate) root: PathBuf,
    /// Where cargo builds. Never assume `target/` in the root: continuous integration keeps it elsewhere.
    pub(crate) target_directory: PathBuf,
    /// Its members.
    pub(crate) packages: Vec<Package>,
}

/// One member.
#[derive(Debug, Deserialize)]
pub(crate) struct Package {
    pub(crate) name: String,
    pub(crate) manifest_path: PathBuf,
    pub(crate) dependencies: Vec<Dependency>,
}

/// One line of a dependency table.
#[derive(Debug, Deserialize)]
pub(crate) struct Dependency {
    pub(crate) name: String,
    #[serde(default)]
    pub(crate) kind: Option<Kind>,
}

/// Which table; cargo says `null` for the normal one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Kind {
    Dev,
    Build,
}

impl Package {
    /// The folder with its manifest.
    pub(crate) fn folder(&self) -> &Path {
        self.manifest_path.parent().unwrap_or(&self.manifest_path)
    }
}

impl Workspace {
    /// Asks cargo. Reads files only; takes some tens of milliseconds.
    pub(crate) fn find() -> Result<Self> {
        let mut ask = process::cargo();
        ask.args(["metadata", "--no-deps", "--format-version", "1"]);
        let answer = process::capture(&mut ask).context("cannot find the workspace")?;
        serde_json::from_str(&answer).context("cannot read what cargo metadata says")
    }

    /// A cargo command that runs in the root of the workspace.
    pub(crate) fn cargo(&self) -> Command {
        let mut cargo = process::cargo();
        cargo.current_dir(&self.root);
        cargo
    }
}
