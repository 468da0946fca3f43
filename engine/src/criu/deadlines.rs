//! How long CRIU may take for each part of its work, and those who take part in it.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use ums_model::seconds;

/// How long each part of a dump may take. In a file each is a number of seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DumpDeadlines {
    /// Until CRIU has started and waits before the first task is stopped. Default 30 s.
    #[serde(with = "seconds")]
    pub arm: Duration,
    /// Until all tasks are stopped, in whole seconds; CRIU itself gives up then and lets them go on. Default 10 s.
    #[serde(with = "seconds")]
    pub stop: Duration,
    /// Between two things CRIU reports; memory is written in one of these steps. Default 10 min.
    #[serde(with = "seconds")]
    pub step: Duration,
    /// Until the cgroup reads back FROZEN. Default 10 s.
    #[serde(with = "seconds")]
    pub freeze: Duration,
    /// Until CRIU has undone everything and exited, after a failure. Default 2 min.
    #[serde(with = "seconds")]
    pub abort: Duration,
}

impl Default for DumpDeadlines {
    fn default() -> Self {
        Self {
            arm: Duration::from_secs(30),
            stop: Duration::from_secs(10),
            step: Duration::from_secs(600),
            freeze: Duration::from_secs(10),
            abort: Duration::from_secs(120),
        }
    }
}

/// How long each part of a restore may take. In a file each is a number of seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RestoreDeadlines {
    /// Until runc and CRIU have started and wait for the images. Default 30 s.
    #[serde(with = "seconds")]
    pub arm: Duration,
    /// From the start of runc's `criu` to runc's first request, which it sends at once. Default 60 s.
    #[serde(with = "seconds")]
    pub request: Duration,
    /// From armed to the last byte of the images. Only a belt: the end of the nest, and of runc, is noticed. Default 1 h.
    #[serde(with = "seconds")]
    pub images: Duration,
    /// For nest and proxy to take a line from each other, and what either gets on top of the other's own deadlines.
    /// Default 10 s.
    #[serde(with = "seconds")]
    pub answer: Duration,
    /// From go until CRIU has ended. Default 10 min.
    #[serde(with = "seconds")]
    pub restore: Duration,
    /// Until the cgroup reads back FROZEN. Default 10 s.
    #[serde(with = "seconds")]
    pub freeze: Duration,
    /// Until everything that was restored is dead, after a failure. Default 30 s.
    #[serde(with = "seconds")]
    pub kill: Duration,
}

impl Default for RestoreDeadlines {
    fn default() -> Self {
        Self {
            arm: Duration::from_secs(30),
            request: Duration::from_secs(60),
            images: Duration::from_secs(3600),
            answer: Duration::from_secs(10),
            restore: Duration::from_secs(600),
            freeze: Duration::from_secs(10),
            kill: Duration::from_secs(30),
        }
    }
}
