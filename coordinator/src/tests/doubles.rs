//! What is done or said two times changes nothing: exactly one copy runs, and the next migration works.

use ums_model::phase::Outcome;

use super::lab::{Lab, web};
use crate::fault::{Act, Step};

const MEMORY: &[u8] = b"web with state";

/// Runs a migration in which `act` happens at each of `steps`, one after the other; each must end as one of `ends`.
fn all(act: &Act, steps: &[Step], ends: &[Outcome]) {
    for step in steps {
        let mut lab = match step.as_str().starts_with("d-") {
            false => Lab::new([(*step, act.clone())], []),
            true => Lab::new([], [(*step, act.clone())]),
        };
        lab.a.fake.write(&web(), b" with state");
        let ended = lab.a.end_of(lab.a.migrate("web", "b").unwrap());
        let outcome = ended.outcome.unwrap();
        assert!(ends.contains(&outcome), "{act:?} at {step:?}: {:?}", ended.report);
        lab.settles_at(if outcome == Outcome::Done { "b" } else { "a" }, MEMORY);
    }
}

#[test]
fn deeds_are_safe_to_repeat() {
    let steps = [
        Step::Commit,
        Step::Release,
        Step::DestinationImage,
        Step::DestinationArm,
        Step::DestinationGranted,
        Step::DestinationRunning,
    ];
    all(&Act::Twice, &steps, &[Outcome::Done]);
    // A second dump may be refused while the first is being undone.
    all(&Act::Twice, &[Step::Dump], &[Outcome::Done, Outcome::RolledBack]);
}

#[test]
fn a_commit_and_its_answer_may_come_two_times() {
    all(&Act::Again, &[Step::Resume, Step::DestinationRunning], &[Outcome::Done]);
}

/// Before the commit a word out of turn may end the attempt, and nothing else.
#[test]
fn a_word_that_comes_two_times_before_the_commit_ends_at_most_the_attempt() {
    let steps = [
        Step::Reserve,
        Step::Arm,
        Step::Restore,
        Step::DestinationReserve,
        Step::DestinationArm,
        Step::DestinationHeld,
    ];
    all(&Act::Again, &steps, &[Outcome::Done, Outcome::RolledBack]);
}

#[test]
fn no_step_depends_on_the_wall_clock() {
    let year = 365 * 24 * 3600;
    for step in
        [Step::Reserve, Step::Transfer, Step::Committed, Step::DestinationArm, Step::DestinationGranted]
    {
        for seconds in [year, -year] {
            all(&Act::Jump(seconds), &[step], &[Outcome::Done]);
        }
    }
}
