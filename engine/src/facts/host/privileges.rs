//! Whether this process may do what moving a service takes.

use std::fs;

use rustix::process::geteuid;
use rustix::thread::{CapabilitySet, capabilities};

/// What is needed, and what it is called: namespaces and mounts, CRIU, foreign files, sockets and networks.
const NEEDED: [(CapabilitySet, &str); 13] = [
    (CapabilitySet::CHOWN, "CAP_CHOWN"),
    (CapabilitySet::DAC_OVERRIDE, "CAP_DAC_OVERRIDE"),
    (CapabilitySet::FOWNER, "CAP_FOWNER"),
    (CapabilitySet::FSETID, "CAP_FSETID"),
    (CapabilitySet::KILL, "CAP_KILL"),
    (CapabilitySet::SETGID, "CAP_SETGID"),
    (CapabilitySet::SETUID, "CAP_SETUID"),
    (CapabilitySet::SETPCAP, "CAP_SETPCAP"),
    (CapabilitySet::NET_ADMIN, "CAP_NET_ADMIN"),
    (CapabilitySet::SYS_CHROOT, "CAP_SYS_CHROOT"),
    (CapabilitySet::SYS_PTRACE, "CAP_SYS_PTRACE"),
    (CapabilitySet::SYS_ADMIN, "CAP_SYS_ADMIN"),
    (CapabilitySet::MKNOD, "CAP_MKNOD"),
];

/// The needed capabilities that this process lacks; all of them if it cannot find out.
pub(super) fn missing() -> Vec<&'static str> {
    let have = capabilities(None).map_or(CapabilitySet::empty(), |sets| sets.effective);
    NEEDED.iter().filter(|(needed, _)| !have.contains(*needed)).map(|(_, name)| *name).collect()
}

/// Whether this is user 0 where that means something: capabilities of a child user namespace are worth less.
pub(super) fn is_initial_root() -> bool {
    geteuid().is_root() && fs::read_to_string("/proc/self/uid_map").is_ok_and(|map| is_initial_map(&map))
}

fn is_initial_map(map: &str) -> bool {
    map.split_whitespace().eq(["0", "0", "4294967295"])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_initial_user_namespace_maps_everything() {
        assert!(is_initial_map("         0          0 4294967295\n"));
        assert!(!is_initial_map("0 100000 65536\n"));
        assert!(!is_initial_map(""));
    }
}
