//! The HELD gate: a container is restored through runc, and does not run before it is thawed.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use ums_engine::cgroup::Cgroup;
use ums_engine::criu::restore::{RestoreDeadlines, RestoreError};
use ums_engine::images::tmpfs;

use crate::container::{Container, ended, wait_until_empty};
use crate::machine::{Machine, Version, assert_runs, assert_stands, wait_until};

/// A container that was dumped and given up, with its images at the "destination".
async fn dumped(version: Version) -> (Container, PathBuf) {
    let container = Container::start(Machine::new(version));
    let images = container.machine.folder("images");
    container.dump(&container.machine.folder("source"), &images).await;
    container.discard();
    (container, images)
}

async fn held_gate(version: Version) {
    let mut container = Container::start(Machine::new(version));
    let memory = tmpfs(&container.machine.folder("source"), 1 << 30).expect("memory");
    let images = container.machine.folder("images");
    let _memory = tmpfs(&images, 1 << 30).expect("memory");

    let dumped = container.dump(memory.path(), &images).await;
    assert_stands(&container.file);
    container.discard();

    let listener = container.listener();
    let runc = container.start_restore(&images, &listener, &container.cgroup);
    let armed = listener.armed().await.unwrap_or_else(|error| panic!("{error}: {}", container.said()));
    assert_stands(&container.file);
    let held = armed.go().await.expect("go").held().await;
    let held = held.unwrap_or_else(|error| panic!("{error:?}: {}", container.said()));

    assert_eq!(held.tasks, dumped.tasks);
    assert!(container.cgroup.is_frozen().expect("state"));
    assert_stands(&container.file);
    assert_eq!(ended(runc).await, 0, "{}", container.said());
    assert_eq!(container.read_pid(), held.pid);
    assert_stands(&container.file);

    container.cgroup.thaw().expect("thaw");
    assert_runs(&container.file);
    // runc knows it as its own.
    assert_eq!(container.state()["status"], "running");
    assert_eq!(container.state()["pid"], held.pid);
    let exec = container.exec("nothing");
    assert!(exec.status.success(), "{exec:?}");

    // And it can be dumped again.
    container.pid = held.pid;
    let again = container.machine.folder("again");
    container.dump(&again, &container.machine.folder("again-images")).await;
    assert!(container.cgroup.is_frozen().expect("state"));
}

#[tokio::test]
async fn lab_a_restored_container_is_held_v1() {
    held_gate(Version::V1).await;
}

#[tokio::test]
async fn lab_a_restored_container_is_held_v2() {
    held_gate(Version::V2).await;
}

#[tokio::test]
async fn lab_nothing_is_restored_without_go() {
    let (container, images) = dumped(Version::V1).await;
    let listener = container.listener();
    let runc = container.start_restore(&images, &listener, &container.cgroup);
    let armed = listener.armed().await.expect("armed");
    // As when the nest dies.
    drop(armed);
    assert_ne!(ended(runc).await, 0);
    wait_until_empty(&container.cgroup);
    assert_stands(&container.file);
    assert!(!fs::exists(container.machine.folder("work").join("restore.log")).expect("look for the log"));
}

#[tokio::test]
async fn lab_a_nest_that_dies_after_go_leaves_a_frozen_tree() {
    let (container, images) = dumped(Version::V1).await;
    let listener = container.listener();
    let runc = container.start_restore(&images, &listener, &container.cgroup);
    let armed = listener.armed().await.expect("armed");
    drop(armed.go().await.expect("go"));
    assert_eq!(ended(runc).await, 0, "{}", container.said());
    wait_until("all of the tree is frozen", || {
        container.cgroup.is_frozen().is_ok_and(|frozen| frozen)
            && container.cgroup.procs().is_ok_and(|pids| pids.contains(&container.read_pid()))
    });
    assert_stands(&container.file);
    container.cgroup.thaw().expect("thaw");
    assert_runs(&container.file);
}

#[tokio::test]
async fn lab_a_restore_that_fails_leaves_nothing_and_says_why() {
    let (container, images) = dumped(Version::V1).await;
    // Not the program that was dumped.
    fs::write(container.machine.folder("root").join("helper"), "another one").expect("replace the helper");
    let listener = container.listener();
    let runc = container.start_restore(&images, &listener, &container.cgroup);
    let armed = listener.armed().await.expect("armed");
    let error = armed.go().await.expect("go").held().await.expect_err("another program");
    let RestoreError::Failed(failure) = &error else { panic!("{error:?}") };
    assert!(failure.cause.contains("not the same at the destination"), "{failure:?}");
    assert_ne!(ended(runc).await, 0);
    assert!(container.cgroup.procs().expect("processes").is_empty());
    assert_stands(&container.file);
}

#[tokio::test]
async fn lab_a_restore_past_its_deadline_leaves_nothing() {
    let (container, images) = dumped(Version::V1).await;
    let deadlines = RestoreDeadlines { restore: Duration::from_millis(10), ..RestoreDeadlines::default() };
    let listener = container.hurried_listener(deadlines);
    let runc = container.start_restore(&images, &listener, &container.cgroup);
    let armed = listener.armed().await.expect("armed");
    let error = armed.go().await.expect("go").held().await.expect_err("too late");
    assert!(matches!(error, RestoreError::Failed(_)), "{error:?}");
    assert_ne!(ended(runc).await, 0);
    wait_until_empty(&container.cgroup);
    assert_stands(&container.file);
}

#[tokio::test]
async fn lab_nothing_is_restored_for_a_dead_runc() {
    let (container, images) = dumped(Version::V1).await;
    let listener = container.listener();
    let mut runc = container.start_restore(&images, &listener, &container.cgroup);
    let armed = listener.armed().await.expect("armed");
    runc.kill().expect("kill runc");
    runc.wait().expect("reap runc");
    wait_until_empty(&container.cgroup);
    if let Ok(restoring) = armed.go().await {
        restoring.held().await.expect_err("there is nobody to restore for");
    }
    assert_stands(&container.file);
}

#[tokio::test]
async fn lab_a_tree_that_cannot_be_frozen_is_killed() {
    let (container, images) = dumped(Version::V1).await;
    // The proxy freezes another cgroup than the one that runc uses: it is not there.
    let wrong = Cgroup::of_container("/ums-engine-lab-not-there/service".as_ref()).expect("cgroups");
    let listener = container.listener();
    let runc = container.start_restore(&images, &listener, &wrong);
    let armed = listener.armed().await.expect("armed");
    let error = armed.go().await.expect("go").held().await.expect_err("not frozen");
    assert!(matches!(error, RestoreError::Failed(_)), "{error:?}");
    assert_ne!(ended(runc).await, 0);
    wait_until_empty(&container.cgroup);
    assert_stands(&container.file);
}
