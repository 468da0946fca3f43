//! What processes have open.

use std::collections::{BTreeMap, HashSet};
use std::fs::{self, Metadata};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

use rustix::fs::statfs;
use ums_model::names::Bytes;
use ums_model::plan::BlockerKind;

use super::Tree;
use super::devices::{Device, character, number};
use super::findings::Findings;
use super::mounts::Mounts;
use super::process::{Process, numbers, path, read};

/// Kernel objects without a name that CRIU knows.
const KNOWN_OBJECTS: [&str; 6] =
    ["[eventfd]", "[eventpoll]", "[signalfd]", "[timerfd]", "[fanotify]", "inotify"];

/// The open descriptors of all processes of a service.
#[derive(Debug)]
pub(super) struct Descriptors {
    /// By process.
    open: BTreeMap<i32, Vec<Descriptor>>,
}

/// One open descriptor.
#[derive(Debug)]
pub(super) struct Descriptor {
    pub(super) number: i32,
    /// What it is, as the kernel writes it: a path, `socket:[7]` and so on.
    pub(super) link: String,
}

impl Descriptors {
    pub(super) fn of(tree: &Tree) -> Self {
        let open = tree.living().map(|process| (process.pid, Descriptor::all(process.pid))).collect();
        Self { open }
    }

    /// Of one process.
    pub(super) fn in_process(&self, pid: i32) -> &[Descriptor] {
        self.open.get(&pid).map_or(&[], Vec::as_slice)
    }

    /// All that are sockets: the holder, the descriptor, the inode.
    pub(super) fn sockets(&self) -> impl Iterator<Item = (i32, &Descriptor, u64)> {
        self.open.iter().flat_map(|(pid, descriptors)| {
            descriptors.iter().filter_map(|one| Some((*pid, one, one.socket()?)))
        })
    }
}

impl Descriptor {
    fn all(pid: i32) -> Vec<Self> {
        let Ok(entries) = fs::read_dir(path(pid, "fd")) else { return Vec::new() };
        let mut all: Vec<Self> = numbers(entries)
            .filter_map(|number| {
                let link = fs::read_link(path(pid, &format!("fd/{number}"))).ok()?;
                Some(Self { number, link: link.to_string_lossy().into_owned() })
            })
            .collect();
        all.sort_unstable_by_key(|one| one.number);
        all
    }

    /// Its inode, if it is a socket.
    pub(super) fn socket(&self) -> Option<u64> {
        self.link.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok()
    }

    fn metadata(&self, pid: i32) -> Option<Metadata> {
        fs::metadata(path(pid, &format!("fd/{}", self.number))).ok()
    }

    fn info(&self, pid: i32, field: &str) -> Option<i64> {
        let info = read(pid, &format!("fdinfo/{}", self.number))?;
        info.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'))?.trim().parse().ok()
    }
}

/// Memory that has a name in `/proc`, but no file system that anybody mounted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kept {
    /// memfd, System V shared memory, shared anonymous memory, AIO rings.
    Memory,
    /// Anonymous memory in huge pages.
    HugePages,
    /// Memory that even the kernel does not read.
    Secret,
}

/// Whether a name is one that the kernel gives to what has no file.
pub(super) fn kept_by_kernel(name: &str) -> Option<Kept> {
    if name.starts_with("/anon_hugepage") {
        Some(Kept::HugePages)
    } else if name.starts_with("/secretmem") {
        Some(Kept::Secret)
    } else if ["/memfd:", "/SYSV", "/dev/zero (deleted)", "/[aio]"]
        .iter()
        .any(|prefix| name.starts_with(prefix))
    {
        Some(Kept::Memory)
    } else {
        None
    }
}

/// Whether what a path leads to lies in huge pages.
pub(super) fn is_in_huge_pages(file: &Path) -> bool {
    /// What `statfs` says of files in huge pages.
    const HUGETLBFS: u64 = 0x9584_58f6;
    statfs(file).is_ok_and(|stat| stat.f_type as u64 == HUGETLBFS)
}

/// The size of a file without a name, which CRIU carries in its images. Holes are not carried.
pub(super) fn ghost_size(metadata: &Metadata) -> Option<Bytes> {
    (metadata.is_file() && metadata.nlink() == 0).then(|| Bytes(metadata.blocks().saturating_mul(512)))
}

pub(super) fn check(
    tree: &Tree,
    descriptors: &Descriptors,
    mounts: &Mounts,
    ghost_limit: Bytes,
    findings: &mut Findings,
) {
    let mut ghosts = HashSet::new();
    for process in tree.living() {
        for descriptor in descriptors.in_process(process.pid) {
            let link = descriptor.link.as_str();
            if let Some(object) = link.strip_prefix("anon_inode:") {
                kernel_object(tree, process, descriptor, object, findings);
            } else if link.starts_with("pidfd:") {
                process_handle(tree, process, descriptor, findings);
            } else if link.starts_with('/') {
                file(process, descriptor, mounts, ghost_limit, &mut ghosts, findings);
            }
        }
    }
}

fn kernel_object(
    tree: &Tree,
    process: &Process,
    descriptor: &Descriptor,
    object: &str,
    findings: &mut Findings,
) {
    let detail = format!("descriptor {} is {object}", descriptor.number);
    match object {
        "[io_uring]" => findings.add(process, BlockerKind::IoUring, detail),
        "[userfaultfd]" => findings.add(process, BlockerKind::Userfaultfd, detail),
        "[pidfd]" => process_handle(tree, process, descriptor, findings),
        known if KNOWN_OBJECTS.contains(&known) => {}
        _ => findings.add(process, BlockerKind::AnonInode, detail),
    }
}

/// A pidfd can be saved if its process is one of the service's, or none any more.
fn process_handle(tree: &Tree, process: &Process, descriptor: &Descriptor, findings: &mut Findings) {
    const DEAD: i64 = -1;
    let Some(pid) = descriptor.info(process.pid, "Pid").filter(|pid| *pid != DEAD) else { return };
    let inside = i32::try_from(pid).is_ok_and(|pid| tree.pids.binary_search(&pid).is_ok());
    if !inside {
        let detail =
            format!("descriptor {} is a pidfd of process {pid}, which is outside", descriptor.number);
        findings.add(process, BlockerKind::AnonInode, detail);
    }
}

fn file(
    process: &Process,
    descriptor: &Descriptor,
    mounts: &Mounts,
    ghost_limit: Bytes,
    ghosts: &mut HashSet<(u64, u64)>,
    findings: &mut Findings,
) {
    let Descriptor { number, link } = descriptor;
    match kept_by_kernel(link) {
        Some(Kept::Secret) => {
            let detail = format!("descriptor {number} is secret memory");
            return findings.add(process, BlockerKind::AnonInode, detail);
        }
        Some(_) => {
            if is_in_huge_pages(&path(process.pid, &format!("fd/{number}"))) {
                findings.add(process, BlockerKind::HugePages, format!("descriptor {number} is {link}"));
            }
            return;
        }
        None if link.starts_with("/dmabuf:") => {
            let detail = format!("descriptor {number} is a DMA buffer");
            return findings.add(process, BlockerKind::AnonInode, detail);
        }
        None => {}
    }
    let Some(metadata) = descriptor.metadata(process.pid) else { return };
    if is_unsupported_device(process, descriptor, &metadata, findings) {
        return;
    }
    let foreign = descriptor
        .info(process.pid, "mnt_id")
        .and_then(|id| u64::try_from(id).ok())
        .is_some_and(|id| !mounts.contains(id));
    if foreign {
        let terminal =
            metadata.file_type().is_char_device() && character(metadata.rdev()) == Device::Terminal;
        let kind = if terminal { BlockerKind::HostTty } else { BlockerKind::Other };
        let detail = format!("descriptor {number} is {link} of a mount that the service does not have");
        findings.add(process, kind, detail);
    }
    if let Some(size) = ghost_size(&metadata).filter(|size| *size > ghost_limit)
        // Once, however often it is open.
        && ghosts.insert((metadata.dev(), metadata.ino()))
    {
        findings.add(process, BlockerKind::GhostFile, format!("descriptor {number} is {link}, {size}"));
    }
}

fn is_unsupported_device(
    process: &Process,
    descriptor: &Descriptor,
    metadata: &Metadata,
    findings: &mut Findings,
) -> bool {
    let kind = metadata.file_type();
    let (found, what) = if kind.is_block_device() {
        (BlockerKind::CharDevice, "block device")
    } else if kind.is_char_device() {
        match character(metadata.rdev()) {
            Device::Basic | Device::Terminal => return false,
            Device::HostTerminal => (BlockerKind::HostTty, "terminal"),
            Device::Other => (BlockerKind::CharDevice, "character device"),
        }
    } else {
        return false;
    };
    let Descriptor { number: descriptor, link } = descriptor;
    let detail = format!("descriptor {descriptor} is {link}, {what} {}", number(metadata.rdev()));
    findings.add(process, found, detail);
    true
}
