//! A daemon that waits at a step until the test lets it go on.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use ums_testbed::fault::VARIABLE;
use ums_testbed::net::SiteIndex;

use crate::eventually;
use crate::rig::Rig;

/// Keeps one daemon at one step. Dropping it lets the daemon go on.
#[derive(Debug)]
pub(crate) struct Gate {
    step: &'static str,
    file: PathBuf,
}

impl Gate {
    /// Starts the daemon of `site` again, so that it will wait at `step`.
    pub(crate) fn close(rig: &Rig, site: SiteIndex, step: &'static str) -> Result<Self> {
        let file = rig.net().tag().directory().join(format!("gate-{site}-{step}"));
        let gate = Self { step, file };
        // What an earlier gate left would look like a daemon that has come here.
        let _ = fs::remove_file(gate.reached());
        fs::write(&gate.file, "")?;
        let fault = format!("{step}:pause:{}", gate.file.display());
        rig.site(site).restart_with(&[(VARIABLE, fault)])?;
        Ok(gate)
    }

    /// Waits until the daemon is there. `is_over` says that it will not come any more.
    pub(crate) fn wait(&self, is_over: impl Fn() -> bool) -> Result<()> {
        eventually(&format!("a daemon at step {}", self.step), || {
            // Looked at in this order: whoever was there and left since has been there.
            let over = is_over();
            match self.reached().exists() {
                true => Ok(Some(())),
                false if over => bail!("the migration ended before step {}", self.step),
                false => Ok(None),
            }
        })
    }

    /// Lets the daemon go on, now and whenever it comes again.
    pub(crate) fn open(&self) -> Result<()> {
        match fs::remove_file(&self.file) {
            Err(error) if self.file.exists() => Err(error).context("cannot open a gate"),
            _ => Ok(()),
        }
    }

    fn reached(&self) -> PathBuf {
        let mut name = self.file.clone().into_os_string();
        name.push(".reached");
        name.into()
    }
}

impl Drop for Gate {
    fn drop(&mut self) {
        // Fails only if the lab is gone, and the daemon with it.
        let _ = self.open();
    }
}
