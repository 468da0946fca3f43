//! The process that runc takes for its `criu`: it stands between the two while a container is restored.
//!
//! ```text
//! runc                     proxy                        criu swrk           nest
//!  │──RESTORE───────────────►│                               │                │
//!  │                         │── armed ──────────────────────┼───────────────►│
//!  │                         │◄───────────────────────────────── go ──────────│
//!  │                         │──RESTORE (rewritten)─────────►│                │
//!  │◄─callback───────────────│◄─callback─────────────────────│                │
//!  │──answer────────────────►│──answer──────────────────────►│                │
//!  │                         │◄─`pre-resume`─────────────────│                │
//!  │                         │  leaves the cgroup with CRIU, freezes it,      │
//!  │                         │  reads back FROZEN; then as above              │
//!  │◄─result─────────────────│◄─result───────────────────────│ ends           │
//!  │                         │── held or failed ─────────────────────────────►│
//! ```
//! Why at `pre-resume`: it is the last callback before CRIU lets the tasks go, and CRIU lets them go whatever the
//! answer is, even when nobody answers. So the answer cannot be the gate; the freezer is. CRIU releases tasks that
//! the freezer holds, and ends.
//!
//! Why leave the cgroup: runc moves its `criu` (this process, and the real one with it) into the container's cgroup;
//! frozen with the rest, nobody would be left to thaw it.
//!
//! If the nest dies before *go*, nothing is restored. After *go* the restore goes on to the frozen tree, whoever is
//! left: a tree that does not run does no harm, and the next nest finds it or kills it.

mod channel;
mod nest;
mod rewrite;
mod run;

use std::env;
use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::RawFd;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, ExitCode};
use std::time::Instant;

use prost::Message;
use rustix::io::{FdFlags, fcntl_setfd};

use self::channel::Channel;
use super::restore::RestoreDeadlines;
use super::rpc::{Kind, Request};
use crate::spawn;
use crate::tools::Tool;

/// Environment variable with the path of the nest's socket.
pub(super) const SOCKET_VARIABLE: &str = "UMS_PROXY_SOCKET";

/// Environment variable with the container's cgroup, as JSON.
pub(super) const CGROUP_VARIABLE: &str = "UMS_PROXY_CGROUP";

/// Environment variable with the nest's [`RestoreDeadlines`], as JSON.
pub(super) const DEADLINES_VARIABLE: &str = "UMS_PROXY_DEADLINES";

/// Does what a program has to do whose own name is `criu`: relays a restore, and is the real CRIU for all else.
///
/// `arguments` are those of the process, its name first. Needs `UMS_CRIU` in the environment, and for a restore what
/// [`ProxyListener::environment`](super::restore::ProxyListener::environment) gives. Writes nothing to the standard
/// streams: they are the container's.
pub fn main(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let arguments: Vec<OsString> = arguments.into_iter().skip(1).collect();
    let Some(criu) = env::var_os(Tool::Criu.variable()).map(PathBuf::from) else { return ExitCode::FAILURE };
    let Some(number) = socket_number(&arguments) else {
        return replaced(Command::new(criu).args(&arguments).exec());
    };
    let Ok(socket) = spawn::inherited(number) else { return ExitCode::FAILURE };
    let socket = Channel(socket);
    let deadlines = deadlines();
    match socket.peek(Instant::now() + deadlines.request) {
        Ok(Some(first)) if is_restore(&first) => run::restore(&criu, &socket, deadlines),
        // Not ours (runc asks for the version first): the real one finds the request where it is.
        Ok(Some(_)) => match fcntl_setfd(&socket.0, FdFlags::empty()) {
            Ok(()) => replaced(Command::new(criu).args(&arguments).exec()),
            Err(_) => ExitCode::FAILURE,
        },
        Ok(None) | Err(_) => ExitCode::FAILURE,
    }
}

/// Rewrites bytes as if they were runc's request, for those who feed it nonsense: whether it was one.
#[doc(hidden)]
pub fn fuzz_restore_request(bytes: &[u8]) -> bool {
    rewrite::restore_request(bytes, 3, 4).is_ok()
}

/// What the nest says; the defaults where it says nothing, as for those that start us only to ask CRIU something.
fn deadlines() -> RestoreDeadlines {
    let said = env::var(DEADLINES_VARIABLE).ok();
    said.and_then(|text| serde_json::from_str(&text).ok()).unwrap_or_default()
}

/// The number of the socket, if this is `criu swrk NUMBER`.
fn socket_number(arguments: &[OsString]) -> Option<RawFd> {
    match arguments {
        [word, number] if word == OsStr::new("swrk") => number.to_str()?.parse().ok(),
        _ => None,
    }
}

fn is_restore(message: &[u8]) -> bool {
    Request::decode(message).is_ok_and(|request| request.kind == Kind::Restore as i32)
}

/// Only reached where `exec` failed.
fn replaced(_error: io::Error) -> ExitCode {
    ExitCode::FAILURE
}
