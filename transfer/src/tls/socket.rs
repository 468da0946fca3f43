//! TCP below TLS: dialing, and options that make a cut link show itself.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use rustix::net::sockopt;
use tokio::net::{TcpStream, lookup_host};
use tokio::time::timeout;

use super::TlsError;
use crate::Deadlines;

/// Unanswered keep-alive probes after which the kernel gives a connection up.
const KEEPALIVE_PROBES: u32 = 3;

/// Connects to the first address behind `address` (`host:port`) that answers. `Err` names the last failure.
pub(super) async fn dial(address: &str, deadlines: &Deadlines) -> Result<TcpStream, TlsError> {
    let unreachable = |source| TlsError::Unreachable { address: address.to_owned(), source };
    let found =
        timeout(deadlines.connect, lookup_host(address)).await.unwrap_or_else(|_| Err(late("resolving it")));
    let mut failure = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    for candidate in found.map_err(unreachable)? {
        let dialed = timeout(deadlines.connect, TcpStream::connect(candidate)).await;
        match dialed
            .unwrap_or_else(|_| Err(late("connecting")))
            .and_then(|tcp| tune(&tcp, deadlines).map(|()| tcp))
        {
            Ok(tcp) => return Ok(tcp),
            Err(error) => failure = error,
        }
    }
    Err(unreachable(failure))
}

/// Sets the options that both ends set.
pub(super) fn tune(tcp: &TcpStream, deadlines: &Deadlines) -> io::Result<()> {
    // Small messages decide how long a service is frozen; they may not wait for more to come.
    tcp.set_nodelay(true)?;
    // The kernel's probes serve connections on which nobody reads at the moment. Whole seconds is what it knows.
    let pause = deadlines.keep_alive.max(Duration::from_secs(1));
    sockopt::set_socket_keepalive(tcp, true)?;
    sockopt::set_tcp_keepidle(tcp, pause)?;
    sockopt::set_tcp_keepintvl(tcp, pause)?;
    sockopt::set_tcp_keepcnt(tcp, KEEPALIVE_PROBES)?;
    // Sent but unacknowledged data ends the connection after this. It also ends it when the other side acknowledges
    // but takes nothing, so it may not be shorter than our own patience with a busy receiver.
    let patience = u32::try_from(deadlines.stall.as_millis()).unwrap_or(u32::MAX);
    sockopt::set_tcp_user_timeout(tcp, patience)?;
    Ok(())
}

/// Splits `host:port`; the host without brackets. `None`: it is no such thing.
pub(crate) fn host_port(address: &str) -> Option<(&str, u16)> {
    if let Ok(address_of_ip) = address.parse::<SocketAddr>() {
        let host = &address[..address.rfind(':')?];
        return Some((host.trim_start_matches('[').trim_end_matches(']'), address_of_ip.port()));
    }
    let (host, port) = address.rsplit_once(':')?;
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
    let valid = !host.is_empty() && host.len() <= 253 && host.chars().all(plain);
    Some((host, port.parse().ok()?)).filter(|_| valid)
}

fn late(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, format!("{what} took too long"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_split() {
        assert_eq!(host_port("site-b.example:7443"), Some(("site-b.example", 7443)));
        assert_eq!(host_port("10.0.0.2:1"), Some(("10.0.0.2", 1)));
        assert_eq!(host_port("[fd75::2]:7443"), Some(("fd75::2", 7443)));
        for bad in ["", "host", "host:", ":7443", "host:70000", "a b:1", "http://x:1", "fd75::2:7443/"] {
            assert_eq!(host_port(bad), None, "{bad}");
        }
    }

    #[tokio::test]
    async fn options_are_set() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let tcp = dial(&address, &Deadlines::default()).await.unwrap();
        assert!(tcp.nodelay().unwrap());
        assert!(sockopt::socket_keepalive(&tcp).unwrap());
        assert_eq!(sockopt::tcp_user_timeout(&tcp).unwrap(), 30_000);
    }
}
