//! The rules of the architecture that a program can check. They run in `cargo xtask check` and as a test.
//!
//! 1. [`layers`]: who may depend on whom, and which crates belong to one member only;
//! 2. [`sources`]: where `unsafe` may stand, and how long a file may be;
//! 3. [`rust_text`]: what of a file is code;
//! 4. [`deadlines`]: every wait on the world is a key of the configuration;
//! 5. [`traces`]: nothing in the tree names somebody's machine or a package mirror.

mod layers;
mod sources;

mod rust_text;

mod deadlines;

mod traces;

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::workspace::Workspace;

/// What was found.
#[derive(Debug)]
pub(crate) struct Report {
    /// One sentence per broken rule; empty when all hold.
    pub(crate) breaches: Vec<String>,
    /// How long the source files are, in one line.
    pub(crate) sizes: String,
}

/// Examines the workspace. Reads files only.
pub(crate) fn examine(workspace: &Workspace) -> Result<Report> {
    let mut breaches = layers::breaches(&workspace.packages);
    let mut sizes = Vec::new();
    for path in files(&workspace.root)? {
        let shown = path.strip_prefix(&workspace.root).unwrap_or(&path).to_owned();
        let bytes = match std::fs::read(&path) {
            Ok(bytes) => bytes,
            // An editor's temporary file that is gone by now.
            Err(error) if error.kind() == ErrorKind::NotFound => continue,
            Err(error) => return Err(error).with_context(|| format!("cannot read {}", path.display())),
        };
        // What is not text has no lines and no words.
        let Ok(text) = String::from_utf8(bytes) else { continue };
        breaches.extend(traces::breaches(&shown, &text));
        if shown.extension().is_some_and(|extension| extension == "rs") {
            let member = workspace.packages.iter().find(|package| path.starts_with(package.folder()));
            let member = member.map_or("", |package| package.name.as_str());
            breaches.extend(sources::breaches(&shown, &text, member));
            breaches.extend(deadlines::breaches(&shown, &text, member));
            sizes.push((text.lines().count(), shown));
        }
    }
    Ok(Report { breaches, sizes: sources::sizes(sizes) })
}

/// All files of the tree, without those that git or cargo made: a folder that cargo builds in carries a tag file.
fn files(root: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in
            std::fs::read_dir(&folder).with_context(|| format!("cannot list {}", folder.display()))?
        {
            let entry = entry.with_context(|| format!("cannot list {}", folder.display()))?;
            let kind =
                entry.file_type().with_context(|| format!("cannot look at {}", entry.path().display()))?;
            let path = entry.path();
            if kind.is_file() {
                found.push(path);
            } else if kind.is_dir() && entry.file_name() != ".git" && !path.join("CACHEDIR.TAG").exists() {
                folders.push(path);
            }
        }
    }
    found.sort();
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_workspace_keeps_its_rules() {
        let report = examine(&Workspace::find().unwrap()).unwrap();
        assert!(report.breaches.is_empty(), "{}", report.breaches.join("\n"));
    }
}
