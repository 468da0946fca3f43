//! The freezer, and the end of what is in it.

use std::fs;
use std::time::Duration;

use ums_engine::cgroup::{Cgroup, CgroupError};

use crate::machine::{Machine, SOON, Version, assert_runs, assert_stands, length, reap};
use crate::service::Service;

async fn frozen_thawed_killed(version: Version) {
    let service = Service::start(Machine::new(version), "tree");
    let cgroup = service.cgroup.clone();
    for _ in 0..3 {
        cgroup.freeze_async(SOON).await.expect("freeze");
        cgroup.freeze(SOON).expect("freeze again");
        assert!(cgroup.is_frozen().expect("state"));
        assert_stands(&service.file);
        cgroup.thaw().expect("thaw");
        assert_runs(&service.file);
    }
    assert_eq!(cgroup.procs().expect("processes").len(), 2, "the zombie is not among them");
    assert_eq!(Cgroup::of_process(service.pid).expect("its cgroup").dir(), cgroup.dir());

    cgroup.freeze(SOON).expect("freeze");
    let before = length(&service.file);
    cgroup.kill_all(SOON).expect("kill");
    assert_eq!(length(&service.file), before, "it ran once more before it died");
    assert!(cgroup.procs().expect("processes").is_empty());
    reap();
    cgroup.remove().expect("remove");
    assert!(!cgroup.dir().exists());
    // Nothing is there any more, and that is no error.
    cgroup.kill_all_async(SOON).await.expect("kill nothing");
    cgroup.remove().expect("remove nothing");
}

#[tokio::test]
async fn lab_a_cgroup_freezes_thaws_and_ends_v1() {
    frozen_thawed_killed(Version::V1).await;
}

#[tokio::test]
async fn lab_a_cgroup_freezes_thaws_and_ends_v2() {
    frozen_thawed_killed(Version::V2).await;
}

#[test]
fn lab_a_cgroup_below_a_frozen_one_cannot_be_thawed() {
    let service = Service::start(Machine::new(Version::V1), "tree");
    let above = service.cgroup.dir().parent().expect("the cgroup above");
    let above = Cgroup::V1 { freezer: above.to_owned(), others: Vec::new() };
    above.freeze(SOON).expect("freeze the one above");
    service.cgroup.freeze(SOON).expect("freeze");
    let refused = service.cgroup.thaw();
    above.thaw().expect("thaw the one above");
    assert!(matches!(refused, Err(CgroupError::FrozenFromAbove { .. })), "{refused:?}");
    assert_runs(&service.file);
}

#[test]
fn lab_a_cgroup_that_is_not_there_cannot_be_frozen() {
    let machine = Machine::new(Version::V2);
    let error = machine.cgroup().freeze(Duration::from_millis(10)).expect_err("there is none");
    assert!(matches!(error, CgroupError::Write { .. }), "{error:?}");
}

#[test]
fn lab_images_are_in_memory_until_they_are_dropped() {
    let machine = Machine::new(Version::V1);
    let folder = machine.folder("images");
    let memory = ums_engine::images::tmpfs(&folder, 1 << 20).expect("mount");
    fs::write(folder.join("core-1.img"), "secret").expect("write");
    assert!(fs::write(folder.join("pages-1.img"), vec![1; 2 << 20]).is_err(), "there is room for 1 MiB");
    drop(memory);
    assert_eq!(fs::read_dir(&folder).expect("list").count(), 0);

    // As an earlier process may have left it.
    for _ in 0..2 {
        std::mem::forget(ums_engine::images::tmpfs(&folder, 1 << 20).expect("mount"));
    }
    fs::write(folder.join("core-1.img"), "secret").expect("write");
    ums_engine::images::unmount(&folder).expect("unmount");
    assert_eq!(fs::read_dir(&folder).expect("list").count(), 0);
    ums_engine::images::unmount(&folder).expect("unmount again");
}
