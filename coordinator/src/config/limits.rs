//! How much a Coordinator does at once.

use std::num::NonZeroUsize;

use serde::Deserialize;

/// Every bound of the Coordinator that a site may want to change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// Migrations under way at once, in each direction. Each streams at the speed of the link and needs a dump or a
    /// restore beside it. Default 4.
    pub migrations: NonZeroUsize,
    /// Migrations that wait for one of those that leave to end, first come, first served. They are forgotten when the
    /// daemon ends. Default 64; 0 refuses what cannot go at once.
    pub queue: usize,
    /// Connections on the TLS port, over all protocols; the next one waits. Default 256.
    pub connections: NonZeroUsize,
    /// Connections on the Unix socket; the next one waits. Default 256.
    pub local_connections: NonZeroUsize,
    /// Finished migrations that are kept with their events. Default 1000.
    pub history: NonZeroUsize,
}

impl Default for Limits {
    fn default() -> Self {
        let n = |n| NonZeroUsize::new(n).expect("a constant above zero");
        Self { migrations: n(4), queue: 64, connections: n(256), local_connections: n(256), history: n(1000) }
    }
}
