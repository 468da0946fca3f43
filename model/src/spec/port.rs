//! Ports that a site publishes for a service.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::names::InvalidName;

words! {
    /// Transport protocol of a published port.
    pub enum Protocol ("protocol") {
        /// TCP.
        Tcp = "tcp",
        /// UDP.
        Udp = "udp",
    }
}

/// A port of the site that leads to a port of the service. Neither is ever 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct PortPublish {
    /// Port at the site, the same at every site.
    pub host: u16,
    /// Port inside the service.
    pub container: u16,
    /// Transport protocol.
    #[serde(default = "tcp")]
    pub protocol: Protocol,
}

fn tcp() -> Protocol {
    Protocol::Tcp
}

impl FromStr for PortPublish {
    type Err = InvalidName;

    /// Reads `8080:80`, `8080:80/tcp` or `5353:53/udp`.
    fn from_str(text: &str) -> Result<Self, InvalidName> {
        parse(text).ok_or_else(|| {
            InvalidName::new("port", text, "HOST:CONTAINER or HOST:CONTAINER/udp, both from 1 to 65535")
        })
    }
}

fn parse(text: &str) -> Option<PortPublish> {
    let (ports, protocol) = match text.split_once('/') {
        Some((ports, protocol)) => (ports, protocol.parse().ok()?),
        None => (text, Protocol::Tcp),
    };
    let (host, container) = ports.split_once(':')?;
    Some(PortPublish { host: port(host)?, container: port(container)?, protocol })
}

fn port(text: &str) -> Option<u16> {
    if !text.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    text.parse().ok().filter(|port| *port != 0)
}

impl fmt::Display for PortPublish {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}/{}", self.host, self.container, self.protocol)
    }
}
