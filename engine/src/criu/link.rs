//! What the nest and the proxy tell each other: one JSON object per line.
//!
//! ```text
//! nest (listens)                 proxy (connects)
//!   │◄──── armed ─────────────────│  runc's request is here, CRIU is started
//!   │───── go ───────────────────►│  the images are complete. No line but the end of the stream: refused
//!   │◄──── namespaces ────────────│  only if asked for: they exist, nothing is in them yet
//!   │───── wired ────────────────►│  the network namespace is as the sockets need it
//!   │◄──── held | failed ─────────│
//! ```

use serde::{Deserialize, Serialize};

use super::failure::CriuFailure;
use super::tree::Tasks;

/// Longest line. The longest are failures with the end of a log in them.
pub(super) const MAX_LINE: u64 = 1 << 20;

/// From the proxy.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum FromProxy {
    /// It waits for [`FromNest::Go`].
    Armed {
        /// Its pid.
        proxy: i32,
    },
    /// The namespaces of the tree exist, no socket does: it waits for [`FromNest::Wired`].
    Namespaces {
        /// The first process of the tree, in the pid namespace of the proxy.
        pid: i32,
    },
    /// The tree is restored and frozen, CRIU has ended.
    Held(HeldTree),
    /// There is no tree.
    Failed(CriuFailure),
}

/// From the nest.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum FromNest {
    /// Restore now.
    Go {
        /// Whether the nest wires the network namespace that CRIU makes.
        wire: bool,
    },
    /// Go on: the network namespace is wired.
    Wired,
}

/// A restored tree that has not run: every task is in a cgroup that reads back FROZEN, and CRIU has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeldTree {
    /// Its first process, in the pid namespace of the proxy.
    pub pid: i32,
    /// Its size, counted alive.
    pub tasks: Tasks,
}
