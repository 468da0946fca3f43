//! Where this site can be dialed, if nobody has said so.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use ums_transfer::pairing::MAX_ADDRESSES;

/// The addresses to be announced: those that were configured, else the one that the port is bound to; for a port that
/// is bound to all of the host's addresses, those that are good beyond the host.
pub(crate) fn announced(configured: &[String], bound: SocketAddr) -> Vec<String> {
    let announced = if !configured.is_empty() {
        configured.to_vec()
    } else if bound.ip().is_unspecified() {
        let fib = std::fs::read_to_string("/proc/net/fib_trie").unwrap_or_default();
        let six = std::fs::read_to_string("/proc/net/if_inet6").unwrap_or_default();
        let found = of_the_host(&fib, &six).into_iter().filter(|ip| bound.is_ipv6() || ip.is_ipv4());
        let found: Vec<_> = found.map(|ip| SocketAddr::new(ip, bound.port()).to_string()).collect();
        // With none at all the site can at least be paired with one on the same host.
        if found.is_empty() {
            vec![SocketAddr::new(Ipv4Addr::LOCALHOST.into(), bound.port()).to_string()]
        } else {
            found
        }
    } else {
        vec![bound.to_string()]
    };
    announced.into_iter().take(MAX_ADDRESSES).collect()
}

/// The host's own addresses from the kernel's tables, IPv4 first, without those that mean nothing elsewhere.
fn of_the_host(fib_trie: &str, if_inet6: &str) -> Vec<IpAddr> {
    let mut found = Vec::<IpAddr>::new();
    let mut last = None;
    for line in fib_trie.lines() {
        if let Some(address) = line.trim().strip_prefix("|-- ") {
            last = address.parse::<Ipv4Addr>().ok();
        } else if line.contains("host LOCAL")
            && let Some(ip) = last.take()
            && !ip.is_loopback()
            && !ip.is_link_local()
        {
            found.push(ip.into());
        }
    }
    for line in if_inet6.lines() {
        let hex = line.split_whitespace().next().and_then(|hex| u128::from_str_radix(hex, 16).ok());
        if let Some(ip) = hex.map(Ipv6Addr::from_bits)
            && !ip.is_loopback()
            && !ip.is_unicast_link_local()
        {
            found.push(ip.into());
        }
    }
    let mut unique = Vec::new();
    for ip in found {
        if !unique.contains(&ip) {
            unique.push(ip);
        }
    }
    unique
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIB: &str = "Main:
  +-- 0.0.0.0/0 3 0 5
     |-- 0.0.0.0
        /0 universe UNICAST
     +-- 10.0.0.0/24 2 0 2
        |-- 10.0.0.0
           /24 link UNICAST
        |-- 10.0.0.7
           /32 host LOCAL
        |-- 10.0.0.255
           /32 link BROADCAST
     |-- 127.0.0.1
        /32 host LOCAL
Local:
        |-- 10.0.0.7
           /32 host LOCAL
";
    const SIX: &str = "fd750000000000000000000000000002 02 40 00 80 eth0
fe800000000000000000000000000001 02 40 20 80 eth0
00000000000000000000000000000001 01 80 10 80 lo
";

    #[test]
    fn addresses_that_are_good_elsewhere_are_found_once() {
        let found: Vec<_> = of_the_host(FIB, SIX).iter().map(IpAddr::to_string).collect();
        assert_eq!(found, ["10.0.0.7", "fd75::2"]);
    }

    #[test]
    fn what_was_said_wins() {
        let bound = "127.0.0.1:5".parse().unwrap();
        assert_eq!(announced(&["edge.example:1".to_owned()], bound), ["edge.example:1"]);
        assert_eq!(announced(&[], bound), ["127.0.0.1:5"]);
        assert!(!announced(&[], "0.0.0.0:5".parse().unwrap()).is_empty());
    }
}
