//! What this process is allowed to do, read from `/proc`, so that a lack of it is told before anything is done.

use anyhow::{Context, Result, bail};

/// Capabilities without which no namespace, network or process tree can be handled: bit and name.
const CAPABILITIES: [(u32, &str); 3] = [(12, "CAP_NET_ADMIN"), (19, "CAP_SYS_PTRACE"), (21, "CAP_SYS_ADMIN")];

/// Fails unless the effective user is root, which installing packages needs.
pub(crate) fn require_root(command: &str) -> Result<()> {
    let status = own_status()?;
    let user = effective_user(&status).context("cannot read the own user id from /proc/self/status")?;
    if user != 0 {
        bail!(
            "`cargo xtask {command}` needs root (it installs packages, makes namespaces and restores processes) \
             but runs as user {user}; start it as root, for example in `sudo -s`"
        );
    }
    Ok(())
}

/// Fails unless the process is root and holds the capabilities that running services needs.
pub(crate) fn require_lab(command: &str) -> Result<()> {
    require_root(command)?;
    let missing = missing_capabilities(&own_status()?)
        .context("cannot read the own capabilities from /proc/self/status")?;
    if !missing.is_empty() {
        bail!(
            "`cargo xtask {command}` runs as root but without {}, as in an unprivileged container: it could not make \
             namespaces or restore processes; start it on the host or in a privileged container",
            missing.join(", ")
        );
    }
    Ok(())
}

fn own_status() -> Result<String> {
    std::fs::read_to_string("/proc/self/status").context("cannot read /proc/self/status")
}

fn effective_user(status: &str) -> Option<u32> {
    field(status, "Uid:")?.split_whitespace().nth(1)?.parse().ok()
}

fn missing_capabilities(status: &str) -> Option<Vec<&'static str>> {
    let effective = u64::from_str_radix(field(status, "CapEff:")?.trim(), 16).ok()?;
    Some(CAPABILITIES.iter().filter(|(bit, _)| effective & (1 << bit) == 0).map(|(_, name)| *name).collect())
}

fn field<'a>(status: &'a str, name: &str) -> Option<&'a str> {
    status.lines().find_map(|line| line.strip_prefix(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    const STATUS: &str = "Name:\txtask\nUid:\t1000\t0\t1000\t1000\nCapEff:\t0000000000081000\n";

    #[test]
    fn the_effective_user_counts() {
        assert_eq!(effective_user(STATUS), Some(0));
    }

    #[test]
    fn a_missing_capability_is_named() {
        assert_eq!(missing_capabilities(STATUS), Some(vec!["CAP_SYS_ADMIN"]));
        assert_eq!(missing_capabilities("CapEff:\t000001ffffffffff\n"), Some(vec![]));
        assert_eq!(missing_capabilities("CapEff:\tnothing\n"), None);
    }
}
