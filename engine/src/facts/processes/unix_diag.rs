//! The kernel's answer to "which unix sockets are there, and who is connected to whom?".
//!
//! `/proc/net/unix` does not tell the other end. The question is asked over netlink, of the network namespace of the
//! thread that asks.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::thread;
use std::time::Duration;

use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, netlink, recv, send, socket_with,
};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use super::process::path;

/// One unix socket.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct UnixSocket {
    /// Whether it waits for connections.
    pub(super) listening: bool,
    /// The other end.
    pub(super) peer: Peer,
    /// Inodes of the connecting ends of what waits to be accepted.
    pub(super) waiting: Vec<u32>,
    /// Bytes that it has sent and nobody has read.
    pub(super) unread_by_peer: u32,
}

/// The other end of a unix socket.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Peer {
    /// There is none, or none any more.
    #[default]
    None,
    /// It waits in the queue of a listening socket.
    Waiting,
    /// A socket with this inode.
    Inode(u32),
}

/// All unix sockets of one network namespace, by their inodes.
pub(super) type UnixSockets = HashMap<u32, UnixSocket>;

const HEADER: usize = 16;
const SOCK_DIAG_BY_FAMILY: u16 = 20;
const NLM_F_REQUEST: u16 = 1;
const NLM_F_DUMP: u16 = 0x300;
const NLM_F_DUMP_INTR: u16 = 0x10;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;

const AF_UNIX: u8 = 1;
const ALL_STATES: u32 = u32::MAX;
const SHOW_PEER: u32 = 4;
const SHOW_WAITING: u32 = 8;
const SHOW_QUEUES: u32 = 0x10;
/// `struct unix_diag_msg`: family, type, state, inode, cookie.
const MESSAGE: usize = 16;
const STREAM: u8 = 1;
const SEQPACKET: u8 = 5;
const LISTENING: u8 = 10;
const ATTRIBUTE_PEER: u16 = 2;
const ATTRIBUTE_WAITING: u16 = 3;
const ATTRIBUTE_QUEUES: u16 = 4;
const ATTRIBUTE_SHUTDOWN: u16 = 6;
/// Shut down in both directions, as a socket is whose other end was closed.
const SHUT_DOWN: u8 = 3;

/// The kernel's pieces are not larger than this.
const PIECE: usize = 64 << 10;
/// How often to ask again when sockets come and go so fast that the answer was incomplete.
const ATTEMPTS: u32 = 3;

/// Asks in the network namespace of a process; `patience` is for one piece of the answer. Blocks; leaves the calling
/// thread where it is.
pub(super) fn in_namespace_of(pid: i32, patience: Duration) -> io::Result<UnixSockets> {
    let namespace = File::open(path(pid, "ns/net"))?;
    // A thread of its own, which ends with the answer: one cannot be sure to get back.
    let ask = || {
        move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))?;
        ask_often(patience)
    };
    let answer = thread::scope(|scope| {
        let thread = thread::Builder::new().name("unix-diag".to_owned()).spawn_scoped(scope, ask)?;
        thread.join().map_err(|_| io::Error::other("the thread that asks for unix sockets panicked"))?
    })?;
    Ok(answer)
}

fn ask_often(patience: Duration) -> io::Result<UnixSockets> {
    let mut attempt = 1;
    loop {
        let (sockets, complete) = ask(patience)?;
        if complete || attempt == ATTEMPTS {
            return Ok(sockets);
        }
        attempt += 1;
    }
}

fn ask(patience: Duration) -> io::Result<(UnixSockets, bool)> {
    let socket =
        socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, Some(netlink::SOCK_DIAG))?;
    set_socket_timeout(&socket, Timeout::Recv, Some(patience))?;
    send(&socket, &request(), SendFlags::empty())?;
    receive(&socket)
}

fn request() -> Vec<u8> {
    const LENGTH: u32 = HEADER as u32 + 24;
    let show = SHOW_PEER | SHOW_WAITING | SHOW_QUEUES;
    let mut request = Vec::with_capacity(LENGTH as usize);
    request.extend(LENGTH.to_ne_bytes());
    request.extend(SOCK_DIAG_BY_FAMILY.to_ne_bytes());
    request.extend((NLM_F_REQUEST | NLM_F_DUMP).to_ne_bytes());
    // Sequence number and port: there is one question on this socket.
    request.extend([0; 8]);
    request.extend([AF_UNIX, 0, 0, 0]);
    request.extend(ALL_STATES.to_ne_bytes());
    request.extend(0_u32.to_ne_bytes());
    request.extend(show.to_ne_bytes());
    // No cookie.
    request.extend([0; 8]);
    request
}

fn receive(socket: &OwnedFd) -> io::Result<(UnixSockets, bool)> {
    let mut sockets = UnixSockets::new();
    let mut complete = true;
    let mut buffer = vec![0; PIECE];
    loop {
        let (length, whole) = recv(socket, &mut buffer[..], RecvFlags::TRUNC)?;
        if whole > buffer.len() {
            return Err(io::Error::other("the kernel's answer is too long"));
        }
        let mut rest = &buffer[..length];
        while let Some((kind, flags, payload)) = message(&mut rest) {
            complete &= flags & NLM_F_DUMP_INTR == 0;
            match kind {
                NLMSG_DONE => return Ok((sockets, complete)),
                NLMSG_ERROR => {
                    let errno = u32_at(payload, 0).unwrap_or_default().cast_signed();
                    return Err(io::Error::from_raw_os_error(-errno));
                }
                _ => sockets.extend(unix_socket(payload)),
            }
        }
    }
}

/// Takes the next message off: its type, flags and payload.
fn message<'a>(rest: &mut &'a [u8]) -> Option<(u16, u16, &'a [u8])> {
    let length = usize::try_from(u32_at(rest, 0)?).ok()?;
    let (kind, flags) = (u16_at(rest, 4)?, u16_at(rest, 6)?);
    let payload = rest.get(HEADER..length)?;
    *rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
    Some((kind, flags, payload))
}

fn unix_socket(payload: &[u8]) -> Option<(u32, UnixSocket)> {
    let (kind, state, inode) = (*payload.get(1)?, *payload.get(2)?, u32_at(payload, 4)?);
    let mut socket = UnixSocket { listening: state == LISTENING, ..UnixSocket::default() };
    let mut peer = None;
    let mut shutdown = 0;
    let mut rest = payload.get(MESSAGE..)?;
    while let (Some(length), Some(attribute)) = (u16_at(rest, 0), u16_at(rest, 2)) {
        let length = usize::from(length);
        let value = rest.get(4..length)?;
        match attribute {
            ATTRIBUTE_PEER => peer = u32_at(value, 0),
            ATTRIBUTE_WAITING => {
                socket.waiting =
                    value.as_chunks::<4>().0.iter().map(|inode| u32::from_ne_bytes(*inode)).collect();
            }
            ATTRIBUTE_QUEUES if !socket.listening => socket.unread_by_peer = u32_at(value, 4)?,
            ATTRIBUTE_SHUTDOWN => shutdown = *value.first()?,
            _ => {}
        }
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    // Neither an end that was closed nor one that waits to be accepted has an inode.
    let connected = matches!(kind, STREAM | SEQPACKET) && shutdown != SHUT_DOWN;
    socket.peer = match peer {
        Some(0) if connected => Peer::Waiting,
        Some(0) | None => Peer::None,
        Some(inode) => Peer::Inode(inode),
    };
    Some((inode, socket))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(*bytes.get(at..)?.first_chunk()?))
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(*bytes.get(at..)?.first_chunk()?))
}
