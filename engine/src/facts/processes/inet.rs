//! The kernel's tables of internet sockets.

/// One line of `/proc/net/tcp`, `udp` and their likes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct InetSocket {
    pub(crate) local_port: u16,
    pub(crate) remote_port: u16,
    state: u8,
    /// Bytes that wait to be sent.
    pub(crate) unsent: u64,
    /// Bytes that wait to be read; for a listening socket, connections that wait to be accepted.
    pub(crate) unread: u64,
    pub(crate) inode: u64,
}

impl InetSocket {
    /// Whether a TCP socket waits for connections.
    pub(crate) fn is_listening(&self) -> bool {
        const TCP_LISTEN: u8 = 0x0a;
        self.state == TCP_LISTEN
    }

    fn parse(line: &str) -> Option<Self> {
        let mut fields = line.split_whitespace().skip(1);
        let mut port = || u16::from_str_radix(fields.next()?.rsplit_once(':')?.1, 16).ok();
        let (local_port, remote_port) = (port()?, port()?);
        let state = u8::from_str_radix(fields.next()?, 16).ok()?;
        let (unsent, unread) = fields.next()?.split_once(':')?;
        let bytes = |text| u64::from_str_radix(text, 16).ok();
        let (unsent, unread) = (bytes(unsent)?, bytes(unread)?);
        // Timer, retransmissions, user, timeout.
        let inode = fields.nth(4)?.parse().ok()?;
        Some(Self { local_port, remote_port, state, unsent, unread, inode })
    }
}

/// The sockets in such a table.
pub(crate) fn inet_sockets(table: &str) -> impl Iterator<Item = InetSocket> {
    table.lines().filter_map(InetSocket::parse)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_are_read() {
        let table = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n   \
                     0: 0100007F:115D 00000000:0000 0A 00000000:00000001 00:00000000 00000000     0        0 815543 1\n   \
                     1: 00000000000000000000000001000000:9513 00000000000000000000000001000000:115E 01 \
                     00000340:00000000 00:00000000 00000000     0        0 866483 2 00000000f1e144aa 0\n";
        let sockets: Vec<_> = inet_sockets(table).collect();
        assert_eq!(sockets.len(), 2);
        assert!(sockets[0].is_listening());
        assert_eq!((sockets[0].local_port, sockets[0].unread, sockets[0].inode), (0x115d, 1, 815_543));
        assert!(!sockets[1].is_listening());
        assert_eq!((sockets[1].remote_port, sockets[1].unsent, sockets[1].inode), (0x115e, 0x340, 866_483));
    }
}
