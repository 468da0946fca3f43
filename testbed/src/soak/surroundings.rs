//! The program that the sites of a soak run: `ums` with short deadlines, so that a cut is noticed in seconds and an hour
//! has hundreds of migrations. The rules are the same.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::programs;
use crate::tag::Tag;

const CONFIGURATION: &str = "\
[deadlines]
connect = 2
handshake = 4
keep_alive = 1
idle = 6
stall = 10
answer = 10
commit = 10
retry_most = 1
";

/// A directory with the program. Dropping it removes it; one of a killed soak is swept like everything else.
#[derive(Debug)]
pub(super) struct Surroundings {
    directory: PathBuf,
    program: PathBuf,
}

impl Surroundings {
    pub(super) fn new() -> Result<Self> {
        let directory = Tag::fresh().directory();
        let this = Self { program: directory.join("ums"), directory };
        let configuration = this.directory.join("site.toml");
        // Everything but the daemon is passed on as it is. `exec` keeps the pid, so that the lab kills what it means to.
        let script = format!(
            "#!/bin/sh\n[ \"$1 $2\" = '--json site' ] && set -- \"$@\" --config '{}'\nexec '{}' \"$@\"\n",
            configuration.display(),
            programs::find("ums")?.display()
        );
        fs::create_dir_all(&this.directory)
            .and_then(|()| fs::write(&configuration, CONFIGURATION))
            .and_then(|()| fs::write(&this.program, script))
            .and_then(|()| fs::set_permissions(&this.program, Permissions::from_mode(0o755)))
            .with_context(|| format!("cannot fill {}", this.directory.display()))?;
        Ok(this)
    }

    pub(super) fn program(&self) -> &Path {
        &self.program
    }
}

impl Drop for Surroundings {
    fn drop(&mut self) {
        // What stays is swept before the next lab.
        let _ = fs::remove_dir_all(&self.directory);
    }
}
