//! One build for all commands: the same packages, profile and flags, so that a fresh machine compiles once.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context, Result, anyhow, bail};
use serde_json::Value;

use crate::process;
use crate::workspace::Workspace;

/// The target that everything is built for, as .cargo/config.toml says.
pub(crate) const TARGET: &str = "x86_64-unknown-linux-gnu";

/// Where an earlier build left a program, if it did. Builds nothing.
pub(crate) fn built(workspace: &Workspace, name: &str) -> Option<PathBuf> {
    let path = workspace.target_directory.join(TARGET).join("debug").join(name);
    process::is_program(&path).then_some(path)
}

/// The programs that a build made, by name.
#[derive(Debug)]
pub(crate) struct Programs(BTreeMap<String, PathBuf>);

impl Programs {
    /// Where a program is, if the workspace has it.
    pub(crate) fn find(&self, name: &str) -> Option<&Path> {
        self.0.get(name).map(PathBuf::as_path)
    }

    /// Where a program is that must be there.
    pub(crate) fn get(&self, name: &str) -> Result<&Path> {
        let known = || self.0.keys().map(String::as_str).collect::<Vec<_>>().join(", ");
        self.find(name).ok_or_else(|| anyhow!("the build made no program `{name}`; it made {}", known()))
    }
}

/// Builds every program of the workspace. All members are selected although few have programs: cargo unites the
/// features of what is selected, and another selection would compile shared dependencies a second time.
pub(crate) fn programs(workspace: &Workspace) -> Result<Programs> {
    let mut build = workspace.cargo();
    build.args(["build", "--workspace", "--bins", "--message-format=json-render-diagnostics"]);
    let shown = process::shown(&build);
    let output = build
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()
        .with_context(|| format!("cannot start `{shown}`"))?;
    if !output.status.success() {
        bail!("`{shown}` failed ({}); the compiler's messages are above", output.status);
    }
    Ok(Programs(named(&String::from_utf8_lossy(&output.stdout))))
}

/// Picks the programs out of cargo's messages, one JSON object per line.
fn named(messages: &str) -> BTreeMap<String, PathBuf> {
    messages
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok())
        .filter(|message| message["reason"] == "compiler-artifact")
        .filter_map(|message| {
            let name = message["target"]["name"].as_str()?.to_owned();
            Some((name, PathBuf::from(message["executable"].as_str()?)))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_are_told_from_libraries_and_other_messages() {
        let messages = concat!(
            r#"{"reason":"compiler-artifact","target":{"name":"ums_model"},"executable":null}"#,
            "\n",
            r#"{"reason":"compiler-artifact","target":{"name":"ums"},"executable":"/t/debug/ums"}"#,
            "\nnot json\n",
            r#"{"reason":"build-finished","success":true}"#,
        );
        let programs = Programs(named(messages));
        assert_eq!(programs.get("ums").unwrap(), Path::new("/t/debug/ums"));
        assert_eq!(programs.find("ums_model"), None);
        let error = programs.get("ums-demo").unwrap_err().to_string();
        assert_eq!(error, "the build made no program `ums-demo`; it made ums");
    }
}
