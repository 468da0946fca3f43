//! Collects what was found, in bounds.

use std::collections::BTreeMap;

use ums_model::plan::{BlockerKind, ProcessBlocker};

use super::process::Process;

/// Things of one kind that are told one by one of one process: whoever holds more holds many.
const TOLD: usize = 5;

/// What was found so far.
#[derive(Debug, Default)]
pub(super) struct Findings {
    blockers: Vec<ProcessBlocker>,
    counts: BTreeMap<(i32, BlockerKind), Count>,
}

#[derive(Debug, Default)]
struct Count {
    found: usize,
    name: String,
}

impl Findings {
    /// Adds one thing that a process holds.
    pub(super) fn add(&mut self, process: &Process, kind: BlockerKind, detail: impl AsRef<str>) {
        let count = self.counts.entry((process.pid, kind)).or_default();
        count.found += 1;
        if count.found > TOLD {
            count.name.clone_from(&process.name);
        } else {
            self.blockers.push(blocker(process.pid, kind, &process.name, detail.as_ref()));
        }
    }

    /// Everything, in the order of the processes.
    pub(super) fn into_blockers(self) -> Vec<ProcessBlocker> {
        let Self { mut blockers, counts } = self;
        for ((pid, kind), count) in counts {
            if count.found > TOLD {
                let detail = format!("and {} more of the kind", count.found - TOLD);
                blockers.push(blocker(pid, kind, &count.name, &detail));
            }
        }
        // Stable: what is more of a kind stays behind the kind.
        blockers.sort_by_key(|blocker| (blocker.pid, blocker.kind));
        blockers
    }
}

fn blocker(pid: i32, kind: BlockerKind, name: &str, detail: &str) -> ProcessBlocker {
    ProcessBlocker { pid: u32::try_from(pid).unwrap_or(0), kind, detail: format!("{name}: {detail}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_of_a_kind_are_counted() {
        let process = |pid| Process { pid, name: "program".to_owned(), threads: Vec::new() };
        let mut findings = Findings::default();
        findings.add(&process(9), BlockerKind::IoUring, "first");
        for n in 0..TOLD + 3 {
            findings.add(&process(7), BlockerKind::IoUring, format!("number {n}"));
        }
        let blockers = findings.into_blockers();
        assert_eq!(blockers.len(), TOLD + 2);
        assert_eq!(blockers[0].detail, "program: number 0");
        assert_eq!(blockers[TOLD].detail, "program: and 3 more of the kind");
        assert_eq!((blockers[TOLD + 1].pid, &*blockers[TOLD + 1].detail), (9, "program: first"));
    }
}
