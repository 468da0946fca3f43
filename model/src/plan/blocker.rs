//! What a process may hold that CRIU cannot dump or restore, each with its remedy.

use serde::{Deserialize, Serialize};

/// Something found on one process of the service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessBlocker {
    /// Process id as the site sees it.
    pub pid: u32,
    /// What kind of thing.
    pub kind: BlockerKind,
    /// Which one: a descriptor, a path, a flag.
    pub detail: String,
}

words! {
    /// Kinds of things that cannot be dumped or restored.
    pub enum BlockerKind ("kind of blocker") {
        /// An io_uring instance.
        IoUring = "io-uring",
        /// A userfaultfd that the program itself uses.
        Userfaultfd = "userfaultfd",
        /// A perf, bpf, secretmem, dma-buf or other anonymous kernel object.
        AnonInode = "anon-inode",
        /// A character device beyond null, zero, full, random, urandom, tty.
        CharDevice = "char-device",
        /// A socket of a family or protocol that cannot be saved: MPTCP, SCTP, DCCP, vsock, AF_ALG, AF_XDP.
        SocketFamily = "socket-family",
        /// A netlink socket that has joined groups.
        NetlinkGroups = "netlink-groups",
        /// A listening socket with connections that were not accepted yet. Passes by itself.
        AcceptQueue = "accept-queue",
        /// A unix socket whose other end is outside of the service.
        UnixPeer = "unix-peer",
        /// Data in a unix connection that was not accepted yet, or descriptors on their way through one.
        UnixInFlight = "unix-in-flight",
        /// A corked UDP socket.
        CorkedUdp = "corked-udp",
        /// An inotify watch on an overlay file system.
        InotifyOverlay = "inotify-overlay",
        /// A mount or pid namespace inside of the service's own.
        NestedNamespace = "nested-namespace",
        /// A FUSE or autofs mount.
        UserspaceMount = "userspace-mount",
        /// A mount from outside that UMS did not make.
        ForeignMount = "foreign-mount",
        /// A deleted file that is still open and too large to be carried along.
        GhostFile = "ghost-file",
        /// A terminal of the host.
        HostTty = "host-tty",
        /// A process that is being traced.
        Traced = "traced",
        /// A process in uninterruptible sleep. Passes by itself, as a rule.
        Uninterruptible = "uninterruptible",
        /// A System V shared memory segment with holes.
        SysvShmHole = "sysv-shm-hole",
        /// Huge pages that were mapped explicitly.
        HugePages = "huge-pages",
        /// An AIO ring with requests under way.
        AioRing = "aio-ring",
        /// A user-space probe of a tracer.
        Uprobe = "uprobe",
        /// A process of another architecture, for example 32-bit.
        Architecture = "architecture",
        /// A security profile (AppArmor, SELinux) that the destination does not know.
        SecurityProfile = "security-profile",
        /// A seccomp filter that cannot be suspended here.
        Seccomp = "seccomp",
        /// Something else that a newer version knows by name; the detail says what.
        Other = "other",
    }
    else Other
}

impl BlockerKind {
    /// What it is, as the object of "process 7 holds ...".
    pub const fn words(self) -> &'static str {
        match self {
            Self::IoUring => "holds an io_uring",
            Self::Userfaultfd => "holds a userfaultfd of its own",
            Self::AnonInode => "holds a kernel object that cannot be saved",
            Self::CharDevice => "holds a character device",
            Self::SocketFamily => "holds a socket of a kind that cannot be saved",
            Self::NetlinkGroups => "listens to netlink groups",
            Self::AcceptQueue => "has connections that it has not accepted yet",
            Self::UnixPeer => "is connected by a unix socket to something outside of the service",
            Self::UnixInFlight => "has data or descriptors in flight on a unix socket",
            Self::CorkedUdp => "holds a corked UDP socket",
            Self::InotifyOverlay => "watches files on an overlay file system",
            Self::NestedNamespace => "lives in a nested mount or pid namespace",
            Self::UserspaceMount => "sees a FUSE or autofs mount",
            Self::ForeignMount => "sees a mount that UMS did not make",
            Self::GhostFile => "holds a large deleted file",
            Self::HostTty => "uses a terminal of the host",
            Self::Traced => "is being traced",
            Self::Uninterruptible => "is in uninterruptible sleep",
            Self::SysvShmHole => "has System V shared memory with holes",
            Self::HugePages => "has mapped huge pages",
            Self::AioRing => "has asynchronous I/O under way",
            Self::Uprobe => "carries a probe of a tracer",
            Self::Architecture => "is of another architecture",
            Self::SecurityProfile => "is confined by a profile that the destination lacks",
            Self::Seccomp => "has a seccomp filter that cannot be suspended here",
            Self::Other => "holds something that cannot be saved",
        }
    }

    /// What to do about it.
    pub const fn remedy(self) -> &'static str {
        match self {
            Self::IoUring => "switch io_uring off in the program (most fall back to epoll) and restart it",
            Self::Userfaultfd => "switch off what uses userfaultfd in the program and restart it",
            Self::AnonInode | Self::Other => "close it, or run the service without what opens it",
            Self::CharDevice => "run the service without the device",
            Self::SocketFamily => {
                "use TCP, UDP or unix sockets; for MPTCP set net.mptcp.enabled=0 before the start"
            }
            Self::NetlinkGroups => "switch off what watches the network configuration in the program",
            Self::AcceptQueue | Self::UnixInFlight | Self::Uninterruptible | Self::AioRing => {
                "try again: it passes by itself when the program goes on"
            }
            Self::UnixPeer => "disconnect it, or move the other end into the same service",
            Self::CorkedUdp => "uncork the socket in the program",
            Self::InotifyOverlay => "watch files on a volume instead: ums run -v NAME:/path",
            Self::NestedNamespace => "run without inner sandboxes or containers",
            Self::UserspaceMount => "unmount it, or make it a site mount that both sites have",
            Self::ForeignMount => "unmount it, or declare it as a volume or a site mount",
            Self::GhostFile => "close the deleted file, for example by rotating logs, or restart the program",
            Self::HostTty => "start the service without a terminal of the host",
            Self::Traced => "detach the debugger or tracer",
            Self::SysvShmHole => "use shared memory without holes, or POSIX shared memory",
            Self::HugePages => "switch explicit huge pages off in the program",
            Self::Uprobe => "remove the probe",
            Self::Architecture => "use a 64-bit x86 build of the program",
            Self::SecurityProfile => "load the profile at the destination, or run the service unconfined",
            Self::Seccomp => {
                "run the service without a filter of its own, or the nest with seccomp=unconfined"
            }
        }
    }
}
