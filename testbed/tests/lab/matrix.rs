//! A selection of the matrix of faults: every step and every fault at least once. The whole is `cargo xtask bench faults`.

use ums_testbed::matrix::{Cell, run, selection};

/// Labs are independent, and most of a cell is waiting: they are spread over several tests.
const LANES: usize = 4;

fn lane(number: usize) {
    let cells: Vec<Cell> = selection().into_iter().skip(number).step_by(LANES).collect();
    let mut failures = Vec::new();
    run::run(&cells, |result| {
        println!(
            "{:<44} {:<12} {:>5.1} s",
            result.cell,
            result.end.as_deref().unwrap_or("FAILED"),
            result.seconds
        );
        failures.extend(result.failure.map(|failure| format!("{}: {failure}", result.cell)));
        Ok(())
    })
    .expect("two sites");
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

#[test]
fn faults_of_the_first_lane() {
    lane(0);
}

#[test]
fn faults_of_the_second_lane() {
    lane(1);
}

#[test]
fn faults_of_the_third_lane() {
    lane(2);
}

#[test]
fn faults_of_the_fourth_lane() {
    lane(3);
}
