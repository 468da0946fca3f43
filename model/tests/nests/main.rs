//! Explores every behaviour of two sites whose Coordinators, nests, copies and hosts die *any number of times* between
//! any two of their steps, with what survives each: the Coordinator's journal, the nest's record, the copy, or nothing
//! but the two files. An orchestrator starts the service whenever the nest's record lets it, and takes its container
//! away whenever it likes. Words are lost, repeated, late and overtaken as in the `explorer`, which has more migrations
//! and no nests. Two more searches have what a dead Coordinator asked its nest for come at any later time, and a journal that is
//! put back to an older copy of it. Rules and records are the code that runs (`ums_model::standing`, `ums_model::nest`), not copies of it.
//!
//! * `world`: the two sites, the network, and what each deed does to them; `said`: words in few bits;
//! * `steps`: everything that can happen next; `deeds`: what becomes of what a nest is asked for;
//! * `invariants`: what must hold in every state, and after everything was repaired;
//! * `claims` (shared with the other search): what is demanded of two journals; `search`: all of it, breadth-first.
//!
//! What keeps the number of states small, and why each is no loss:
//! * records are written and words are said together with the deed before them, up to the next thing that takes the
//!   nest; that they come later, or never, is a behaviour of the state without a list, or of a word that nobody hears;
//! * whoever waits for a word may hear every answer that was true while it waited: no questions in flight;
//! * a nest that was killed is replaced at any later time, in one step: to settle is safe to interrupt and to repeat
//!   (a test of `ums_model::nest` says so), and one that is down cannot be told from one that is slow;
//! * a nest without a copy that could run (prepared, restoring, discarded) is as good as none;
//! * what was said about an epoch that both sites have left behind is forgotten; that nothing can come of it is checked.

#[path = "../common/claims.rs"]
mod claims;
mod deeds;
mod invariants;
mod said;
#[path = "../common/search.rs"]
mod search;
mod steps;
mod world;

use search::{counterexample, explore};
use world::{Bounds, Weakness};

const ONE_MIGRATION: Bounds = Bounds { epochs: 1, late: false, rolls_back: None, weakness: None };

#[test]
fn nest_and_one_migration() {
    assert!(explore(ONE_MIGRATION) > 1_000);
}

/// What a Coordinator has asked its nest for and died is done at any later time, or never, and overtaken by what the next
/// one asks for.
#[test]
fn nest_and_one_migration_with_late_requests() {
    assert!(explore(Bounds { late: true, ..ONE_MIGRATION }) > 1_000);
}

/// A journal that is put back to any older copy of it, once, while nest and copy stay as they are: two never run, because the
/// nest knows the epoch, or the other site is asked. Who runs it in the end may be for an operator to say.
#[test]
fn nests_and_a_journal_that_is_put_back() {
    for at in [0, 1] {
        assert!(explore(Bounds { rolls_back: Some(at), ..ONE_MIGRATION }) > 10_000);
    }
}

/// Late words of the first migration come in the second.
#[test]
fn nests_in_two_migrations_with_late_requests() {
    assert!(explore(Bounds { epochs: 2, late: true, ..ONE_MIGRATION }) > 100_000);
}

/// There and back, or a second try.
#[test]
fn nests_in_two_migrations() {
    assert!(explore(Bounds { epochs: 2, ..ONE_MIGRATION }) > 30_000);
}

/// Roles change twice, so a site meets its own past.
#[test]
fn nests_in_three_migrations() {
    assert!(explore(Bounds { epochs: 3, ..ONE_MIGRATION }) > 200_000);
}

/// The checker finds what a broken rule does; otherwise its silence above would mean nothing.
fn is_found_out(bounds: Bounds) {
    match counterexample(bounds) {
        Some(story) => println!("{:?}:\n{story}", bounds.weakness),
        None => panic!("{:?} went unnoticed", bounds.weakness),
    }
}

fn in_one_migration(weakness: Weakness) {
    is_found_out(Bounds { weakness: Some(weakness), ..ONE_MIGRATION });
}

#[test]
fn weak_nest_starts_without_asking() {
    in_one_migration(Weakness::StartWithoutAsking);
}

#[test]
fn weak_nest_starts_what_was_never_heard() {
    in_one_migration(Weakness::StartBehindTheFence);
}

#[test]
fn weak_nest_thaws_without_a_record() {
    in_one_migration(Weakness::ThawWithoutRecord);
}

#[test]
fn weak_nest_sends_the_end_before_the_record() {
    in_one_migration(Weakness::EndBeforeDumped);
}

#[test]
fn weak_nest_settles_a_dump_by_a_thaw() {
    in_one_migration(Weakness::SettleDumpedByThaw);
}

#[test]
fn weak_nest_is_not_told_of_a_death() {
    in_one_migration(Weakness::BuryWithoutRecord);
}

#[test]
fn weak_site_does_not_ask_its_nest_about_the_journal() {
    is_found_out(Bounds {
        epochs: 2,
        rolls_back: Some(0),
        weakness: Some(Weakness::NestUnasked),
        ..ONE_MIGRATION
    });
}

#[test]
fn weak_source_does_not_ask_the_other_site_about_the_journal() {
    is_found_out(Bounds { rolls_back: Some(0), weakness: Some(Weakness::PeerUnasked), ..ONE_MIGRATION });
}

#[test]
fn weak_nest_is_not_taken_home() {
    is_found_out(Bounds { late: true, weakness: Some(Weakness::NotTakenHome), ..ONE_MIGRATION });
}

#[test]
fn lost_is_said_by_both_sites_with_nests() {
    in_one_migration(Weakness::LostUnsaid);
}

#[test]
fn weak_nest_heeds_an_older_epoch() {
    is_found_out(Bounds { epochs: 2, late: true, weakness: Some(Weakness::EpochLowered), ..ONE_MIGRATION });
}
