//! Features of the running kernel, asked in ways that leave nothing behind.

use std::fs::{self, File};
use std::hint::black_box;
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;

use rustix::io::Errno;
use rustix::ioctl::{Opcode, Updater, ioctl, opcode};
use rustix::mm::{UserfaultfdFlags, userfaultfd};
use rustix::mount::{FsOpenFlags, fsconfig_set_flag, fsopen};

const PAGE: usize = 4096;

/// `struct uffdio_api`: version, features, ioctls.
type UffdioApi = [u64; 3];
const UFFDIO_API: Opcode = opcode::read_write::<UffdioApi>(0xaa, 0x3f);
const UFFD_API: u64 = 0xaa;
const UFFD_FEATURE_WP_UNPOPULATED: u64 = 1 << 13;
const UFFD_FEATURE_WP_ASYNC: u64 = 1 << 15;

/// `struct pm_scan_arg`: its size first.
type PmScanArg = [u64; 12];
const PAGEMAP_SCAN: Opcode = opcode::read_write::<PmScanArg>(b'f', 16);

/// Bit of a pagemap entry: written since the bits were last cleared.
const SOFT_DIRTY: u64 = 1 << 55;

/// Whether processes can have clocks of their own.
pub(super) fn time_namespace() -> Option<bool> {
    fs::exists("/proc/self/ns/time").ok()
}

/// Whether written pages can be followed without stopping for each: Linux 6.7 or newer. `None` if we may not ask.
pub(super) fn userfaultfd_wp_async() -> Option<bool> {
    Some(wp_async()? && pagemap_scan()?)
}

#[allow(unsafe_code)]
fn wp_async() -> Option<bool> {
    // SAFETY: nothing is registered with it, so it handles no fault of this process; it is closed at the end.
    let descriptor = match unsafe { userfaultfd(UserfaultfdFlags::CLOEXEC | UserfaultfdFlags::NONBLOCK) } {
        Ok(descriptor) => descriptor,
        Err(Errno::NOSYS) => return Some(false),
        Err(_) => return None,
    };
    let mut api: UffdioApi = [UFFD_API, UFFD_FEATURE_WP_ASYNC | UFFD_FEATURE_WP_UNPOPULATED, 0];
    // SAFETY: the request reads and writes a `struct uffdio_api`, which has the layout of `UffdioApi`.
    match unsafe { ioctl(descriptor.as_fd(), Updater::<'_, UFFDIO_API, UffdioApi>::new(&mut api)) } {
        Ok(()) => Some(true),
        Err(Errno::INVAL) => Some(false),
        Err(_) => None,
    }
}

#[allow(unsafe_code)]
fn pagemap_scan() -> Option<bool> {
    let pagemap = File::open("/proc/self/pagemap").ok()?;
    let mut empty_range: PmScanArg = [size_of::<PmScanArg>() as u64, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    // SAFETY: the request reads and writes a `struct pm_scan_arg`, which has the layout of `PmScanArg`; the range of
    // addresses in it is empty, and it names no vector to be filled.
    match unsafe { ioctl(pagemap.as_fd(), Updater::<'_, PAGEMAP_SCAN, PmScanArg>::new(&mut empty_range)) } {
        Ok(()) => Some(true),
        Err(Errno::NOTTY) => Some(false),
        Err(_) => None,
    }
}

/// Whether a page that was just written says so.
pub(super) fn soft_dirty() -> Option<bool> {
    // Two pages, one of which is whole.
    let memory = black_box(vec![1_u8; 2 * PAGE]);
    let page = (memory.as_ptr() as usize).div_ceil(PAGE);
    let pagemap = File::open("/proc/self/pagemap").ok()?;
    let mut entry = [0; 8];
    pagemap.read_exact_at(&mut entry, page as u64 * 8).ok()?;
    black_box(&memory);
    Some(u64::from_ne_bytes(entry) & SOFT_DIRTY != 0)
}

/// Whether a tmpfs can be kept from being swapped: Linux 6.4 or newer. `None` if we may not ask.
pub(super) fn noswap_tmpfs() -> Option<bool> {
    // A file system that is being configured; it is never made.
    let context = fsopen("tmpfs", FsOpenFlags::FSOPEN_CLOEXEC).ok()?;
    match fsconfig_set_flag(&context, "noswap") {
        Ok(()) => Some(true),
        Err(Errno::INVAL) => Some(false),
        Err(_) => None,
    }
}
