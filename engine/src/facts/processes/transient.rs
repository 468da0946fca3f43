//! States that pass by themselves, and in which CRIU fails all the same: reported only if they last.

use std::collections::{HashMap, HashSet};

use ums_model::plan::BlockerKind;

use super::descriptors::{Descriptor, Descriptors};
use super::findings::Findings;
use super::process::{Process, read};
use super::unix::Held;
use super::unix_diag::in_namespace_of;
use super::{LOOKS, Tree, inet_sockets};

/// Something in a state that may pass.
#[derive(Debug)]
struct State {
    pid: i32,
    kind: BlockerKind,
    /// Thread or inode: what makes it the same thing at the next look.
    id: u64,
    detail: String,
}

impl State {
    fn key(&self) -> (i32, BlockerKind, u64) {
        (self.pid, self.kind, self.id)
    }
}

/// Looks several times, with a pause in between, as long as there is something that may pass.
pub(super) fn check(tree: &Tree, pause: impl Fn(), findings: &mut Findings, unchecked: &mut Vec<String>) {
    let mut lasting = look(tree, unchecked);
    for _ in 1..LOOKS {
        if lasting.is_empty() {
            return;
        }
        pause();
        let now: HashSet<_> = look(tree, unchecked).iter().map(State::key).collect();
        lasting.retain(|state| now.contains(&state.key()));
    }
    let processes: HashMap<i32, &Process> = tree.living().map(|process| (process.pid, process)).collect();
    for state in lasting {
        if let Some(process) = processes.get(&state.pid) {
            findings.add(process, state.kind, &state.detail);
        }
    }
}

fn look(tree: &Tree, unchecked: &mut Vec<String>) -> Vec<State> {
    // What is held may have changed since the last look.
    let descriptors = Descriptors::of(tree);
    let mut states = uninterruptible(tree);
    states.extend(inet(tree, &descriptors));
    states.extend(netlink(tree, &descriptors));
    states.extend(unix(tree, &descriptors, unchecked));
    states
}

/// Threads in uninterruptible sleep, which CRIU cannot stop.
fn uninterruptible(tree: &Tree) -> Vec<State> {
    let mut states = Vec::new();
    for process in tree.living().filter_map(|process| Process::read(process.pid)) {
        for thread in process.threads.iter().filter(|thread| thread.state == 'D') {
            states.push(State {
                pid: process.pid,
                kind: BlockerKind::Uninterruptible,
                id: u64::from(thread.tid.unsigned_abs()),
                detail: format!("thread {}", thread.tid),
            });
        }
    }
    states
}

/// Connections that nobody has accepted, which CRIU would lose; datagrams that are held back, with which it fails.
fn inet(tree: &Tree, descriptors: &Descriptors) -> Vec<State> {
    let held = by_inode(descriptors);
    let mut states = Vec::new();
    for table in ["tcp", "tcp6", "udp", "udp6"] {
        let Some(text) = read(tree.first, &format!("net/{table}")) else { continue };
        for socket in inet_sockets(&text) {
            let Some((pid, descriptor)) = held.get(&socket.inode) else { continue };
            let (number, port) = (descriptor.number, socket.local_port);
            let (kind, detail) = if socket.is_listening() && socket.unread > 0 {
                let detail =
                    format!("descriptor {number} (port {port}) has {} connections to accept", socket.unread);
                (BlockerKind::AcceptQueue, detail)
            } else if table.starts_with("udp") && socket.unsent > 0 {
                let detail = format!("descriptor {number} (port {port}) holds back {} bytes", socket.unsent);
                (BlockerKind::CorkedUdp, detail)
            } else {
                continue;
            };
            states.push(State { pid: *pid, kind, id: socket.inode, detail });
        }
    }
    states
}

/// Netlink sockets with messages that nobody has read.
fn netlink(tree: &Tree, descriptors: &Descriptors) -> Vec<State> {
    let held = by_inode(descriptors);
    let table = read(tree.first, "net/netlink").unwrap_or_default();
    let unread = netlink_sockets(&table).filter(|(_, unread)| *unread > 0);
    unread
        .filter_map(|(inode, unread)| {
            let (pid, descriptor) = held.get(&inode)?;
            let detail = format!(
                "descriptor {} is a netlink socket with {unread} bytes that were not read",
                descriptor.number
            );
            Some(State { pid: *pid, kind: BlockerKind::NetlinkGroups, id: inode, detail })
        })
        .collect()
}

/// Of `/proc/net/netlink` the inode and the bytes that wait to be read.
fn netlink_sockets(table: &str) -> impl Iterator<Item = (u64, u64)> {
    table.lines().skip(1).filter_map(|line| {
        let mut fields = line.split_whitespace();
        let unread = fields.nth(4)?.parse().ok()?;
        Some((fields.nth(4)?.parse().ok()?, unread))
    })
}

/// Unix connections that wait to be accepted: CRIU can save one between two ends of the service that has carried no
/// data yet.
fn unix(tree: &Tree, descriptors: &Descriptors, unchecked: &mut Vec<String>) -> Vec<State> {
    let held = Held::of(tree, descriptors);
    if held.is_empty() {
        return Vec::new();
    }
    let sockets = match in_namespace_of(tree.first, tree.patience) {
        Ok(sockets) => sockets,
        Err(error) => {
            unchecked.push(format!("whether unix sockets have connections to accept ({error})"));
            return Vec::new();
        }
    };
    let mut states = Vec::new();
    for (inode, process, descriptor) in held.iter() {
        let Some(socket) = sockets.get(&inode).filter(|socket| socket.listening) else { continue };
        let mut found = |kind, what: &str| {
            let detail = format!("descriptor {} is a unix socket with {what}", descriptor.number);
            states.push(State { pid: process.pid, kind, id: u64::from(inode), detail });
        };
        if socket.waiting.iter().any(|client| !held.contains(*client)) {
            found(BlockerKind::AcceptQueue, "connections from outside to accept");
        }
        let with_data = |client: &u32| sockets.get(client).is_some_and(|client| client.unread_by_peer > 0);
        if socket.waiting.iter().any(with_data) {
            found(BlockerKind::UnixInFlight, "connections to accept that have carried data");
        }
    }
    states
}

/// Every socket with one of its holders.
fn by_inode(descriptors: &Descriptors) -> HashMap<u64, (i32, &Descriptor)> {
    let mut held = HashMap::new();
    for (pid, descriptor, inode) in descriptors.sockets() {
        held.entry(inode).or_insert((pid, descriptor));
    }
    held
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unread_netlink_messages_are_found() {
        let table = "sk               Eth Pid        Groups   Rmem     Wmem     Dump  Locks    Drops    Inode\n\
                     0000000067c8ee7e 0   21868      00000001 4352     0        0     2        0        881174  \n\
                     00000000c639e12e 0   0          00000000 0        0        0     2        0        880032  \n";
        assert_eq!(netlink_sockets(table).collect::<Vec<_>>(), [(881_174, 4352), (880_032, 0)]);
    }
}
