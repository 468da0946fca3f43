//! Many decisions in a row, in the database and in slots: none is lost. How long one takes is printed, and no condition.

use std::time::Instant;

use super::*;

/// Each way.
const DECISIONS: usize = 100;

/// For the figures: `cargo xtask test -p ums-coordinator -- --no-capture many_decisions`, on the disk of UMS_MEASURE_DIR or of
/// the directory for temporary files.
#[tokio::test]
async fn many_decisions_are_all_found_again() {
    let dir = std::env::var_os("UMS_MEASURE_DIR").map_or_else(std::env::temp_dir, PathBuf::from);
    let home = tempfile::tempdir_in(dir).unwrap();
    let path = home.path().join("journal.db");
    let journal = Journal::open(&path).unwrap();
    let mut number = 0;
    for (what, full) in [("in the database", false), ("in a slot", true)] {
        journal.pretend_full(full).await;
        let mut took = Vec::new();
        for _ in 0..DECISIONS {
            let begun = Instant::now();
            decide(&journal, number).await;
            took.push(begun.elapsed());
            number += 1;
        }
        took.sort();
        println!(
            "a decision {what}: median {:?}, 99 % below {:?}",
            took[took.len() / 2],
            took[took.len() * 99 / 100]
        );
    }
    drop(journal);
    for what in ["what is in slots to be brought back", "nothing to be done"] {
        let begun = Instant::now();
        let journal = Journal::open(&path).unwrap();
        println!("opening it, with {what}: {:?}", begun.elapsed());
        assert_eq!(known(&journal).await, 2 * DECISIONS);
    }
}
