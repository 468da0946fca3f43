//! Keepers that die, and hosts that are off for a while: who is started again, where, and that there is one of it.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use ums_model::names::Bytes;
use ums_model::phase::Outcome;
use ums_testbed::net::{A, B, SiteIndex};
use ums_testbed::service::{Service, kill};
use ums_testbed::site::Site;
use ums_testbed::witness::lives;
use ums_testbed::workload::Workload;

use crate::gate::Gate;
use crate::histories::agreed;
use crate::rig::{Rig, start_static as start};
use crate::{PATIENCE, eventually};

const DISK: Bytes = Bytes(192 << 20);
/// Longer than several pauses between two starts.
const WHILE: Duration = Duration::from_secs(3);

fn status(site: &Site, name: &str) -> Result<Value> {
    Ok(site.ums(&["status", name])?.success()?.result()?.clone())
}

fn is_dead(site: &Site, name: &str) -> Result<()> {
    let status = status(site, name)?;
    ensure!(status["copy"] == "dead" && status["keeper_pid"].is_null(), "{status}");
    Ok(())
}

/// Waits for a copy that is not the one of `before`.
fn another(site: &Site, name: &str, before: i32) -> Result<i32> {
    eventually("another copy", || Ok(site.service_pid(name).ok().filter(|pid| *pid != before)))
}

/// Where each life of a service was; an error if two were at once.
fn lives_of(service: &Service<'_>) -> Vec<Vec<SiteIndex>> {
    lives(&service.recorder().expect("a witness").records()).unwrap_or_else(|violations| {
        let list: Vec<String> = violations.iter().map(ToString::to_string).collect();
        panic!("two copies of {}: {}", service.name(), list.join("; "))
    })
}

#[test]
fn a_host_that_was_off_starts_what_its_policies_say() {
    let rig = &Rig::with_disks(&[], DISK).unwrap();
    let site = rig.a();
    // Like a witness: appended to, and never made.
    let volume = site.state().join("volumes/data");
    let file = volume.join("count");
    fs::create_dir_all(&volume).unwrap();
    fs::write(&file, b"").unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o666)).unwrap();
    let count = ["counter", "--interval-ms", "10", "--witness", "/data/count"];
    start(rig, "web", &["--restart", "always", "-v", "data:/data"], &count).unwrap();
    start(rig, "failing", &["--restart", "on-failure"], &["signals"]).unwrap();
    start(rig, "content", &["--restart", "on-failure"], &["exit", "--code", "0"]).unwrap();
    start(rig, "once", &["--restart", "no"], &["signals"]).unwrap();
    start(rig, "stopped", &["--restart", "always"], &["signals"]).unwrap();
    start(rig, "again", &["--restart", "always"], &["signals"]).unwrap();
    for name in ["stopped", "again"] {
        site.ums(&["stop", name, "--time", "0"]).unwrap().success().unwrap();
    }
    site.ums(&["start", "again"]).unwrap().success().unwrap();
    eventually("the end of a service that is content", || {
        Ok((status(site, "content")?["exit_code"] == 0).then_some(()))
    })
    .unwrap();

    // What the service has written by now is on its disk.
    let numbers = || Ok(Some(fs::read_to_string(&file)?).filter(|text| text.len() > 200));
    let written = eventually("some numbers", numbers).unwrap();
    File::open(&file).unwrap().sync_all().unwrap();
    let runs = |text: &str| -> BTreeSet<String> {
        text.lines().filter_map(|line| Some(line.split_once(' ')?.0.to_owned())).collect()
    };
    for life in 2..=3 {
        site.lose_power().unwrap();
        site.restart().unwrap();
        for name in ["web", "failing", "again"] {
            eventually(&format!("{name} after a reboot"), || Ok(site.service_pid(name).ok())).unwrap();
        }
        // Fresh memory, the same volume.
        eventually("another life that counts", || {
            Ok((runs(&fs::read_to_string(&file)?).len() == life).then_some(()))
        })
        .unwrap();
        assert!(fs::read_to_string(&file).unwrap().starts_with(&written));
        File::open(&file).unwrap().sync_all().unwrap();
        thread::sleep(WHILE);
        for name in ["once", "content", "stopped"] {
            is_dead(site, name).unwrap();
        }
    }
    // A user may.
    site.ums(&["start", "stopped"]).unwrap().success().unwrap();
    site.ums(&["stop", "web"]).unwrap().success().unwrap();
    site.lose_power().unwrap();
    site.restart().unwrap();
    eventually("what was started", || Ok(site.service_pid("stopped").ok())).unwrap();
    is_dead(site, "web").unwrap();
}

#[test]
fn a_service_that_moved_away_is_started_by_the_site_that_has_it() {
    let rig = &Rig::with_disks(&[], DISK).unwrap();
    let service = &rig.start_with(A, &Workload::memhog(Bytes::mib(4)), &["--restart", "always"]).unwrap();
    service.migrate(B).unwrap();
    service.check().unwrap();
    rig.a().lose_power().unwrap();
    rig.a().restart().unwrap();
    thread::sleep(WHILE);
    service.check().unwrap();
    assert_eq!(lives_of(service), [[A, B]]);

    // Both at once: only where it is now it begins a new life.
    rig.a().lose_power().unwrap();
    rig.b().lose_power().unwrap();
    rig.a().restart().unwrap();
    rig.b().restart().unwrap();
    service.recorder().unwrap().wait_for_life(B, PATIENCE).unwrap();
    thread::sleep(WHILE);
    assert_eq!(lives_of(service), [vec![A, B], vec![B]]);
    assert_eq!(rig.a().ums(&["start", service.name()]).unwrap().code, Some(1));
}

#[test]
fn a_keeper_that_is_killed_is_followed_by_another() {
    let rig = &Rig::new().unwrap();
    let service = &rig.start_with(A, &Workload::memhog(Bytes::mib(4)), &["--restart", "always"]).unwrap();
    let (site, name) = (rig.a(), service.name());
    let mut pid = site.service_pid(name).unwrap();
    // One that is killed before it has written a word leaves no trace of its life.
    let mut next = |life: usize| {
        pid = another(site, name, pid).unwrap();
        eventually("a sign of life", || Ok((lives_of(service).len() == life).then_some(()))).unwrap();
        pid
    };
    for life in [2, 3] {
        kill(site.keeper_pid(name).unwrap()).unwrap();
        next(life);
    }
    // While no daemon looks, and by one that did not start that keeper.
    site.kill9().unwrap();
    let keeper = fs::read_to_string(site.state().join("services").join(name).join("keeper.json")).unwrap();
    let keeper: Value = serde_json::from_str(&keeper).unwrap();
    kill(i32::try_from(keeper["pid"].as_i64().unwrap()).unwrap()).unwrap();
    site.restart().unwrap();
    next(4);
    site.restart().unwrap();
    kill(site.keeper_pid(name).unwrap()).unwrap();
    let pid = next(5);
    assert_eq!(lives_of(service), [[A]; 5]);

    // A user's word counts also where nobody is left to hear it, and is not undone by who comes later.
    kill(site.keeper_pid(name).unwrap()).unwrap();
    site.ums(&["stop", name, "--time", "0"]).unwrap().success().unwrap();
    thread::sleep(WHILE);
    let after = status(site, name).unwrap();
    assert!(after["copy"] == "dead" && after["stopped"] == true, "{after}");
    site.restart().unwrap();
    thread::sleep(WHILE);
    assert_eq!(status(site, name).unwrap()["copy"], "dead");
    site.ums(&["start", name]).unwrap().success().unwrap();
    another(site, name, pid).unwrap();
}

/// Whatever a migration comes to whose keeper is killed: never two copies, and in the end the one that may run does.
#[test]
fn a_keeper_that_is_killed_in_a_migration_starts_nothing_beside_it() {
    let rig = &Rig::new().unwrap();
    for (gated, step, victim, ends) in [
        (A, "arm", A, &[Outcome::RolledBack, Outcome::Lost][..]),
        (A, "transfer", A, &[Outcome::Done, Outcome::Lost, Outcome::RolledBack]),
        (A, "commit", A, &[Outcome::Done, Outcome::Lost]),
        (B, "d-held", B, &[Outcome::RolledBack]),
        (A, "committed", B, &[Outcome::RolledBack]),
        (A, "release", B, &[Outcome::Done]),
    ] {
        let service = &rig.start_with(A, &Workload::memhog(Bytes::mib(4)), &["--restart", "always"]).unwrap();
        let name = service.name();
        let gate = Gate::close(rig, gated, step).unwrap();
        thread::scope(|scope| {
            let migration = scope.spawn(|| service.try_migrate(B));
            let killed = gate.wait(|| migration.is_finished()).and_then(|()| {
                kill(rig.site(victim).keeper_pid(name)?)?;
                // Long enough for whoever would start it too early.
                thread::sleep(WHILE);
                Ok(())
            });
            gate.open().unwrap();
            let outcome = migration.join().unwrap();
            killed.with_context(|| format!("{step}: {outcome:?}")).unwrap();
        });
        rig.site(gated).restart().unwrap();
        let outcome = agreed(rig, name).unwrap();
        assert!(ends.contains(&outcome), "{step}: {outcome:?}");
        let here = match outcome {
            Outcome::RolledBack => Some(A),
            Outcome::Done => Some(B),
            _ => None,
        };
        match here {
            Some(site) => {
                service.recorder().unwrap().wait_for_life(site, PATIENCE).with_context(|| step).unwrap();
            }
            None => thread::sleep(WHILE),
        }
        lives_of(service);
        for site in [A, B].into_iter().filter(|site| Some(*site) != here) {
            assert!(rig.site(site).service_pid(name).is_err(), "{step}: it runs at {site}, too");
        }
        for site in rig.sites() {
            let _ = site.ums(&["rm", "--force", name]).unwrap();
        }
    }
}
