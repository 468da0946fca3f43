//! How long a decision takes. Not part of the tests: a number is no condition.

use std::time::Instant;

use super::*;

/// `cargo nextest run -p ums-coordinator --run-ignored only --no-capture measure`, on the disk of UMS_MEASURE_DIR or of
/// the directory for temporary files.
#[tokio::test]
#[ignore = "measures, and asserts nothing"]
async fn measure_a_durable_decision() {
    let dir = std::env::var_os("UMS_MEASURE_DIR").map_or_else(std::env::temp_dir, PathBuf::from);
    let home = tempfile::tempdir_in(dir).unwrap();
    let path = home.path().join("journal.db");
    let journal = Journal::open(&path).unwrap();
    let mut number = 0;
    for (what, full) in [("in the database", false), ("in a slot", true)] {
        journal.pretend_full(full).await;
        let mut took = Vec::new();
        for _ in 0..300 {
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
    let begun = Instant::now();
    drop(Journal::open(&path).unwrap());
    println!("opening it, with 300 decisions to be brought back: {:?}", begun.elapsed());
    let begun = Instant::now();
    drop(Journal::open(&path).unwrap());
    println!("opening it again, 600 records: {:?}", begun.elapsed());
}
