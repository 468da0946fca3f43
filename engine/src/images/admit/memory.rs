//! Mappings and pages. What pages hold is the service's own; where they go and how many there are is checked, so that
//! CRIU never waits for a page that did not come.

use std::collections::{BTreeMap, BTreeSet};

use super::files::{Files, Look};
use super::set::{At, missing, refused};
use super::{Admission, Refused};
use crate::images::format::Image;
use crate::images::schema::Message;

pub(super) const PAGE: u64 = 4096;
/// End of a process's memory on x86-64 with five levels of page tables; with four it is less, and the kernel says so.
const END: u64 = (1 << 56) - PAGE;
/// The page of old system calls, the same in every process.
const VSYSCALL: (u64, u64) = (0xffff_ffff_ff60_0000, 0xffff_ffff_ff60_1000);
/// Mappings that the kernel takes by default, and again as many for what CRIU splits.
const MAX_MAPPINGS: usize = 131_060;
/// What a mapping may be: regular, stack, heap, vdso and vvar, file, anonymous, System V, ring, memfd, guard, and
/// whether it counts. Not: sockets, plugins, probes, and what CRIU marks for itself.
const STATUS: u64 = 0x1
    | 0x2
    | 0x4
    | 0x8
    | 0x20
    | 0x40
    | 0x80
    | 0x100
    | 0x200
    | 0x400
    | 0x1000
    | 0x2000
    | 0x4000
    | 0x8000
    | 0x1_0000
    | 0x4_0000;
const OF_FILE: u64 = 0x40 | 0x80;
const IS_VSYSCALL: u64 = 0x4;
/// Flags of mmap(2): shared, private, anonymous, growing, locked, without reserve, huge with its size, and `MAP_FIXED`.
const FLAGS: u64 =
    0x3 | 0x10 | 0x20 | 0x100 | 0x800 | 0x1000 | 0x2000 | 0x4000 | 0x8000 | 0x2_0000 | 0x4_0000 | 0xfc00_0000;
/// Read, write, execute, and growing in either direction.
const PROTECTION: u64 = 0x7 | 0x0300_0000;
/// In the image; and it could come later, which is the same where all pages are there.
const PRESENT: u64 = 4;
const LAZY: u64 = 2;

pub(super) fn check(look: &Look<'_>, files: &Files) -> Result<(), Refused> {
    let mut taken = BTreeSet::new();
    let mut shared = BTreeSet::new();
    let mut total = 0_u64;
    for image in look.set.all("mm") {
        let ranges = mappings(image, files, &mut shared)?;
        let pages = look.set.numbered("pagemap", image.number);
        let pages = pages.ok_or_else(|| missing(format!("pagemap-{}.img", image.number)))?;
        let own = page_map(look, pages, Some(&ranges), &mut taken)?;
        let most = look.admission.process_memory / PAGE;
        if own > most {
            return Err(refused(
                &pages.name,
                format!("{own} pages are more than the {most} that a process may have"),
            ));
        }
        total += own;
    }
    for (_, memfd) in look.set.entries("memfd") {
        shared.insert(memfd.number("shmid"));
    }
    for (_, segment) in look.set.entries("ipcns-shm") {
        shared.extend(segment.one("desc").map(|desc| desc.number("id")));
    }
    for image in look.set.all("pagemap-shmem") {
        if !shared.contains(&image.number) {
            return Err(refused(&image.name, "no mapping and no file has this memory"));
        }
        total += page_map(look, image, None, &mut taken)?;
    }
    if let Some(number) = look.set.pages.keys().find(|number| !taken.contains(number)) {
        return Err(refused(&format!("pages-{number}.img"), "no page map says where they go"));
    }
    let most = look.admission.memory / PAGE;
    if total > most {
        return Err(refused("pages", format!("{total} pages are more than the {most} that it may have")));
    }
    system_v(look, look.admission)
}

/// Where a process's memory is: start and end of each mapping, in order.
fn mappings(image: &Image, files: &Files, shared: &mut BTreeSet<u64>) -> Result<BTreeMap<u64, u64>, Refused> {
    let (at, memory) = image.only();
    for field in [
        "mm_start_code",
        "mm_end_code",
        "mm_start_data",
        "mm_end_data",
        "mm_start_stack",
        "mm_start_brk",
        "mm_brk",
        "mm_arg_start",
        "mm_arg_end",
        "mm_env_start",
        "mm_env_end",
    ] {
        at.at_most(memory, field, END)?;
    }
    let program = memory.number("exe_file_id");
    at.require(
        files.is_mappable(program),
        "exe_file_id",
        format_args!("there is no file {program} that could be executed"),
    )?;
    at.require(
        memory.numbers("mm_saved_auxv").count() <= 128,
        "mm_saved_auxv",
        format_args!("it is too long"),
    )?;
    at.at_most(memory, "dumpable", 2)?;
    let mut ranges = BTreeMap::new();
    let (mut last, mut guards_from) = (0, None);
    for (index, mapping) in memory.list("vmas").enumerate() {
        let name = |field: &str| format!("vmas[{index}].{field}");
        let (start, end, status) = (mapping.number("start"), mapping.number("end"), mapping.number("status"));
        at.require(
            index < MAX_MAPPINGS,
            "vmas",
            format_args!("there are more than {MAX_MAPPINGS} mappings"),
        )?;
        at.require(
            status & !STATUS == 0 && status != 0,
            &name("status"),
            format_args!("{status:#x} is no mapping of a service"),
        )?;
        let whole = start < end && start % PAGE == 0 && end % PAGE == 0;
        let inside = end <= END || (status & IS_VSYSCALL != 0 && (start, end) == VSYSCALL);
        at.require(
            whole && inside,
            &name("start"),
            format_args!("{start:#x} to {end:#x} is not in a process"),
        )?;
        // Guards stand once more at the end, inside of the others.
        let is_guard = status & 0x1_0000 != 0;
        if is_guard {
            guards_from = Some(index);
        } else {
            at.require(
                guards_from.is_none() && start >= last,
                &name("start"),
                format_args!("mappings overlap, or are not in order"),
            )?;
            last = end;
            ranges.insert(start, end);
        }
        mapping_is_fair(at, mapping, &name, files)?;
        if status & OF_FILE == 0 && mapping.number("shmid") != 0 {
            shared.insert(mapping.number("shmid"));
        }
    }
    for ring in memory.list("aios") {
        at.require(ring.number("ring_len") <= 1 << 26, "aios.ring_len", format_args!("it is too long"))?;
    }
    Ok(ranges)
}

fn mapping_is_fair(
    at: At<'_>,
    mapping: &Message,
    name: &dyn Fn(&str) -> String,
    files: &Files,
) -> Result<(), Refused> {
    let (protection, flags) = (mapping.number("prot"), mapping.number("flags"));
    at.require(
        protection & !PROTECTION == 0,
        &name("prot"),
        format_args!("{protection:#x} is no protection"),
    )?;
    at.require(flags & !FLAGS == 0, &name("flags"), format_args!("{flags:#x} are no flags of a mapping"))?;
    let file = mapping.number("shmid");
    let is_of_file = mapping.number("status") & OF_FILE != 0;
    at.require(
        !is_of_file || files.is_mappable(file),
        &name("shmid"),
        format_args!("there is no file {file} that could be mapped"),
    )
}

/// Pages of a process or of shared memory; how many.
fn page_map(
    look: &Look<'_>,
    image: &Image,
    ranges: Option<&BTreeMap<u64, u64>>,
    taken: &mut BTreeSet<u64>,
) -> Result<u64, Refused> {
    let (at, head) = image.only();
    let id = head.number("pages_id");
    at.require(taken.insert(id), "pages_id", format_args!("the pages {id} belong to another map already"))?;
    let (mut last, mut total) = (0, 0_u64);
    for (at, run) in image.messages().skip(1) {
        let (start, flags) = (run.number("vaddr"), run.number("flags"));
        let count = run.get("nr_pages").unwrap_or_else(|| run.number("compat_nr_pages"));
        let end = count.checked_mul(PAGE).and_then(|length| start.checked_add(length));
        let end = end.filter(|end| *end <= END && count > 0 && start % PAGE == 0);
        let end = end.ok_or_else(|| {
            at.refuse("vaddr", format_args!("{count} pages at {start:#x} are not in a process"))
        })?;
        at.require(start >= last, "vaddr", format_args!("runs overlap, or are not in order"))?;
        at.require(
            matches!(flags, PRESENT | 6) && flags & !(PRESENT | LAZY) == 0,
            "flags",
            format_args!("{flags:#x}: the pages are not all here"),
        )?;
        let mapped = ranges.is_none_or(|ranges| covered(ranges, start, end));
        at.require(mapped, "vaddr", format_args!("nothing is mapped at {start:#x} to {end:#x}"))?;
        last = end;
        total += count;
    }
    let there = look.set.pages.get(&id).copied();
    let wanted = total * PAGE;
    // An empty file need not be there.
    at.require(
        there.unwrap_or(0) == wanted,
        "pages_id",
        format_args!("pages-{id}.img has {} bytes, and {wanted} belong to it", there.unwrap_or(0)),
    )?;
    Ok(total)
}

/// Whether mappings that follow each other without a hole hold all of a range.
fn covered(ranges: &BTreeMap<u64, u64>, start: u64, end: u64) -> bool {
    let mut at = start;
    while at < end {
        match ranges.range(..=at).next_back() {
            Some((_, to)) if *to > at => at = *to,
            _ => return false,
        }
    }
    true
}

/// Shared memory, semaphores and messages of System V, and what the kernel allows of them.
fn system_v(look: &Look<'_>, admission: &Admission) -> Result<(), Refused> {
    /// What a new namespace has; a service cannot change it.
    const USUAL: [(&str, u64); 10] = [
        ("msg_ctlmax", 8192),
        ("msg_ctlmnb", 16_384),
        ("msg_ctlmni", 32_768),
        ("auto_msgmni", 1),
        ("shm_ctlmni", 4096),
        ("shm_rmid_forced", 1),
        ("mq_queues_max", 256),
        ("mq_msg_max", 10),
        ("mq_msgsize_max", 8192),
        ("mq_msg_default", 10),
    ];
    for (at, values) in look.set.entries("ipcns-var") {
        for (field, most) in USUAL {
            at.at_most(values, field, most)?;
        }
        let semaphores: Vec<u64> = values.numbers("sem_ctls").collect();
        let usual = semaphores.len() == 4
            && semaphores.iter().zip([32_000, 1_024_000_000, 500, 32_000]).all(|(is, most)| *is <= most);
        at.require(usual, "sem_ctls", format_args!("{semaphores:?} is more than the kernel gives"))?;
    }
    let mut memory = 0_u64;
    for stem in ["ipcns-shm", "ipcns-sem", "ipcns-msg"] {
        for (at, object) in look.set.entries(stem) {
            if object.kind() != "ipc_msg"
                && let Some(desc) = object.one("desc")
            {
                look.owner(at, desc, "desc.")?;
                for field in ["cuid", "cgid"] {
                    let most = u64::from(admission.ids.unwrap_or(u32::MAX)) - 1;
                    at.at_most(desc, field, most)?;
                }
                at.at_most(desc, "mode", 0o7777)?;
            }
            if stem == "ipcns-shm" {
                memory = memory.saturating_add(object.number("size"));
                at.require(
                    memory <= admission.memory,
                    "size",
                    format_args!("it is more than the service may have"),
                )?;
            }
        }
    }
    Ok(())
}
