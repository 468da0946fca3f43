//! Explores *every* behaviour of two sites that migrate one service: messages are lost, repeated and overtaken,
//! either site's daemon or machine crashes between any two actions, copies die, users abort, leases run out. The sites
//! do nothing but what the rules of `ums_model` tell them.
//!
//! * `world`: the two sites, the network, and what each action does to them;
//! * `steps`: everything that can happen next;
//! * `invariants`: what must hold in every state, and after everything was repaired;
//! * `search`: breadth-first, so that a violation comes with its shortest story.
//!
//! The second half of the tests weakens one rule at a time and demands that the explorer notices.

mod invariants;
mod search;
mod steps;
mod world;

use search::{Found, explore};
use world::{Bounds, Weakness, World};

const ONE_MIGRATION: Bounds = Bounds { epochs: 1, failures: 2, writes_outside: false, weakness: None };

fn assert_safe(bounds: Bounds) {
    match explore(World::new(bounds)) {
        Found::Nothing { states, moved, rolled_back, lost, stuck } => {
            println!("{states} states, {moved} moved, {rolled_back} rolled back, {lost} lost, {stuck} stuck");
            // A search that never saw these did not search.
            assert!(states > 10_000 && moved > 0 && rolled_back > 0);
            assert!(lost > 0, "a machine that dies with the frozen original in it");
            assert_eq!(stuck > 0, bounds.writes_outside);
        }
        Found::Violation(story) => panic!("{story}"),
    }
}

#[test]
fn one_migration_and_three_failures() {
    assert_safe(Bounds { failures: 3, ..ONE_MIGRATION });
}

/// There and back, or a second try.
#[test]
fn two_migrations_and_two_failures() {
    assert_safe(Bounds { epochs: 2, failures: 2, ..ONE_MIGRATION });
}

/// Roles change twice, so a site meets its own past.
#[test]
fn three_migrations_and_one_failure() {
    assert_safe(Bounds { epochs: 3, failures: 1, ..ONE_MIGRATION });
}

#[test]
fn a_writable_outside_mount_changes_nothing_but_one_stuck() {
    assert_safe(Bounds { writes_outside: true, ..ONE_MIGRATION });
}

/// The explorer finds what a broken rule does; otherwise its silence above would mean nothing.
#[test]
fn every_weakened_rule_is_found_out() {
    for weakness in Weakness::ALL {
        let bounds = Bounds { weakness: Some(weakness), ..ONE_MIGRATION };
        match explore(World::new(bounds)) {
            Found::Violation(story) => println!("{weakness:?}:\n{story}\n"),
            Found::Nothing { states, .. } => panic!("{weakness:?} went unnoticed in {states} states"),
        }
    }
}
