//! Tools of the host, from the distribution's packages. Only tools: no package here starts a daemon, and the servers
//! that tests talk to live in images.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use anyhow::{Result, bail};

use super::{Places, step};
use crate::process;

/// Longest time for one run of apt-get; the mirror's own time-outs are far shorter.
const APT_DEADLINE: Duration = Duration::from_mins(15);

/// What makes apt-get wait for another one instead of failing, give up on a silent mirror, and ask nobody.
const APT_OPTIONS: [&str; 6] =
    ["-o", "DPkg::Lock::Timeout=300", "-o", "Acquire::Retries=3", "-o", "Acquire::http::Timeout=30"];

/// A tool and the package that brings it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Need {
    tool: &'static str,
    package: &'static str,
}

/// Packet filter: publishing ports, the fence.
pub(crate) const NFTABLES: Need = Need { tool: "nft", package: "nftables" };
/// Links, addresses, routes and network namespaces.
pub(crate) const IPROUTE2: Need = Need { tool: "ip", package: "iproute2" };
/// Sends packets through a queue in user space: delay and loss on the testbed's links.
pub(crate) const IPTABLES: Need = Need { tool: "iptables", package: "iptables" };
/// Makes the CRIU bundle find its own libraries.
pub(crate) const PATCHELF: Need = Need { tool: "patchelf", package: "patchelf" };
/// Makes root directories of containers.
pub(crate) const MMDEBSTRAP: Need = Need { tool: "mmdebstrap", package: "mmdebstrap" };

/// Installs the packages of the tools that are missing. When none is, no program is started.
pub(crate) fn ensure(needed: &[Need], places: &Places) -> Result<()> {
    let missing: BTreeSet<Need> =
        needed.iter().copied().filter(|need| process::find_tool(need.tool).is_none()).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let packages: Vec<&str> = missing.iter().map(|need| need.package).collect();
    if process::find_tool("apt-get").is_none() {
        let tools: Vec<&str> = missing.iter().map(|need| need.tool).collect();
        bail!(
            "{} missing, and apt-get is not on this machine to install {}: the set-up knows Debian and its \
             relatives only; install the tools by hand and run the command again",
            tools.join(", "),
            packages.join(", ")
        );
    }
    step(&format!("installing {}", packages.join(", ")), || install(&packages, places))?;
    match missing.iter().find(|need| process::find_tool(need.tool).is_none()) {
        Some(need) => bail!("the package {} is installed but brought no `{}`", need.package, need.tool),
        None => Ok(()),
    }
}

/// One mirror of several that does not answer is no reason to stop: whether the lists were good enough is told by the
/// installation, and only if that fails is the trouble with the lists of interest.
fn install(packages: &[&str], places: &Places) -> Result<()> {
    let update = apt_get(&["-o", "APT::Update::Error-Mode=any", "update"], &places.log("apt-get-update"));
    let mut verb = vec!["install", "--yes", "--no-install-recommends"];
    verb.extend(packages);
    let Err(failed) = apt_get(&verb, &places.log("apt-get-install")) else { return Ok(()) };
    let before = update.err().map(|error| format!("\nbefore that, {error:#}")).unwrap_or_default();
    bail!(
        "cannot install {}; when the reason below is gone (`apt-get update` shows whether the mirrors answer), run \
         the command again: {failed:#}{before}",
        packages.join(", ")
    )
}

fn apt_get(verb: &[&str], log: &Path) -> Result<()> {
    let mut apt = process::command("apt-get");
    apt.env("DEBIAN_FRONTEND", "noninteractive").args(APT_OPTIONS).args(verb);
    process::run_logged(&mut apt, log, APT_DEADLINE)
}
