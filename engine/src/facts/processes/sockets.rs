//! Sockets of kinds that cannot be saved at all. What is only in the wrong state is looked for in
//! [`transient`](super::transient), unix sockets in [`unix`](super::unix).

use std::collections::{HashMap, HashSet};

use rustix::fs::getxattr;
use ums_model::plan::BlockerKind;

use super::Tree;
use super::descriptors::{Descriptor, Descriptors};
use super::findings::Findings;
use super::process::{Process, path, read};

/// Names of protocols, as the kernel gives them, whose sockets CRIU saves.
const SAVED: [&str; 13] = [
    "TCP",
    "TCPv6",
    "UDP",
    "UDPv6",
    "UDP-Lite",
    "UDPLITEv6",
    "RAW",
    "RAWv6",
    "PING",
    "PINGv6",
    "UNIX",
    "UNIX-STREAM",
    "NETLINK",
];
/// Sockets that see frames of a network interface.
const PACKET: &str = "PACKET";

/// The attribute by which a socket tells its protocol to whoever may look at the process.
const PROTOCOL: &str = "system.sockprotoname";

/// The name of a socket's protocol.
pub(super) fn protocol(pid: i32, descriptor: &Descriptor) -> Option<String> {
    let mut name = vec![0; 64];
    let length = getxattr(path(pid, &format!("fd/{}", descriptor.number)), PROTOCOL, &mut name[..]).ok()?;
    name.truncate(length);
    let name = String::from_utf8_lossy(&name);
    Some(name.trim_end_matches('\0').to_owned())
}

pub(super) fn check(tree: &Tree, descriptors: &Descriptors, findings: &mut Findings) {
    let processes: HashMap<i32, &Process> = tree.living().map(|process| (process.pid, process)).collect();
    let bound = read(tree.first, "net/packet").map(|table| bound_packet_sockets(&table)).unwrap_or_default();
    let mut seen = HashSet::new();
    for (pid, descriptor, inode) in descriptors.sockets() {
        let Some(process) = processes.get(&pid) else { continue };
        // Once, however many processes hold it.
        if !seen.insert(inode) {
            continue;
        }
        let Some(protocol) = protocol(pid, descriptor) else { continue };
        let number = descriptor.number;
        if protocol == PACKET {
            // CRIU restores the number of the interface, which may be another one elsewhere.
            if let Some(interface) = bound.get(&inode) {
                let detail =
                    format!("descriptor {number} is a packet socket on interface number {interface}");
                findings.add(process, BlockerKind::SocketFamily, detail);
            }
        } else if !SAVED.contains(&protocol.as_str()) {
            let detail = format!("descriptor {number} is a socket of the kind {protocol}");
            findings.add(process, BlockerKind::SocketFamily, detail);
        }
    }
}

/// Of `/proc/net/packet` the sockets with an interface, by their inodes.
fn bound_packet_sockets(table: &str) -> HashMap<u64, u32> {
    let sockets = table.lines().skip(1).filter_map(|line| {
        let mut fields = line.split_whitespace();
        let interface = fields.nth(4)?.parse().ok()?;
        Some((fields.nth(3)?.parse().ok()?, interface))
    });
    sockets.filter(|(_, interface)| *interface != 0).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packet_sockets_with_an_interface_are_found() {
        let table = "sk               RefCnt Type Proto  Iface R Rmem   User   Inode\n\
                     000000006624c695 3      3    0003   0     1 0      0      874314\n\
                     000000006624c696 3      3    0003   12    1 0      0      874315\n";
        assert_eq!(bound_packet_sockets(table), HashMap::from([(874_315, 12)]));
    }
}
