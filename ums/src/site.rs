//! `ums site`: the daemon.
use crate::cli::SiteArgs;
pub(crate) fn run(_args: &SiteArgs, _json: bool) -> anyhow::Result<()> {
    anyhow::bail!("interim")
}
