//! The last moments before a freeze: what CRIU cannot dump but the service itself can clear away.

use std::time::Duration;

/// How often the queues are looked at.
const POLL: Duration = Duration::from_millis(1);
/// State of a listening socket in `/proc/net/tcp`.
const LISTEN: &str = "0A";

/// Waits, with the fence closed, until no established connection waits to be accepted: CRIU refuses those. Gives up
/// silently after `patience`, because then CRIU says it better.
pub(crate) async fn accept_queues(pid: i32, patience: Duration) {
    let deadline = tokio::time::Instant::now() + patience;
    while waiting(pid) && tokio::time::Instant::now() < deadline {
        tokio::time::sleep(POLL).await;
    }
}

fn waiting(pid: i32) -> bool {
    ["tcp", "tcp6"].iter().any(|table| {
        let text = std::fs::read_to_string(format!("/proc/{pid}/net/{table}")).unwrap_or_default();
        text.lines().any(has_unaccepted)
    })
}

/// Whether this line of `/proc/net/tcp` is a listening socket with a connection in its queue: there `rx_queue` counts
/// connections, not bytes.
fn has_unaccepted(line: &str) -> bool {
    let mut fields = line.split_whitespace().skip(3);
    fields.next() == Some(LISTEN)
        && fields
            .next()
            .and_then(|queues| queues.split_once(':'))
            .is_some_and(|(_, rx)| !rx.trim_start_matches('0').is_empty())
}

#[cfg(test)]
mod tests {
    use super::has_unaccepted;

    #[test]
    fn only_listening_sockets_with_a_queue_count() {
        let head = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode";
        let idle = "   0: 0200C0C0:18EB 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 1 1 0";
        let busy = "   0: 0200C0C0:18EB 00000000:0000 0A 00000000:00000002 00:00000000 00000000     0        0 1 1 0";
        let data = "   1: 0200C0C0:18EB 0100C0C0:D431 01 00000000:00000400 00:00000000 00000000     0        0 2 1 0";
        assert!(!has_unaccepted(head));
        assert!(!has_unaccepted(idle));
        assert!(has_unaccepted(busy));
        assert!(!has_unaccepted(data));
    }

    #[test]
    fn a_real_backlog_is_seen_and_goes_away() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = format!(":{:04X} ", listener.local_addr().unwrap().port());
        let ours = || {
            let table = std::fs::read_to_string("/proc/self/net/tcp").unwrap();
            table.lines().any(|line| line.contains(&port) && has_unaccepted(line))
        };
        assert!(!ours());
        let _client = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        assert!(ours());
        let _accepted = listener.accept().unwrap();
        assert!(!ours());
    }
}
