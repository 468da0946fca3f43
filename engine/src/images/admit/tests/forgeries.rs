//! Forgeries of a field: one line, one lie.

use super::dump::Dump;
use crate::images::format::Entry;
use crate::images::schema::{Message, Value};

/// Dump, image, entry, path to the field, what is put there, and what the refusal says.
type Forgery = (&'static str, &'static str, usize, &'static str, What, &'static str);

enum What {
    /// These numbers.
    N(&'static [u64]),
    /// This text.
    T(&'static str),
    /// These bytes.
    B(&'static [u8]),
    /// Nothing.
    Gone,
    /// The message once more.
    Twice,
}

use What::{B, Gone, N, T, Twice};

/// Numbers below zero, as images hold them.
const MINUS_ONE: u64 = u64::MAX;

const FORGERIES: [Forgery; 134] = [
    // Who is in the tree.
    ("memhog", "pstree.img", 1, "pid", N(&[1]), "process 1 must be the first"),
    ("memhog", "pstree.img", 0, "pid", N(&[2]), "process 1 must be the first"),
    ("memhog", "pstree.img", 1, "pid", N(&[0]), "0 is no process id"),
    ("memhog", "pstree.img", 1, "pid", N(&[5_000_000]), "no process id"),
    ("memhog", "pstree.img", 1, "pid", N(&[900]), "it is missing"),
    ("memhog", "pstree.img", 1, "ppid", N(&[0]), "no process before it"),
    ("memhog", "pstree.img", 1, "ppid", N(&[15]), "no process before it"),
    ("memhog", "pstree.img", 0, "ppid", N(&[1]), "no process before it"),
    ("memhog", "pstree.img", 1, "pgid", N(&[5_000_000]), "is more than"),
    ("memhog", "pstree.img", 1, "sid", N(&[5_000_000]), "is more than"),
    ("memhog", "pstree.img", 1, "threads", N(&[16]), "is not among its threads"),
    ("memhog", "pstree.img", 1, "threads", N(&[15, 15]), "15 is there twice"),
    ("memhog", "pstree.img", 1, "threads", N(&[15]), "it belongs to nothing in the tree"),
    ("memhog", "pstree.img", 1, "threads", N(&[15, 16, 22, 23, 24, 77]), "core-77.img"),
    // As whom.
    (
        "zombie",
        "core-1.img",
        0,
        "thread_core/creds/uid",
        N(&[65_536]),
        "creds.uid in entry 1: id 65536 is not one of",
    ),
    ("zombie", "core-1.img", 0, "thread_core/creds/fsgid", N(&[0x7000_0000]), "creds.fsgid"),
    ("zombie", "core-1.img", 0, "thread_core/creds/groups", N(&[5, 70_000]), "creds.groups"),
    ("plain", "core-1.img", 0, "thread_core/creds/euid", N(&[0xffff_ffff]), "creds.euid"),
    ("zombie", "core-1.img", 0, "thread_core/creds/cap_eff", N(&[0xa82c_25fb, 0]), "capability 19 is not"),
    ("zombie", "core-1.img", 0, "thread_core/creds/cap_prm", N(&[0xa824_25fb, 0]), "capability 21 is not"),
    ("zombie", "core-1.img", 0, "thread_core/creds/cap_inh", N(&[1 << 12, 0]), "capability 12 is not"),
    (
        "zombie",
        "core-1.img",
        0,
        "thread_core/creds/cap_bnd",
        N(&[0xa804_25fb, 1 << 7]),
        "capability 39 is not",
    ),
    ("zombie", "core-1.img", 0, "thread_core/creds/cap_amb", N(&[1 << 2, 0]), "capability 2 is not"),
    ("zombie", "core-1.img", 0, "thread_core/creds/cap_eff", N(&[0, 0, 0]), "a set has two words"),
    ("zombie", "core-1.img", 0, "thread_core/creds/secbits", N(&[0x100]), "secbits"),
    ("zombie", "core-1.img", 0, "thread_core/creds/no_new_privs", N(&[2]), "no_new_privs"),
    (
        "zombie",
        "core-1.img",
        0,
        "thread_core/creds/lsm_profile",
        T("container_runtime_t"),
        "is not what a service gets here",
    ),
    ("zombie", "core-1.img", 0, "thread_core/creds", Gone, "thread_core.creds"),
    ("zombie", "core-1.img", 0, "thread_core", Gone, "thread_core in entry 1: it is missing"),
    ("zombie", "core-1.img", 0, "thread_info", Gone, "thread_info in entry 1: it is missing"),
    ("zombie", "core-1.img", 0, "mtype", N(&[2]), "only x86-64"),
    // With which filters, priorities, limits and timers.
    (
        "zombie",
        "core-1.img",
        0,
        "thread_core/seccomp_mode",
        N(&[0]),
        "the filter of the service is not in force",
    ),
    (
        "zombie",
        "core-1.img",
        0,
        "thread_core/seccomp_mode",
        N(&[1]),
        "the filter of the service is not in force",
    ),
    ("zombie", "core-1.img", 0, "thread_core/seccomp_filter", N(&[1]), "there is no such filter"),
    ("zombie", "core-1.img", 0, "thread_core/seccomp_filter", Gone, "there is no such filter"),
    ("zombie", "seccomp.img", 0, "seccomp_filters/flags", N(&[8]), "let somebody else decide"),
    (
        "redis",
        "seccomp.img",
        0,
        "seccomp_filters/flags",
        N(&[0]),
        "the filter of the service is not in force",
    ),
    ("redis", "core-6.img", 0, "thread_core/seccomp_filter", N(&[0]), "a filter without its mode"),
    (
        "redis",
        "core-6.img",
        0,
        "thread_core/seccomp_mode",
        N(&[0]),
        "the filter of the service is not in force",
    ),
    ("zombie", "seccomp.img", 0, "seccomp_filters/prev", N(&[0]), "no filter before it"),
    ("zombie", "seccomp.img", 0, "seccomp_filters/filter", T("1234567"), "no program"),
    // BPF: return allow.
    (
        "zombie",
        "seccomp.img",
        0,
        "seccomp_filters/filter",
        B(&[6, 0, 0, 0, 0, 0, 0xff, 0x7f]),
        "system call 425 is not kept away",
    ),
    ("zombie", "core-1.img", 0, "thread_core/sched_policy", N(&[1]), "needs CAP_SYS_NICE"),
    ("zombie", "core-1.img", 0, "thread_core/sched_prio", N(&[50]), "needs CAP_SYS_NICE"),
    ("zombie", "core-1.img", 0, "thread_core/sched_nice", N(&[MINUS_ONE]), "less than 0"),
    ("zombie", "core-1.img", 0, "thread_core/pdeath_sig", N(&[65]), "pdeath_sig"),
    ("zombie", "core-1.img", 0, "thread_core/cg_set", N(&[1]), "no set 1 of cgroups"),
    ("zombie", "core-1.img", 0, "tc/cg_set", N(&[9]), "no set 9 of cgroups"),
    ("zombie", "core-1.img", 0, "tc/oom_score_adj", N(&[MINUS_ONE - 998]), "tc.oom_score_adj"),
    ("zombie", "core-1.img", 0, "tc/task_state", N(&[6]), "no state of a process"),
    ("zombie", "core-1.img", 0, "tc/personality", N(&[4]), "no personality"),
    ("zombie", "core-1.img", 0, "tc/rlimits/rlimits#6/cur", N(&[MINUS_ONE]), "tc.rlimits"),
    ("zombie", "core-1.img", 0, "tc/rlimits/rlimits#14/max", N(&[99]), "take priority over the host"),
    ("zombie", "core-1.img", 0, "tc/timers/real/vusec", N(&[1_000_000]), "a second has"),
    ("zombie", "core-1.img", 0, "tc", Gone, "tc in entry 1: it is missing"),
    ("zombie", "inventory.img", 0, "img_version", N(&[1]), "only version 2"),
    ("zombie", "inventory.img", 0, "lsmtype", N(&[7]), "lsmtype"),
    ("zombie", "inventory.img", 0, "ns_per_id", N(&[0]), "ns_per_id"),
    ("zombie", "inventory.img", 0, "dump_criu_run_id", T("../../run"), "it is no id"),
    // In which namespaces.
    ("zombie", "ids-1.img", 0, "net_ns_id", N(&[2]), "a namespace of the host"),
    ("zombie", "ids-1.img", 0, "mnt_ns_id", N(&[6]), "a namespace of the host"),
    ("zombie", "ids-1.img", 0, "pid_ns_id", N(&[1]), "a namespace of the host"),
    ("zombie", "ids-1.img", 0, "user_ns_id", N(&[7]), "a namespace of the host"),
    ("zombie", "ids-1.img", 0, "ipc_ns_id", Gone, "a namespace of the host"),
    ("memhog", "ids-7.img", 0, "uts_ns_id", N(&[99]), "in different namespaces"),
    ("zombie", "ids-1.img", 0, "files_id", N(&[9]), "fdinfo-2.img"),
    ("zombie", "utsns-12.img", 0, "nodename", T("gateway"), "is not \"zombie\""),
    ("zombie", "netns-10.img", 0, "ext_key", T("host"), "is not the network of a service"),
    ("zombie", "userns-15.img", 0, "uid_map/count", N(&[4_000_000_000]), "in one piece"),
    ("zombie", "userns-15.img", 0, "gid_map/first", N(&[1]), "in one piece"),
    ("zombie", "userns-15.img", 0, "uid_map", Twice, "in one piece"),
    ("zombie", "timens-13.img", 0, "boottime/tv_nsec", N(&[1_000_000_000]), "it is no time"),
    ("zombie", "ipcns-var-11.img", 0, "mq_queues_max", N(&[100_000]), "is more than 256"),
    ("zombie", "ipcns-var-11.img", 0, "sem_ctls", N(&[32_001, 1, 1, 1]), "more than the kernel gives"),
    // In which cgroups.
    ("zombie", "cgroup.img", 0, "sets/ctls#1/path", T("/"), "is not the cgroup of a service"),
    ("zombie", "cgroup.img", 0, "sets/ctls/path", T("/a/../../b"), "is not the cgroup of a service"),
    ("zombie", "cgroup.img", 0, "sets/ctls/cgns_prefix", N(&[0]), "not the root of what"),
    ("zombie", "cgroup.img", 0, "sets/ctls/name", T("../x"), "is no controller"),
    (
        "zombie",
        "cgroup.img",
        0,
        "controllers/dirs/dir_name",
        T("system.slice"),
        "is not the cgroup of the service",
    ),
    (
        "zombie",
        "cgroup.img",
        0,
        "controllers/dirs/properties/name",
        T("../../release_agent"),
        "no file of a cgroup",
    ),
    ("zombie", "cgroup.img", 0, "controllers/cnames", T("a/b"), "is no controller"),
    ("zombie", "cgroup.img", 0, "sets", Twice, "2 is there twice"),
    // What is mounted.
    ("zombie", "mountpoints-14.img", 28, "mountpoint", T("/etc"), "nothing is mounted at /etc"),
    ("zombie", "mountpoints-14.img", 20, "mountpoint", T("/etc/../proc"), "no path inside of the service"),
    ("zombie", "mountpoints-14.img", 20, "mountpoint", T("/proc"), "a mount of the service's own"),
    ("zombie", "mountpoints-14.img", 20, "ext_key", T("/etc"), "where \"/etc/hosts\" belongs"),
    ("zombie", "mountpoints-14.img", 20, "ext_key", Gone, "where \"/etc/hosts\" belongs"),
    ("zombie", "mountpoints-14.img", 20, "root", T("/ums/../../etc"), "is no path"),
    ("zombie", "mountpoints-14.img", 20, "shared_id", N(&[7]), "pass mounts on"),
    ("zombie", "mountpoints-14.img", 20, "master_id", N(&[7]), "pass mounts on"),
    ("zombie", "mountpoints-14.img", 20, "flags", N(&[0x1000]), "more than it may"),
    ("zombie", "mountpoints-14.img", 4, "flags", N(&[0x20_0000]), "lacks some of 0x1"),
    ("zombie", "mountpoints-14.img", 4, "root", T("/"), "where \"/sys\" belongs"),
    ("zombie", "mountpoints-14.img", 4, "fstype", N(&[2]), "2 is not proc"),
    ("zombie", "mountpoints-14.img", 2, "ext_key", T("/dev/sda"), "where /dev/null belongs"),
    ("zombie", "mountpoints-14.img", 0, "flags", N(&[0x20_0000]), "it masks nothing"),
    ("zombie", "mountpoints-14.img", 23, "sb_flags", N(&[0x4000_0000]), "more than it may"),
    ("zombie", "mountpoints-14.img", 25, "options", T("context=system_u"), "no option of a mount"),
    ("zombie", "mountpoints-14.img", 26, "source", T("/dev/sda1"), "is no name"),
    ("zombie", "mountpoints-14.img", 20, "parent_mnt_id", N(&[131]), "hangs on another mount"),
    ("zombie", "mountpoints-14.img", 28, "parent_mnt_id", N(&[131]), "is the root, and hangs on"),
    ("zombie", "mountpoints-14.img", 20, "mnt_id", N(&[131]), "131 is there twice"),
    // What is open.
    ("redis", "files.img", 1, "reg/name", T("/usr/../../etc/shadow"), "no path inside of the service"),
    ("redis", "files.img", 1, "reg/name", T("etc/shadow"), "no path inside of the service"),
    ("redis", "files.img", 1, "reg/flags", N(&[0o1101]), "make or change a file"),
    ("redis", "files.img", 1, "reg/mnt_id", N(&[9999]), "there is no mount 9999"),
    ("redis", "files.img", 1, "reg/mode", N(&[0o060_660]), "a device with blocks"),
    ("redis", "files.img", 1, "reg/mode", N(&[0o020_660]), "no device that a service has"),
    ("redis", "files.img", 1, "reg/id", N(&[7]), "it has two ids"),
    ("redis", "files.img", 1, "id", N(&[1]), "1 is there twice"),
    ("redis", "files.img", 1, "type", N(&[10]), "has files of kind 10"),
    ("redis", "files.img", 1, "type", N(&[2]), "something else than its kind"),
    ("redis", "files.img", 1, "reg/fown/uid", N(&[70_000]), "fown.uid"),
    ("redis", "files.img", 1, "reg/fown/pid", N(&[5_000_000]), "is more than"),
    ("redis", "fdinfo-2.img", 0, "id", N(&[9999]), "is not there"),
    ("redis", "fdinfo-2.img", 1, "fd", N(&[0]), "descriptor 0 is there twice"),
    ("redis", "fs-1.img", 0, "root_id", N(&[19]), "is no directory"),
    ("redis", "mm-1.img", 0, "exe_file_id", N(&[19]), "that could be executed"),
    // Sockets: an address of the host, other kinds, other ends.
    ("redis", "files.img", 25, "isk/src_addr", N(&[0x0100_000a]), "no address of the service"),
    ("redis", "files.img", 25, "isk/src_addr", N(&[0, 0, 0, 0]), "no address of the service"),
    ("redis", "files.img", 25, "isk/family", N(&[17]), "not the internet"),
    ("redis", "files.img", 25, "isk/type", N(&[10]), "no kind of socket"),
    ("redis", "files.img", 25, "isk/proto", N(&[132]), "is not TCP"),
    ("redis", "files.img", 25, "isk/ns_id", N(&[2]), "in another network"),
    ("redis", "files.img", 25, "isk/opts/so_mark", N(&[1]), "needs CAP_NET_ADMIN"),
    ("redis", "files.img", 25, "isk/opts/so_rcvbuf", N(&[0x7fff_ffff]), "is more than"),
    ("zombie", "files.img", 6, "usk/uflags", N(&[1]), "outside of the service"),
    ("zombie", "files.img", 6, "usk/name", T("/run/../../x"), "it climbs"),
    ("zombie", "files.img", 6, "usk/name_dir", T("../x"), "no path inside of the service"),
    // Memory.
    ("redis", "mm-1.img", 0, "vmas#1/start", N(&[0x123]), "is not in a process"),
    ("redis", "mm-1.img", 0, "vmas/end", N(&[0xffff_8000_0000_0000]), "is not in a process"),
    ("redis", "mm-1.img", 0, "vmas/status", N(&[1 << 27]), "no mapping of a service"),
    ("redis", "mm-1.img", 0, "vmas/prot", N(&[0x40]), "is no protection"),
    ("redis", "mm-1.img", 0, "vmas", Twice, "overlap"),
];

/// Those of page maps, and where an image may have more or less of itself.
const MORE: [Forgery; 9] = [
    ("redis", "pagemap-1.img", 1, "flags", N(&[1]), "not all here"),
    ("redis", "pagemap-1.img", 1, "flags", N(&[2]), "not all here"),
    ("redis", "pagemap-1.img", 1, "vaddr", N(&[0x1000]), "nothing is mapped"),
    ("redis", "pagemap-1.img", 1, "nr_pages", N(&[0]), "are not in a process"),
    ("redis", "pagemap-1.img", 1, "nr_pages", N(&[1 << 60]), "are not in a process"),
    ("redis", "pagemap-1.img", 0, "pages_id", N(&[2]), "belong to it"),
    ("memhog", "pagemap-7.img", 0, "pages_id", N(&[1]), "another map already"),
    ("redis", "tcp-stream-1d6d8.img", 0, "outq_len", N(&[4]), "it ends in the middle"),
    ("redis", "pipes-data.img", 0, "pipe_id", N(&[1]), "there is no pipe 1"),
];

/// Puts something into a field: `a/b#2/c` is field `c` of the third `b` of `a`.
fn forge(mut message: &mut Message, path: &str, what: &What) {
    let mut parts: Vec<&str> = path.split('/').collect();
    let last = parts.pop().unwrap();
    for part in parts {
        let (name, index) = part.split_once('#').unwrap_or((part, "0"));
        message = message.all_mut(name).nth(index.parse().unwrap()).unwrap();
    }
    let (name, _) = last.split_once('#').unwrap_or((last, "0"));
    match what {
        N(numbers) => message.set(name, numbers.iter().map(|number| Value::Number(*number))),
        T(text) => message.set(name, [Value::Bytes(text.as_bytes().into())]),
        B(bytes) => message.set(name, [Value::Bytes((*bytes).into())]),
        Gone => message.set(name, []),
        Twice => {
            let mut all: Vec<Value> = message.list(name).cloned().map(Value::from).collect();
            all.extend(all.first().cloned());
            message.set(name, all);
        }
    }
}

#[test]
fn every_lie_about_a_field_is_refused_with_its_reason() {
    let mut wrong = Vec::new();
    for (service, image, entry, path, what, expected) in FORGERIES.iter().chain(&MORE) {
        let whole = Dump::of(service);
        let mut dump = whole.clone();
        dump.edit(image, |entries: &mut Vec<Entry>| forge(&mut entries[*entry].message, path, what));
        assert_ne!(dump.files[*image], whole.files[*image], "{image} {path}: nothing was changed");
        match dump.take(&dump.admission()) {
            Ok(_) => wrong.push(format!("{image} entry {entry} {path}: admitted")),
            Err(error) if error.to_string().contains(expected) => {}
            Err(error) => wrong.push(format!("{image} entry {entry} {path}: {error}, not {expected:?}")),
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
