//! What the images of another site may ask for: what this site would give the service if it started it itself.

use std::fs;
use std::path::Path;

use ums_engine::cgroup::{Layout, detect};
use ums_engine::images::admit::{Admission, AdmittedMount, Mounted};
use ums_engine::process::Stat;

use crate::bundle::{ABSENT_CALLS, CAPABILITIES, CGROUPS, DEVICES, MASKED, READ_ONLY, external_mounts};
use crate::recipe::Recipe;
use crate::source::EXTERNAL_NETWORK;

/// Flags of mount(2).
const READ: u32 = 1;
const NO_SETUID: u32 = 2;
const NO_DEVICES: u32 = 4;
const NO_PROGRAMS: u32 = 8;
/// Numbers of [`CAPABILITIES`], in its order.
const CAPABILITY_NUMBERS: [u32; CAPABILITIES.len()] = [0, 1, 4, 3, 27, 13, 6, 7, 31, 8, 10, 18, 5, 29];
/// Numbers of [`DEVICES`], and of `/dev/ptmx`.
const DEVICE_NUMBERS: [(u32, u32); DEVICES.len() + 1] =
    [(1, 3), (1, 8), (1, 7), (5, 0), (1, 5), (1, 9), (5, 2)];
/// A service may have started more processes since it was counted.
const MORE_PROCESSES: usize = 1024;

/// What this host is like, as far as a service gets it from the host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct HostShare {
    /// Memory and swap in bytes.
    pub(crate) memory: u64,
    pub(crate) swap: u64,
    /// Whether cgroups are those of version 2.
    pub(crate) unified: bool,
    /// Which of [`MASKED`] and [`READ_ONLY`] exist here.
    pub(crate) hidden: Vec<&'static str>,
    /// Security label, `oom_score_adj` and nice value of this process, which a restored one would have.
    pub(crate) label: Option<String>,
    pub(crate) oom_score: i32,
    pub(crate) nice: i32,
}

impl HostShare {
    /// Looks at this host. What cannot be found out is what gives a service the least.
    pub(crate) fn read() -> Self {
        let text = |path: &str| fs::read_to_string(path).unwrap_or_default();
        let memory = text("/proc/meminfo");
        let bytes = |word: &str| {
            let line = memory.lines().find_map(|line| line.strip_prefix(word));
            let number = line.and_then(|rest| rest.split_whitespace().next()?.parse::<u64>().ok());
            number.unwrap_or(0).saturating_mul(1024)
        };
        let nice = Stat::of("self").map(|stat| stat.nice);
        let label = text("/proc/self/attr/current");
        let label = label.trim_end_matches(['\0', '\n']);
        Self {
            memory: bytes("MemTotal:"),
            swap: bytes("SwapTotal:"),
            unified: matches!(detect(), Ok(Layout::V2)),
            hidden: MASKED.into_iter().chain(READ_ONLY).filter(|path| Path::new(path).exists()).collect(),
            label: (!label.is_empty()).then(|| label.to_owned()),
            oom_score: text("/proc/self/oom_score_adj").trim().parse().unwrap_or(0),
            nice: nice.unwrap_or(0),
        }
    }
}

/// What the service may have here. `tasks`: how many processes it had when the source asked.
pub(crate) fn admission(recipe: &Recipe, tasks: u32, host: &HostShare) -> Admission {
    let capabilities = CAPABILITY_NUMBERS.iter().fold(0, |all, number| all | 1_u64 << number);
    let memory = host.memory.saturating_add(host.swap);
    let limit = recipe.spec.limits.memory.map(|limit| limit.get().saturating_add(host.swap));
    Admission {
        ids: recipe.ids.map(|ids| ids.count),
        capabilities,
        mounts: mounts(recipe, host),
        devices: DEVICE_NUMBERS.to_vec(),
        denied_calls: ABSENT_CALLS.map(|(_, number)| number).to_vec(),
        hostname: recipe.spec.hostname().to_owned(),
        cgroup: recipe.cgroup.clone(),
        unified: host.unified,
        network: EXTERNAL_NETWORK.to_owned(),
        addresses: (recipe.spec.network.address, recipe.spec.network.address6),
        processes: (tasks as usize).saturating_mul(4).saturating_add(MORE_PROCESSES),
        memory,
        process_memory: limit.unwrap_or(memory).min(memory),
        label: host.label.clone(),
        priority: (host.oom_score.min(0), host.nice.min(0)),
    }
}

/// Everything that the bundle has mounted.
fn mounts(recipe: &Recipe, host: &HostShare) -> Vec<AdmittedMount> {
    let mount = |point: &str, what: Mounted, flags: u32| AdmittedMount {
        point: point.to_owned(),
        what,
        required: true,
        flags,
    };
    let own = |kind: &'static str, root: &str| Mounted::Own { kind, root: root.to_owned() };
    let closed = NO_SETUID | NO_DEVICES | NO_PROGRAMS;
    let mut mounts = vec![
        mount("/", Mounted::Root, 0),
        mount("/proc", own("proc", "/"), 0),
        mount("/dev", own("tmpfs", "/"), NO_SETUID),
        mount("/dev/pts", own("devpts", "/"), NO_SETUID | NO_PROGRAMS),
        mount("/dev/mqueue", own("mqueue", "/"), closed),
        mount("/sys", own("sysfs", "/"), closed | READ),
    ];
    match (recipe.ids, host.unified) {
        (Some(_), _) => {}
        (None, true) => mounts.push(mount(CGROUPS, own("cgroup", "/"), closed | READ)),
        (None, false) => {
            mounts.push(mount(CGROUPS, own("tmpfs", "/"), closed));
            // Each of the hierarchies below it; another host has others.
            let below = mount(&format!("{CGROUPS}/"), own("cgroup", "/"), closed | READ);
            mounts.push(AdmittedMount { required: false, ..below });
        }
    }
    for bind in external_mounts(recipe) {
        let flags = if bind.read_only { READ } else { 0 };
        mounts.push(mount(&bind.inside, Mounted::External(bind.inside.clone()), flags));
    }
    if recipe.ids.is_some() {
        // No device can be made in it, so each is one of the host's.
        mounts.extend(DEVICES.map(|path| mount(path, Mounted::External(path.to_owned()), 0)));
    }
    // What only root of the host may touch is out of reach of a service with other ids, shown or not; for others it has
    // to be hidden where it exists.
    let needed = |path: &str| path == "/proc/sys" || (recipe.ids.is_none() && host.hidden.contains(&path));
    for path in MASKED {
        mounts.push(AdmittedMount { required: needed(path), ..mount(path, Mounted::Mask, 0) });
    }
    for path in READ_ONLY {
        let root = path.trim_start_matches("/proc");
        mounts.push(AdmittedMount { required: needed(path), ..mount(path, own("proc", root), READ) });
    }
    mounts
}

#[cfg(test)]
mod tests;
