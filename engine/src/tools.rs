//! Where the programs are that the engine starts: an explicit setting wins, then the bundle, then `PATH`.

use std::env;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

/// Where the bundle lies unless `UMS_BUNDLE` says otherwise.
const BUNDLE: &str = "/var/lib/ums/bundle";

/// A program that is not part of this one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tool {
    /// Checkpoint/restore in user space.
    Criu,
    /// The OCI runtime that creates containers.
    Runc,
}

/// A program cannot be found.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ToolError {
    /// A variable names a place where the program is not.
    #[error("{variable} says that {tool} is {path}, but there is no such file")]
    Misplaced {
        /// The program.
        tool: &'static str,
        /// The environment variable.
        variable: &'static str,
        /// Where it should have been.
        path: PathBuf,
    },
    /// It is neither in the bundle nor in `PATH`.
    #[error("cannot find {tool}: not in {bundle} and not in PATH; set {variable} to where it is")]
    Missing {
        /// The program.
        tool: &'static str,
        /// The bundle that was looked into.
        bundle: PathBuf,
        /// The environment variable that would say where it is.
        variable: &'static str,
    },
}

impl Tool {
    /// The name of its program file.
    pub fn name(self) -> &'static str {
        match self {
            Self::Criu => "criu",
            Self::Runc => "runc",
        }
    }

    /// The environment variable that names its program file.
    pub fn variable(self) -> &'static str {
        match self {
            Self::Criu => "UMS_CRIU",
            Self::Runc => "UMS_RUNC",
        }
    }
}

/// Finds a program: `UMS_CRIU`/`UMS_RUNC`, else `usr/sbin` in the folder `UMS_BUNDLE`, else in the default bundle,
/// else in `PATH`.
///
/// On `Ok` the path named a file a moment ago; that it runs is not proven. A variable that is set must be right.
pub fn locate(tool: Tool) -> Result<PathBuf, ToolError> {
    locate_in(tool, |variable| env::var_os(variable).filter(|value| !value.is_empty()))
}

fn locate_in(tool: Tool, variable: impl Fn(&str) -> Option<OsString>) -> Result<PathBuf, ToolError> {
    let given = |name: &'static str, path: PathBuf| match path.is_file() {
        true => Ok(path),
        false => Err(ToolError::Misplaced { tool: tool.name(), variable: name, path }),
    };
    if let Some(path) = variable(tool.variable()) {
        return given(tool.variable(), path.into());
    }
    let in_bundle = |bundle: &Path| bundle.join("usr/sbin").join(tool.name());
    if let Some(bundle) = variable("UMS_BUNDLE") {
        return given("UMS_BUNDLE", in_bundle(Path::new(&bundle)));
    }
    let bundle = Path::new(BUNDLE);
    let path = variable("PATH").unwrap_or_default();
    let candidates = env::split_paths(&path).map(|folder| folder.join(tool.name()));
    std::iter::once(in_bundle(bundle)).chain(candidates).find(|candidate| candidate.is_file()).ok_or_else(
        || ToolError::Missing { tool: tool.name(), bundle: bundle.to_owned(), variable: tool.variable() },
    )
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::fs;

    use super::*;

    fn locate_with(tool: Tool, variables: &[(&str, &Path)]) -> Result<PathBuf, ToolError> {
        let map: HashMap<&str, OsString> =
            variables.iter().map(|(name, value)| (*name, value.as_os_str().to_owned())).collect();
        locate_in(tool, |name| map.get(name).cloned())
    }

    #[test]
    fn an_explicit_setting_wins_and_must_be_right() {
        let folder = tempfile::tempdir().unwrap();
        let bundle = folder.path().join("bundle");
        fs::create_dir_all(bundle.join("usr/sbin")).unwrap();
        fs::write(bundle.join("usr/sbin/criu"), "").unwrap();
        let own = folder.path().join("criu");
        fs::write(&own, "").unwrap();

        assert_eq!(locate_with(Tool::Criu, &[("UMS_CRIU", &own), ("UMS_BUNDLE", &bundle)]).unwrap(), own);
        assert_eq!(
            locate_with(Tool::Criu, &[("UMS_BUNDLE", &bundle), ("PATH", folder.path())]).unwrap(),
            bundle.join("usr/sbin/criu")
        );
        assert!(matches!(
            locate_with(Tool::Runc, &[("UMS_BUNDLE", &bundle), ("PATH", folder.path())]),
            Err(ToolError::Misplaced { variable: "UMS_BUNDLE", .. })
        ));
    }

    #[test]
    fn a_program_that_is_nowhere_names_the_variable_to_set() {
        let folder = tempfile::tempdir().unwrap();
        let error = locate_with(Tool::Runc, &[("PATH", folder.path())]);
        // On a host with a bundle in the default place it is found there, which is right as well.
        if let Err(error) = error {
            assert!(error.to_string().contains("UMS_RUNC"), "{error}");
        }
    }
}
