//! The few netlink messages of the kernel's packet queue (`nfnetlink_queue`), and the socket they travel on.
//!
//! Only packet numbers cross into user space; the packets themselves wait in the kernel for a verdict.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use anyhow::{Context, Result, ensure};
use rustix::io::Errno;
use rustix::net::netlink::{NETFILTER, SocketAddrNetlink};
use rustix::net::{self, AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType};

/// How many packets may wait for a verdict: 1 Gbit/s of full packets for 400 ms.
const MAX_WAITING: u32 = 32 * 1024;
/// Room for the kernel's announcements, each about 1 KiB with its bookkeeping.
const RECEIVE_BUFFER: usize = 64 << 20;

const SUBSYSTEM_QUEUE: u16 = 3 << 8;
const MESSAGE_PACKET: u16 = SUBSYSTEM_QUEUE;
const MESSAGE_VERDICT: u16 = SUBSYSTEM_QUEUE | 1;
const MESSAGE_CONFIG: u16 = SUBSYSTEM_QUEUE | 2;
const MESSAGE_VERDICT_BATCH: u16 = SUBSYSTEM_QUEUE | 3;
const MESSAGE_ERROR: u16 = 2;
const REQUEST: u16 = 1;
const ACKNOWLEDGE: u16 = 4;

const CONFIG_COMMAND: u16 = 1;
const CONFIG_PARAMETERS: u16 = 2;
const CONFIG_MAX_LENGTH: u16 = 3;
const CONFIG_MASK: u16 = 4;
const CONFIG_FLAGS: u16 = 5;
const COMMAND_BIND: u8 = 1;
const COPY_META: u8 = 1;
const FLAG_GSO: u32 = 4;

const ATTRIBUTE_PACKET_HEADER: u16 = 1;
const ATTRIBUTE_VERDICT: u16 = 2;
const DROP: u32 = 0;
const ACCEPT: u32 = 1;

const HEADER: usize = 16;
const FAMILY_HEADER: usize = 4;
const ATTRIBUTE_TYPE: u16 = 0x3fff;

/// The number under which a waiting packet is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct PacketId(pub(super) u32);

/// One bound packet queue. Closing it loses the packets that wait in it.
#[derive(Debug)]
pub(super) struct PacketQueue {
    socket: OwnedFd,
    number: u16,
}

impl PacketQueue {
    /// Binds queue `number` of the calling thread's network namespace.
    pub(super) fn bind(number: u16) -> Result<Self> {
        let socket =
            net::socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, Some(NETFILTER))
                .context("cannot open a netfilter socket")?;
        net::bind(&socket, &SocketAddrNetlink::new(0, 0)).context("cannot bind a netfilter socket")?;
        net::sockopt::set_socket_recv_buffer_size_force(&socket, RECEIVE_BUFFER)
            .context("cannot enlarge a netfilter socket's buffer")?;
        let queue = Self { socket, number };
        queue.configure(CONFIG_COMMAND, &[COMMAND_BIND, 0, 0, 0]).context("cannot bind a packet queue")?;
        queue.configure(CONFIG_PARAMETERS, &[0, 0, 0, 0, COPY_META])?;
        queue.configure(CONFIG_MAX_LENGTH, &MAX_WAITING.to_be_bytes())?;
        Ok(queue)
    }

    /// Whether large packets that the sender's kernel has not yet cut into segments stay whole. Cheaper, but then
    /// one verdict is about up to 64 KiB.
    pub(super) fn keep_large_packets(&self, keep: bool) -> Result<()> {
        let flags = if keep { FLAG_GSO } else { 0 };
        let mut attributes = attribute(CONFIG_FLAGS, &flags.to_be_bytes());
        attributes.extend(attribute(CONFIG_MASK, &FLAG_GSO.to_be_bytes()));
        self.request(&attributes).context("cannot set a packet queue's flags")
    }

    /// For polling.
    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    /// Calls `each` for every packet that is announced now, in order of arrival; does not wait. The answer counts
    /// announcements that did not fit the socket, whose packets the kernel dropped.
    pub(super) fn announced(&self, buffer: &mut [u8], mut each: impl FnMut(PacketId)) -> Result<u64> {
        let mut overflows = 0;
        loop {
            let received = match net::recv(&self.socket, &mut *buffer, RecvFlags::DONTWAIT) {
                Ok((_, length)) => length.min(buffer.len()),
                Err(Errno::AGAIN) => return Ok(overflows),
                Err(Errno::INTR) => continue,
                Err(Errno::NOBUFS) => {
                    overflows += 1;
                    continue;
                }
                Err(error) => return Err(error).context("cannot read a packet queue"),
            };
            for (kind, body) in messages(&buffer[..received]) {
                if kind == MESSAGE_PACKET
                    && let Some(id) = packet_id(body)
                {
                    each(id);
                }
            }
        }
    }

    /// Lets every waiting packet up to and including `last` go on its way.
    pub(super) fn accept_up_to(&self, last: PacketId) -> Result<()> {
        self.verdict(MESSAGE_VERDICT_BATCH, ACCEPT, last)
    }

    /// Loses one packet.
    pub(super) fn drop_packet(&self, id: PacketId) -> Result<()> {
        self.verdict(MESSAGE_VERDICT, DROP, id)
    }

    fn verdict(&self, message: u16, verdict: u32, id: PacketId) -> Result<()> {
        let mut value = verdict.to_be_bytes().to_vec();
        value.extend(id.0.to_be_bytes());
        let bytes = self.message(message, REQUEST, &attribute(ATTRIBUTE_VERDICT, &value));
        net::send(&self.socket, &bytes, SendFlags::empty()).context("cannot give a verdict on a packet")?;
        Ok(())
    }

    fn configure(&self, kind: u16, value: &[u8]) -> Result<()> {
        self.request(&attribute(kind, value))
    }

    /// Sends a configuration and waits for the kernel's answer, which it gives before `send` returns.
    fn request(&self, attributes: &[u8]) -> Result<()> {
        let bytes = self.message(MESSAGE_CONFIG, REQUEST | ACKNOWLEDGE, attributes);
        net::send(&self.socket, &bytes, SendFlags::empty()).context("cannot configure a packet queue")?;
        let mut buffer = [0; 4096];
        loop {
            let (_, length) = net::recv(&self.socket, &mut buffer[..], RecvFlags::DONTWAIT)
                .context("cannot read a packet queue's answer")?;
            for (kind, body) in messages(&buffer[..length.min(4096)]) {
                if kind == MESSAGE_ERROR {
                    let code = body.first_chunk::<4>().map_or(0, |bytes| i32::from_ne_bytes(*bytes));
                    ensure!(code == 0, "the kernel refused: {}", std::io::Error::from_raw_os_error(-code));
                    return Ok(());
                }
                // An announcement that came first is not kept: its packet goes on with the next one.
            }
        }
    }

    fn message(&self, kind: u16, flags: u16, attributes: &[u8]) -> Vec<u8> {
        let length = u32::try_from(HEADER + FAMILY_HEADER + attributes.len()).expect("a short message");
        let mut bytes = Vec::with_capacity(64);
        bytes.extend(length.to_ne_bytes());
        bytes.extend(kind.to_ne_bytes());
        bytes.extend(flags.to_ne_bytes());
        bytes.extend([0; 8]);
        bytes.extend([0, 0]);
        bytes.extend(self.number.to_be_bytes());
        bytes.extend(attributes);
        bytes
    }
}

fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
    let length = u16::try_from(4 + value.len()).expect("a short attribute");
    let mut bytes = length.to_ne_bytes().to_vec();
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(value);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

/// The messages in one datagram: type and body.
fn messages(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let length = u32::from_ne_bytes(*bytes.first_chunk::<4>()?) as usize;
        let kind = u16::from_ne_bytes(*bytes.get(4..)?.first_chunk::<2>()?);
        let body = bytes.get(HEADER..length)?;
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, body))
    })
}

fn packet_id(body: &[u8]) -> Option<PacketId> {
    let mut bytes = body.get(FAMILY_HEADER..)?;
    loop {
        let length = usize::from(u16::from_ne_bytes(*bytes.first_chunk::<2>()?));
        let kind = u16::from_ne_bytes(*bytes.get(2..)?.first_chunk::<2>()?) & ATTRIBUTE_TYPE;
        let value = bytes.get(4..length)?;
        if kind == ATTRIBUTE_PACKET_HEADER {
            return value.first_chunk::<4>().map(|id| PacketId(u32::from_be_bytes(*id)));
        }
        bytes = bytes.get(length.next_multiple_of(4)..)?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packet(id: u32) -> Vec<u8> {
        let mut body = vec![0; FAMILY_HEADER];
        body.extend(attribute(9, &[1, 2, 3]));
        body.extend(attribute(ATTRIBUTE_PACKET_HEADER, &[&id.to_be_bytes()[..], &[8, 0, 2]].concat()));
        let mut bytes = u32::try_from(HEADER + body.len()).unwrap().to_ne_bytes().to_vec();
        bytes.extend(MESSAGE_PACKET.to_ne_bytes());
        bytes.extend([0; 10]);
        bytes.extend(body);
        bytes
    }

    #[test]
    fn packet_numbers_are_found_in_a_datagram_of_several() {
        let datagram = [packet(7), packet(0x0102_0304)].concat();
        let ids: Vec<_> = messages(&datagram).filter_map(|(_, body)| packet_id(body)).collect();
        assert_eq!(ids, [PacketId(7), PacketId(0x0102_0304)]);
    }

    #[test]
    fn a_truncated_datagram_ends_the_list() {
        let datagram = packet(7);
        for end in 0..datagram.len() {
            assert_eq!(messages(&datagram[..end]).count(), 0, "cut at {end}");
        }
    }
}
