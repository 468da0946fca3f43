//! The two messages of the exchange, and what is done with announced addresses.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::proof::Proof;
use super::{Announcement, InviteId, Refusal};
use crate::tls::host_port;

/// From the invited site.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Request {
    pub(super) invite: InviteId,
    pub(super) proof: Proof,
    pub(super) announcement: Announcement,
}

/// From the inviting site.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "reply", rename_all = "kebab-case")]
pub(super) enum Reply {
    Accepted { proof: Proof, announcement: Announcement, dialed_back: bool },
    Refused(Refusal),
}

/// The addresses with `seen` in the place of unspecified hosts. They are checked already.
pub(super) fn concrete(addresses: &[String], seen: IpAddr) -> Vec<String> {
    let concrete = addresses.iter().map(|address| match host_port(address) {
        Some((host, port)) if host.parse().is_ok_and(|host: IpAddr| host.is_unspecified()) => {
            std::net::SocketAddr::new(seen, port).to_string()
        }
        _ => address.clone(),
    });
    concrete.collect()
}

/// Puts `first` before the others.
pub(super) fn with_first(mut addresses: Vec<String>, first: &str) -> Vec<String> {
    addresses.retain(|address| address != first);
    addresses.insert(0, first.to_owned());
    addresses
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unspecified_hosts_become_what_was_seen() {
        let announced = ["0.0.0.0:7443", "[::]:7443", "edge.example:1"].map(str::to_owned);
        let seen = "10.0.0.2".parse().unwrap();
        assert_eq!(concrete(&announced, seen), ["10.0.0.2:7443", "10.0.0.2:7443", "edge.example:1"]);
        let seen = "fd75::2".parse().unwrap();
        assert_eq!(concrete(&announced[..1], seen), ["[fd75::2]:7443"]);
        assert_eq!(with_first(announced.to_vec(), "edge.example:1")[0], "edge.example:1");
    }
}
