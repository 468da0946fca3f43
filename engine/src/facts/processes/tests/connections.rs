//! Sockets, and what is under way on them.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::num::NonZeroU32;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};

use rustix::net::{AddressFamily, Protocol, SendFlags, SocketFlags, SocketType, send, socket_with};
use rustix::thread::{UnshareFlags, unshare_unsafe};

use super::*;

fn socket(family: u16, kind: SocketType, protocol: u32) -> OwnedFd {
    let protocol = NonZeroU32::new(protocol).map(Protocol::from_raw);
    socket_with(AddressFamily::from_raw(family), kind, SocketFlags::CLOEXEC, protocol).unwrap()
}

const INET: u16 = libc::AF_INET as u16;
const PACKET: u16 = libc::AF_PACKET as u16;

#[test]
#[allow(unsafe_code)]
fn kinds_that_cannot_be_saved_are_found() {
    const MPTCP: u32 = 262;
    let vsock = socket(libc::AF_VSOCK as u16, SocketType::STREAM, 0);
    let multipath = socket(INET, SocketType::STREAM, MPTCP);
    let unbound = socket(PACKET, SocketType::RAW, 0);
    let bound = socket(PACKET, SocketType::RAW, 0);
    let address = libc::sockaddr_ll {
        sll_family: PACKET,
        sll_protocol: 0x0300,
        sll_ifindex: 1,
        sll_hatype: 0,
        sll_pkttype: 0,
        sll_halen: 0,
        sll_addr: [0; 8],
    };
    // SAFETY: the address is one of a packet socket, and its size is given.
    let done = unsafe {
        libc::bind(bound.as_raw_fd(), (&raw const address).cast(), size_of_val(&address) as libc::socklen_t)
    };
    assert_eq!(done, 0, "{}", std::io::Error::last_os_error());

    let facts = own();
    facts.assert_has(
        BlockerKind::SocketFamily,
        &format!("{}is a socket of the kind AF_VSOCK", name_of(&vsock)),
    );
    facts.assert_has(
        BlockerKind::SocketFamily,
        &format!("{}is a socket of the kind MPTCP", name_of(&multipath)),
    );
    facts.assert_has(
        BlockerKind::SocketFamily,
        &format!("{}is a packet socket on interface", name_of(&bound)),
    );
    facts.assert_lacks(&name_of(&unbound));
}

#[test]
fn kinds_that_can_be_saved_are_no_blockers() {
    const ICMP: u32 = 1;
    let raw = socket(INET, SocketType::RAW, ICMP);
    let fresh = socket(INET, SocketType::STREAM, 0);
    let netlink = socket(libc::AF_NETLINK as u16, SocketType::RAW, 0);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (server, _) = listener.accept().unwrap();
    let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
    let (one, other) = UnixStream::pair().unwrap();
    let datagram = UnixDatagram::unbound().unwrap();
    let facts = own();
    for name in [name_of(&raw), name_of(&fresh), name_of(&netlink), name_of(&listener), name_of(&client)] {
        facts.assert_lacks(&name);
    }
    for name in [name_of(&server), name_of(&udp), name_of(&one), name_of(&other), name_of(&datagram)] {
        facts.assert_lacks(&name);
    }
}

#[test]
fn connections_to_accept_are_found_until_they_are_accepted() {
    for address in ["127.0.0.1:0", "[::1]:0"] {
        let listener = TcpListener::bind(address).unwrap();
        let _client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let port = listener.local_addr().unwrap().port();
        own().assert_has(BlockerKind::AcceptQueue, &format!("(port {port}) has 1 connections"));
        let _server = listener.accept().unwrap();
        own().assert_lacks(&name_of(&listener));
    }
}

/// What passes between two looks is not reported.
#[test]
fn what_passes_is_not_reported() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let _client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let tree = Tree {
        first: own_pid(),
        pids: vec![own_pid()],
        processes: vec![Process::read(own_pid()).unwrap()],
        patience: ServiceQuery::default().sockets,
    };
    let mut findings = Findings::default();
    let accept = || drop(listener.accept());
    // The first look finds it, then it is accepted.
    transient::check(
        &tree,
        || {
            listener.set_nonblocking(true).unwrap();
            accept();
        },
        &mut findings,
        &mut Vec::new(),
    );
    let left = findings.into_blockers();
    assert!(left.iter().all(|one| !one.detail.contains(&name_of(&listener))), "{left:?}");
}

#[test]
#[allow(unsafe_code)]
fn corked_datagrams_are_found() {
    let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
    udp.connect(udp.local_addr().unwrap()).unwrap();
    let cork = |on: libc::c_int| {
        // SAFETY: the option's value is a number of this size.
        let done = unsafe {
            libc::setsockopt(udp.as_raw_fd(), libc::IPPROTO_UDP, libc::UDP_CORK, (&raw const on).cast(), 4)
        };
        assert_eq!(done, 0);
    };
    cork(1);
    udp.send(b"held back").unwrap();
    own().assert_has(BlockerKind::CorkedUdp, &name_of(&udp));
    cork(0);
    udp.recv(&mut [0; 100]).unwrap();
    own().assert_lacks(&name_of(&udp));
}

#[test]
fn unread_netlink_messages_are_found() {
    let netlink = socket(libc::AF_NETLINK as u16, SocketType::RAW, 0);
    // RTM_GETLINK for all links; the answer is not read.
    let mut request = Vec::new();
    request.extend(32_u32.to_ne_bytes());
    request.extend(18_u16.to_ne_bytes());
    request.extend(0x301_u16.to_ne_bytes());
    request.extend([0; 24]);
    send(&netlink, &request, SendFlags::empty()).unwrap();
    own().assert_has(BlockerKind::NetlinkGroups, &name_of(&netlink));
}

#[test]
fn unix_sockets_that_lead_outside_are_found() {
    let (inside, outside) = UnixStream::pair().unwrap();
    let service = Service::holding(OwnedFd::from(inside));
    service.facts().assert_has(BlockerKind::UnixPeer, "descriptor 0 ");
    // Both ends inside.
    look(service.pid(), &[service.pid(), own_pid()]).assert_lacks("descriptor 0 is a unix socket");
    // The other end is gone: nothing is lost.
    drop(outside);
    service.facts().assert_lacks("descriptor 0 ");

    // Datagrams, too, have an other end.
    let folder = tempfile::tempdir().unwrap();
    let log = UnixDatagram::bind(folder.path().join("log")).unwrap();
    let inside = UnixDatagram::unbound().unwrap();
    inside.connect(folder.path().join("log")).unwrap();
    let service = Service::holding(OwnedFd::from(inside));
    service.facts().assert_has(BlockerKind::UnixPeer, "descriptor 0 ");
    drop(log);
    service.facts().assert_lacks("descriptor 0 ");
}

#[test]
fn unix_connections_to_accept_are_told_apart() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("socket");
    let listener = UnixListener::bind(&path).unwrap();
    let name = name_of(&listener);
    // Both ends inside and no data yet: CRIU saves that.
    let mut client = UnixStream::connect(&path).unwrap();
    let facts = own();
    facts.assert_lacks(&name);
    facts.assert_lacks(&name_of(&client));
    client.write_all(b"data").unwrap();
    own().assert_has(BlockerKind::UnixInFlight, &name);
    let (mut server, _) = listener.accept().unwrap();
    own().assert_lacks(&name);
    server.read_exact(&mut [0; 4]).unwrap();

    // The listener inside and the client outside, then the other way round.
    let _client = UnixStream::connect(&path).unwrap();
    let service = Service::holding(OwnedFd::from(listener.try_clone().unwrap()));
    service.facts().assert_has(BlockerKind::AcceptQueue, "connections from outside");
    let service = Service::holding(OwnedFd::from(UnixStream::connect(&path).unwrap()));
    service.facts().assert_has(BlockerKind::UnixPeer, "descriptor 0 ");
}

#[test]
#[allow(unsafe_code)]
fn unix_sockets_of_other_networks_are_found() {
    let pair = std::thread::scope(|scope| {
        let elsewhere = || {
            // SAFETY: only the thread, which ends here, changes its network namespace.
            unsafe { unshare_unsafe(UnshareFlags::NEWNET) }.expect("this test needs root");
            UnixStream::pair().unwrap()
        };
        scope.spawn(elsewhere).join().unwrap()
    });
    let service = Service::holding(OwnedFd::from(pair.0));
    service.facts().assert_has(BlockerKind::UnixPeer, "another network namespace");
}
