//! What tests, demo and benchmarks are told through the environment (the table is in docs/testing.md).

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Result;

use crate::compile::Programs;
use crate::setup::Lab;

/// Name of the program of the testbed that plays the services.
const WORKLOAD: &str = "ums-workload";

/// Paths that the programs of the testbed cannot know by themselves.
#[derive(Debug)]
pub(crate) struct ChildEnv(Vec<(&'static str, PathBuf)>);

impl ChildEnv {
    /// Collects the paths of what was set up and built.
    pub(crate) fn of(lab: &Lab, programs: &Programs) -> Result<Self> {
        let mut pairs = vec![
            ("UMS_BIN", programs.get("ums")?.to_owned()),
            ("UMS_BUNDLE", lab.bundle.clone()),
            ("UMS_CRIU", lab.criu()),
            ("UMS_RUNC", lab.runc()),
            ("UMS_REDIS_ROOTFS", lab.redis_rootfs.clone()),
            ("UMS_POSTGRES_ROOTFS", lab.postgres_rootfs.clone()),
        ];
        pairs.extend(programs.find(WORKLOAD).map(Path::to_owned).map(|path| ("UMS_WORKLOAD", path)));
        Ok(Self(pairs))
    }

    /// Hands the paths to a command.
    pub(crate) fn apply<'a>(&self, command: &'a mut Command) -> &'a mut Command {
        command.envs(self.0.iter().map(|(name, path)| (name, path)))
    }
}
