//! One machine: what it is, what it has, what it can do.

mod kernel;
mod memory;
mod ports;
mod privileges;
mod storage;
mod tool;

#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::time::Duration;

use ums_model::names::{Bytes, Fingerprint, SiteName};
use ums_model::plan::{CgroupLayout, PortInUse, SiteFacts};

use super::FactsError;
use crate::cgroup::{self, Layout};
use crate::tools::Tool;
use crate::userns;

const CPUINFO: &str = "/proc/cpuinfo";

/// Where to look.
#[derive(Debug, Clone, Copy)]
pub struct HostQuery<'a> {
    /// Where images, files and volumes are kept.
    pub storage: &'a Path,
    /// Where the journal is kept.
    pub journal: &'a Path,
    /// How long a tool may take to tell its version.
    pub deadline: Duration,
}

/// What one machine is, has and can do, at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostFacts {
    /// Architecture as `uname -m` says it.
    pub arch: String,
    /// Kernel release as `uname -r` says it.
    pub kernel: String,
    /// Version of CRIU; `None` if it is not there, `does not run` or the like if it does not tell.
    pub criu: Option<String>,
    /// Version of runc, likewise.
    pub runc: Option<String>,
    /// Whether this process has the privileges of root: user 0 of the initial user namespace, with every capability
    /// that is needed.
    pub is_root: bool,
    /// Capabilities that are needed and missing, by their names.
    pub missing_capabilities: Vec<&'static str>,
    /// Memory that can be had without swapping, of the machine or of the cgroups that this process is in.
    pub memory_available: Bytes,
    /// Space that can be had where storage is.
    pub disk_available: Bytes,
    /// Control groups.
    pub cgroup: CgroupLayout,
    /// Feature flags that all CPUs have, sorted.
    pub cpu_flags: Vec<String>,
    /// Ports of this network namespace on which something listens, sorted.
    pub ports_in_use: Vec<PortInUse>,
    /// Whether there are time namespaces.
    pub time_namespace: Option<bool>,
    /// Whether services can have user namespaces: the kernel makes them, stacks an overlay on layers with shifted
    /// owners, and the file system of the storage can show them.
    pub user_namespaces: Option<bool>,
    /// Whether written pages can be followed by userfaultfd and PAGEMAP_SCAN.
    pub userfaultfd_wp_async: Option<bool>,
    /// Whether written pages can be followed by soft-dirty bits.
    pub soft_dirty: Option<bool>,
    /// Whether a tmpfs can be kept from being swapped.
    pub noswap_tmpfs: Option<bool>,
    /// Whether the journal lies on storage that survives a restart.
    pub durable_journal: Option<bool>,
}

/// Looks at this machine. Takes as long as its tools take to tell their versions; blocks the thread meanwhile.
///
/// An error only for what no plan can do without: memory, space, cgroups and CPU.
pub fn host_facts(query: &HostQuery<'_>) -> Result<HostFacts, FactsError> {
    let uname = rustix::system::uname();
    let missing_capabilities = privileges::missing();
    Ok(HostFacts {
        arch: uname.machine().to_string_lossy().into_owned(),
        kernel: uname.release().to_string_lossy().into_owned(),
        criu: tool::version(Tool::Criu, query.deadline),
        runc: tool::version(Tool::Runc, query.deadline),
        is_root: missing_capabilities.is_empty() && privileges::is_initial_root(),
        missing_capabilities,
        memory_available: memory::available()?,
        disk_available: storage::available(query.storage)?,
        cgroup: layout()?,
        cpu_flags: cpu_flags()?,
        ports_in_use: ports::in_use()?,
        time_namespace: kernel::time_namespace(),
        user_namespaces: userns::is_usable(query.storage),
        userfaultfd_wp_async: kernel::userfaultfd_wp_async(),
        soft_dirty: kernel::soft_dirty(),
        noswap_tmpfs: kernel::noswap_tmpfs(),
        durable_journal: storage::is_durable(query.journal),
    })
}

impl HostFacts {
    /// The facts of a site that has this machine. What only the site knows (services, volumes, site mounts, published
    /// ports) is left for it to add.
    pub fn into_site_facts(self, name: SiteName, fingerprint: Fingerprint) -> SiteFacts {
        SiteFacts {
            name,
            fingerprint,
            arch: self.arch,
            kernel: self.kernel,
            criu: self.criu,
            runc: self.runc,
            is_root: self.is_root,
            memory_available: self.memory_available,
            disk_available: self.disk_available,
            cgroup: self.cgroup,
            cpu_flags: self.cpu_flags,
            ports_in_use: self.ports_in_use,
            services: Vec::new(),
            volumes: Vec::new(),
            site_mounts: Vec::new(),
            time_namespace: self.time_namespace,
            user_namespaces: self.user_namespaces,
            userfaultfd_wp_async: self.userfaultfd_wp_async,
            soft_dirty: self.soft_dirty,
            durable_journal: self.durable_journal,
        }
    }
}

fn layout() -> Result<CgroupLayout, FactsError> {
    match cgroup::detect() {
        Ok(Layout::V1) => Ok(CgroupLayout::V1),
        Ok(Layout::V2) => Ok(CgroupLayout::V2),
        Ok(Layout::Hybrid) => Ok(CgroupLayout::Hybrid),
        Err(_) => {
            Err(FactsError::Unclear { path: "/sys/fs/cgroup".into(), what: "the layout of the cgroups" })
        }
    }
}

fn cpu_flags() -> Result<Vec<String>, FactsError> {
    let text = fs::read_to_string(CPUINFO).map_err(FactsError::read(CPUINFO))?;
    Ok(common_flags(&text))
}

/// The flags that every CPU of a `cpuinfo` has: the service may be scheduled on any of them.
fn common_flags(cpuinfo: &str) -> Vec<String> {
    let mut cpus = cpuinfo.lines().filter_map(|line| {
        let (key, flags) = line.split_once(':')?;
        (key.trim() == "flags").then(|| flags.split_whitespace().collect::<BTreeSet<_>>())
    });
    let first = cpus.next().unwrap_or_default();
    let common = cpus.fold(first, |common, cpu| common.intersection(&cpu).copied().collect());
    common.into_iter().map(str::to_owned).collect()
}
