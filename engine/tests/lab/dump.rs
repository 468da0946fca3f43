//! The dump: what is frozen, and what goes on after a failure.

use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use ums_engine::criu::dump::{ArmedDump, DumpError};
use ums_engine::criu::tree::Tasks;

use crate::machine::{Machine, Version, assert_runs, assert_stands};
use crate::service::Service;

/// The parent with two threads, the child that writes, and the zombie.
const TREE: Tasks = Tasks { processes: 3, threads: 4 };

async fn dump_freeze_thaw_dump(version: Version) {
    let service = Service::start(Machine::new(version), "tree");
    for images in ["first", "second"] {
        let armed = ArmedDump::arm(service.request(images)).await.expect("arm");
        assert_runs(&service.file);
        let stopped = AtomicBool::new(false);
        let dumped = armed.run(|| async {
            assert_stands(&service.file);
            stopped.store(true, Ordering::Relaxed);
            Ok(())
        });
        let dumped = dumped.await.expect("dump");
        assert!(stopped.load(Ordering::Relaxed));
        assert_eq!(dumped.tasks, TREE);
        assert_eq!(Tasks::in_images(&service.machine.folder(images)).expect("count"), TREE);
        assert!(service.cgroup.is_frozen().expect("state"));
        assert_stands(&service.file);

        service.cgroup.thaw().expect("thaw");
        assert_runs(&service.file);
    }
}

#[tokio::test]
async fn lab_dump_leaves_the_service_frozen_v1() {
    dump_freeze_thaw_dump(Version::V1).await;
}

#[tokio::test]
async fn lab_dump_leaves_the_service_frozen_v2() {
    dump_freeze_thaw_dump(Version::V2).await;
}

#[tokio::test]
async fn lab_an_armed_dump_can_be_called_off() {
    let service = Service::start(Machine::new(Version::V1), "tree");
    ArmedDump::arm(service.request("images")).await.expect("arm").abort().await.expect("abort");
    assert_runs(&service.file);
    // Dropped without a word: CRIU notices, and the next dump is not in its way.
    drop(ArmedDump::arm(service.request("dropped")).await.expect("arm"));
    assert_runs(&service.file);
    let armed = ArmedDump::arm(service.request("again")).await.expect("arm again");
    armed.run(|| async { Ok(()) }).await.expect("dump");
}

#[tokio::test]
async fn lab_the_last_look_can_call_the_dump_off() {
    let service = Service::start(Machine::new(Version::V1), "tree");
    let armed = ArmedDump::arm(service.request("images")).await.expect("arm");
    let error = armed.run(|| async { Err("the fence is open".into()) }).await.expect_err("called off");
    assert!(matches!(error, DumpError::CalledOff { .. }), "{error:?}");
    assert!(!service.cgroup.is_frozen().expect("state"));
    assert_runs(&service.file);
}

#[tokio::test]
async fn lab_a_dump_that_is_dropped_lets_the_service_go_on() {
    let service = Service::start(Machine::new(Version::V1), "tree");
    let armed = ArmedDump::arm(service.request("images")).await.expect("arm");
    let never = armed.run(|| async { std::future::pending().await });
    assert!(tokio::time::timeout(Duration::from_millis(300), never).await.is_err());
    assert_runs(&service.file);
}

#[tokio::test]
async fn lab_an_io_uring_is_named_and_the_service_goes_on() {
    let service = Service::start(Machine::new(Version::V1), "io-uring");
    let armed = ArmedDump::arm(service.request("images")).await.expect("arm");
    let error = armed.run(|| async { Ok(()) }).await.expect_err("an io_uring cannot be dumped");
    let DumpError::Criu { failure, .. } = &error else { panic!("{error:?}") };
    assert!(failure.cause.contains("io_uring"), "{failure:?}");
    assert!(!service.cgroup.is_frozen().expect("state"));
    assert_runs(&service.file);
}

#[tokio::test]
async fn lab_a_process_outside_of_the_cgroup_is_not_overlooked() {
    let service = Service::start(Machine::new(Version::V1), "tree");
    let child =
        *service.cgroup.procs().expect("processes").iter().find(|pid| **pid != service.pid).expect("child");
    let root = service.cgroup.dir().ancestors().nth(2).expect("the root cgroup");
    fs::write(root.join("cgroup.procs"), child.to_string()).expect("take the child out");

    let armed = ArmedDump::arm(service.request("images")).await.expect("arm");
    let error = armed.run(|| async { Ok(()) }).await.expect_err("one process would run on");
    assert!(matches!(error, DumpError::NotFrozen { .. }), "{error:?}");
    assert_runs(&service.file);
}
