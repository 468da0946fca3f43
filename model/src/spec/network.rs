//! The network that a service sees from inside.

use std::net::{Ipv4Addr, Ipv6Addr};

use serde::{Deserialize, Serialize};

/// Addresses inside a service: the same at every site, so that its sockets need not change when it moves.
///
/// The default lies in 192.0.0.0/29, the addresses that RFC 7335 sets aside for exactly such links, and in a unique
/// local IPv6 prefix. The MTU leaves room for a tunnel's headers on a link of 1500 bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(default)]
pub struct InnerNetwork {
    /// The service's IPv4 address.
    pub address: Ipv4Addr,
    /// Length of the IPv4 prefix.
    pub prefix: u8,
    /// IPv4 gateway, which is also the resolver.
    pub gateway: Ipv4Addr,
    /// The service's IPv6 address.
    pub address6: Ipv6Addr,
    /// Length of the IPv6 prefix.
    pub prefix6: u8,
    /// IPv6 gateway.
    pub gateway6: Ipv6Addr,
    /// Largest packet in bytes.
    pub mtu: u32,
}

impl InnerNetwork {
    /// The network that a service gets unless its owner chose another.
    pub const DEFAULT: Self = Self {
        address: Ipv4Addr::new(192, 0, 0, 2),
        prefix: 29,
        gateway: Ipv4Addr::new(192, 0, 0, 1),
        address6: Ipv6Addr::new(0xfd75, 0x6d73, 0, 0, 0, 0, 0, 2),
        prefix6: 64,
        gateway6: Ipv6Addr::new(0xfd75, 0x6d73, 0, 0, 0, 0, 0, 1),
        mtu: 1400,
    };

    /// Whether address and gateway are different and lie in one network, for both families, and the MTU carries IPv6.
    pub fn is_consistent(&self) -> bool {
        let near4 =
            |bits: u32| self.prefix >= 1 && self.prefix <= 30 && bits >> (32 - u32::from(self.prefix)) == 0;
        let near6 = |bits: u128| {
            self.prefix6 >= 1 && self.prefix6 <= 126 && bits >> (128 - u32::from(self.prefix6)) == 0
        };
        self.address != self.gateway
            && self.address6 != self.gateway6
            && near4(self.address.to_bits() ^ self.gateway.to_bits())
            && near6(self.address6.to_bits() ^ self.gateway6.to_bits())
            && (1280..=65_535).contains(&self.mtu)
    }
}

impl Default for InnerNetwork {
    fn default() -> Self {
        Self::DEFAULT
    }
}
