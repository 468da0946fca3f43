//! Sockets: which kinds, bound to which addresses, with which options.

use std::net::{Ipv4Addr, Ipv6Addr};

use super::Refused;
use super::files::Look;
use super::set::{At, is_word};
use crate::images::schema::Message;

/// Numbers of capabilities.
const NET_ADMIN: u32 = 12;
const NET_RAW: u32 = 13;
const INET: u64 = 2;
const INET6: u64 = 10;
const STREAM: u64 = 1;
const DATAGRAM: u64 = 2;
const RAW: u64 = 3;
const SEQPACKET: u64 = 5;
/// Largest buffer, in bytes: CRIU sets it without asking the limits of the host.
const MAX_BUFFER: u64 = 256 << 20;
/// Longest filter that the kernel takes.
const MAX_FILTER: usize = 4096;
/// Longest name of a Unix socket.
const MAX_NAME: usize = 108;
/// A bound socket whose name is gone is kept in CRIU's store; the other marks lead out of the service.
const UNIX_FLAGS: u64 = 1 << 4;
/// Routing, sockets, audit, devices, generic: what a service without rights over its network may ask.
const NETLINK: [u64; 5] = [0, 4, 9, 15, 16];

pub(super) fn check(look: &Look<'_>, at: At<'_>, field: &str, socket: &Message) -> Result<(), Refused> {
    let network = look.tree.namespace("net_ns_id");
    let namespace = socket.get("ns_id").unwrap_or(network);
    at.require(namespace == network, &format!("{field}.ns_id"), format_args!("it is in another network"))?;
    if let Some(options) = socket.one("opts") {
        options_are_fair(look, at, options)?;
    }
    match field {
        "isk" => inet(look, at, socket),
        "usk" => unix(look, at, socket),
        _ => {
            let protocol = socket.number("protocol");
            let fair = NETLINK.contains(&protocol) || may(look, NET_ADMIN);
            at.require(fair, "nlsk.protocol", format_args!("protocol {protocol} needs CAP_NET_ADMIN"))
        }
    }
}

fn may(look: &Look<'_>, capability: u32) -> bool {
    look.admission.capabilities >> capability & 1 == 1
}

fn options_are_fair(look: &Look<'_>, at: At<'_>, options: &Message) -> Result<(), Refused> {
    for field in ["so_sndbuf", "so_rcvbuf"] {
        at.at_most(options, field, MAX_BUFFER)?;
    }
    if !may(look, NET_ADMIN) {
        at.require(options.number("so_mark") == 0, "opts.so_mark", format_args!("it needs CAP_NET_ADMIN"))?;
        at.require(
            options.number("so_priority") <= 6,
            "opts.so_priority",
            format_args!("it needs CAP_NET_ADMIN"),
        )?;
    }
    at.require(
        is_word(options.text("so_bound_dev"), 15),
        "opts.so_bound_dev",
        format_args!("it is no name of a link"),
    )?;
    at.require(
        options.numbers("so_filter").count() <= MAX_FILTER,
        "opts.so_filter",
        format_args!("it is too long"),
    )
}

fn inet(look: &Look<'_>, at: At<'_>, socket: &Message) -> Result<(), Refused> {
    let (family, kind, protocol) = (socket.number("family"), socket.number("type"), socket.number("proto"));
    at.require(matches!(family, INET | INET6), "isk.family", format_args!("{family} is not the internet"))?;
    let raw = socket.one("ip_opts").is_some_and(|options| options.has("raw"));
    match kind {
        STREAM => at.require(protocol == 6, "isk.proto", format_args!("protocol {protocol} is not TCP"))?,
        // UDP, its light form, and echoes.
        DATAGRAM => at.require(
            matches!(protocol, 17 | 136 | 1 | 58),
            "isk.proto",
            format_args!("protocol {protocol} is not UDP"),
        )?,
        RAW => at.require(
            may(look, NET_RAW) && protocol <= 255,
            "isk.type",
            format_args!("raw sockets need CAP_NET_RAW"),
        )?,
        _ => return Err(at.refuse("isk.type", format_args!("{kind} is no kind of socket"))),
    }
    at.require(!raw || kind == RAW, "isk.ip_opts.raw", format_args!("it is no raw socket"))?;
    let state = socket.number("state");
    at.require((1..=12).contains(&state), "isk.state", format_args!("{state} is no state"))?;
    for field in ["src_port", "dst_port"] {
        at.at_most(socket, field, 65_535)?;
    }
    at.require(is_word(socket.text("ifname"), 15), "isk.ifname", format_args!("it is no name of a link"))?;
    let words: Vec<u64> = socket.numbers("src_addr").collect();
    let inner = is_inner(look, family, &words);
    at.require(inner, "isk.src_addr", format_args!("it is no address of the service"))?;
    let length = if family == INET { 1 } else { 4 };
    at.require(socket.numbers("dst_addr").count() == length, "isk.dst_addr", format_args!("it is no address"))
}

/// Whether an address is one that the service may be bound to: its own, none, a loop's or a group's.
fn is_inner(look: &Look<'_>, family: u64, words: &[u64]) -> bool {
    // They are in memory as on the wire.
    let bytes: Vec<u8> =
        words.iter().flat_map(|word| u32::try_from(*word).unwrap_or(0).to_le_bytes()).collect();
    let (own4, own6) = look.admission.addresses;
    let fine4 = |address: Ipv4Addr| {
        address == own4
            || address.is_unspecified()
            || address.is_loopback()
            || address.is_multicast()
            || address.is_broadcast()
    };
    match (family, bytes.as_slice()) {
        (INET, &[a, b, c, d]) => fine4(Ipv4Addr::new(a, b, c, d)),
        (INET6, bytes) => <[u8; 16]>::try_from(bytes).is_ok_and(|octets| {
            let address = Ipv6Addr::from(octets);
            address == own6
                || address.is_unspecified()
                || address.is_loopback()
                || address.is_multicast()
                || address.is_unicast_link_local()
                || address.to_ipv4_mapped().is_some_and(fine4)
        }),
        _ => false,
    }
}

fn unix(look: &Look<'_>, at: At<'_>, socket: &Message) -> Result<(), Refused> {
    let kind = socket.number("type");
    at.require(
        matches!(kind, STREAM | DATAGRAM | SEQPACKET),
        "usk.type",
        format_args!("{kind} is no kind of socket"),
    )?;
    let flags = socket.number("uflags");
    at.require(
        flags & !UNIX_FLAGS == 0,
        "usk.uflags",
        format_args!("its other end would be outside of the service"),
    )?;
    let name = socket.bytes("name");
    at.require(name.len() <= MAX_NAME, "usk.name", format_args!("it is too long"))?;
    let directory = socket.text("name_dir");
    let climbs = |bytes: &[u8]| bytes.split(|byte| *byte == b'/').any(|part| part == b"..");
    // A name that begins with NUL is none of a file.
    let plain = name.first() == Some(&0) || !climbs(name);
    at.require(plain, "usk.name", format_args!("it climbs"))?;
    let absolute = directory.is_empty() || directory.starts_with('/');
    at.require(
        absolute && !climbs(directory.as_bytes()),
        "usk.name_dir",
        format_args!("{directory:?} is no path inside of the service"),
    )?;
    let mount = socket.get("mnt_id").map_or(-1, u64::cast_signed);
    let there = mount == -1 || u64::try_from(mount).is_ok_and(|mount| look.mounts.has(mount));
    at.require(there, "usk.mnt_id", format_args!("there is no mount {mount}"))?;
    if let Some(permissions) = socket.one("file_perms") {
        look.owner(at, permissions, "usk.file_perms.")?;
        at.at_most(permissions, "mode", 0o177_777)?;
    }
    Ok(())
}
