//! Others who want something of a service that is being moved, and services that are moved at the same time.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

use anyhow::{Context, Result, ensure};
use ums_model::error::ErrorCode;
use ums_model::names::Bytes;
use ums_model::phase::Outcome;
use ums_testbed::net::{A, B, SiteIndex};
use ums_testbed::rig::Twist;
use ums_testbed::site::Site;
use ums_testbed::workload::Workload;

use crate::gate::Gate;
use crate::histories::{agreed, error};
use crate::rig::Rig;
use crate::{PATIENCE, eventually};

/// Everything that a user can want of a service, each of which must wait until it has moved.
fn wishes(name: &str) -> [Vec<&str>; 7] {
    [
        vec!["stop", name],
        vec!["start", name],
        vec!["kill", name],
        vec!["rm", name],
        vec!["rm", "--force", name],
        vec!["exec", name, "--", "/ums-workload", "--help"],
        vec!["migrate", name, "--to", "b"],
    ]
}

/// The newest migration that a site knows of a service.
fn migration(site: &Site, service: &str) -> Result<String> {
    let told = site.ums(&["history", service])?.success()?;
    let newest = told.lines.iter().filter_map(|line| line["migration"].as_str()).max();
    newest.map(str::to_owned).with_context(|| format!("no migration of {service} is known"))
}

fn all_are_refused(site: &Site, service: &str, step: &str) -> Result<()> {
    let id = migration(site, service)?;
    for wish in wishes(service) {
        let outcome = site.ums(&wish)?;
        let words = wish.join(" ");
        ensure!(outcome.code.is_some_and(|code| code != 0), "{words} at {step}: {outcome:?}");
        let told = error(&outcome).with_context(|| format!("{words} at {step}"))?;
        ensure!(told.code == ErrorCode::AlreadyMigrating, "{words} at {step}: {told:?}");
        ensure!(told.message.contains(&id), "{words} at {step} does not name migration {id}: {told:?}");
        ensure!(told.hint.contains("ums watch"), "{words} at {step}: {told:?}");
    }
    Ok(())
}

#[test]
fn while_it_moves_every_wish_is_refused_with_the_reason_and_the_migration() {
    let rig = &Rig::new().unwrap();
    let service = &rig.start(A, &Workload::memhog(Bytes::mib(4))).unwrap();
    for (gated, step) in [(A, "reserve"), (A, "arm"), (A, "transfer"), (A, "committed"), (A, "release")] {
        let gate = Gate::close(rig, gated, step).unwrap();
        thread::scope(|scope| {
            let moving = scope.spawn(|| service.try_migrate(B));
            let refused = gate
                .wait(|| moving.is_finished())
                .and_then(|()| all_are_refused(rig.a(), service.name(), step));
            gate.open().unwrap();
            moving.join().unwrap().unwrap().success().unwrap();
            refused.unwrap();
        });
        assert_eq!(service.settle().unwrap(), B, "{step}");
        service.check().unwrap();
        service.migrate(A).unwrap();
        service.check().unwrap();
    }
}

/// Somebody fires all of it all the time.
#[test]
fn a_meddler_changes_nothing() {
    let rig = &Rig::new().unwrap();
    let service = &rig.start(A, &Workload::memhog(Bytes::mib(4))).unwrap();
    let refused = AtomicUsize::new(0);
    for _ in 0..3 {
        // It begins when the lock is held: before that a stop is a stop.
        let gate = Gate::close(rig, A, "reserve").unwrap();
        let over = AtomicBool::new(false);
        thread::scope(|scope| {
            let moving = scope.spawn(|| service.try_migrate(B));
            let reached = gate.wait(|| moving.is_finished());
            let meddlers: Vec<_> = (0..2)
                .map(|first| {
                    let (refused, over) = (&refused, &over);
                    scope.spawn(move || -> Result<()> {
                        let wishes = wishes(service.name());
                        for wish in wishes.iter().cycle().skip(first * 3) {
                            if over.load(Ordering::Relaxed) {
                                break;
                            }
                            let outcome = rig.a().ums(wish)?;
                            ensure!(outcome.code != Some(0), "{} was done: {outcome:?}", wish.join(" "));
                            refused.fetch_add(1, Ordering::Relaxed);
                        }
                        Ok(())
                    })
                })
                .collect();
            gate.open().unwrap();
            let moved = moving.join();
            over.store(true, Ordering::Relaxed);
            for meddler in meddlers {
                meddler.join().unwrap().unwrap();
            }
            reached.unwrap();
            moved.unwrap().unwrap().success().unwrap();
        });
        assert_eq!(service.settle().unwrap(), B);
        service.check().unwrap();
        assert_eq!(agreed(rig, service.name()).unwrap(), Outcome::Done);
        service.migrate(A).unwrap();
    }
    assert!(refused.load(Ordering::Relaxed) > 0, "the meddler came too late");
}

#[test]
fn two_sites_migrate_to_each_other_at_once() {
    let rig = &one_at_a_time(&[A, B], 8);
    let there: Vec<_> = (0..2).map(|_| rig.start(A, &Workload::counter()).unwrap()).collect();
    let back: Vec<_> = (0..2).map(|_| rig.start(B, &Workload::counter()).unwrap()).collect();
    let moves = there.iter().map(|service| (service, B)).chain(back.iter().map(|service| (service, A)));
    let moves: Vec<_> = moves.collect();
    thread::scope(|scope| {
        let running: Vec<_> =
            moves.iter().map(|(service, to)| scope.spawn(move || service.try_migrate(*to))).collect();
        for one in running {
            one.join().unwrap().unwrap().success().unwrap();
        }
    });
    for (service, to) in moves {
        assert_eq!(service.settle().unwrap(), to);
        service.check().unwrap();
        assert_eq!(agreed(rig, service.name()).unwrap(), Outcome::Done);
    }
}

#[test]
fn what_is_beyond_the_limit_waits_and_what_is_beyond_the_queue_is_refused() {
    let rig = &one_at_a_time(&[A], 2);
    let services: Vec<_> = (0..4).map(|_| rig.start(A, &Workload::counter()).unwrap()).collect();
    let [first, second, third, fourth] = &services[..] else { panic!("four services") };
    let gate = Gate::close(rig, A, "arm").unwrap();
    thread::scope(|scope| {
        let one = scope.spawn(|| first.try_migrate(B));
        let reached = gate.wait(|| one.is_finished());
        let waiting = [second, third].map(|service| {
            let moving = scope.spawn(|| service.try_migrate(B));
            let queued = eventually("a migration in the queue", || {
                let told = rig.a().ums(&["history", service.name()])?.success()?;
                Ok(told.lines.iter().any(|line| line["state"] == "queued").then_some(()))
            });
            (moving, queued)
        });
        let refused = fourth.try_migrate(B);
        let aborted = rig.a().ums(&["abort", second.name()]);
        gate.open().unwrap();
        one.join().unwrap().unwrap().success().unwrap();
        let [two, three] = waiting.map(|(moving, queued)| {
            queued.unwrap();
            moving.join().unwrap().unwrap()
        });
        reached.unwrap();
        aborted.unwrap().success().unwrap();
        assert_eq!(error(&two).unwrap().code, ErrorCode::Aborted, "{two:?}");
        three.success().unwrap();
        let refused = error(&refused.unwrap()).unwrap();
        assert!(refused.code == ErrorCode::Busy && refused.retryable, "{refused:?}");
    });
    for (service, here) in [(first, B), (second, A), (third, B), (fourth, A)] {
        service.recorder().unwrap().wait_for_life(here, PATIENCE).unwrap();
        assert_eq!(service.settle().unwrap(), here);
        service.check().unwrap();
    }
}

/// A rig in which one migration at a time leaves each of `sites`, and one arrives, and `queue` more may wait.
fn one_at_a_time(sites: &[SiteIndex], queue: usize) -> Rig {
    let configuration = format!("[limits]\nmigrations = 1\nqueue = {queue}\n");
    let twist = Twist { configuration, ..Twist::default() };
    let twists: Vec<_> = sites.iter().map(|site| (*site, twist.clone())).collect();
    Rig::with(&twists).expect("two sites")
}
