//! What the site does in its own network namespace: the link to a place, and the published ports.

use std::fmt::Write as _;
use std::net::Ipv4Addr;

use ums_model::spec::Protocol;

use crate::deadlines::Deadlines;
use crate::layout::{PlaceLayout, UPLINK, index_of};
use crate::tool::{NetError, ip_batch, nft, run, succeeds, sysctl};

/// Links the site with the place in the network namespace of process `keeper` and lets the service reach out through
/// the site's address. No port is published yet. Ok = the link is up at this end. Safe to repeat: an older link of
/// the same number is replaced.
pub async fn connect(place: &PlaceLayout, keeper: u32, deadlines: &Deadlines) -> Result<(), NetError> {
    disconnect(place, deadlines).await?;
    let link = place.link();
    let mut script = format!("link add {link} type veth peer name {UPLINK} netns {keeper}\n");
    let _ = writeln!(script, "address add {}/30 dev {link}", place.host_address());
    let _ = writeln!(script, "address add {}/64 dev {link} nodad", place.host_address_v6());
    let _ = writeln!(script, "link set {link} up");
    ip_batch(deadlines, &script).await?;
    sysctl("ipv4/ip_forward", "1")?;
    // Published ports answer on 127.0.0.1 too, as users of other container tools expect.
    sysctl(&format!("ipv4/conf/{link}/route_localnet"), "1")?;
    nft(deadlines, &ruleset(place, false)).await
}

/// Publishes the ports: from here on clients reach the copy in this place. Safe to repeat.
pub async fn publish(place: &PlaceLayout, deadlines: &Deadlines) -> Result<(), NetError> {
    nft(deadlines, &ruleset(place, true)).await
}

/// Takes the published ports back; the service can still reach out. Safe to repeat.
pub async fn withdraw(place: &PlaceLayout, deadlines: &Deadlines) -> Result<(), NetError> {
    nft(deadlines, &ruleset(place, false)).await
}

/// Removes link and rules. Ok also when nothing was there.
pub async fn disconnect(place: &PlaceLayout, deadlines: &Deadlines) -> Result<(), NetError> {
    let table = place.table();
    // Declared first, so that deleting never fails for its absence.
    nft(deadlines, &format!("table inet {table}\ndelete table inet {table}\n")).await?;
    let link = place.link();
    if is_connected(place, deadlines).await? {
        match run(deadlines, "ip", &["link", "delete", &link], "").await {
            // It goes by itself with the namespace of its other end, perhaps just now.
            Err(NetError::Failed { stderr, .. }) if stderr.contains("Cannot find device") => {}
            other => drop(other?),
        }
    }
    Ok(())
}

/// Whether the site's end of the link exists. It goes away with the place.
pub async fn is_connected(place: &PlaceLayout, deadlines: &Deadlines) -> Result<bool, NetError> {
    succeeds(deadlines, "ip", &["link", "show", "dev", &place.link()]).await
}

/// Numbers of places whose link would have an address that this network namespace has already, whoever gave it:
/// another site on this machine, or somebody who uses the same range.
pub async fn taken(deadlines: &Deadlines) -> Result<Vec<u16>, NetError> {
    let shown = run(deadlines, "ip", &["-4", "-oneline", "address", "show"], "").await?;
    Ok(shown.lines().filter_map(address).filter_map(index_of).collect())
}

/// The address in a line of `ip -oneline address show`.
fn address(line: &str) -> Option<Ipv4Addr> {
    let mut words = line.split_whitespace().skip_while(|word| *word != "inet").skip(1);
    words.next()?.split('/').next()?.parse().ok()
}

fn ruleset(place: &PlaceLayout, published: bool) -> String {
    let (table, link) = (place.table(), place.link());
    let (v4, v6) = (place.place_address(), place.place_address_v6());
    let mut forward = String::new();
    for port in place.ports.iter().filter(|_| published) {
        let protocol = match port.protocol {
            Protocol::Tcp => "tcp",
            Protocol::Udp => "udp",
        };
        let (host, container) = (port.host, port.container);
        let _ = writeln!(
            forward,
            "    meta nfproto ipv4 fib daddr type local {protocol} dport {host} dnat ip to {v4}:{container}"
        );
        let _ = writeln!(
            forward,
            "    meta nfproto ipv6 fib daddr type local {protocol} dport {host} dnat ip6 to [{v6}]:{container}"
        );
    }
    format!(
        "table inet {table}\ndelete table inet {table}\ntable inet {table} {{\n\
         \x20 chain prerouting {{\n    type nat hook prerouting priority dstnat; policy accept;\n{forward}  }}\n\
         \x20 chain output {{\n    type nat hook output priority -100; policy accept;\n{forward}  }}\n\
         \x20 chain postrouting {{\n    type nat hook postrouting priority srcnat; policy accept;\n\
         \x20   ip saddr {v4} masquerade\n    ip6 saddr {v6} masquerade\n\
         \x20   oifname \"{link}\" ip saddr 127.0.0.0/8 masquerade\n  }}\n}}\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_found_in_what_ip_prints() {
        let line = "7: ua1a1a1a1-0    inet 10.213.0.5/30 scope global ua1a1a1a1-0\\       valid_lft forever";
        assert_eq!(address(line), Some(Ipv4Addr::new(10, 213, 0, 5)));
        assert_eq!(address("1: lo    inet6 ::1/128 scope host"), None);
        let tunnel = "9: tun0    inet 10.8.0.1 peer 10.8.0.2/32 scope global tun0";
        assert_eq!(address(tunnel), Some(Ipv4Addr::new(10, 8, 0, 1)));
    }
}
