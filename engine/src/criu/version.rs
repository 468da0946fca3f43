//! Which CRIU is installed, and whether it is new enough.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::time::Duration;

use tokio::process::Command;
use tokio::time::timeout;

/// The oldest CRIU that works: older ones cannot dump any socket on kernel 6.16 or newer.
pub const MINIMUM: Version = Version { major: 4, minor: 2, sublevel: 1 };

/// A version of CRIU.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version {
    /// 4 in 4.2.1.
    pub major: u32,
    /// 2 in 4.2.1.
    pub minor: u32,
    /// 1 in 4.2.1.
    pub sublevel: u32,
}

/// The installed CRIU is of no use.
#[derive(Debug, thiserror::Error)]
pub enum VersionError {
    /// It cannot be executed.
    #[error("cannot run {program}")]
    Start {
        /// CRIU's program file.
        program: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It ran, but did not tell its version.
    #[error("{program} does not tell its version: {said}")]
    Unclear {
        /// CRIU's program file.
        program: PathBuf,
        /// What it said.
        said: String,
    },
    /// It does not come to an end.
    #[error("{program} did not tell its version within {} s", waited.as_secs())]
    Silent {
        /// CRIU's program file.
        program: PathBuf,
        /// How long it was waited for.
        waited: Duration,
    },
    /// It is too old.
    #[error("{program} is CRIU {found}; {MINIMUM} or newer is needed")]
    TooOld {
        /// CRIU's program file.
        program: PathBuf,
        /// Its version.
        found: Version,
    },
}

/// Asks a CRIU for its version. On `Ok` it runs and is new enough.
pub async fn version(program: &Path, deadline: Duration) -> Result<Version, VersionError> {
    let output = run(program, "--version", deadline).await?;
    let text = String::from_utf8_lossy(&output.stdout);
    let Some(found) = Version::parse(&text) else {
        let said = format!("{text}{}", String::from_utf8_lossy(&output.stderr));
        return Err(VersionError::Unclear { program: program.to_owned(), said: said.trim().to_owned() });
    };
    match found >= MINIMUM {
        true => Ok(found),
        false => Err(VersionError::TooOld { program: program.to_owned(), found }),
    }
}

/// Lets CRIU find out once what the kernel can do, so that later runs need not: it keeps that in `/run/criu.kdat`
/// *if `/run` is a tmpfs*, and every dump and restore starts about 60 ms earlier.
///
/// On `Ok` the cache is there if it could be. What CRIU misses in this kernel is not an error here.
pub async fn warm_up(program: &Path, deadline: Duration) -> Result<(), VersionError> {
    run(program, "check", deadline).await.map(|_| ())
}

async fn run(program: &Path, word: &str, deadline: Duration) -> Result<Output, VersionError> {
    let mut command = Command::new(program);
    // Neither of the two commands touches a foreign process, so this CRIU may be killed.
    command.arg(word).stdin(Stdio::null()).kill_on_drop(true);
    match timeout(deadline, command.output()).await {
        Ok(Ok(output)) => Ok(output),
        Ok(Err(source)) => Err(VersionError::Start { program: program.to_owned(), source }),
        Err(_) => Err(VersionError::Silent { program: program.to_owned(), waited: deadline }),
    }
}

impl Version {
    /// Reads it from what `criu --version` prints.
    fn parse(text: &str) -> Option<Self> {
        let number = text.lines().find_map(|line| line.strip_prefix("Version:"))?.trim();
        let mut parts = number.split('.').map(|part| {
            let digits = part.find(|c: char| !c.is_ascii_digit()).unwrap_or(part.len());
            part[..digits].parse().ok()
        });
        let mut next = || parts.next().unwrap_or(Some(0));
        Some(Self { major: next()?, minor: next()?, sublevel: next()? })
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.major, self.minor, self.sublevel)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    const DEADLINE: Duration = Duration::from_secs(20);

    fn script(folder: &tempfile::TempDir, text: &str) -> PathBuf {
        let path = folder.path().join("criu");
        fs::write(&path, format!("#!/bin/sh\n{text}\n")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        path
    }

    #[test]
    fn versions_are_read_and_ordered() {
        let parse = |text| Version::parse(text).unwrap();
        assert_eq!(parse("Version: 4.2.1\nGitID: v4.2.1\n"), MINIMUM);
        assert!(parse("Version: 4.2\n") < MINIMUM);
        assert!(parse("Version: 4.10-rc1\n") > MINIMUM);
        assert_eq!(Version::parse("criu: command not found"), None);
    }

    #[tokio::test]
    async fn old_broken_and_missing_programs_are_told_apart() {
        let folder = tempfile::tempdir().unwrap();
        let old = script(&folder, "echo Version: 3.17.1");
        let error = version(&old, DEADLINE).await.unwrap_err();
        assert!(matches!(error, VersionError::TooOld { found: Version { major: 3, .. }, .. }), "{error}");

        let broken = script(&folder, "echo missing library >&2; exit 127");
        let error = version(&broken, DEADLINE).await.unwrap_err();
        assert!(error.to_string().contains("missing library"), "{error}");

        let error = version(&folder.path().join("none"), DEADLINE).await.unwrap_err();
        assert!(matches!(error, VersionError::Start { .. }), "{error}");
    }
}
