//! What another site's images may ask for. Between their arrival and CRIU every image is decoded by our own schema,
//! compared with what this site knows of the service, and written anew: CRIU, which does as root what images say, reads
//! nothing that the source wrote but the content of memory, pipes, sockets and files.
//!
//! [`Intake`] takes the images as they come; [`Admission`] is what the service may have. The rules are pure functions
//! of the two, one file for each kind of thing:
//!
//! ```text
//! tasks         the tree, its ids, capabilities, seccomp, limits, timers, namespaces
//! memory        mappings, pages, shared memory
//! files         what is open: paths, sockets, terminals, files without a name
//! mounts        what is mounted where, and what lies in a tmpfs of its own
//! surroundings  cgroups, names, clocks, network
//! ```

mod archive;
mod files;
mod intake;
mod memory;
mod mounts;
mod seccomp;
mod set;
mod sockets;
mod surroundings;
mod tasks;

use std::net::{Ipv4Addr, Ipv6Addr};

pub use intake::{Intake, IntakeError};

/// What a service may have at this site, from its own description here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Admission {
    /// How many ids its user namespace has; `None` without one.
    pub ids: Option<u32>,
    /// Capabilities that it may have, one bit for each.
    pub capabilities: u64,
    /// Everything that is mounted in it.
    pub mounts: Vec<AdmittedMount>,
    /// Character devices that it may have files of, as major and minor numbers.
    pub devices: Vec<(u32, u32)>,
    /// System calls that must not succeed, whatever filters it has put on top.
    pub denied_calls: Vec<u32>,
    /// Its host name.
    pub hostname: String,
    /// Its cgroup here, without a slash at the beginning.
    pub cgroup: String,
    /// Whether that is one of version 2 on a host without any of version 1 in use.
    pub unified: bool,
    /// The name under which its network namespace was left out of the dump.
    pub network: String,
    /// Its addresses inside.
    pub addresses: (Ipv4Addr, Ipv6Addr),
    /// Processes at most.
    pub processes: usize,
    /// Memory at most, in bytes: all pages in the images, some of which processes share when they live again.
    pub memory: u64,
    /// Memory of one process at most, in bytes.
    pub process_memory: u64,
    /// The security label that a restored process gets here by itself; `None` without a security module.
    pub label: Option<String>,
    /// The lowest `oom_score_adj` and the lowest nice value that it gets here by itself.
    pub priority: (i32, i32),
}

/// Something that is mounted in a service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AdmittedMount {
    /// Where.
    pub point: String,
    /// What.
    pub what: Mounted,
    /// Whether it must be there.
    pub required: bool,
    /// Flags of mount(2) that it must have.
    pub flags: u32,
}

/// What is mounted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Mounted {
    /// The root file system.
    Root,
    /// Something from outside of the service, which the restore knows by this name.
    External(String),
    /// A file system of its own, or a directory of one.
    Own {
        /// `proc`, `sysfs`, `tmpfs`, `devpts`, `mqueue` or `cgroup`.
        kind: &'static str,
        /// The directory of it that is mounted; `/` is all of it.
        root: String,
    },
    /// Something empty over what the service shall not see: `/dev/null` over a file, a tmpfs over a directory.
    Mask,
}

/// An image says what this service may not have, or what cannot be. Nothing was restored.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("image {image} of the source is refused: {field}{}{rule}", if field.is_empty() { "" } else { ": " })]
pub struct Refused {
    /// Its file name.
    pub image: String,
    /// Which field of it, and in which entry; empty where it is about the whole.
    pub field: String,
    /// Which rule it breaks.
    pub rule: String,
}

#[cfg(test)]
mod tests;
