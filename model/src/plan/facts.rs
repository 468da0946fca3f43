//! What a plan is made from: facts about two sites, one service and the link between the sites.

use serde::{Deserialize, Serialize};

use super::ProcessBlocker;
use crate::names::{Bytes, Fingerprint, MigrationId, MountName, ServiceName, SiteName, VolumeName};
use crate::phase::Approach;
use crate::policy::SpecialFiles;
use crate::spec::Protocol;

words! {
    /// How a machine's control groups are laid out.
    pub enum CgroupLayout ("cgroup layout") {
        /// Version 1 only.
        V1 = "v1",
        /// Version 2 only.
        V2 = "v2",
        /// Controllers on version 1, a version 2 hierarchy beside them.
        Hybrid = "hybrid",
    }
}

/// What one site has and can do, at one moment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SiteFacts {
    /// Its name.
    pub name: SiteName,
    /// Its identity.
    pub fingerprint: Fingerprint,
    /// Architecture as `uname -m` says it.
    pub arch: String,
    /// Kernel release as `uname -r` says it.
    pub kernel: String,
    /// What its CRIU calls its version; `None` if there is none.
    #[serde(default)]
    pub criu: Option<String>,
    /// What its runc calls its version; `None` if there is none.
    #[serde(default)]
    pub runc: Option<String>,
    /// Whether its daemon has the privileges of root.
    pub is_root: bool,
    /// Memory that a new service could get.
    pub memory_available: Bytes,
    /// Space where it keeps images, files and volumes.
    pub disk_available: Bytes,
    /// Its control groups.
    pub cgroup: CgroupLayout,
    /// Feature flags of its CPUs that all of them have, as in `/proc/cpuinfo`.
    #[serde(default)]
    pub cpu_flags: Vec<String>,
    /// Ports on which something listens or which are published.
    #[serde(default)]
    pub ports_in_use: Vec<PortInUse>,
    /// Services that are here, whatever state they are in; not those that only left a relay.
    #[serde(default)]
    pub services: Vec<ServiceName>,
    /// Volumes that are here.
    #[serde(default)]
    pub volumes: Vec<VolumeName>,
    /// Site mounts that mean something here.
    #[serde(default)]
    pub site_mounts: Vec<MountName>,
    /// Whether the kernel can create time namespaces; `None` if it was not found out.
    #[serde(default)]
    pub time_namespace: Option<bool>,
    /// Whether services can have user namespaces of their own there; `None` if it was not found out.
    #[serde(default)]
    pub user_namespaces: Option<bool>,
    /// Whether written pages can be followed by userfaultfd and PAGEMAP_SCAN (kernel 6.7 or newer).
    #[serde(default)]
    pub userfaultfd_wp_async: Option<bool>,
    /// Whether written pages can be followed by soft-dirty bits.
    #[serde(default)]
    pub soft_dirty: Option<bool>,
    /// Whether the journal lies on storage that survives a restart of the machine.
    #[serde(default)]
    pub durable_journal: Option<bool>,
}

/// A port of a site that is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct PortInUse {
    /// Its number.
    pub port: u16,
    /// Its protocol.
    pub protocol: Protocol,
}

/// What is known about one running service, seen from outside without stopping it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceFacts {
    /// Whether it runs.
    pub running: bool,
    /// The migration that it is in, if any.
    #[serde(default)]
    pub migrating: Option<MigrationId>,
    /// In which kind of nest it lives.
    pub approach: Approach,
    /// Memory of all its processes: resident and swapped, shared pages once.
    pub memory: Bytes,
    /// Its changed files and its volumes.
    pub files: Bytes,
    /// Its processes.
    pub tasks: u32,
    /// Their threads, all together.
    pub threads: u32,
    /// Whether the image is complete at the source.
    pub image_at_source: bool,
    /// Whether the image is complete at the destination.
    pub image_at_destination: bool,
    /// How much of the image would have to travel at most.
    pub image_bytes: Bytes,
    /// Files of its own that are not accepted everywhere.
    #[serde(default)]
    pub special_files: SpecialFiles,
    /// What was found on its processes that CRIU cannot dump or restore.
    #[serde(default)]
    pub blockers: Vec<ProcessBlocker>,
}

/// What was measured of the link between the two sites.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct LinkFacts {
    /// Bytes per second from source to destination, of payload.
    pub bytes_per_s: f64,
    /// Round trip in milliseconds.
    pub rtt_ms: f64,
}
