//! One process, as `/proc` shows it.

use std::fs::{self, ReadDir};
use std::io::{self, Read};
use std::path::PathBuf;

use ums_model::names::Bytes;

/// A process and its threads, at one moment.
#[derive(Debug, Clone)]
pub(super) struct Process {
    pub(super) pid: i32,
    /// Name of its program, as the kernel shortens it.
    pub(super) name: String,
    pub(super) threads: Vec<Thread>,
}

/// A thread, at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Thread {
    pub(super) tid: i32,
    /// `R` running, `S` asleep, `D` in uninterruptible sleep, `Z` zombie and so on.
    pub(super) state: char,
    /// The thread that traces it; 0 for none.
    pub(super) tracer: i32,
    /// 0 none, 1 strict, 2 filter.
    pub(super) seccomp: u8,
}

/// The path of a file that tells of a process.
pub(super) fn path(pid: i32, file: &str) -> PathBuf {
    format!("/proc/{pid}/{file}").into()
}

/// What a file tells of a process; `None` if the process or the file is gone or not for us.
pub(super) fn read(pid: i32, file: &str) -> Option<String> {
    let bytes = fs::read(path(pid, file)).ok()?;
    Some(String::from_utf8_lossy(&bytes).into_owned())
}

impl Process {
    /// `None` if there is none.
    pub(super) fn read(pid: i32) -> Option<Self> {
        let name = read(pid, "comm")?.trim_end_matches('\n').escape_debug().to_string();
        let mut threads: Vec<Thread> = numbers(fs::read_dir(path(pid, "task")).ok()?)
            .filter_map(|tid| Thread::parse(tid, &read(pid, &format!("task/{tid}/status"))?))
            .collect();
        threads.sort_unstable_by_key(|thread| thread.tid);
        (!threads.is_empty()).then_some(Self { pid, name, threads })
    }

    /// Whether nothing is left of it but its exit code.
    pub(super) fn is_zombie(&self) -> bool {
        self.threads.iter().all(|thread| matches!(thread.state, 'Z' | 'X'))
    }

    /// Whether it still lives.
    pub(super) fn is_there(&self) -> bool {
        Self::read(self.pid).is_some_and(|now| !now.is_zombie())
    }

    /// Whether we may see what it has open.
    pub(super) fn shows_descriptors(&self) -> bool {
        fs::read_dir(path(self.pid, "fd")).is_ok()
    }

    /// Its part of the memory that has to travel: pages shared by n processes count as 1/n of a page in each.
    pub(super) fn memory(&self) -> Option<Bytes> {
        travelling_memory(&read(self.pid, "smaps_rollup")?)
    }

    /// The beginning of its program file.
    pub(super) fn program_header(&self) -> io::Result<[u8; 20]> {
        let mut header = [0; 20];
        fs::File::open(path(self.pid, "exe"))?.read_exact(&mut header)?;
        Ok(header)
    }
}

impl Thread {
    fn parse(tid: i32, status: &str) -> Option<Self> {
        let field = |name: &str| {
            status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).map(str::trim)
        };
        let number = |name: &str| field(name).and_then(|text| text.parse::<i32>().ok());
        Some(Self {
            tid,
            state: field("State")?.chars().next()?,
            tracer: number("TracerPid").unwrap_or(0),
            // A kernel without seccomp does not tell.
            seccomp: number("Seccomp").and_then(|mode| u8::try_from(mode).ok()).unwrap_or(0),
        })
    }

    pub(super) fn has_filter(&self) -> bool {
        self.seccomp == 2
    }
}

/// The entries of a directory whose names are numbers.
pub(super) fn numbers(entries: ReadDir) -> impl Iterator<Item = i32> {
    entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
}

fn travelling_memory(rollup: &str) -> Option<Bytes> {
    let kib = |name: &str| -> Option<u64> {
        let line = rollup.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
        line.trim().strip_suffix("kB")?.trim().parse().ok()
    };
    let total =
        kib("Pss_Anon")?.saturating_add(kib("Pss_Shmem")?).saturating_add(kib("SwapPss").unwrap_or(0));
    Some(Bytes::kib(total))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_is_read() {
        let status = "Name:\ta\nState:\tD (disk sleep)\nTracerPid:\t7\nSeccomp:\t2\nSeccomp_filters:\t1\n";
        let thread = Thread::parse(5, status).unwrap();
        assert_eq!(thread, Thread { tid: 5, state: 'D', tracer: 7, seccomp: 2 });
        assert!(thread.has_filter());
        assert_eq!(Thread::parse(5, "Name:\ta\n"), None);
    }

    #[test]
    fn only_memory_that_travels_counts() {
        let rollup = "Rss: 900 kB\nPss: 500 kB\nPss_Dirty: 9 kB\nPss_Anon:   100 kB\nPss_File: 350 kB\n\
                      Pss_Shmem:  50 kB\nSwap: 30 kB\nSwapPss:  20 kB\n";
        assert_eq!(travelling_memory(rollup), Some(Bytes::kib(170)));
    }
}
