//! Which cells make sense, and how each may end.

use super::faults::Fault;
use super::steps::{Moment, has_place, moment};
use crate::fault::{Role, Step};

/// How a cell ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum End {
    /// The service runs at the destination.
    Done,
    /// The service runs at the source.
    RolledBack,
    /// Migrated or not, the one copy that could run was killed by the fault, as any service dies whose keeper or host
    /// does. Both sites say so.
    Died,
    /// No copy is left, and both sites say `lost`.
    Lost,
    /// No rule can decide, both sites say so, and an operator's word ended it.
    Resolved,
}

impl End {
    /// As the tables say it.
    pub fn word(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::RolledBack => "rolled back",
            Self::Died => "died",
            Self::Lost => "lost",
            Self::Resolved => "resolved",
        }
    }
}

/// Why a cell makes no sense; `None` if it does.
pub fn senseless(step: Step, fault: Fault) -> Option<&'static str> {
    use Fault as F;
    match fault {
        F::KillDestinationNest | F::KillDestinationKeeper if !has_place(step) => {
            Some("the destination has no nest yet")
        }
        F::FailDump | F::KillDump if step != Step::Dump => {
            Some("CRIU dumps between `dump` and `transfer`: the row `dump` is this cell")
        }
        F::FailRestore | F::KillRestore if step != Step::DestinationArm => {
            Some("the CRIU that restores is started while `d-arm`: that row is this cell")
        }
        F::Again if !says(step) => Some("no message belongs to this step"),
        F::Twice if !does(step) => {
            Some("its deed is a record or a stream: doing the step again is the column `kill-...-daemon`")
        }
        F::NoMemory if moment(step) >= Moment::Committed => {
            Some("the copy is whole; from here on it is a service that has too little memory, as without UMS")
        }
        _ => None,
    }
}

/// Whether a message belongs to the step.
fn says(step: Step) -> bool {
    matches!(
        step,
        Step::Reserve
            | Step::Arm
            | Step::Restore
            | Step::Resume
            | Step::DestinationReserve
            | Step::DestinationArm
            | Step::DestinationHeld
            | Step::DestinationRunning
    )
}

/// Whether the step has a deed that is asked of the site.
fn does(step: Step) -> bool {
    matches!(
        step,
        Step::Dump
            | Step::Commit
            | Step::Release
            | Step::DestinationImage
            | Step::DestinationArm
            | Step::DestinationGranted
            | Step::DestinationRunning
    )
}

/// How a cell may end.
pub fn may_end(step: Step, fault: Fault) -> &'static [End] {
    use End::{Died, Done, Lost, Resolved, RolledBack};
    use Fault as F;
    let moment = moment(step);
    match fault {
        F::Slow | F::ClockForward | F::ClockBack | F::Restarted => &[Done],
        F::Twice if step == Step::Dump => &[Done, RolledBack],
        F::Twice => &[Done],
        F::Again if moment < Moment::Committed => &[Done, RolledBack],
        F::Again => &[Done],
        F::FailDump | F::FailRestore | F::KillRestore => &[RolledBack],
        F::KillDump => &[RolledBack, Died, Lost],
        F::FullSource | F::FullDestination | F::NoMemory | F::KillSourceNest
            if moment < Moment::Committed =>
        {
            &[Done, RolledBack]
        }
        F::KillSourceDaemon | F::KillBothDaemons if moment < Moment::Committed => &[RolledBack],
        F::KillDestinationDaemon | F::CutBoth | F::CutToDestination | F::CutToSource => match moment {
            Moment::Running | Moment::Stopped => &[RolledBack],
            // Which comes first, the source's decision or its knowledge of the fault, is a matter of timing.
            Moment::Held => &[Done, RolledBack],
            _ => &[Done],
        },
        F::KillDestinationNest if moment <= Moment::Told => &[Done, RolledBack],
        F::KillSourceKeeper | F::SourceHostDies => match moment {
            Moment::Running => &[RolledBack, Died, Lost],
            Moment::Stopped => &[Done, Died, Lost],
            Moment::Held => &[Done, Lost],
            _ => &[Done],
        },
        F::KillDestinationKeeper | F::DestinationHostDies => match (moment, step.role()) {
            (Moment::Running | Moment::Stopped | Moment::Held, _) => &[RolledBack],
            (Moment::Committed, Role::Source) => &[RolledBack],
            // The witness is written outside of what moves: after GRANTED nobody but an operator may say that nothing
            // of it was seen.
            (Moment::Committed, Role::Destination) => &[Resolved],
            (Moment::Told, _) => &[RolledBack, Resolved, Died],
            (Moment::Resumed, Role::Destination) => &[Resolved, Died],
            (Moment::Resumed, Role::Source) => &[Died],
        },
        _ => &[Done],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_step_and_every_fault_has_a_cell_that_makes_sense() {
        for step in Step::ALL {
            assert!(Fault::ALL.iter().any(|fault| senseless(step, *fault).is_none()), "{step:?}");
        }
        for fault in Fault::ALL {
            assert!(Step::ALL.iter().any(|step| senseless(*step, fault).is_none()), "{fault}");
        }
    }

    #[test]
    fn a_copy_is_lost_only_where_one_was_killed_from_outside() {
        let kills = [
            Fault::KillSourceKeeper,
            Fault::KillDestinationKeeper,
            Fault::SourceHostDies,
            Fault::DestinationHostDies,
            Fault::KillDump,
        ];
        let cells = Step::ALL.iter().flat_map(|step| Fault::ALL.map(|fault| (*step, fault)));
        for (step, fault) in cells.filter(|(step, fault)| senseless(*step, *fault).is_none()) {
            let ends = may_end(step, fault);
            assert!(!ends.is_empty());
            let loses = ends.iter().any(|end| matches!(end, End::Lost | End::Died | End::Resolved));
            assert!(!loses || kills.contains(&fault), "{step:?} {fault}");
            if moment(step) >= Moment::Held {
                assert!(!(ends.contains(&End::Lost) && moment(step) > Moment::Held), "{step:?} {fault}");
            }
        }
    }
}
