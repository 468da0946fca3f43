//! How long a site waits for its nests and for its host: every wait of it on the world stands here. What a nest waits
//! for stands in [`ums_nest::deadlines`].

use std::time::Duration;

use serde::Deserialize;
use ums_model::seconds;

/// Every wait of a site. In a file each is a number of seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Deadlines {
    /// For a nest to take a connection: it may just be starting. Default 10 s.
    #[serde(deserialize_with = "seconds::deserialize")]
    pub reach: Duration,
    /// For a nest's answer that needs no work, and for one to take a stream. Default 15 s.
    #[serde(deserialize_with = "seconds::deserialize")]
    pub answer: Duration,
    /// For a list: a nest's answer about its copy, which is looked at from outside then. Default 5 s.
    #[serde(deserialize_with = "seconds::deserialize")]
    pub status: Duration,
    /// For a nest's look at its service: much of /proc, and the size of its files. Default 2 min.
    #[serde(deserialize_with = "seconds::deserialize")]
    pub facts: Duration,
    /// For a nest to change its copy's life. On top of the grace for a stop. A nest that waits for several things in a row
    /// is given up before it says for which in vain; it goes on with them, and is asked again. Default 2 min.
    #[serde(deserialize_with = "seconds::deserialize")]
    pub change: Duration,
    /// From the last byte of a dump to HELD. The Coordinator's `held` ends it before, unless that is made longer. Default
    /// 12 min.
    #[serde(deserialize_with = "seconds::deserialize")]
    pub restore: Duration,
    /// For a keeper to introduce itself. Default 20 s.
    #[serde(deserialize_with = "seconds::deserialize")]
    pub keeper_start: Duration,
    /// For a keeper that was told to end to end by itself; then it is killed. Default 0.5 s.
    #[serde(deserialize_with = "seconds::deserialize")]
    pub keeper_quit: Duration,
    /// For a keeper to end with everything below it, and for its cgroup to empty. Default 20 s.
    #[serde(deserialize_with = "seconds::deserialize")]
    pub keeper_end: Duration,
    /// For a tool of the host to say its version. Default 10 s.
    #[serde(deserialize_with = "seconds::deserialize")]
    pub tools: Duration,
    /// For another process to let go of the image store's index. Default 30 s.
    #[serde(deserialize_with = "seconds::deserialize")]
    pub store: Duration,
}

impl Default for Deadlines {
    fn default() -> Self {
        let s = Duration::from_secs;
        Self {
            reach: s(10),
            answer: s(15),
            status: s(5),
            facts: s(120),
            change: s(120),
            restore: s(12 * 60),
            keeper_start: s(20),
            keeper_quit: Duration::from_millis(500),
            keeper_end: s(20),
            tools: s(10),
            store: s(30),
        }
    }
}
