//! Services that move, there and back: nothing that a process can see has changed.

use std::thread;

use anyhow::{Result, ensure};
use ums_model::error::ErrorCode;
use ums_model::event::EventKind;
use ums_model::names::Bytes;
use ums_model::phase::{Approach, Mode, Outcome, Phase};
use ums_model::plan::Plan;
use ums_testbed::net::{A, B};
use ums_testbed::tcp_check::TcpCheck;
use ums_testbed::workload::{Memhog, Workload};

use crate::PATIENCE;
use crate::histories::{agreed, events, history, report};
use crate::rig::{Rig, Twist};
use crate::script::Script;
use crate::traces::Traces;
use crate::verdict::failed;

#[test]
fn a_counter_goes_there_and_back_twice() {
    let rig = &Rig::new().unwrap();
    let before = Traces::of(rig).unwrap();
    let counter = rig.start(A, &Workload::counter()).unwrap();
    for destination in [B, A, B, A] {
        counter.migrate(destination).unwrap();
        counter.check().unwrap();
    }
    assert_eq!(counter.check().unwrap().unwrap().moves, 4);
    assert_eq!(agreed(rig, counter.name()).unwrap(), Outcome::Done);
    let epochs: Vec<u64> =
        history(rig.a(), counter.name()).unwrap().iter().map(|memory| memory.epoch).collect();
    assert!(epochs.is_sorted_by(|one, other| one < other) && epochs.len() == 4, "{epochs:?}");

    // Nothing is left where it was; nothing at all when it is removed.
    assert!(rig.b().service_pid(counter.name()).is_err());
    rig.a().ums(&["rm", "--force", counter.name()]).unwrap().success().unwrap();
    Traces::wait_for(rig, &before).unwrap();
}

#[test]
fn what_migrate_prints_for_programs_is_whole() {
    let rig = &Rig::new().unwrap();
    let hog = rig.start(A, &Workload::memhog(Bytes::mib(16))).unwrap();
    let planned = rig.a().ums(&["plan", hog.name(), "--to", "b"]).unwrap().success().unwrap();
    let plan: Plan = serde_json::from_value(planned.result().unwrap().clone()).unwrap();
    assert!(plan.feasible && plan.blockers.is_empty() && plan.predicted.is_some(), "{plan:?}");

    let first = hog.migrate(B).unwrap();
    let told = events(&first).unwrap();
    assert_eq!(told.len(), first.lines.len(), "one event per line and nothing else");
    let numbers: Vec<u64> = told.iter().map(|event| event.seq).collect();
    assert_eq!(numbers, (1..=told.len() as u64).collect::<Vec<_>>(), "numbered without gaps");
    let begun = |event: &ums_model::event::MigrationEvent| match event.kind {
        EventKind::PhaseStarted { phase } => Some(phase),
        _ => None,
    };
    let phases: Vec<Phase> = told.iter().filter_map(begun).collect();
    for phase in [Phase::Reserve, Phase::Arm, Phase::Freeze, Phase::Restore, Phase::Commit, Phase::Resume] {
        assert!(phases.contains(&phase), "{phase} is missing: {phases:?}");
    }

    let report = report(&first).unwrap();
    assert_eq!((report.source.as_str(), report.destination.as_str()), ("a", "b"));
    assert_eq!((report.mode, report.approach), (Mode::Cold, Approach::Container));
    assert_eq!((report.outcome, report.error.is_none()), (Outcome::Done, true));
    assert_eq!(report.service.as_str(), hog.name());
    assert!(report.bytes_raw >= Bytes::mib(16), "incompressible memory travels whole: {report:?}");
    assert!(report.bytes_sent >= Bytes::mib(16), "{report:?}");
    let frozen = report.frozen_ms.unwrap();
    assert!(frozen > 0.0 && frozen <= report.total_ms, "{report:?}");
    assert!(report.predicted_frozen_ms.is_some() && report.predicted_total_ms.is_some(), "{report:?}");
    assert_eq!(report.downtime_ms, None, "only a client can measure that");
    // Programs find the numbers by these names.
    for name in ["frozen_ms", "total_ms", "bytes_raw", "bytes_sent"] {
        assert!(first.number(name).unwrap() > 0.0, "{name}");
    }

    // Both sites tell the same, also to those who ask later.
    assert_eq!(agreed(rig, hog.name()).unwrap(), Outcome::Done);
    let watched = rig.a().ums(&["watch", &report.migration.to_string()]).unwrap().success().unwrap();
    assert_eq!(watched.lines, first.lines);
    hog.check().unwrap();
}

#[test]
fn an_image_travels_once() {
    let rig = &Rig::new().unwrap();
    let sent = |outcome: &ums_testbed::cli::Outcome| {
        let bytes = |event: &ums_model::event::MigrationEvent| match event.kind {
            EventKind::PhaseDone { phase: Phase::Image, bytes, .. } => bytes,
            _ => None,
        };
        events(outcome).unwrap().iter().filter_map(bytes).map(Bytes::get).sum::<u64>()
    };
    let first = rig.start(A, &Workload::counter()).unwrap();
    assert!(sent(&first.migrate(B).unwrap()) > 100_000, "the image is a program of a few hundred kilobytes");
    // Another service of the same image, and the same service on its way back.
    let second = rig.start(A, &Workload::counter()).unwrap();
    assert_eq!(sent(&second.migrate(B).unwrap()), 0);
    assert_eq!(sent(&first.migrate(A).unwrap()), 0);
    first.check().unwrap();
    second.check().unwrap();
}

/// Each process has six images or more: nobody may need all of them open, or held, at once.
#[test]
fn a_crowd_of_processes_arrives_whole() {
    let rig = &Rig::new().unwrap();
    let hog = Memhog { size: Bytes::mib(32), processes: 100, threads: 1, dirty_per_second: Bytes::mib(4) };
    let hog = rig.start(A, &Workload::Memhog(hog)).unwrap();
    hog.migrate(B).unwrap();
    hog.check().unwrap();
    hog.migrate(A).unwrap();
    hog.check().unwrap();
}

#[test]
fn memory_processes_and_threads_arrive_whole() {
    let rig = &Rig::new().unwrap();
    let hog = Memhog { size: Bytes::mib(64), processes: 4, threads: 4, dirty_per_second: Bytes::mib(16) };
    let hog = rig.start(A, &Workload::Memhog(hog)).unwrap();
    let probe = hog.probe().unwrap();
    for destination in [B, A] {
        hog.migrate(destination).unwrap();
        hog.check().unwrap();
        probe.wait_for_answer(PATIENCE).unwrap();
    }
    assert_eq!(hog.journey(), [A, B, A]);
}

#[test]
fn an_echo_is_found_again_and_no_byte_is_wrong() {
    let rig = &Rig::new().unwrap();
    let echo = rig.start(A, &Workload::TcpEcho).unwrap();
    let dialer = echo.dialer().unwrap();
    let check = TcpCheck::start(&dialer, std::time::Duration::from_millis(500), PATIENCE).unwrap();
    for destination in [B, A] {
        check.wait_for_more(1 << 20, PATIENCE).unwrap();
        echo.migrate(destination).unwrap();
    }
    check.wait_for_more(1 << 20, PATIENCE).unwrap();
    check.stop().unwrap();
}

#[test]
fn two_services_move_at_once_in_both_directions() {
    let rig = &Rig::new().unwrap();
    let (one, other) =
        (rig.start(A, &Workload::counter()).unwrap(), rig.start(B, &Workload::counter()).unwrap());
    for (one_goes, other_goes) in [(B, A), (A, B)] {
        thread::scope(|scope| {
            let moving = scope.spawn(|| one.migrate(one_goes));
            other.migrate(other_goes).unwrap();
            moving.join().unwrap().unwrap();
        });
    }
    for service in [&one, &other] {
        assert_eq!(service.check().unwrap().unwrap().moves, 2);
        assert_eq!(agreed(rig, service.name()).unwrap(), Outcome::Done);
    }
}

/// Reads a clock by system call 228; perl's own module for it is not in a minimal image.
const CLOCK: &str = r#"
    sub clock { my $time = "\0" x 16; syscall(228, 1, $time); my ($s, $n) = unpack("qq", $time); $s + $n / 1e9 }
    our $last = clock();
"#;
/// Ends the service if its clock goes back, or makes a leap that no migration takes.
const CLOCK_CHECK: &str = r#"
    my $now = clock();
    if ($now < $last || $now > $last + 60) { print "from $last to $now\n"; exit 1 }
    $last = $now;
"#;

#[test]
fn the_monotonic_clock_goes_on_at_a_site_with_another() {
    // The other machine was switched on at another time: its clock stands somewhere else altogether.
    let uptime = std::fs::read_to_string("/proc/uptime").unwrap();
    let uptime: f64 = uptime.split(' ').next().unwrap().parse().unwrap();
    let launcher = format!("unshare --time --monotonic {}", 1_000_000 - uptime as i64 / 2);
    let other = Twist { launcher, ..Twist::default() };
    let rig = &Rig::with(&[(B, other)]).unwrap();
    let clock = Script::start(rig, A, "clock", CLOCK, CLOCK_CHECK, &[]).unwrap();
    for destination in [B, A] {
        clock.migrate(destination).unwrap();
        clock.check().unwrap();
    }
    // And one that began there.
    let clock = Script::start(rig, B, "other-clock", CLOCK, CLOCK_CHECK, &[]).unwrap();
    for destination in [A, B] {
        clock.migrate(destination).unwrap();
        clock.check().unwrap();
    }
}

/// A mount namespace that shows nothing but control groups of version 2, as most hosts do.
const VERSION_2: &str = "umount --recursive /sys/fs/cgroup\nmount -t cgroup2 none /sys/fs/cgroup";

#[test]
fn a_service_moves_between_hosts_with_cgroups_of_version_2() {
    let twist = || Twist { prelude: VERSION_2.to_owned(), ..Twist::default() };
    let rig = &Rig::with(&[(A, twist()), (B, twist())]).unwrap();
    there_and_back(rig, &[true, true]).unwrap();
}

#[test]
fn a_service_does_not_move_between_hosts_with_different_cgroups() {
    let rig = &Rig::with(&[(B, Twist { prelude: VERSION_2.to_owned(), ..Twist::default() })]).unwrap();
    let counter = rig.start(A, &Workload::counter()).unwrap();
    let refused = rig.site(A).ums(&["migrate", counter.name(), "--to", B.name()]).unwrap();
    failed(&refused, 1, ErrorCode::Unsupported, &[counter.name(), "control groups", "hybrid", "v2"]).unwrap();
    // It was refused before anything was touched.
    counter.check().unwrap();
}

/// Moves a service of several processes, and looks where its first is kept: `unified` says which sites see version 2.
fn there_and_back(rig: &Rig, unified: &[bool]) -> Result<()> {
    let hog = Memhog { size: Bytes::mib(8), processes: 2, threads: 2, dirty_per_second: Bytes::mib(1) };
    let hog = rig.start(A, &Workload::Memhog(hog))?;
    for destination in [B, A, B] {
        hog.migrate(destination)?;
        hog.check()?;
        let site = hog.site();
        let own = format!("{}/{}", site.cgroup()?, hog.name());
        let lines = std::fs::read_to_string(format!("/proc/{}/cgroup", site.service_pid(hog.name())?))?;
        let kept = lines.lines().find(|line| match unified[destination.number()] {
            true => line.starts_with("0::"),
            false => line.contains(":freezer:"),
        });
        ensure!(kept.is_some_and(|line| line.contains(&own)), "not in {own}: {lines}");
    }
    Ok(())
}
