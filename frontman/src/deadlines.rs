//! How long the network may take to be changed.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use ums_model::seconds;

/// Waits of whoever changes the network. In a file each is a number of seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Deadlines {
    /// One call of `ip` or `nft`; they need milliseconds. Default 20 s.
    #[serde(with = "seconds")]
    pub tool: Duration,
    /// Until the site has plugged in the uplink of a place. Default 10 s.
    #[serde(with = "seconds")]
    pub uplink: Duration,
}

impl Default for Deadlines {
    fn default() -> Self {
        Self { tool: Duration::from_secs(20), uplink: Duration::from_secs(10) }
    }
}
