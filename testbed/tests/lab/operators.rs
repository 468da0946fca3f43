//! An operator's word on real copies: where it holds, and where it turns out to have been wrong.

use std::thread;

use anyhow::Result;
use serde_json::Value;
use ums_model::error::ErrorCode;
use ums_model::names::Bytes;
use ums_testbed::net::{A, B, SiteIndex};
use ums_testbed::service::Service;
use ums_testbed::shaper::Cut;
use ums_testbed::site::Site;
use ums_testbed::workload::Workload;

use crate::eventually;
use crate::gate::Gate;
use crate::rig::Rig;
use crate::verdict::failed;

fn status(site: &Site, service: &str) -> Result<Value> {
    Ok(site.ums(&["status", service])?.success()?.result()?.clone())
}

/// Brings a migration from A to B to `step` of A, and kills the daemon of `dead` there.
fn die_at(rig: &Rig, service: &Service<'_>, step: &'static str, dead: SiteIndex) -> Result<()> {
    let gate = Gate::close(rig, A, step)?;
    thread::scope(|scope| {
        let migration = scope.spawn(|| service.try_migrate(B));
        let reached = gate.wait(|| migration.is_finished());
        let killed = reached.and_then(|()| rig.site(dead).kill9());
        gate.open()?;
        if dead != A {
            // It waits for a site that does not answer; nobody waits with it.
            rig.a().restart()?;
        }
        migration.join().map_err(|_| anyhow::anyhow!("the migration panicked"))??;
        killed
    })
}

#[test]
fn a_commit_in_doubt_is_taken_back_by_an_operator_and_the_held_copy_gives_way() {
    let rig = &Rig::new().unwrap();
    let service = &rig.start(A, &Workload::memhog(Bytes::mib(4))).unwrap();
    let name = service.name();
    let nothing = rig.a().ums(&["resolve", name, "--run-here", "--yes"]).unwrap();
    failed(&nothing, 1, ErrorCode::Refused, &[name, "nothing for an operator"]).unwrap();

    die_at(rig, service, "committed", B).unwrap();
    assert_eq!(status(rig.a(), name).unwrap()["copy"], "frozen");
    let unconfirmed = rig.a().ums(&["resolve", name, "--run-here"]).unwrap();
    failed(&unconfirmed, 2, ErrorCode::BadRequest, &[name]).unwrap();
    assert_eq!(status(rig.a(), name).unwrap()["copy"], "frozen");

    rig.a().ums(&["resolve", name, "--run-here", "--yes"]).unwrap().success().unwrap();
    assert_eq!(service.settle().unwrap(), A);
    rig.b().restart().unwrap();
    eventually("the end of the held copy", || {
        Ok(rig.b().ums(&["status", name])?.success().is_err().then_some(()))
    })
    .unwrap();
    // Never two of them.
    service.check().unwrap();
    service.migrate(B).unwrap();
    service.check().unwrap();
}

/// B is told to run its copy because A is gone, and then A comes back and cannot reach B: two run, on the operator's
/// word. As soon as the sites hear each other, the older one stops.
#[test]
fn a_copy_that_lost_its_right_while_it_was_away_is_stopped() {
    let rig = &Rig::new().unwrap();
    let service = &rig.start(A, &Workload::memhog(Bytes::mib(4))).unwrap();
    let name = service.name();
    die_at(rig, service, "commit", A).unwrap();
    assert_eq!(status(rig.b(), name).unwrap()["copy"], "held");
    rig.b().ums(&["resolve", name, "--run-here", "--yes"]).unwrap().success().unwrap();
    assert_eq!(status(rig.b(), name).unwrap()["copy"], "running");

    let link = rig.net().link(A, B);
    link.cut(Cut::Both).unwrap();
    rig.a().restart().unwrap();
    eventually("a second copy", || Ok((status(rig.a(), name)?["copy"] == "running").then_some(()))).unwrap();
    link.cut(Cut::Nothing).unwrap();
    eventually("one copy", || Ok((status(rig.a(), name)?["copy"] == "frozen").then_some(()))).unwrap();
    let told = status(rig.a(), name).unwrap();
    assert_eq!(told["alarm"], "superseded", "{told}");
    assert_eq!(status(rig.b(), name).unwrap()["copy"], "running");

    // It stays so, whoever starts again.
    let nest = rustix::process::Pid::from_raw(rig.a().nest_pid(name).unwrap()).unwrap();
    rustix::process::kill_process(nest, rustix::process::Signal::KILL).unwrap();
    rig.a().restart().unwrap();
    assert_eq!(status(rig.a(), name).unwrap()["copy"], "frozen");
    rig.a().ums(&["resolve", name, "--discard", "--yes"]).unwrap().success().unwrap();
    assert!(rig.a().ums(&["status", name]).unwrap().success().is_err());
    assert_eq!(status(rig.b(), name).unwrap()["copy"], "running");
}
