//! The tree: who is in it, as whom, with which rights.

use std::collections::{BTreeMap, BTreeSet};

use super::set::{At, Set, missing, refused};
use super::{Admission, Refused, seccomp};
use crate::images::format::Image;
use crate::images::schema::Message;

/// The kernel's largest process id.
const MAX_PID: u64 = 1 << 22;
/// Threads of all processes together; each has an image of its own.
const MAX_THREADS: usize = 65_536;
const ALIVE: u64 = 1;
const DEAD: u64 = 2;
const STOPPED: u64 = 3;
/// Numbers of capabilities that rules ask for.
const SYS_NICE: u32 = 23;
const SYS_RESOURCE: u32 = 24;
/// Signals are numbered from 1.
const MAX_SIGNAL: u64 = 64;
/// Namespaces that every service has of its own.
const OWN: [&str; 7] =
    ["pid_ns_id", "net_ns_id", "ipc_ns_id", "uts_ns_id", "mnt_ns_id", "cgroup_ns_id", "time_ns_id"];

/// What other rules need to know of the tree.
#[derive(Debug, Default)]
pub(super) struct Tree {
    /// Processes that are not zombies.
    pub(super) alive: BTreeSet<u64>,
    /// All ids of processes and threads.
    pub(super) known: BTreeSet<u64>,
    /// The namespaces of the service, by the names of their fields.
    pub(super) namespaces: BTreeMap<&'static str, u64>,
    /// Tables of open files.
    pub(super) tables: BTreeSet<u64>,
}

impl Tree {
    pub(super) fn namespace(&self, field: &str) -> u64 {
        self.namespaces.get(field).copied().unwrap_or(0)
    }
}

pub(super) fn check(set: &Set, admission: &Admission) -> Result<Tree, Refused> {
    let mut tree = Tree::default();
    let own_ids = inventory(set, admission)?;
    let cgroups: BTreeSet<u64> = set
        .entries("cgroup")
        .flat_map(|(_, cgroup)| cgroup.list("sets").map(|one| one.number("id")).collect::<Vec<_>>())
        .collect();
    let filters = seccomp::Filters::of(set)?;
    let context = Context { admission, cgroups: &cgroups, filters: &filters };
    for (at, process) in set.need("pstree")?.messages() {
        at.require(
            tree.alive.len() < admission.processes,
            "pid",
            format_args!("there are more than {} processes", admission.processes),
        )?;
        let pid = process.number("pid");
        at.require((1..=MAX_PID).contains(&pid), "pid", format_args!("{pid} is no process id"))?;
        let parent = process.number("ppid");
        let first = tree.known.is_empty();
        at.require(
            first == (pid == 1),
            "pid",
            format_args!("process 1 must be the first, and the only one"),
        )?;
        let expected = if first { parent == 0 } else { tree.known.contains(&parent) };
        at.require(expected, "ppid", format_args!("{parent} is no process before it"))?;
        at.at_most(process, "pgid", MAX_PID)?;
        at.at_most(process, "sid", MAX_PID)?;
        let core = set.numbered("core", pid).ok_or_else(|| missing(format!("core-{pid}.img")))?;
        let leader = core;
        let alive = context.process(leader)?;
        // What a zombie has there is whatever was in CRIU's memory.
        let threads: Vec<u64> = if alive { process.numbers("threads").collect() } else { vec![pid] };
        at.require(
            threads.contains(&pid),
            "threads",
            format_args!("process {pid} is not among its threads"),
        )?;
        for thread in threads {
            let new = (1..=MAX_PID).contains(&thread) && tree.known.insert(thread);
            at.require(new, "threads", format_args!("{thread} is there twice, or no id of a thread"))?;
            at.require(
                tree.known.len() <= MAX_THREADS,
                "threads",
                format_args!("there are more than {MAX_THREADS}"),
            )?;
            if alive {
                let core =
                    set.numbered("core", thread).ok_or_else(|| missing(format!("core-{thread}.img")))?;
                context.thread(core, leader)?;
            }
        }
        if alive {
            tree.alive.insert(pid);
            let ids = set.numbered("ids", pid).ok_or_else(|| missing(format!("ids-{pid}.img")))?;
            namespaces(ids, &own_ids, admission, &mut tree)?;
        }
    }
    for stem in ["mm", "fs", "ids", "pagemap"] {
        stray(set, stem, &tree.alive)?;
    }
    stray(set, "core", &tree.known)?;
    stray(set, "fdinfo", &tree.tables)?;
    for (stem, all) in
        [("mm", &tree.alive), ("fs", &tree.alive), ("pagemap", &tree.alive), ("fdinfo", &tree.tables)]
    {
        for number in all {
            set.numbered(stem, *number).ok_or_else(|| missing(format!("{stem}-{number}.img")))?;
        }
    }
    Ok(tree)
}

/// Every image of a kind belongs to something that is known.
fn stray(set: &Set, stem: &'static str, known: &BTreeSet<u64>) -> Result<(), Refused> {
    match set.all(stem).find(|image| !known.contains(&image.number)) {
        None => Ok(()),
        Some(image) => Err(refused(&image.name, "it belongs to nothing in the tree")),
    }
}

/// The ids of the namespaces in which CRIU itself was.
fn inventory(set: &Set, admission: &Admission) -> Result<BTreeMap<&'static str, u64>, Refused> {
    let (at, inventory) = set.need("inventory")?.only();
    at.require(inventory.number("img_version") == 2, "img_version", format_args!("only version 2 is known"))?;
    for field in ["fdinfo_per_id", "ns_per_id"] {
        at.require(inventory.number(field) == 1, field, format_args!("it must be set"))?;
    }
    at.at_most(inventory, "lsmtype", 2)?;
    at.require(is_id(inventory.text("dump_criu_run_id")), "dump_criu_run_id", format_args!("it is no id"))?;
    let root = inventory.one("root_ids").ok_or_else(|| at.refuse("root_ids", "it is missing"))?;
    let user = admission.ids.is_some().then_some("user_ns_id");
    Ok(OWN.into_iter().chain(user).map(|field| (field, root.number(field))).collect())
}

fn is_id(text: &str) -> bool {
    text.len() <= 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit() || byte == b'-')
}

/// All processes are in the same namespaces, and those are none of the host.
fn namespaces(
    image: &Image,
    outer: &BTreeMap<&'static str, u64>,
    admission: &Admission,
    tree: &mut Tree,
) -> Result<(), Refused> {
    let (at, ids) = image.only();
    for (field, host) in outer {
        let id = ids.number(field);
        at.require(
            id != 0 && id != *host,
            field,
            format_args!("the service would be in a namespace of the host"),
        )?;
        let of_all = *tree.namespaces.entry(field).or_insert(id);
        at.require(of_all == id, field, format_args!("processes are in different namespaces"))?;
    }
    if admission.ids.is_none() {
        let id = ids.number("user_ns_id");
        let of_all = *tree.namespaces.entry("user_ns_id").or_insert(id);
        at.require(of_all == id, "user_ns_id", format_args!("processes are in different namespaces"))?;
    }
    tree.tables.insert(ids.number("files_id"));
    Ok(())
}

struct Context<'a> {
    admission: &'a Admission,
    cgroups: &'a BTreeSet<u64>,
    filters: &'a seccomp::Filters,
}

impl Context<'_> {
    /// What a process has once; whether it is alive.
    fn process(&self, image: &Image) -> Result<bool, Refused> {
        let (at, core) = image.only();
        at.require(core.number("mtype") == 1, "mtype", format_args!("only x86-64 is known"))?;
        let task = core.one("tc").ok_or_else(|| at.refuse("tc", "it is missing"))?;
        let state = task.number("task_state");
        if state == DEAD {
            return Ok(false);
        }
        at.require(
            matches!(state, ALIVE | STOPPED),
            "tc.task_state",
            format_args!("{state} is no state of a process"),
        )?;
        let base = task.number("personality") & 0xff;
        at.require(
            matches!(base, 0 | 8),
            "tc.personality",
            format_args!("{base} is no personality of Linux"),
        )?;
        if let Some(set) = task.get("cg_set") {
            at.require(
                self.cgroups.contains(&set),
                "tc.cg_set",
                format_args!("there is no set {set} of cgroups"),
            )?;
        }
        let (lowest, _) = self.admission.priority;
        let score = task.get("oom_score_adj").map_or(0, u64::cast_signed);
        let fair = (i64::from(lowest)..=1000).contains(&score) || self.may(SYS_RESOURCE);
        at.require(
            fair,
            "tc.oom_score_adj",
            format_args!("{score} is less than {lowest}, which this site gives"),
        )?;
        at.at_most(task, "stop_signo", MAX_SIGNAL)?;
        at.require(
            task.list("sigactions").count() <= 64,
            "tc.sigactions",
            format_args!("there are too many"),
        )?;
        if let Some(timers) = task.one("timers") {
            self.timers(at, timers)?;
        }
        if let Some(limits) = task.one("rlimits") {
            limits_are_sane(at, limits)?;
        }
        Ok(true)
    }

    fn may(&self, capability: u32) -> bool {
        self.admission.capabilities >> capability & 1 == 1
    }

    /// What every thread has.
    fn thread(&self, image: &Image, leader: &Image) -> Result<(), Refused> {
        let (at, core) = image.only();
        at.require(core.has("thread_info"), "thread_info", format_args!("it is missing"))?;
        let thread = core.one("thread_core").ok_or_else(|| at.refuse("thread_core", "it is missing"))?;
        let creds = thread.one("creds").ok_or_else(|| at.refuse("thread_core.creds", "it is missing"))?;
        self.creds(at, creds)?;
        self.filters_of(at, core, thread, leader)?;
        let policy = thread.number("sched_policy");
        // Normal, batch and idle; the others take the processor away from the host.
        let fair = matches!(policy, 0 | 3 | 5) && thread.number("sched_prio") == 0 || self.may(SYS_NICE);
        at.require(fair, "thread_core.sched_policy", format_args!("policy {policy} needs CAP_SYS_NICE"))?;
        let (_, lowest) = self.admission.priority;
        let nice = thread.get("sched_nice").map_or(0, u64::cast_signed);
        let fair = nice >= i64::from(lowest) || self.may(SYS_NICE);
        at.require(
            fair && nice <= 19,
            "thread_core.sched_nice",
            format_args!("{nice} is less than {lowest}, which this site gives"),
        )?;
        at.at_most(thread, "pdeath_sig", MAX_SIGNAL)?;
        if let Some(set) = thread.get("cg_set") {
            at.require(
                self.cgroups.contains(&set),
                "thread_core.cg_set",
                format_args!("there is no set {set} of cgroups"),
            )?;
        }
        let queues = [core.one("tc").and_then(|task| task.one("signals_s")), thread.one("signals_p")];
        for signal in queues.into_iter().flatten().flat_map(|queue| queue.list("signals")) {
            at.require(
                signal.bytes("siginfo").len() == 128,
                "siginfo",
                format_args!("a signal has 128 bytes"),
            )?;
        }
        Ok(())
    }

    /// The first thread of a process has the filters, and others have their own or the same.
    fn filters_of(
        &self,
        at: At<'_>,
        core: &Message,
        thread: &Message,
        leader: &Image,
    ) -> Result<(), Refused> {
        let filter = thread.get("seccomp_filter");
        if core.has("tc") || thread.has("seccomp_mode") {
            let mode = thread.number("seccomp_mode");
            return self.filters.check(at, mode, filter, &self.admission.denied_calls);
        }
        let (_, first) = leader.only();
        let of_first = first.one("thread_core").and_then(|thread| thread.get("seccomp_filter"));
        at.require(
            filter.is_none(),
            "thread_core.seccomp_filter",
            format_args!("a filter without its mode"),
        )?;
        self.filters.are_of_all(at, of_first)
    }

    fn creds(&self, at: At<'_>, creds: &Message) -> Result<(), Refused> {
        let most = self.admission.ids.unwrap_or(u32::MAX);
        let ids = ["uid", "gid", "euid", "egid", "suid", "sgid", "fsuid", "fsgid"];
        for field in ids {
            let id = creds.number(field);
            at.require(
                id < u64::from(most),
                &format!("creds.{field}"),
                format_args!("id {id} is not one of the {most} of the service"),
            )?;
        }
        for group in creds.numbers("groups") {
            at.require(
                group < u64::from(most),
                "creds.groups",
                format_args!("id {group} is not one of the {most} of the service"),
            )?;
        }
        for field in ["cap_inh", "cap_prm", "cap_eff", "cap_bnd", "cap_amb"] {
            let words: Vec<u64> = creds.numbers(field).collect();
            let path = format!("creds.{field}");
            at.require(words.len() <= 2, &path, format_args!("a set has two words"))?;
            let all = words.iter().rev().fold(0, |all, word| all << 32 | word);
            let beyond = all & !self.admission.capabilities;
            at.require(
                beyond == 0,
                &path,
                format_args!("capability {} is not one of the service", beyond.trailing_zeros()),
            )?;
        }
        at.at_most(creds, "secbits", 0xff)?;
        at.at_most(creds, "no_new_privs", 1)?;
        for field in ["lsm_profile", "lsm_sockcreate"] {
            let label = creds.text(field);
            let usual =
                label.is_empty() || label == "unconfined" || self.admission.label.as_deref() == Some(label);
            at.require(
                usual,
                &format!("creds.{field}"),
                format_args!("label {label:?} is not what a service gets here"),
            )?;
        }
        Ok(())
    }

    fn timers(&self, at: At<'_>, timers: &Message) -> Result<(), Refused> {
        for kind in ["real", "virt", "prof"] {
            for timer in timers.list(kind) {
                let whole = timer.number("iusec") < 1_000_000 && timer.number("vusec") < 1_000_000;
                at.require(
                    whole,
                    &format!("tc.timers.{kind}"),
                    format_args!("a second has a million microseconds"),
                )?;
            }
        }
        for timer in timers.list("posix") {
            let clock = timer.number("clock_id");
            at.require(
                is_plain_clock(clock),
                "tc.timers.posix.clock_id",
                format_args!("clock {clock} is not for a service"),
            )?;
            let whole = timer.number("insec") < 1_000_000_000 && timer.number("vnsec") < 1_000_000_000;
            at.require(
                whole,
                "tc.timers.posix",
                format_args!("a second has a thousand million nanoseconds"),
            )?;
            at.at_most(timer, "si_signo", MAX_SIGNAL)?;
        }
        Ok(())
    }
}

/// A clock that cannot wake the machine and is no device.
pub(super) fn is_plain_clock(clock: u64) -> bool {
    match clock {
        0..=7 | 11 => true,
        // Of a process or a thread, but not of a descriptor.
        0x8000_0000.. => clock & 7 != 3 && clock & 7 != 7,
        _ => false,
    }
}

fn limits_are_sane(at: At<'_>, limits: &Message) -> Result<(), Refused> {
    /// Numbers of the two that give priority over others.
    const PRIORITY: [usize; 2] = [13, 14];
    for (number, limit) in limits.list("rlimits").enumerate() {
        let (current, most) = (limit.number("cur"), limit.number("max"));
        at.require(number < 16, "tc.rlimits", format_args!("there are 16 limits"))?;
        at.require(current <= most, "tc.rlimits", format_args!("limit {number} is above its maximum"))?;
        let fair = !PRIORITY.contains(&number) || most == 0;
        at.require(
            fair,
            "tc.rlimits",
            format_args!("limit {number} would let it take priority over the host"),
        )?;
    }
    Ok(())
}
