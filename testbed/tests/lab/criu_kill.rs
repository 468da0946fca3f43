//! Somebody kills CRIU in the middle of a migration's dump. The rates over many kills: `cargo xtask bench criu-kill`.

use ums_testbed::bench::criu_kill::fates;

/// Spread over the log of a dump.
const KILLS: u32 = 8;

#[test]
fn a_service_whose_criu_is_killed_goes_on_or_is_told_as_lost() {
    let fates = fates(KILLS).expect("every service is whole or lost");
    println!("{fates:?}");
    assert!(fates.cured > 0, "nothing that CRIU had changed was ever put right: {fates:?}");
    // Of sixty, two were.
    assert!(fates.lost <= fates.cured, "most are lost: {fates:?}");
}
