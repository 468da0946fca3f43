//! How long this crate waits for the world, in one struct.

use std::time::Duration;

/// Every wait of this crate. Taken from a site's configuration; the defaults suit links between data centres and
/// across an ocean alike.
///
/// None of these bounds how long a *migration* may take, and no safety rule depends on one of them: they only
/// decide when a link counts as cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Deadlines {
    /// Resolving a name, and one TCP connect to one of its addresses. Default 5 s.
    pub connect: Duration,
    /// The TLS handshake, from the first byte to an authenticated connection. Default 5 s.
    pub tls: Duration,
    /// The versioned handshake after it, question and answer. Default 5 s.
    pub hello: Duration,
    /// The whole pairing exchange; longer than `dial_back`, which happens within it. Default 20 s.
    pub pairing: Duration,
    /// The attempt to dial a site that is being paired, over all the addresses it announced. Default 8 s.
    pub dial_back: Duration,
    /// Longest silence while we wait to read. Several times `keep_alive`, so that one lost packet is no cut.
    /// Default 15 s.
    pub idle: Duration,
    /// Longest time in which the other side takes not one byte while we have some to write. It covers a receiver
    /// that is busy (a slow disk, say), which keep-alive frames cannot: they come the other way. Default 30 s.
    pub stall: Duration,
    /// Pause between keep-alive frames while we have nothing to say. Default 3 s.
    pub keep_alive: Duration,
}

impl Default for Deadlines {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(5),
            tls: Duration::from_secs(5),
            hello: Duration::from_secs(5),
            pairing: Duration::from_secs(20),
            dial_back: Duration::from_secs(8),
            idle: Duration::from_secs(15),
            stall: Duration::from_secs(30),
            keep_alive: Duration::from_secs(3),
        }
    }
}
