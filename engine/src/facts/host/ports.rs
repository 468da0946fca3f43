//! Ports on which something listens.

use std::fs;

use ums_model::plan::PortInUse;
use ums_model::spec::Protocol;

use crate::facts::FactsError;
use crate::facts::processes::{InetSocket, inet_sockets};

/// The ports in use in the network namespace of the calling thread, sorted.
pub(super) fn in_use() -> Result<Vec<PortInUse>, FactsError> {
    let tables =
        [("tcp", Protocol::Tcp), ("tcp6", Protocol::Tcp), ("udp", Protocol::Udp), ("udp6", Protocol::Udp)];
    let mut ports = Vec::new();
    for (table, protocol) in tables {
        let path = format!("/proc/thread-self/net/{table}");
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            // A kernel without IPv6.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
            Err(error) => return Err(FactsError::read(path)(error)),
        };
        let sockets = inet_sockets(&text);
        ports.extend(
            sockets
                .filter(|socket| is_taken(socket, protocol))
                .map(|socket| PortInUse { port: socket.local_port, protocol }),
        );
    }
    ports.sort();
    ports.dedup();
    Ok(ports)
}

/// A UDP socket takes its port unless it only talks to one peer.
fn is_taken(socket: &InetSocket, protocol: Protocol) -> bool {
    match protocol {
        Protocol::Tcp => socket.is_listening(),
        _ => socket.remote_port == 0 && socket.local_port != 0,
    }
}
