//! Is a tree stopped for certain: all of it frozen, and nothing else in its cgroup?

use super::tree::{Tasks, TreeError, count_tasks, members};
use crate::cgroup::{Cgroup, CgroupError};

/// A tree is not stopped, or that cannot be told.
#[derive(Debug, thiserror::Error)]
pub enum NotFrozen {
    /// Its cgroup cannot be looked at.
    #[error("cannot look at the cgroup of process {pid}")]
    Cgroup {
        /// The tree's first process.
        pid: i32,
        /// Why.
        #[source]
        source: CgroupError,
    },
    /// Its tasks cannot be looked at.
    #[error("cannot look at the tasks of process {pid}")]
    Tree {
        /// The tree's first process.
        pid: i32,
        /// Why; a first process that is gone shows here.
        #[source]
        source: TreeError,
    },
    /// It may run.
    #[error("the cgroup of process {pid} is not frozen")]
    Thawed {
        /// The tree's first process.
        pid: i32,
    },
    /// Part of it is not held by the freezer.
    #[error("process {outside} of the tree of process {pid} is not in its cgroup")]
    Outside {
        /// The tree's first process.
        pid: i32,
        /// Which.
        outside: i32,
    },
    /// Something else would be thawed or killed with it.
    #[error("process {foreign} is in the cgroup of process {pid}, but not of its tree")]
    Foreign {
        /// The tree's first process.
        pid: i32,
        /// Which.
        foreign: i32,
    },
    /// Somebody could make it run.
    #[error("process {traced} of the tree of process {pid} is traced")]
    Traced {
        /// The tree's first process.
        pid: i32,
        /// Which.
        traced: i32,
    },
}

/// Makes sure that a tree (the pid namespace of `pid`) does not run before its cgroup is thawed, and counts it.
pub fn confirm_frozen(pid: i32, cgroup: &Cgroup) -> Result<Tasks, NotFrozen> {
    let looked = |source| NotFrozen::Cgroup { pid, source };
    let counted = |source| NotFrozen::Tree { pid, source };
    if !cgroup.is_frozen().map_err(looked)? {
        return Err(NotFrozen::Thawed { pid });
    }
    let frozen = cgroup.procs().map_err(looked)?;
    let members = members(pid).map_err(counted)?;
    if let Some(member) = members.iter().find(|one| one.state != 'Z' && !frozen.contains(&one.pid)) {
        return Err(NotFrozen::Outside { pid, outside: member.pid });
    }
    if let Some(foreign) = frozen.iter().find(|pid| !members.iter().any(|one| one.pid == **pid)) {
        return Err(NotFrozen::Foreign { pid, foreign: *foreign });
    }
    if let Some(traced) = frozen.iter().find(|pid| tracer(**pid) != 0) {
        return Err(NotFrozen::Traced { pid, traced: *traced });
    }
    count_tasks(pid).map_err(counted)
}

/// Who traces a process; 0 is nobody.
pub(super) fn tracer(pid: i32) -> u32 {
    let status = crate::process::text(pid, "status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("TracerPid:"));
    line.and_then(|pid| pid.trim().parse().ok()).unwrap_or(0)
}
