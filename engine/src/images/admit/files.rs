//! What is open, and what lies behind it.

use std::collections::{BTreeMap, BTreeSet};

use super::memory::PAGE;
use super::mounts::Mounts;
use super::set::{At, Set, is_path, missing, refused};
use super::tasks::{Tree, is_plain_clock};
use super::{Admission, Refused, sockets};
use crate::images::schema::Message;

/// Most files that all processes together have open.
const MAX_FILES: usize = 4 << 20;
/// Highest descriptor: the kernel's own limit for a table.
const MAX_DESCRIPTOR: u64 = 1 << 30;
/// The kernel's largest process id.
const MAX_PID: u64 = 1 << 22;
/// Most bytes that wait in one pipe, and its size.
const MAX_PIPE: u64 = 64 << 20;
/// Flags of open(2) that make or change a file: O_CREAT, O_EXCL, O_TRUNC, and the bit of O_TMPFILE.
const MAKING: u64 = 0o100 | 0o200 | 0o1000 | 0o20_000_000;
/// Kinds of files in `st_mode`.
const FORMAT: u64 = 0o170_000;
const REGULAR: u64 = 0o100_000;
const DIRECTORY: u64 = 0o040_000;
const CHARACTER: u64 = 0o020_000;
const FIFO: u64 = 0o010_000;
const SOCKET: u64 = 0o140_000;
const LINK: u64 = 0o120_000;
/// How an unlinked file comes back: linked again, made anew, or as a directory of a process that is gone.
const REMAPS: [u64; 3] = [0, 1, 2];

/// Kinds of open files, and the field of an entry that says more.
const KINDS: [(u64, &str); 15] = [
    (1, "reg"),
    (2, "pipe"),
    (3, "fifo"),
    (4, "isk"),
    (5, "usk"),
    (6, "efd"),
    (7, "epfd"),
    (8, "ify"),
    (9, "sgfd"),
    (11, "tty"),
    (13, "nlsk"),
    (14, "nsf"),
    (17, "tfd"),
    (18, "memfd"),
    (20, "pidfd"),
];

/// What other rules need to know of open files.
#[derive(Debug, Default)]
pub(super) struct Files {
    /// Kinds by ids.
    pub(super) kinds: BTreeMap<u64, u64>,
}

impl Files {
    /// Whether an id is that of a file that can be mapped or executed.
    pub(super) fn is_mappable(&self, id: u64) -> bool {
        self.kinds.get(&id).is_some_and(|kind| matches!(kind, 1 | 18))
    }
}

/// All that a rule for one file may look at.
pub(super) struct Look<'a> {
    pub(super) admission: &'a Admission,
    pub(super) tree: &'a Tree,
    pub(super) mounts: &'a Mounts,
    pub(super) set: &'a Set,
}

impl Look<'_> {
    pub(super) fn owner(&self, at: At<'_>, message: &Message, path: &str) -> Result<(), Refused> {
        let most = u64::from(self.admission.ids.unwrap_or(u32::MAX));
        for field in ["uid", "gid"] {
            let id = message.number(field);
            at.require(
                id < most,
                &format!("{path}{field}"),
                format_args!("id {id} is not one of the {most} of the service"),
            )?;
        }
        Ok(())
    }
}

pub(super) fn check(look: &Look<'_>) -> Result<Files, Refused> {
    let mut files = Files::default();
    let mut pipes = BTreeSet::new();
    let mut sockets = BTreeSet::new();
    for (at, file) in look.set.need("files")?.messages() {
        let (kind, id) = (file.number("type"), file.number("id"));
        at.require(
            files.kinds.len() < MAX_FILES,
            "id",
            format_args!("there are more than {MAX_FILES} files"),
        )?;
        at.require(files.kinds.insert(id, kind).is_none(), "id", format_args!("{id} is there twice"))?;
        let known = KINDS.iter().find(|(number, _)| *number == kind);
        let (_, field) = known
            .ok_or_else(|| at.refuse("type", format_args!("no service of ours has files of kind {kind}")))?;
        let more = KINDS.iter().filter(|(_, other)| file.has(other)).count();
        let what = file.one(field).filter(|_| more == 1);
        let what = what.ok_or_else(|| at.refuse(field, "it says something else than its kind"))?;
        at.require(what.number("id") == id, field, format_args!("it has two ids"))?;
        match *field {
            "reg" => regular(look, at, what)?,
            "pipe" | "fifo" => {
                pipes.insert(what.number("pipe_id"));
            }
            "isk" | "usk" | "nlsk" => {
                sockets.insert(what.number("ino"));
                sockets::check(look, at, field, what)?;
            }
            "tfd" => at.require(
                is_plain_clock(what.number("clockid")),
                "tfd.clockid",
                format_args!("it could wake the machine"),
            )?,
            "ify" => watches(look, at, what)?,
            "nsf" => {
                let own = look.tree.namespaces.values().any(|id| *id == what.number("ns_id"));
                at.require(own, "nsf.ns_id", format_args!("it is no namespace of the service"))?;
            }
            "pidfd" => {
                let pid = what.get("nspid").map_or(0, u64::cast_signed);
                at.require(
                    (-1..=1 << 22).contains(&pid),
                    "pidfd.nspid",
                    format_args!("{pid} is no process"),
                )?;
            }
            _ => {}
        }
        if what.knows("fown")
            && let Some(owner) = what.one("fown")
        {
            owned(look, at, owner)?;
        }
    }
    tables(look, &files)?;
    remaps(look, &files)?;
    queues(look, &pipes, &sockets)?;
    terminals(look)?;
    for (at, inode) in look.set.entries("memfd") {
        look.owner(at, inode, "")?;
        at.at_most(inode, "size", look.admission.memory)?;
        at.at_most(inode, "mode", 0o177_777)?;
        at.at_most(inode, "seals", 0x3f)?;
    }
    Ok(files)
}

fn owned(look: &Look<'_>, at: At<'_>, owner: &Message) -> Result<(), Refused> {
    let most = u64::from(look.admission.ids.unwrap_or(u32::MAX));
    for field in ["uid", "euid"] {
        at.require(
            owner.number(field) < most,
            &format!("fown.{field}"),
            format_args!("it is not one of the {most} ids of the service"),
        )?;
    }
    at.at_most(owner, "signum", 64)?;
    at.at_most(owner, "pid", MAX_PID)
}

fn regular(look: &Look<'_>, at: At<'_>, file: &Message) -> Result<(), Refused> {
    let name = file.text("name");
    at.require(is_path(name), "reg.name", format_args!("{name:?} is no path inside of the service"))?;
    at.require(
        file.number("flags") & MAKING == 0,
        "reg.flags",
        format_args!("they would make or change a file"),
    )?;
    let mount = file.get("mnt_id").map_or(-1, u64::cast_signed);
    let there = mount == -1 || u64::try_from(mount).is_ok_and(|mount| look.mounts.has(mount));
    at.require(there, "reg.mnt_id", format_args!("there is no mount {mount}"))?;
    let kind = file.number("mode") & FORMAT;
    let plain = matches!(kind, 0 | REGULAR | DIRECTORY | CHARACTER | FIFO | SOCKET | LINK);
    at.require(plain, "reg.mode", format_args!("{name:?} is a device with blocks, or nothing that exists"))?;
    // Which device a name leads to is decided by the file system here, and what may be done with it by its cgroup.
    let device = kind != CHARACTER || name.starts_with("/dev/") || name.starts_with("/proc/");
    at.require(device, "reg.name", format_args!("{name:?} is no device that a service has"))
}

/// What a watch follows is found by its path; by its number only in the service's own root file system, where no
/// number leads to what is not the service's.
fn watches(look: &Look<'_>, at: At<'_>, file: &Message) -> Result<(), Refused> {
    for watch in file.list("wd") {
        let handle = watch.one("f_handle").ok_or_else(|| at.refuse("ify.wd.f_handle", "it is missing"))?;
        at.require(
            handle.numbers("handle").count() <= 16,
            "ify.wd.f_handle",
            format_args!("it is too long"),
        )?;
        let path = handle.text("path");
        let found = match handle.has("path") {
            true => is_path(path),
            false => look.mounts.root_device() == Some(watch.number("s_dev")),
        };
        at.require(found, "ify.wd.f_handle.path", format_args!("{path:?} is no path inside of the service"))?;
    }
    Ok(())
}

/// Tables of descriptors.
fn tables(look: &Look<'_>, files: &Files) -> Result<(), Refused> {
    for image in look.set.all("fdinfo") {
        let mut taken = BTreeSet::new();
        for (at, descriptor) in image.messages() {
            let (id, number) = (descriptor.number("id"), descriptor.number("fd"));
            let kind = files.kinds.get(&id).copied();
            at.require(
                kind == Some(descriptor.number("type")),
                "type",
                format_args!("file {id} is not there, or of another kind"),
            )?;
            at.at_most(descriptor, "fd", MAX_DESCRIPTOR)?;
            at.require(taken.insert(number), "fd", format_args!("descriptor {number} is there twice"))?;
        }
    }
    for (at, place) in look.set.entries("fs") {
        for field in ["cwd_id", "root_id"] {
            let id = place.number(field);
            at.require(files.kinds.get(&id) == Some(&1), field, format_args!("file {id} is no directory"))?;
        }
        at.at_most(place, "umask", 0o7777)?;
    }
    for (at, lock) in look.set.entries("filelocks") {
        let pid = lock.get("pid").map_or(0, u64::cast_signed);
        let known = u64::try_from(pid).is_ok_and(|pid| look.tree.known.contains(&pid));
        at.require(known, "pid", format_args!("process {pid} is not in the tree"))?;
    }
    Ok(())
}

/// Files without a name.
fn remaps(look: &Look<'_>, files: &Files) -> Result<(), Refused> {
    let mut ghosts = BTreeSet::new();
    for (at, remap) in look.set.entries("remap-fpath") {
        let (id, kind) = (remap.number("remap_id"), remap.number("remap_type"));
        at.require(
            files.kinds.contains_key(&remap.number("orig_id")),
            "orig_id",
            format_args!("there is no such file"),
        )?;
        at.require(REMAPS.contains(&kind), "remap_type", format_args!("{kind} is no way to find a file"))?;
        match kind {
            0 => at.require(
                files.kinds.get(&id) == Some(&1),
                "remap_id",
                format_args!("there is no file {id}"),
            )?,
            1 => {
                ghosts.insert(id);
            }
            _ => at.at_most(remap, "remap_id", 1 << 22)?,
        }
    }
    for id in &ghosts {
        look.set.numbered("ghost-file", *id).ok_or_else(|| missing(format!("ghost-file-{id:x}.img")))?;
    }
    for image in look.set.all("ghost-file") {
        let mut messages = image.messages();
        let Some((at, ghost)) = messages.next() else { continue };
        at.require(ghosts.contains(&image.number), "ino", format_args!("no file is found by it"))?;
        look.owner(at, ghost, "")?;
        let mode = ghost.number("mode");
        let device = u32::try_from(ghost.number("rdev")).unwrap_or(u32::MAX);
        let device = (device >> 8 & 0xfff, device & 0xff | device >> 12 & 0xf_ff00);
        let fine = match mode & FORMAT {
            REGULAR | DIRECTORY | FIFO | SOCKET | LINK => true,
            CHARACTER => look.admission.devices.contains(&device),
            _ => false,
        };
        at.require(
            fine && mode <= 0o177_777,
            "mode",
            format_args!("{mode:o} is no file that a service may have"),
        )?;
        let most = u64::from(crate::criu::dump::GHOST_LIMIT);
        at.at_most(ghost, "size", most)?;
        let length: usize = image.entries.iter().map(|entry| entry.payload.len()).sum();
        at.require(length as u64 <= most, "size", format_args!("{length} bytes are more than {most}"))?;
        let target = ghost.text("symlnk_target");
        at.require(target.len() < 4096, "symlnk_target", format_args!("it is too long"))?;
        for (at, chunk) in messages {
            let end = chunk.number("off").checked_add(chunk.number("len"));
            at.require(end.is_some_and(|end| end <= most), "off", format_args!("it lies behind the end"))?;
        }
    }
    Ok(())
}

/// What waits in pipes and sockets.
fn queues(look: &Look<'_>, pipes: &BTreeSet<u64>, sockets: &BTreeSet<u64>) -> Result<(), Refused> {
    for stem in ["pipes-data", "fifo-data"] {
        for (at, pipe) in look.set.entries(stem) {
            let id = pipe.number("pipe_id");
            at.require(pipes.contains(&id), "pipe_id", format_args!("there is no pipe {id}"))?;
            at.at_most(pipe, "bytes", MAX_PIPE)?;
            at.at_most(pipe, "size", MAX_PIPE)?;
        }
    }
    for (at, packet) in look.set.entries("sk-queues") {
        at.at_most(packet, "length", MAX_PIPE)?;
        let passed =
            packet.list("scm").all(|scm| scm.number("type") <= 2 && scm.numbers("rights").count() <= 253);
        at.require(passed, "scm", format_args!("it is no list of passed descriptors"))?;
    }
    for image in look.set.all("tcp-stream") {
        if !sockets.contains(&image.number) {
            return Err(refused(&image.name, "there is no such socket"));
        }
        let (at, stream) = image.only();
        for field in ["inq_len", "outq_len"] {
            at.at_most(stream, field, MAX_PIPE)?;
        }
        at.require(image.entries.len() == 1, "inq_len", format_args!("a socket has one stream"))?;
    }
    Ok(())
}

/// Terminals: only those of the service's own pairs, and the names of them.
fn terminals(look: &Look<'_>) -> Result<(), Refused> {
    for (at, terminal) in look.set.entries("tty-info") {
        let kind = terminal.number("type");
        at.require(matches!(kind, 1 | 4), "type", format_args!("a service has no terminal of kind {kind}"))?;
        look.owner(at, terminal, "")?;
        for field in ["sid", "pgrp"] {
            at.at_most(terminal, field, 1 << 22)?;
        }
        let index = terminal.one("pty").map_or(0, |pty| pty.number("index"));
        at.require(index < PAGE * PAGE, "pty.index", format_args!("{index} is no terminal"))?;
    }
    for (at, data) in look.set.entries("tty-data") {
        at.require(data.bytes("data").len() <= 65_536, "data", format_args!("a terminal holds less"))?;
    }
    for (at, memfd) in look.set.entries("memfd") {
        let name = memfd.text("name");
        at.require(name.len() <= 255 && !name.contains('\n'), "name", format_args!("{name:?} is no name"))?;
    }
    Ok(())
}
