//! What CRIU's error messages mean: one row per cause.

/// One cause: words that identify its message, what it means, what to do.
pub(super) struct Cause {
    /// All of them must occur in the line. The first is a fixed part of a message of CRIU.
    pub(super) words: &'static [&'static str],
    pub(super) cause: &'static str,
    pub(super) remedy: &'static str,
}

/// Used where the message is in no row.
pub(super) const UNKNOWN: Cause = Cause {
    words: &[],
    cause: "CRIU reports an error that is not known here",
    remedy: "read the end of its log",
};

/// Used where there is no message at all.
pub(super) const SILENT: Cause = Cause {
    words: &[],
    cause: "CRIU failed without saying why",
    remedy: "read the end of its log; look for a CRIU that was killed (out of memory, disk full) in the kernel log",
};

/// The first row that matches wins: special ones stand before general ones.
pub(super) const CAUSES: &[Cause] = &[
    Cause {
        words: &["Unable to detach from"],
        cause: "a process of the service is traced by another one (a debugger, strace)",
        remedy: "end the tracer, then try again",
    },
    Cause {
        words: &["Can't dump file", "io_uring"],
        cause: "a process uses io_uring, which cannot be dumped",
        remedy: "start the service in an UMS nest, which keeps io_uring away from it, or turn it off in its configuration",
    },
    // Since Linux 6.7 the kernel refuses to pass this one kind of descriptor on, before CRIU can see what it is.
    Cause {
        words: &["send_fds failed", "(-22)"],
        cause: "a process uses io_uring, which cannot be dumped",
        remedy: "start the service in an UMS nest, which keeps io_uring away from it, or turn it off in its configuration",
    },
    Cause {
        words: &["Can't handle non-regular mapping", "io_uring"],
        cause: "a process has mapped an io_uring, which cannot be dumped",
        remedy: "start the service in an UMS nest, which keeps io_uring away from it, or turn it off in its configuration",
    },
    Cause {
        words: &["Can't dump file", "userfaultfd"],
        cause: "a process uses userfaultfd itself, which cannot be dumped",
        remedy: "turn off the feature that needs it, or stop that process first",
    },
    Cause {
        words: &["Can't dump file", "perf_event"],
        cause: "a process holds a performance counter, which cannot be dumped",
        remedy: "stop the profiler, then try again",
    },
    Cause {
        words: &["Can't dump file", "bpf"],
        cause: "a process holds a BPF program or link, which cannot be dumped",
        remedy: "stop the process that holds it; it cannot move",
    },
    Cause {
        words: &["Can't dump file", "/dev/"],
        cause: "a process has opened a device that cannot move",
        remedy: "close the device, or run the service without it",
    },
    Cause {
        words: &["Can't dump file"],
        cause: "a process holds a descriptor of a kind that cannot be dumped",
        remedy: "the line names it; close it, or stop the process that holds it",
    },
    Cause {
        words: &["inet: In-flight connection"],
        cause: "a connection is established but not yet accepted by the service",
        remedy: "try again: it is gone as soon as the service has accepted it",
    },
    Cause {
        words: &["inet: Connected TCP socket, consider"],
        cause: "there are established TCP connections, and CRIU was not allowed to dump them",
        remedy: "allow established connections",
    },
    Cause {
        words: &["inet: For Go programs, consider"],
        cause: "a socket uses multipath TCP, which cannot be dumped",
        remedy: "start the service with net.mptcp.enabled=0, for Go programs with GODEBUG=multipathtcp=0",
    },
    Cause {
        words: &["inet: Can't dump corked dgram socket"],
        cause: "a UDP socket is corked: it holds data that it has not sent yet",
        remedy: "try again in a moment",
    },
    Cause {
        words: &["inet: Unsupported proto"],
        cause: "a socket uses a protocol that cannot be dumped (such as SCTP, DCCP or multipath TCP)",
        remedy: "run the service without that protocol",
    },
    Cause {
        words: &["inet: Can't dump", "Only stream, dgram and raw are supported"],
        cause: "a socket is of a kind that cannot be dumped",
        remedy: "run the service without it",
    },
    Cause {
        words: &["TCP_REPAIR can't be enabled for half-closed sockets"],
        cause: "a TCP connection is half closed, which this kernel cannot take out",
        remedy: "try again when the connection has ended",
    },
    Cause {
        words: &["Unknown socket family"],
        cause: "a socket is of a family that cannot be dumped (such as vsock, AF_ALG or AF_XDP)",
        remedy: "run the service without it",
    },
    Cause {
        words: &["sockets: Can't get", "Operation not supported"],
        cause: "this CRIU is too old for this kernel: it asks sockets for options that they no longer have",
        remedy: "use CRIU 4.2.1 or newer",
    },
    Cause {
        words: &["unix: External socket is used"],
        cause: "a unix socket is connected to a process outside of the service",
        remedy: "close that connection (logging and message bus sockets are common), or move both ends together",
    },
    Cause {
        words: &["unix: Can't dump half of stream unix connection"],
        cause: "a unix stream socket is connected to a process outside of the service",
        remedy: "close that connection (logging and message bus sockets are common), or move both ends together",
    },
    Cause {
        words: &["unix: Unix socket", "without peer"],
        cause: "a unix socket is connected to a process outside of the service",
        remedy: "close that connection (logging and message bus sockets are common), or move both ends together",
    },
    Cause {
        words: &["unix: Unix socket", "with unreachable peer"],
        cause: "a unix socket is connected to a process outside of the service",
        remedy: "close that connection (logging and message bus sockets are common), or move both ends together",
    },
    Cause {
        words: &["unix: Can't dump name-less external socket"],
        cause: "a unix socket is connected to a process outside of the service",
        remedy: "close that connection, or move both ends together",
    },
    Cause {
        words: &["unix: Non-empty write queue on an in-flight socket"],
        cause: "data waits in a unix connection that is not accepted yet",
        remedy: "try again: it is gone as soon as the service has accepted it",
    },
    Cause {
        words: &["skqueue: Control messages in queue"],
        cause: "a message with control data (such as a passed descriptor) waits in a unix socket",
        remedy: "try again in a moment",
    },
    Cause {
        words: &["netlink: The socket has data to read"],
        cause: "a netlink socket has data that was not read",
        remedy: "try again in a moment",
    },
    Cause {
        words: &["netlink: The netlink socket"],
        cause: "a netlink socket is subscribed to groups in a way that cannot be dumped",
        remedy: "stop the process that watches the network configuration",
    },
    Cause {
        words: &["Can't lookup mount="],
        cause: "a process has a file open that is on no mount of the service, inherited from whoever started it",
        remedy: "start the service with clean descriptors, as an UMS nest does",
    },
    Cause {
        words: &["Unseizable non-zombie"],
        cause: "a task cannot be stopped: it is traced (debugger, strace) or stuck in the kernel",
        remedy: "end the debugger or tracer, then try again",
    },
    Cause {
        words: &["task not stopped after seize"],
        cause: "a task did not stop in time: it is stuck in the kernel",
        remedy: "look for slow or dead file systems and devices, then try again",
    },
    Cause {
        words: &["Timeout reached. Try to interrupt"],
        cause: "the tasks could not all be stopped in time",
        remedy: "look for tasks stuck in the kernel (state D), then try again",
    },
    Cause {
        words: &["fsnotify: ", "Can't dump that handle"],
        cause: "a process watches files (inotify, fanotify) on a file system that cannot name them, such as overlayfs",
        remedy: "turn off file watching in the service, or put the watched files on a volume",
    },
    Cause {
        words: &["fsnotify: Can't find suitable path for handle"],
        cause: "a process watches a file (inotify, fanotify) whose path cannot be found again",
        remedy: "turn off file watching in the service",
    },
    Cause {
        words: &["irmap: Failed to resolve"],
        cause: "a process watches a file (inotify, fanotify) whose path cannot be found again",
        remedy: "turn off file watching in the service",
    },
    Cause {
        words: &["Can't dump ghost file"],
        cause: "a process holds a deleted file open that is larger than what goes into the images",
        remedy: "let the service close it (often a rotated log), then try again",
    },
    Cause {
        words: &["Can't create link remap for"],
        cause: "a process holds a file open whose name was removed",
        remedy: "let the service close it, then try again",
    },
    Cause {
        words: &["has bad size"],
        cause: "a file that was open or mapped is not the same at the destination",
        remedy: "give both sites the same image and the same volume content",
    },
    Cause {
        words: &["has bad build-ID"],
        cause: "a program or library is not the same at the destination",
        remedy: "give both sites the same image",
    },
    Cause {
        words: &["Can't open file", "No such file or directory"],
        cause: "a file that was open or mapped does not exist at the destination",
        remedy: "give both sites the same image and volumes",
    },
    Cause {
        words: &["cpu: FPU feature required by image"],
        cause: "the destination's CPU lacks a feature that the service has in use",
        remedy: "choose a destination with the same or a newer CPU",
    },
    Cause {
        words: &["cpu: CPU"],
        cause: "the destination's CPU lacks a feature that the service may have in use",
        remedy: "choose a destination with the same or a newer CPU",
    },
    Cause {
        words: &["Can't fork for", "File exists"],
        cause: "a process number that the service needs is taken",
        remedy: "restore into a new pid namespace; a zombie of an earlier copy counts as well",
    },
    Cause {
        words: &["Pid", "do not match expected"],
        cause: "a process number that the service needs is taken",
        remedy: "restore into a new pid namespace; a zombie of an earlier copy counts as well",
    },
    Cause {
        words: &["This process tree can only be restored in a new pid namespace"],
        cause: "process numbers of the service are taken here",
        remedy: "restore into a new pid namespace",
    },
    Cause {
        words: &["Can't setns"],
        cause: "CRIU may not enter a namespace that the service is to live in",
        remedy: "the namespace must belong to the user namespace in which CRIU restores, or CRIU needs more rights",
    },
    Cause {
        words: &["mnt: No mapping for"],
        cause: "a mount of the service is not provided at the destination",
        remedy: "give the destination the same volumes and mounts as the source",
    },
    Cause {
        words: &["doesn't have a proper root mount"],
        cause: "the service has a mount from outside (a volume, a device) of which CRIU was not told",
        remedy: "declare it as a volume, or unmount it",
    },
    Cause {
        words: &["is autodetected external mount"],
        cause: "the service has a mount from outside (a volume, a device) of which CRIU was not told",
        remedy: "declare it as a volume, or unmount it",
    },
    Cause {
        words: &["is a fuse mount but not external"],
        cause: "the service has mounted a FUSE file system itself",
        remedy: "mount it outside and give it to the service as a volume",
    },
    Cause {
        words: &["has unreachable sharing"],
        cause: "a mount of the service shares its changes with mounts outside",
        remedy: "make the mount private",
    },
    Cause {
        words: &["Open files on overmounted mounts"],
        cause: "a process has a file open that is hidden below another mount",
        remedy: "let the service close it, or unmount what hides it",
    },
    Cause {
        words: &["suspending seccomp failed"],
        cause: "CRIU may not suspend the seccomp filter of the service: it runs under a filter or in a user namespace itself",
        remedy: "run the nest without a seccomp profile (seccomp=unconfined)",
    },
    Cause {
        words: &["couldn't suspend seccomp"],
        cause: "CRIU may not suspend the seccomp filter of the service: it runs under a filter or in a user namespace itself",
        remedy: "run the nest without a seccomp profile (seccomp=unconfined)",
    },
    Cause {
        words: &["Kernel doesn't support PTRACE_O_SUSPEND_SECCOMP"],
        cause: "the service has a seccomp filter, and this kernel cannot suspend it",
        remedy: "run the service without a filter, or use a kernel with CONFIG_CHECKPOINT_RESTORE",
    },
    Cause {
        words: &["Dumping seccomp filters not supported"],
        cause: "the service has a seccomp filter, and this kernel cannot read it out",
        remedy: "run the service without a filter, or use a kernel with CONFIG_CHECKPOINT_RESTORE",
    },
    Cause {
        words: &["Can't dump nested"],
        cause: "the service has namespaces of its own inside",
        remedy: "services that run containers or sandboxes themselves cannot move",
    },
    Cause {
        words: &["One or more namespaces doesn't belong to the target user namespace"],
        cause: "the service's namespaces belong to different user namespaces",
        remedy: "start the service in an UMS nest",
    },
    Cause {
        words: &["Can't dump a pid namespace without the process init"],
        cause: "the service has no pid namespace of its own, or its first process is gone",
        remedy: "start the service in an UMS nest",
    },
    Cause {
        words: &["A session leader of"],
        cause: "the service belongs to a session that began outside of it",
        remedy: "start the service in an UMS nest, not from a terminal",
    },
    Cause {
        words: &["tty: Found dangling tty"],
        cause: "the service uses a terminal that belongs to the host",
        remedy: "start the service without a terminal",
    },
    Cause {
        words: &["tty: Found slave peer index"],
        cause: "the service uses a terminal whose other end is outside",
        remedy: "start the service without a terminal",
    },
    Cause {
        words: &["Some file locks are hold by dumping tasks"],
        cause: "the service holds file locks, and CRIU was not allowed to dump them",
        remedy: "allow file locks",
    },
    Cause {
        words: &["Sysv shmem", "hole not supported"],
        cause: "a System V shared memory segment is mapped in parts, which cannot be dumped",
        remedy: "stop the process that uses it",
    },
    Cause {
        words: &["has uprobes vma"],
        cause: "a process is traced by uprobes",
        remedy: "stop the tracer (perf, bpftrace), then try again",
    },
    Cause {
        words: &["running in 32-bit mode"],
        cause: "a process is a 32-bit program",
        remedy: "only 64-bit programs can move",
    },
    Cause {
        words: &["Core march mismatch"],
        cause: "the images are from a machine of another architecture",
        remedy: "choose a destination with the same architecture",
    },
    Cause {
        words: &["Not supported images version"],
        cause: "the images were written by a CRIU that this one does not understand",
        remedy: "use the same version of CRIU at both sites",
    },
    Cause {
        words: &["cg: Can't move"],
        cause: "CRIU may not put the restored tasks into their cgroup",
        remedy: "the cgroup must exist and be writable at the destination",
    },
    Cause {
        words: &["cg: Cgroup dir"],
        cause: "a cgroup of the service does not exist at the destination",
        remedy: "both sites need the same cgroup version",
    },
    Cause {
        words: &["inet: Can't bind inet socket"],
        cause: "an address that the service is bound to does not exist, or is taken, at the destination",
        remedy: "the inner addresses of both sites must be the same",
    },
    Cause {
        words: &["Time namespaces are not supported"],
        cause: "the kernel has no time namespaces, which the service needs",
        remedy: "use a kernel with CONFIG_TIME_NS",
    },
    Cause {
        words: &["Can't obtain FPU registers"],
        cause: "the CPU state of a task cannot be read",
        remedy: "use a newer CRIU or kernel",
    },
    Cause {
        words: &["Unable to reserve memory"],
        cause: "there is not enough memory",
        remedy: "free memory, or raise the limits of the service's cgroup",
    },
    Cause {
        words: &["No space left on device"],
        cause: "the memory or disk that the images go to is full",
        remedy: "free memory, or give the images more of it",
    },
    Cause {
        words: &["Can't restore pipe size"],
        cause: "the pipes of the service would hold more memory than one user may have in pipes here",
        remedy: "raise fs.pipe-user-pages-soft with sysctl, or run fewer services with many pipes on this host",
    },
    Cause {
        words: &["Cannot allocate memory"],
        cause: "there is not enough memory",
        remedy: "free memory, or raise the limits of the service's cgroup",
    },
];

/// The row for a line of the log.
pub(super) fn explain(line: &str) -> Option<&'static Cause> {
    CAUSES.iter().find(|cause| cause.words.iter().all(|words| line.contains(words)))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Parts of messages that come from the kernel's error texts, not from CRIU.
    const FROM_ERRNO: &[&str] = &["No space left on device", "Cannot allocate memory"];

    #[test]
    fn special_rows_come_before_general_ones() {
        for (index, row) in CAUSES.iter().enumerate() {
            let line = row.words.join(" ");
            let first = CAUSES.iter().position(|other| other.words.iter().all(|words| line.contains(words)));
            assert_eq!(first, Some(index), "{line:?} is shadowed");
        }
    }

    /// A new CRIU that words its messages differently makes this fail, and the table must follow.
    #[test]
    fn every_row_is_a_message_of_the_installed_criu() {
        let path =
            crate::tools::locate(crate::tools::Tool::Criu).expect("this test needs a CRIU to look into");
        let program = std::fs::read(path).unwrap();
        for row in CAUSES.iter().filter(|row| !FROM_ERRNO.contains(&row.words[0])) {
            let words = row.words[0].as_bytes();
            assert!(program.windows(words.len()).any(|window| window == words), "{:?}", row.words[0]);
        }
    }
}
