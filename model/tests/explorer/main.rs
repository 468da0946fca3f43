//! Explores *every* behaviour of two sites that migrate one service: messages are lost, repeated and overtaken, links are
//! cut in one direction or both, either site's daemon or machine crashes between any two actions and *any number of
//! times*, copies die, users abort, leases run out, an orchestrator starts what has ended. The sites do nothing but what
//! the rules of `ums_model` tell them: the code that runs, not a copy of it.
//!
//! * `world`: the two sites, the network, and what each action does to them;
//! * `steps`: everything that can happen next;
//! * `invariants`: what must hold in every state, and after everything was repaired;
//! * `claims`: what is demanded of two journals, and `search` (both shared with `nests`): all of it, breadth-first, so that a violation comes with its shortest story.
//!
//! There is no counter of failures: a world in which something has failed is no different from one in which it has
//! failed once more, so any number of them costs no more states than one, and nothing is cut off but the number of
//! migrations. The network needs no model of its own either: what was said once can be heard at any time, in any order,
//! as often as wanted, or never. That is loss, delay, repetition, overtaking, and a partition in either direction.
//!
//! The second half of the tests weakens one rule at a time and demands that the checker notices.

#[path = "../common/claims.rs"]
mod claims;
mod invariants;
#[path = "../common/search.rs"]
mod search;
mod steps;
mod world;

use search::{counterexample, explore};
use world::{Bounds, Weakness};

const ONE_MIGRATION: Bounds = Bounds { epochs: 1, writes_outside: false, weakness: None };

#[test]
fn one_migration() {
    assert!(explore(ONE_MIGRATION) > 10_000);
}

/// There and back, or a second try.
#[test]
fn two_migrations() {
    assert!(explore(Bounds { epochs: 2, ..ONE_MIGRATION }) > 100_000);
}

/// Roles change twice, so a site meets its own past.
#[test]
fn three_migrations() {
    assert!(explore(Bounds { epochs: 3, ..ONE_MIGRATION }) > 1_000_000);
}

#[test]
fn a_writable_outside_mount_changes_nothing_but_one_stuck() {
    explore(Bounds { writes_outside: true, ..ONE_MIGRATION });
}

/// The checker finds what a broken rule does; otherwise its silence above would mean nothing.
fn is_found_out(weakness: Weakness) {
    match counterexample(Bounds { weakness: Some(weakness), ..ONE_MIGRATION }) {
        Some(story) => println!("{weakness:?}:\n{story}"),
        None => panic!("{weakness:?} went unnoticed"),
    }
}

#[test]
fn rule_1_a_held_copy_has_no_lease() {
    is_found_out(Weakness::LeaseAfterHeld);
}

#[test]
fn rule_2_abort_is_durable_before_the_thaw() {
    is_found_out(Weakness::ThawBeforeAbort);
}

#[test]
fn rule_3_commit_only_after_held() {
    is_found_out(Weakness::CommitBeforeHeld);
}

#[test]
fn rule_4_without_its_own_copy_a_source_does_not_abort() {
    is_found_out(Weakness::AbortWithoutACopy);
}

#[test]
fn rule_5_a_copy_runs_only_after_the_commit() {
    is_found_out(Weakness::RunWithoutCommit);
}

#[test]
fn rule_5_granted_is_durable_before_the_thaw() {
    is_found_out(Weakness::ThawBeforeGrant);
}

#[test]
fn rule_5_a_refusal_is_never_forgotten() {
    is_found_out(Weakness::ForgetTombstone);
}

#[test]
fn rule_6_the_source_takes_its_right_back_only_after_refused() {
    is_found_out(Weakness::ThawAfterCommit);
}

#[test]
fn rule_6_refused_needs_the_proof_that_the_tree_is_gone() {
    is_found_out(Weakness::RefuseWithoutProof);
}

#[test]
fn rule_7_the_state_is_released_only_after_running() {
    is_found_out(Weakness::ReleaseAtCommit);
}

#[test]
fn lost_is_said_by_both_sites() {
    is_found_out(Weakness::LostUnsaid);
}

#[test]
fn lost_is_said_only_after_a_final_no() {
    is_found_out(Weakness::LostUnasked);
}

#[test]
fn output_commit_nothing_is_said_before_running_is_durable() {
    is_found_out(Weakness::OpenBeforeRunning);
}
