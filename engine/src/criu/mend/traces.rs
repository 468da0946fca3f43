//! What CRIU has left in a process: mappings, descriptors, changed code.

use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::Instant;

use super::before::{Before, Head};
use super::maps::{Mapping, mappings, peek};
use super::tracee::Tracee;

/// What CRIU calls the memory that it shares with a task.
const MEMORY: &str = "/memfd:CRIUMFD";

/// What CRIU puts at the begin of an executable mapping: a system call and traps.
const SYSTEM_CALL: [u8; 3] = [0x0f, 0x05, 0xcc];

/// What there is to be taken away.
#[derive(Debug, Default)]
pub(super) struct Traces {
    pid: i32,
    mappings: Vec<Mapping>,
    descriptors: Vec<u64>,
    /// Where, and what was there.
    code: Vec<(u64, Head)>,
}

/// Whether a mapping is what CRIU shares with a task, by its name.
pub(super) fn is_criu(mapping: &Mapping) -> bool {
    mapping.name.starts_with(MEMORY)
}

impl Traces {
    /// Looks for them. `images` is where CRIU kept its log, which its code in the task writes to.
    pub(super) fn find(pid: i32, before: &Before, images: &Path) -> Result<Self, String> {
        let unknown = |what: &str, error: std::io::Error| format!("its {what} cannot be read: {error}");
        let all = mappings(pid).map_err(|error| unknown("mappings", error))?;
        let ours = all.into_iter().filter(|one| is_criu(one) && !before.is_alike(pid, one)).collect();
        let memory = File::open(format!("/proc/{pid}/mem")).map_err(|error| unknown("memory", error))?;
        let mut code = Vec::new();
        for (address, was) in before.heads(pid) {
            // A mapping that is not there any more was taken away by the program.
            let Ok(now) = peek::<8>(&memory, address) else { continue };
            if now != was && now.starts_with(&SYSTEM_CALL) {
                code.push((address, was));
            }
        }
        let mut descriptors = Vec::new();
        let folder = format!("/proc/{pid}/fd");
        for entry in fs::read_dir(&folder).map_err(|error| unknown("descriptors", error))?.flatten() {
            let Ok(target) = fs::read_link(entry.path()) else { continue };
            if target.to_string_lossy().starts_with(MEMORY) || target.starts_with(images) {
                descriptors.extend(entry.file_name().to_str().and_then(|number| number.parse::<u64>().ok()));
            }
        }
        Ok(Self { pid, mappings: ours, descriptors, code })
    }

    pub(super) fn is_empty(&self) -> bool {
        self.mappings.is_empty() && self.descriptors.is_empty() && self.code.is_empty()
    }

    /// Whether there is code of CRIU's at an address.
    pub(super) fn is_foreign(&self, address: u64) -> bool {
        self.mappings.iter().any(|mapping| mapping.holds(address))
    }

    /// Whether the program's own code at an address was overwritten.
    pub(super) fn is_changed_code(&self, address: u64) -> bool {
        self.code.iter().any(|(begin, head)| (*begin..=begin + head.len() as u64).contains(&address))
    }

    /// Puts the program's own code back.
    pub(super) fn restore_code(&self) -> Result<Vec<String>, String> {
        let mut cures = Vec::new();
        for (address, head) in &self.code {
            let memory = OpenOptions::new().write(true).open(format!("/proc/{}/mem", self.pid));
            memory
                .and_then(|memory| memory.write_all_at(head, *address))
                .map_err(|error| format!("its code at {address:x} cannot be put back: {error}"))?;
            cures.push(format!("its code at {address:x} was changed"));
        }
        Ok(cures)
    }

    /// Takes mappings and descriptors away, by system calls of a thread of the process that stands.
    pub(super) fn remove(&self, thread: &mut Tracee, until: Instant) -> Result<Vec<String>, String> {
        let mut cures = Vec::new();
        for Mapping { start, end, .. } in &self.mappings {
            thread
                .call(libc::SYS_munmap, [*start, end - start], until)
                .map_err(|error| format!("CRIU's memory at {start:x} cannot be taken away: {error}"))?;
            cures.push(format!("CRIU's memory was mapped at {start:x}"));
        }
        for number in &self.descriptors {
            thread
                .call(libc::SYS_close, [*number, 0], until)
                .map_err(|error| format!("CRIU's descriptor {number} cannot be closed: {error}"))?;
            cures.push(format!("CRIU's descriptor {number} was open"));
        }
        Ok(cures)
    }
}

impl fmt::Display for Traces {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (mappings, descriptors, code) = (self.mappings.len(), self.descriptors.len(), self.code.len());
        write!(f, "{mappings} mappings, {descriptors} descriptors, {code} pieces of changed code")
    }
}
