//! What is said on a nest's socket. One connection carries one request:
//!
//! ```text
//! site                                              nest
//! Control(Request) ───────────────────────────────►
//!                  ◄─────────────────────────────── Control(Reply)          every request but the two streams and exec
//!
//! Control(Dump) ──────────────────────────────────►
//!                  ◄─────────────────────────────── archive frames ... End  then the connection closes
//! Control(DumpResult) on a second connection ─────► answers when the dump has ended, well or not
//!
//! Control(Restore), archive frames ... End ───────►                         then the connection closes
//! Control(RestoreResult) on a second connection ──► answers when the copy is HELD, or nothing is left of it
//! ```

use serde::{Deserialize, Serialize};
use ums_model::error::WireError;
use ums_model::message::RestoreRequirements;
use ums_model::names::Epoch;
use ums_model::plan::ServiceFacts;

/// A request to a nest. Every one is safe to repeat.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "request", rename_all = "kebab-case")]
#[allow(missing_docs, reason = "fields are named by their types")]
pub enum Request {
    /// Answers [`Reply::Status`].
    Status,
    /// Starts the service from its image. Ok also if it runs.
    Start,
    /// Sends a signal to its first process.
    Signal { signal: i32 },
    /// SIGTERM, SIGKILL after `grace_ms`. Ok = it has ended.
    Stop { grace_ms: u64 },
    /// Ends the service at once, the nest and the keeper. Ok = the service has ended; the keeper ends right after.
    Quit,
    /// Builds the place on the network again, after the site has plugged the uplink in anew.
    Wire,
    /// What `plan` needs to know of the running service. Answers [`Reply::Facts`].
    Facts,
    /// Answers [`Reply::Requirements`].
    Requirements,
    /// Freeze and dump; archive frames follow from the nest.
    Dump { epoch: Epoch },
    /// Answers [`Reply::Dumped`] once the dump of this epoch has ended.
    DumpResult { epoch: Epoch },
    /// Stop a copy that may not run, without a dump.
    Freeze { epoch: Epoch },
    /// Let the original run again.
    Thaw { epoch: Epoch },
    /// The service is at home here, whatever was asked for before: what stands still runs again, what is dead may be started.
    ComeHome { epoch: Epoch },
    /// End the frozen original.
    Release { epoch: Epoch },
    /// Make everything ready for a restore.
    Arm { epoch: Epoch, requirements: RestoreRequirements },
    /// Restore; archive frames follow from the site.
    Restore { epoch: Epoch },
    /// Answers [`Reply::Restored`] once the restore of this epoch has ended.
    RestoreResult { epoch: Epoch },
    /// Thaw the held copy; the fence stays closed.
    Resume { epoch: Epoch },
    /// Open the fence.
    Open { epoch: Epoch },
    /// End whatever exists of the copy.
    Discard { epoch: Epoch },
    /// Run a command inside; see [`crate::exec`].
    Exec(crate::exec::ExecRequest),
}

/// What a nest answers.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "reply", rename_all = "kebab-case")]
#[allow(missing_docs, reason = "fields are named by their types")]
pub enum Reply {
    /// Done.
    Done,
    /// Not done; the contract of the request says what holds.
    Failed { error: WireError },
    /// To [`Request::Status`].
    Status(NestStatus),
    /// To [`Request::Facts`].
    Facts(ServiceFacts),
    /// To [`Request::Requirements`].
    Requirements(RestoreRequirements),
    /// To [`Request::DumpResult`]: frozen, complete.
    Dumped(DumpedCopy),
    /// To [`Request::RestoreResult`]: HELD.
    Restored(RestoredCopy),
}

/// What the nest observes, from the kernel.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct NestStatus {
    /// Its record.
    pub record: ums_model::nest::Record,
    /// Pids of the service in the keeper's pid namespace; empty if it does not run.
    pub tasks: u32,
    /// Whether its cgroup reads back frozen.
    pub frozen: bool,
    /// Whether a dump has harmed it: what is there is not the service any more, and is never let go.
    #[serde(default)]
    pub harmed: bool,
    /// Pid of its first process in the keeper's pid namespace.
    pub pid: Option<u32>,
    /// How it ended, if it did.
    pub exit: Option<crate::keeper::Exit>,
    /// Unix time in ms at which it was started or resumed here.
    pub since_unix_ms: u64,
}

/// A complete dump.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct DumpedCopy {
    /// Processes in the tree.
    pub tasks: u32,
    /// Milliseconds from the first stopped task to the complete dump.
    pub dump_ms: f64,
    /// CLOCK_BOOTTIME in ms when the tasks stopped.
    pub frozen_at_boot_ms: f64,
    /// Bytes of images.
    pub memory_bytes: u64,
    /// Bytes of files.
    pub file_bytes: u64,
}

/// A copy that is HELD.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct RestoredCopy {
    /// Processes in the tree.
    pub tasks: u32,
    /// Milliseconds from the last byte to HELD.
    pub restore_ms: f64,
}
