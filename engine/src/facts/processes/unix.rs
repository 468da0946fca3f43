//! Unix sockets that lead out of the service.

use std::collections::{HashMap, HashSet};
use std::fs;

use ums_model::plan::BlockerKind;

use super::Tree;
use super::descriptors::{Descriptor, Descriptors};
use super::findings::Findings;
use super::process::{Process, path};
use super::sockets::protocol;
use super::unix_diag::{Peer, UnixSockets, in_namespace_of};

/// The unix sockets that a service holds, each by its inode, with one of its holders.
pub(super) struct Held<'a> {
    sockets: HashMap<u32, (&'a Process, &'a Descriptor)>,
}

impl<'a> Held<'a> {
    pub(super) fn of(tree: &'a Tree, descriptors: &'a Descriptors) -> Self {
        let processes: HashMap<i32, &Process> = tree.living().map(|process| (process.pid, process)).collect();
        let mut sockets = HashMap::new();
        for (pid, descriptor, inode) in descriptors.sockets() {
            let (Some(process), Ok(inode)) = (processes.get(&pid), u32::try_from(inode)) else { continue };
            if !sockets.contains_key(&inode)
                && protocol(pid, descriptor).is_some_and(|protocol| protocol.starts_with("UNIX"))
            {
                sockets.insert(inode, (*process, descriptor));
            }
        }
        Self { sockets }
    }

    /// Each with its inode, in the order of the holders.
    pub(super) fn iter(&self) -> impl Iterator<Item = (u32, &'a Process, &'a Descriptor)> {
        let mut all: Vec<_> = self
            .sockets
            .iter()
            .map(|(inode, (process, descriptor))| (*inode, *process, *descriptor))
            .collect();
        all.sort_unstable_by_key(|(_, process, descriptor)| (process.pid, descriptor.number));
        all.into_iter()
    }

    pub(super) fn contains(&self, inode: u32) -> bool {
        self.sockets.contains_key(&inode)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.sockets.is_empty()
    }
}

pub(super) fn check(
    tree: &Tree,
    descriptors: &Descriptors,
    findings: &mut Findings,
    unchecked: &mut Vec<String>,
) {
    let held = Held::of(tree, descriptors);
    if held.is_empty() {
        return;
    }
    match in_namespace_of(tree.first, tree.patience) {
        Ok(sockets) => peers(&held, &sockets, findings),
        Err(error) => unchecked.push(format!("whether unix sockets lead out of the service ({error})")),
    }
}

fn peers(held: &Held<'_>, sockets: &UnixSockets, findings: &mut Findings) {
    let waiting_inside: HashSet<u32> = held
        .iter()
        .filter_map(|(inode, _, _)| sockets.get(&inode))
        .flat_map(|socket| socket.waiting.iter().copied())
        .collect();
    for (inode, process, descriptor) in held.iter() {
        let number = descriptor.number;
        let Some(socket) = sockets.get(&inode) else {
            // Closed meanwhile, unless it is still there.
            let link = fs::read_link(path(process.pid, &format!("fd/{number}")));
            if link.is_ok_and(|link| link.as_os_str() == descriptor.link.as_str()) {
                let detail = format!("descriptor {number} is a unix socket of another network namespace");
                findings.add(process, BlockerKind::UnixPeer, detail);
            }
            continue;
        };
        let outside = match socket.peer {
            Peer::None => false,
            // To be accepted by one of the service's own, or by somebody else.
            Peer::Waiting => !waiting_inside.contains(&inode),
            Peer::Inode(peer) => !held.contains(peer),
        };
        if outside {
            let detail =
                format!("descriptor {number} is a unix socket, and its other end is not in the service");
            findings.add(process, BlockerKind::UnixPeer, detail);
        }
    }
}
