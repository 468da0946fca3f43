//! What goes wrong where: chosen by a seed, evenly over all steps and kinds.

use std::collections::BTreeMap;

use super::dice::Dice;
use crate::fault::Step;
use crate::matrix::steps::has_place;

/// Of so many migrations one meets no fault.
const ONE_IN: u64 = 8;

/// What goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// SIGKILL to the source's daemon, which is started again a moment later.
    KillSourceDaemon,
    /// SIGKILL to the destination's daemon.
    KillDestinationDaemon,
    /// SIGKILL to the service's nest at the source; its keeper starts another.
    KillSourceNest,
    /// SIGKILL to the service's nest at the destination.
    KillDestinationNest,
    /// The step fails by itself.
    StepFails,
    /// CRIU finds that it cannot dump: somebody traces the service.
    CriuFails,
    /// The link is a black hole for a while.
    CutBoth,
    /// Packets towards the destination vanish for a while.
    CutToDestination,
    /// Packets towards the source vanish for a while.
    CutToSource,
    /// The link has 40 Mbit/s and 10 ms for the rest of the migration.
    SlowLink,
    /// The daemon stands still for a while.
    Pause,
    /// A user says `ums abort`.
    Abort,
    /// SIGKILL to the service's keeper at the source, and with it to the copy.
    KillSourceKeeper,
    /// SIGKILL to the service's keeper at the destination, and with it to the copy.
    KillDestinationKeeper,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 14] = [
        Self::KillSourceDaemon,
        Self::KillDestinationDaemon,
        Self::KillSourceNest,
        Self::KillDestinationNest,
        Self::StepFails,
        Self::CriuFails,
        Self::CutBoth,
        Self::CutToDestination,
        Self::CutToSource,
        Self::SlowLink,
        Self::Pause,
        Self::Abort,
        Self::KillSourceKeeper,
        Self::KillDestinationKeeper,
    ];

    /// As it is printed.
    pub fn word(self) -> &'static str {
        match self {
            Self::KillSourceDaemon => "kill-source-daemon",
            Self::KillDestinationDaemon => "kill-destination-daemon",
            Self::KillSourceNest => "kill-source-nest",
            Self::KillDestinationNest => "kill-destination-nest",
            Self::StepFails => "step-fails",
            Self::CriuFails => "criu-fails",
            Self::CutBoth => "cut-both",
            Self::CutToDestination => "cut-to-destination",
            Self::CutToSource => "cut-to-source",
            Self::SlowLink => "slow-link",
            Self::Pause => "pause",
            Self::Abort => "abort",
            Self::KillSourceKeeper => "kill-source-keeper",
            Self::KillDestinationKeeper => "kill-destination-keeper",
        }
    }

    /// Whether a copy may be lost by it.
    pub fn kills_a_copy(self) -> bool {
        matches!(self, Self::KillSourceKeeper | Self::KillDestinationKeeper)
    }

    /// Whether there is something for it to hit at this step.
    fn fits(self, step: Step) -> bool {
        match self {
            Self::KillDestinationNest | Self::KillDestinationKeeper => has_place(step),
            Self::CriuFails => step == Step::Dump,
            _ => true,
        }
    }
}

/// One fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fault {
    /// When.
    pub step: Step,
    /// What.
    pub kind: Kind,
}

/// The choice of the faults, and how many of them happened.
#[derive(Debug)]
pub(super) struct Plan {
    kinds: Vec<Kind>,
    pub(super) by_step: BTreeMap<&'static str, u64>,
    pub(super) by_kind: BTreeMap<&'static str, u64>,
}

impl Plan {
    /// With or without the kinds that may lose a copy.
    pub(super) fn new(keepers: bool) -> Self {
        let kinds: Vec<Kind> = Kind::ALL.into_iter().filter(|kind| keepers || !kind.kills_a_copy()).collect();
        Self {
            by_step: Step::ALL.iter().map(|step| (step.word(), 0)).collect(),
            by_kind: kinds.iter().map(|kind| (kind.word(), 0)).collect(),
            kinds,
        }
    }

    /// The next fault: at one of the steps that had the fewest, of one of the kinds that fit there and had the fewest.
    pub(super) fn next(&self, dice: &mut Dice) -> Option<Fault> {
        if dice.below(ONE_IN) == 0 {
            return None;
        }
        let step = dice.pick(&fewest(&Step::ALL, |step| self.by_step[step.word()]))?;
        let fitting: Vec<Kind> = self.kinds.iter().copied().filter(|kind| kind.fits(step)).collect();
        let kind = dice.pick(&fewest(&fitting, |kind| self.by_kind[kind.word()]))?;
        Some(Fault { step, kind })
    }

    /// It happened.
    pub(super) fn count(&mut self, fault: Fault) {
        *self.by_step.entry(fault.step.word()).or_default() += 1;
        *self.by_kind.entry(fault.kind.word()).or_default() += 1;
    }

    /// How many happened.
    pub(super) fn total(&self) -> u64 {
        self.by_step.values().sum()
    }
}

fn fewest<T: Copy>(choices: &[T], count: impl Fn(&T) -> u64) -> Vec<T> {
    let least = choices.iter().map(&count).min();
    choices.iter().copied().filter(|choice| Some(count(choice)) == least).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_are_spread_over_all_steps_and_kinds() {
        for keepers in [false, true] {
            let mut plan = Plan::new(keepers);
            let mut dice = Dice::new(5);
            let mut without = 0;
            for _ in 0..130 {
                match plan.next(&mut dice) {
                    Some(fault) => {
                        assert!(fault.kind.fits(fault.step) && (keepers || !fault.kind.kills_a_copy()));
                        plan.count(fault);
                    }
                    None => without += 1,
                }
            }
            assert!(without > 5);
            assert!(plan.by_step.values().all(|count| *count >= 5), "{:?}", plan.by_step);
            let others = plan.by_kind.iter().filter(|(kind, _)| **kind != "criu-fails");
            assert!(others.map(|(_, count)| *count).min() >= Some(3), "{:?}", plan.by_kind);
            assert_eq!(plan.total() + without, 130);
        }
    }

    #[test]
    fn every_kind_has_a_word_and_a_step() {
        let words: std::collections::BTreeSet<_> = Kind::ALL.iter().map(|kind| kind.word()).collect();
        assert_eq!(words.len(), Kind::ALL.len());
        assert!(Kind::ALL.iter().all(|kind| Step::ALL.iter().any(|step| kind.fits(*step))));
    }
}
