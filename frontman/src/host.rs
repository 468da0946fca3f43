//! What the site does in its own network namespace: the link to a place, and the published ports.

use std::fmt::Write as _;

use ums_model::spec::Protocol;

use crate::layout::{PlaceLayout, UPLINK};
use crate::tool::{NetError, ip_batch, nft, run, sysctl};

/// Links the site with the place in the network namespace of process `keeper` and lets the service reach out through
/// the site's address. No port is published yet. Ok = the link is up at this end. Safe to repeat: an older link of
/// the same number is replaced.
pub async fn connect(place: &PlaceLayout, keeper: u32) -> Result<(), NetError> {
    disconnect(place).await?;
    let link = place.link();
    let mut script = format!("link add {link} type veth peer name {UPLINK} netns {keeper}\n");
    let _ = writeln!(script, "address add {}/30 dev {link}", place.host_address());
    let _ = writeln!(script, "address add {}/64 dev {link} nodad", place.host_address_v6());
    let _ = writeln!(script, "link set {link} up");
    ip_batch(&script).await?;
    sysctl("ipv4/ip_forward", "1")?;
    // Published ports answer on 127.0.0.1 too, as users of other container tools expect.
    sysctl(&format!("ipv4/conf/{link}/route_localnet"), "1")?;
    nft(&ruleset(place, false)).await
}

/// Publishes the ports: from here on clients reach the copy in this place. Safe to repeat.
pub async fn publish(place: &PlaceLayout) -> Result<(), NetError> {
    nft(&ruleset(place, true)).await
}

/// Takes the published ports back; the service can still reach out. Safe to repeat.
pub async fn withdraw(place: &PlaceLayout) -> Result<(), NetError> {
    nft(&ruleset(place, false)).await
}

/// Removes link and rules. Ok also when nothing was there.
pub async fn disconnect(place: &PlaceLayout) -> Result<(), NetError> {
    let table = place.table();
    // Declared first, so that deleting never fails for its absence.
    nft(&format!("table inet {table}\ndelete table inet {table}\n")).await?;
    let link = place.link();
    if std::path::Path::new("/sys/class/net").join(&link).exists() || link_exists(&link).await? {
        match run("ip", &["link", "delete", &link], "").await {
            // It goes by itself with the namespace of its other end, perhaps just now.
            Err(NetError::Failed { stderr, .. }) if stderr.contains("Cannot find device") => {}
            other => drop(other?),
        }
    }
    Ok(())
}

/// `/sys` may belong to another network namespace; `ip` asks the kernel about this one.
async fn link_exists(link: &str) -> Result<bool, NetError> {
    match run("ip", &["link", "show", "dev", link], "").await {
        Ok(_) => Ok(true),
        Err(NetError::Failed { .. }) => Ok(false),
        Err(other) => Err(other),
    }
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
