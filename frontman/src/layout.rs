//! Names and addresses of a place. Pure: everything follows from the site's fingerprint and the place's number.

use std::net::{Ipv4Addr, Ipv6Addr};

use serde::{Deserialize, Serialize};
use ums_model::names::ServiceName;
use ums_model::spec::{InnerNetwork, PortPublish};

/// First address of the pool from which links between a site and its places are taken; never seen outside the host.
const POOL: u32 = u32::from_be_bytes([10, 213, 0, 0]);
/// Number of /30 links in 10.213.0.0/16.
pub const PLACES: u16 = 16_384;
/// Interface of the place that leads to the site.
pub const UPLINK: &str = "up0";
/// Interface of the place that leads to the service.
pub const INSIDE: &str = "in0";
/// Interface of the service.
pub const INNER: &str = "eth0";
/// Name of the inner network namespace inside the keeper's mount namespace (`/run/netns/inner`).
pub const INNER_NAMESPACE: &str = "inner";

/// Everything the network of one service needs to know at one site.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlaceLayout {
    /// The service.
    pub service: ServiceName,
    /// First eight hex digits of the site's fingerprint: two sites on one machine never share a name.
    pub site: String,
    /// Number of the place at this site, below [`PLACES`].
    pub index: u16,
    /// What the service listens on and where the site publishes it.
    pub ports: Vec<PortPublish>,
    /// The service's own network, the same at every site.
    pub inner: InnerNetwork,
    /// The site's name server, to which questions to the inner gateway are forwarded.
    pub resolver: Option<Ipv4Addr>,
}

impl PlaceLayout {
    /// Interface name of the link at the site; at most 15 bytes, the kernel's limit.
    pub fn link(&self) -> String {
        format!("u{}-{:x}", self.site, self.index)
    }

    /// The site's end of the link.
    pub fn host_address(&self) -> Ipv4Addr {
        Ipv4Addr::from_bits(POOL + u32::from(self.index) * 4 + 1)
    }

    /// The place's end of the link.
    pub fn place_address(&self) -> Ipv4Addr {
        Ipv4Addr::from_bits(POOL + u32::from(self.index) * 4 + 2)
    }

    /// The site's end of the link, IPv6.
    pub fn host_address_v6(&self) -> Ipv6Addr {
        Ipv6Addr::new(0xfd75, 0x6d74, 0, self.index, 0, 0, 0, 1)
    }

    /// The place's end of the link, IPv6.
    pub fn place_address_v6(&self) -> Ipv6Addr {
        Ipv6Addr::new(0xfd75, 0x6d74, 0, self.index, 0, 0, 0, 2)
    }

    /// The service's nft table in the site's namespace. Service names have no underscore, so this cannot collide.
    pub fn table(&self) -> String {
        format!("ums_{}_{}", self.site, self.service.as_str().replace('-', "_"))
    }
}

/// Lowest free place number, given those in use; `None` when the pool is exhausted.
pub fn free_index(used: impl IntoIterator<Item = u16>) -> Option<u16> {
    let used: std::collections::BTreeSet<u16> = used.into_iter().collect();
    (0..PLACES).find(|index| !used.contains(index))
}

/// The number of the place whose link an address belongs to; `None` if it is not of the pool.
pub fn index_of(address: Ipv4Addr) -> Option<u16> {
    let offset = address.to_bits().checked_sub(POOL)?;
    u16::try_from(offset / 4).ok().filter(|index| *index < PLACES)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layout(index: u16) -> PlaceLayout {
        PlaceLayout {
            service: "my-web".parse().unwrap(),
            site: "0123abcd".into(),
            index,
            ports: Vec::new(),
            inner: InnerNetwork::default(),
            resolver: None,
        }
    }

    #[test]
    fn names_fit_and_addresses_stay_in_the_pool() {
        for index in [0, 1, 255, PLACES - 1] {
            let place = layout(index);
            assert!(place.link().len() <= 15, "{}", place.link());
            assert_eq!(place.host_address().octets()[..2], [10, 213]);
            assert_eq!(place.place_address().to_bits(), place.host_address().to_bits() + 1);
        }
        assert_eq!(layout(64).place_address(), Ipv4Addr::new(10, 213, 1, 2));
    }

    #[test]
    fn the_number_of_a_place_follows_from_its_addresses() {
        for index in [0, 1, 300, PLACES - 1] {
            assert_eq!(index_of(layout(index).host_address()), Some(index));
            assert_eq!(index_of(layout(index).place_address()), Some(index));
        }
        assert_eq!(index_of(Ipv4Addr::new(10, 212, 255, 255)), None);
        assert_eq!(index_of(Ipv4Addr::new(10, 214, 0, 0)), None);
    }

    #[test]
    fn the_lowest_free_number_is_taken() {
        assert_eq!(free_index([]), Some(0));
        assert_eq!(free_index([0, 1, 3]), Some(2));
        assert_eq!(free_index(0..PLACES), None);
    }
}
