//! Kernel objects, devices, files, mappings.

use std::fs;
use std::os::fd::{FromRawFd, OwnedFd};

use rustix::event::{EventfdFlags, epoll, eventfd};
use rustix::fs::{MemfdFlags, memfd_create};
use rustix::mm::{MapFlags, ProtFlags, UserfaultfdFlags, mmap, munmap, userfaultfd};
use rustix::mount::{MountFlags, MountPropagationFlags, mount, mount_change};
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use rustix::thread::{UnshareFlags, unshare_unsafe};

use super::*;

/// Makes a kernel object by a call that has no other wrapper.
#[allow(unsafe_code)]
fn object(number: libc::c_long, arguments: [usize; 5]) -> OwnedFd {
    let [a, b, c, d, e] = arguments;
    // SAFETY: the callers pass what the call expects: plain numbers and pointers to large enough structures.
    let descriptor = unsafe { libc::syscall(number, a, b, c, d, e) };
    assert!(descriptor >= 0, "call {number}: {}", std::io::Error::last_os_error());
    // SAFETY: the call has just returned it, and nobody else knows it.
    unsafe { OwnedFd::from_raw_fd(descriptor as i32) }
}

#[test]
#[allow(unsafe_code)]
fn kernel_objects_are_found() {
    let parameters = [0_u64; 64];
    let ring = object(libc::SYS_io_uring_setup, [4, parameters.as_ptr() as usize, 0, 0, 0]);
    // SAFETY: nothing is registered with it.
    let faults = unsafe { userfaultfd(UserfaultfdFlags::CLOEXEC) }.unwrap();
    // `struct perf_event_attr` for the software event "task clock", of this process.
    let mut event = [0_u32; 32];
    (event[0], event[1], event[2]) = (1, 128, 1);
    let perf = object(libc::SYS_perf_event_open, [event.as_ptr() as usize, 0, usize::MAX, usize::MAX, 0]);
    // `union bpf_attr`: an array of four numbers.
    let map = [2_u32, 4, 8, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let map = object(libc::SYS_bpf, [0, map.as_ptr() as usize, size_of_val(&map), 0, 0]);
    let secret = object(libc::SYS_memfd_secret, [0; 5]);

    let facts = own();
    facts.assert_has(BlockerKind::IoUring, &name_of(&ring));
    facts.assert_has(BlockerKind::Userfaultfd, &name_of(&faults));
    facts.assert_has(BlockerKind::AnonInode, &format!("{}is [perf_event]", name_of(&perf)));
    facts.assert_has(BlockerKind::AnonInode, &format!("{}is bpf-map", name_of(&map)));
    facts.assert_has(BlockerKind::AnonInode, &format!("{}is secret memory", name_of(&secret)));
}

#[test]
fn what_criu_saves_is_no_blocker() {
    let event = eventfd(0, EventfdFlags::CLOEXEC).unwrap();
    let poll = epoll::create(epoll::CreateFlags::CLOEXEC).unwrap();
    let inotify = rustix::fs::inotify::init(rustix::fs::inotify::CreateFlags::CLOEXEC).unwrap();
    let timer = object(libc::SYS_timerfd_create, [libc::CLOCK_MONOTONIC as usize, 0, 0, 0, 0]);
    let mask = 0_u64;
    let signals = object(libc::SYS_signalfd4, [usize::MAX, &raw const mask as usize, 8, 0, 0]);
    let memory = memfd_create("memory", MemfdFlags::CLOEXEC).unwrap();
    let terminal = fs::File::options().read(true).write(true).open("/dev/ptmx").unwrap();
    let (_reader, pipe) = std::io::pipe().unwrap();
    let file = file_of(1000);
    let facts = own();
    for name in [name_of(&event), name_of(&poll), name_of(&inotify), name_of(&timer), name_of(&signals)] {
        facts.assert_lacks(&name);
    }
    for name in [name_of(&memory), name_of(&terminal), name_of(&pipe), name_of(&file)] {
        facts.assert_lacks(&name);
    }
}

#[test]
fn processes_outside_cannot_be_held() {
    let mut other = Service::clean();
    let handle = pidfd_open(Pid::from_raw(other.pid()).unwrap(), PidfdFlags::empty()).unwrap();
    own().assert_has(BlockerKind::AnonInode, &format!("{}is a pidfd", name_of(&handle)));
    look(own_pid(), &[own_pid(), other.pid()]).assert_lacks(&name_of(&handle));
    other.child.kill().unwrap();
    other.child.wait().unwrap();
    own().assert_lacks(&name_of(&handle));
}

#[test]
fn devices_are_found() {
    let random = fs::File::open("/dev/urandom").unwrap();
    let messages = fs::File::open("/dev/kmsg").unwrap();
    let facts = own();
    facts.assert_has(BlockerKind::CharDevice, &format!("{}is /dev/kmsg", name_of(&messages)));
    facts.assert_lacks(&name_of(&random));

    let device = |major, minor| devices::character(rustix::fs::makedev(major, minor));
    assert_eq!(device(1, 3), devices::Device::Basic);
    assert_eq!(device(136, 5), devices::Device::Terminal);
    assert_eq!(device(4, 64), devices::Device::HostTerminal);
    assert_eq!(device(5, 1), devices::Device::HostTerminal);
    assert_eq!(device(1, 1), devices::Device::Other);
}

#[test]
#[allow(unsafe_code)]
fn large_deleted_files_are_found_once() {
    let large = file_of(3 << 20);
    let again = large.try_clone().unwrap();
    let sparse = tempfile::tempfile().unwrap();
    sparse.set_len(3 << 30).unwrap();
    let small = file_of(1 << 19);
    let query = ServiceQuery { ghost_limit: Bytes::mib(1), ..ServiceQuery::default() };
    let facts = service_facts(own_pid(), &[own_pid()], &query).unwrap();
    let ghosts =
        facts.blockers.iter().filter(|blocker| blocker.kind == BlockerKind::GhostFile).collect::<Vec<_>>();
    assert_eq!(ghosts.len(), 1, "{ghosts:?}");
    facts.assert_has(BlockerKind::GhostFile, "3.0 MiB");
    drop((again, sparse, small));
    // With the limit that the dump is given it may stay.
    assert!(own().blockers.iter().all(|blocker| blocker.kind != BlockerKind::GhostFile));

    // Closed, but still mapped.
    let size = 3 << 20;
    // SAFETY: a new mapping where nothing is; it is removed at the end and nobody writes to the file.
    let mapping =
        unsafe { mmap(std::ptr::null_mut(), size, ProtFlags::READ, MapFlags::SHARED, &large, 0) }.unwrap();
    drop(large);
    let facts = service_facts(own_pid(), &[own_pid()], &query).unwrap();
    facts.assert_has(BlockerKind::GhostFile, "mapped at");
    // SAFETY: nothing refers to the mapping.
    unsafe { munmap(mapping, size) }.unwrap();
}

#[test]
fn huge_pages_are_found() {
    let memory = memfd_create("huge", MemfdFlags::CLOEXEC | MemfdFlags::HUGETLB).unwrap();
    own().assert_has(BlockerKind::HugePages, &name_of(&memory));
}

/// A descriptor that came from where the service cannot look: CRIU finds no mount for it.
#[test]
#[allow(unsafe_code)]
fn descriptors_of_foreign_mounts_are_found() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    let file = std::thread::scope(|scope| {
        let elsewhere = || {
            // SAFETY: descriptors stay shared; working directory and root become the thread's own, which ends here.
            unsafe { unshare_unsafe(UnshareFlags::NEWNS | UnshareFlags::FS) }.expect("this test needs root");
            mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC).unwrap();
            mount("tmpfs", path, "tmpfs", MountFlags::empty(), None).unwrap();
            fs::File::create(path.join("file")).unwrap()
        };
        scope.spawn(elsewhere).join().unwrap()
    });
    let service = Service::holding(file);
    service.facts().assert_has(BlockerKind::Other, "of a mount that the service does not have");
}
