//! What a tool says about its version.

use std::io::{self, Read};
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use ums_model::plan::Version;

use crate::tools::{Tool, locate};

/// How often a tool is asked whether it has ended.
const POLL: Duration = Duration::from_millis(2);
/// More than this is no version.
const MOST_OUTPUT: u64 = 16 << 10;

/// The version of a tool; `None` if it is not there. One that is there and of no use says so instead, in words without
/// a number, so that nobody takes them for a version.
pub(super) fn version(tool: Tool, deadline: Duration) -> Option<String> {
    let program = match locate(tool) {
        Ok(program) => program,
        Err(error) => {
            tracing::warn!(%error, "no {}", tool.name());
            return None;
        }
    };
    Some(version_of(&program, deadline).unwrap_or_else(|error| {
        tracing::warn!(program = %program.display(), %error, "the tool does not tell its version");
        match error.kind() {
            io::ErrorKind::TimedOut => "does not answer".to_owned(),
            _ => "does not run".to_owned(),
        }
    }))
}

fn version_of(program: &Path, deadline: Duration) -> io::Result<String> {
    let mut command = Command::new(program);
    command.arg("--version").stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = command.spawn()?;
    let started = Instant::now();
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break status;
        }
        if started.elapsed() > deadline {
            // It is ours, touches nobody else for this question, and is waited for.
            child.kill()?;
            child.wait()?;
            return Err(io::ErrorKind::TimedOut.into());
        }
        sleep(POLL);
    };
    let mut said = String::new();
    if let Some(output) = child.stdout.take() {
        output.take(MOST_OUTPUT).read_to_string(&mut said)?;
    }
    match Version::find(&said) {
        Some(version) if status.success() => Ok(version.to_string()),
        _ => Err(io::Error::other(format!("it ended with {status} and said {said:?}"))),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    const LONG: Duration = Duration::from_secs(20);

    #[test]
    fn tools_are_believed_only_if_they_answer() {
        let folder = tempfile::tempdir().unwrap();
        let script = |name: &str, text: &str| {
            let path = folder.path().join(name);
            fs::write(&path, format!("#!/bin/sh\n{text}\n")).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
            path
        };
        let fine = script("fine", "echo 'runc version 1.3.6+ds1'; echo 'spec: 1.2.1'");
        assert_eq!(version_of(&fine, LONG).unwrap(), "1.3.6");
        let broken = script("broken", "echo 'needs GLIBC_2.38'; exit 1");
        assert!(version_of(&broken, LONG).is_err());
        let silent = script("silent", "true");
        assert!(version_of(&silent, LONG).is_err());
        let endless = script("endless", "exec sleep 1000");
        let error = version_of(&endless, Duration::from_millis(50)).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert!(version_of(&folder.path().join("missing"), LONG).is_err());
    }
}
