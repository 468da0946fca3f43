//! What the nest does in the place: the uplink, the inner network namespace, and the translation between them.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use ums_model::spec::Protocol;

use crate::deadlines::Deadlines;
use crate::layout::{INNER, INNER_NAMESPACE, INSIDE, PlaceLayout, UPLINK};
use crate::tool::{NetError, ip_batch, nft, run, succeeds, sysctl};

/// Pause between two looks for the uplink, each of which is a process.
const LOOK_EVERY: Duration = Duration::from_millis(2);

/// File that stands for the inner network namespace, in the keeper's mount namespace.
pub fn inner_namespace() -> PathBuf {
    PathBuf::from("/run/netns").join(INNER_NAMESPACE)
}

/// Where the inner network namespace comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Inner {
    /// It is made if there is none.
    Make,
    /// It has its name already: it belongs to a user namespace, and was made with it.
    Given,
    /// It comes with a restored tree: see [`wire`].
    Later,
}

/// Builds the place in the current network namespace: waits for the uplink, provides the inner namespace with the
/// constant addresses, translates in both directions. Ok = packets can pass, as far as the fence lets them. Safe to
/// repeat, also where an earlier call was killed half-way: what exists is kept, because a service may live in the inner
/// namespace, and what is missing is made.
pub async fn build(place: &PlaceLayout, inner: Inner, deadlines: &Deadlines) -> Result<(), NetError> {
    wait_for_uplink(deadlines).await?;
    let (address, gateway) = (place.place_address(), place.host_address());
    let (address_v6, gateway_v6) = (place.place_address_v6(), place.host_address_v6());
    ip_batch(
        deadlines,
        &format!(
            "link set lo up\n\
         address replace {address}/30 dev {UPLINK}\n\
         address replace {address_v6}/64 dev {UPLINK} nodad\n\
         link set {UPLINK} up\n\
         route replace default via {gateway}\n\
         route replace ::/0 via {gateway_v6}\n"
        ),
    )
    .await?;
    sysctl("ipv4/ip_forward", "1")?;
    sysctl("ipv6/conf/all/forwarding", "1")?;
    match inner {
        Inner::Make => {
            make_inner(deadlines).await?;
            wire(place, deadlines).await?;
        }
        Inner::Given => wire(place, deadlines).await?,
        Inner::Later => {}
    }
    nft(deadlines, &ruleset(place)).await
}

async fn wait_for_uplink(deadlines: &Deadlines) -> Result<(), NetError> {
    let started = Instant::now();
    while !succeeds(deadlines, "ip", &["link", "show", "dev", UPLINK]).await? {
        if started.elapsed() >= deadlines.uplink {
            return Err(NetError::NoUplink { after: deadlines.uplink });
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
    Ok(())
}

async fn make_inner(deadlines: &Deadlines) -> Result<(), NetError> {
    if !succeeds(deadlines, "ip", &["-netns", INNER_NAMESPACE, "link", "show", "dev", "lo"]).await? {
        // A name without a namespace behind it is in the way of a new one.
        let _ = std::fs::remove_file(inner_namespace());
        run(deadlines, "ip", &["netns", "add", INNER_NAMESPACE], "").await?;
    }
    Ok(())
}

/// Links the place with the inner namespace, which has its name, and gives it its addresses. Close the fence first
/// where a copy without the right to speak is in it. Safe to repeat.
pub async fn wire(place: &PlaceLayout, deadlines: &Deadlines) -> Result<(), NetError> {
    let inner = &place.inner;
    let mtu = inner.mtu;
    if !succeeds(deadlines, "ip", &["link", "show", "dev", INSIDE]).await? {
        let link = format!(
            "link add {INSIDE} mtu {mtu} type veth peer name {INNER} mtu {mtu} netns {INNER_NAMESPACE}\n"
        );
        ip_batch(deadlines, &link).await?;
    }
    // The prefixes of the inner network are part of its addresses as the spec prints them.
    let (v4, v6) = (inner.address, inner.address6);
    let (gw4, gw6) = (inner.gateway, inner.gateway6);
    let (p4, p6) = (inner.prefix, inner.prefix6);
    ip_batch(
        deadlines,
        &format!(
            "address replace {gw4}/{p4} dev {INSIDE}\n\
         address replace {gw6}/{p6} dev {INSIDE} nodad\n\
         link set {INSIDE} up\n"
        ),
    )
    .await?;
    let script = format!(
        "link set lo up\n\
         address replace {v4}/{p4} dev {INNER}\n\
         address replace {v6}/{p6} dev {INNER} nodad\n\
         link set {INNER} up\n\
         route replace default via {gw4}\n\
         route replace ::/0 via {gw6}\n"
    );
    run(deadlines, "ip", &["-netns", INNER_NAMESPACE, "-batch", "-"], &script).await?;
    // MPTCP sockets cannot be dumped; no router advertisement may change the constant addresses.
    let settings = "for s in net/mptcp/enabled=0 net/ipv6/conf/all/accept_ra=0 net/ipv6/conf/eth0/accept_ra=0; do \
                    f=/proc/sys/${s%%=*}; [ ! -e $f ] || echo ${s#*=} > $f; done";
    run(deadlines, "ip", &["netns", "exec", INNER_NAMESPACE, "sh", "-c", settings], "").await.map(drop)
}

fn ruleset(place: &PlaceLayout) -> String {
    let mut inbound = String::new();
    let (inner, inner_v6) = (place.inner.address, place.inner.address6);
    for port in &place.ports {
        let protocol = match port.protocol {
            Protocol::Tcp => "tcp",
            Protocol::Udp => "udp",
        };
        let number = port.container;
        let _ = writeln!(
            inbound,
            "    iifname \"{UPLINK}\" meta nfproto ipv4 {protocol} dport {number} dnat ip to {inner}"
        );
        let _ = writeln!(
            inbound,
            "    iifname \"{UPLINK}\" meta nfproto ipv6 {protocol} dport {number} dnat ip6 to {inner_v6}"
        );
    }
    if let Some(resolver) = place.resolver {
        let gateway = place.inner.gateway;
        for protocol in ["udp", "tcp"] {
            let _ = writeln!(
                inbound,
                "    iifname \"{INSIDE}\" ip daddr {gateway} {protocol} dport 53 dnat ip to {resolver}"
            );
        }
    }
    format!(
        "table inet ums_place\ndelete table inet ums_place\ntable inet ums_place {{\n\
         \x20 chain prerouting {{\n    type nat hook prerouting priority dstnat; policy accept;\n{inbound}  }}\n\
         \x20 chain postrouting {{\n    type nat hook postrouting priority srcnat; policy accept;\n\
         \x20   oifname \"{UPLINK}\" meta nfproto ipv4 snat ip to {}\n\
         \x20   oifname \"{UPLINK}\" meta nfproto ipv6 snat ip6 to {}\n  }}\n}}\n",
        place.place_address(),
        place.place_address_v6()
    )
}
