//! The cgroup of a container: where it is, and the freezer in it.
//!
//! A copy of a service that must not run is a tree of tasks in a cgroup that reads back FROZEN: no user instruction
//! is executed until the one write that thaws it. Version 1 (the freezer hierarchy) and version 2 differ in files
//! and words only; [`Cgroup`] hides which one it is.
//!
//! `freezer` stops and resumes, `end` kills and removes, `hierarchies` finds the directories.

mod end;
mod freezer;
mod hierarchies;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

pub use hierarchies::{Layout, detect};

/// The cgroup of one container. Serializable, because the process that restores it is another one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Cgroup {
    /// One directory in each hierarchy of version 1.
    V1 {
        /// The one in the freezer hierarchy, which counts.
        freezer: PathBuf,
        /// The same cgroup in the other hierarchies, of interest when it is removed.
        others: Vec<PathBuf>,
    },
    /// The one directory of version 2.
    V2 {
        /// Its path.
        dir: PathBuf,
    },
}

/// Something about a cgroup did not work.
#[derive(Debug, thiserror::Error)]
pub enum CgroupError {
    /// The host has no freezer that could be used.
    #[error("no cgroup freezer is mounted below {mount}: neither version 1 nor version 2")]
    NoFreezer {
        /// Where cgroups are expected.
        mount: PathBuf,
    },
    /// A file of the cgroup cannot be read.
    #[error("cannot read {path}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A file of the cgroup cannot be written.
    #[error("cannot write {word:?} to {path}")]
    Write {
        /// The file.
        path: PathBuf,
        /// What was to be written.
        word: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It did not read back FROZEN in time; the request was withdrawn.
    #[error("cgroup {dir} is not frozen after {waited_ms} ms; not stopped: {running}")]
    NotFrozen {
        /// The cgroup.
        dir: PathBuf,
        /// How long it was waited for.
        waited_ms: u128,
        /// The processes that were not asleep in the freezer, as far as can be told.
        running: String,
    },
    /// A cgroup above it is frozen, so that this one cannot be thawed.
    #[error("cgroup {dir} stays frozen, because one above it is")]
    FrozenFromAbove {
        /// The cgroup.
        dir: PathBuf,
    },
    /// A process in the cgroup is in a pid namespace that is not below ours.
    #[error("cgroup {dir} holds a process that cannot be seen from here")]
    Unseen {
        /// The cgroup.
        dir: PathBuf,
    },
    /// Processes are still there although they were killed.
    #[error("{count} processes of cgroup {dir} are still there {waited_ms} ms after they were killed")]
    NotDead {
        /// The cgroup.
        dir: PathBuf,
        /// How many.
        count: usize,
        /// How long it was waited for.
        waited_ms: u128,
    },
    /// Some directories could not be removed.
    #[error("cannot remove {}", list(.failures))]
    Remove {
        /// Each with its reason.
        failures: Vec<(PathBuf, io::Error)>,
    },
}

impl Cgroup {
    /// The cgroup of a container whose OCI `cgroupsPath` is this absolute path. It need not exist yet.
    pub fn of_container(path: &Path) -> Result<Self, CgroupError> {
        hierarchies::Hierarchies::mounted()?.container(path)
    }

    /// The cgroup in which a process is now.
    pub fn of_process(pid: i32) -> Result<Self, CgroupError> {
        hierarchies::Hierarchies::mounted()?.process(pid)
    }

    /// The directory with the freezer in it.
    pub fn dir(&self) -> &Path {
        match self {
            Self::V1 { freezer, .. } => freezer,
            Self::V2 { dir } => dir,
        }
    }

    /// All processes in it and below it, by their pids in our pid namespace; zombies are not among them.
    ///
    /// A cgroup that does not exist has none.
    pub fn procs(&self) -> Result<Vec<i32>, CgroupError> {
        let mut pids = Vec::new();
        collect(self.dir(), &mut pids)?;
        match pids.contains(&0) {
            true => Err(CgroupError::Unseen { dir: self.dir().to_owned() }),
            false => Ok(pids),
        }
    }

    /// Moves a process into it. In version 1 that concerns the freezer only.
    pub fn admit(&self, pid: i32) -> Result<(), CgroupError> {
        write(&self.dir().join("cgroup.procs"), &pid.to_string())
    }
}

fn collect(dir: &Path, pids: &mut Vec<i32>) -> Result<(), CgroupError> {
    let path = dir.join("cgroup.procs");
    match read(&path) {
        Ok(text) => pids.extend(text.lines().filter_map(|line| line.trim().parse::<i32>().ok())),
        Err(CgroupError::Read { source, .. }) if is_gone(&source) => return Ok(()),
        Err(error) => return Err(error),
    }
    for child in children(dir) {
        collect(&child, pids)?;
    }
    Ok(())
}

/// The cgroups directly below.
fn children(dir: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(dir) else { return Vec::new() };
    let directories =
        entries.filter_map(Result::ok).filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
    directories.map(|entry| entry.path()).collect()
}

fn read(path: &Path) -> Result<String, CgroupError> {
    fs::read_to_string(path).map_err(|source| CgroupError::Read { path: path.to_owned(), source })
}

fn write(path: &Path, word: &str) -> Result<(), CgroupError> {
    fs::write(path, word).map_err(|source| CgroupError::Write {
        path: path.to_owned(),
        word: word.to_owned(),
        source,
    })
}

/// Whether an error says that the cgroup does not exist, or ceased to while it was read.
fn is_gone(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound
        || error.raw_os_error() == Some(rustix::io::Errno::NODEV.raw_os_error())
}

fn list(failures: &[(PathBuf, io::Error)]) -> String {
    let each = failures.iter().map(|(path, error)| format!("{} ({error})", path.display()));
    each.collect::<Vec<_>>().join(", ")
}
