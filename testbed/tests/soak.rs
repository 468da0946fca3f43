//! A short soak, the same every time: both databases, eight migrations, almost all of them with a fault.

use std::time::Duration;

use ums_testbed::soak::{Options, run};

#[test]
fn a_short_soak_finds_no_violation() {
    let report = run(Options { time: Duration::MAX, rounds: 8, seed: 3, sites: 2, keepers: false }).unwrap();
    assert_eq!(report.violations, 0, "{}", report.text());
    assert_eq!(report.migrations, 8, "{}", report.text());
    assert_eq!(report.outcomes.lost, 0, "{}", report.text());
    assert!(report.faults >= 4, "{}", report.text());
    assert!(report.operations.acknowledged > 100 && report.operations_checked > 100, "{}", report.text());
}
