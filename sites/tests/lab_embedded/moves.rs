//! Migrations that go well: what moves with a service.

use std::os::unix::fs::FileTypeExt as _;

use ums_model::names::Epoch;
use ums_sites::adapter::SiteAdapter;

use crate::pair::{Pair, assert_nothing_left, eventually, log_has, move_to, root_of};

#[tokio::test(flavor = "multi_thread")]
async fn lab_a_service_moves_there_and_back() {
    let pair = Pair::new();
    let Pair { a, b, .. } = &pair;
    let name = pair.run("signals", &["signals"]).await;
    move_to(a, b, &name, Epoch(1)).await;
    assert_nothing_left(&pair.state("a"), 0xa1);
    move_to(b, a, &name, Epoch(2)).await;
    // It still hears signals, and what it prints still arrives.
    a.signal(&name, 1).await.unwrap();
    log_has(a, &name, "HUP").await;
    a.remove(&name, true).await.unwrap();
    assert_nothing_left(&pair.state("a"), 0xa1);
    assert_nothing_left(&pair.state("b"), 0xb1);
}

#[tokio::test(flavor = "multi_thread")]
async fn lab_files_of_all_kinds_move() {
    let pair = Pair::new();
    let Pair { a, b, .. } = &pair;
    let mut spec = pair.spec("files", &["signals"]).await;
    // The same volume twice is one volume.
    spec.volumes = vec!["shelf:/data".parse().unwrap(), "shelf:/again".parse().unwrap()];
    a.run(&spec).await.unwrap();
    let root = root_of(a, &spec.name).await;
    // The host's root has no id in the service, so it cannot make files through the mount.
    std::fs::write(pair.state("a").join("volumes/shelf/kept"), "in the volume").unwrap();
    std::fs::write(root.join("dev/shm/shared"), "in memory").unwrap();
    std::fs::write(root.join("etc/new"), "in the upper directory").unwrap();
    std::fs::remove_file(root.join("etc/deleted")).unwrap();

    for (from, to, epoch) in [(a, b, 1), (b, a, 2)] {
        move_to(from, to, &spec.name, Epoch(epoch)).await;
        let root = root_of(to, &spec.name).await;
        let read = |path: &str| std::fs::read_to_string(root.join(path)).unwrap();
        assert_eq!(read("data/kept"), "in the volume");
        assert_eq!(read("again/kept"), "in the volume");
        assert_eq!(read("dev/shm/shared"), "in memory");
        assert_eq!(read("etc/new"), "in the upper directory");
        assert!(!root.join("etc/deleted").exists(), "a file of the image that was deleted is back");
    }
    assert!(!pair.state("b").join("volumes/shelf").exists(), "the volume has moved");
    // In the neutral form of an overlay: a file that hides another.
    let upper = pair.state("a").join("services/files/upper/etc/deleted");
    assert!(std::fs::symlink_metadata(upper).unwrap().file_type().is_char_device());
}

#[tokio::test(flavor = "multi_thread")]
async fn lab_a_volume_that_another_service_uses_stays() {
    let pair = Pair::new();
    let Pair { a, b, .. } = &pair;
    let mut spec = pair.spec("first", &["signals"]).await;
    spec.volumes = vec!["shelf:/data".parse().unwrap()];
    a.run(&spec).await.unwrap();
    let mut other = spec.clone();
    other.name = "second".parse().unwrap();
    a.run(&other).await.unwrap();
    let kept = root_of(a, &other.name).await.join("data/kept");
    std::fs::write(pair.state("a").join("volumes/shelf/kept"), "by both").unwrap();
    crate::pair::hold(a, b, &spec.name, Epoch(1)).await;
    b.resume(&spec.name, Epoch(1)).await.unwrap();
    b.open(&spec.name, Epoch(1)).await.unwrap();
    a.release(&spec.name, Epoch(1)).await.unwrap();
    assert_eq!(std::fs::read_to_string(kept).unwrap(), "by both");
}

#[tokio::test(flavor = "multi_thread")]
async fn lab_a_service_with_zombies_moves() {
    let pair = Pair::new();
    let Pair { a, b, .. } = &pair;
    // The program does not wait for a child that it did not start.
    let spec = pair.shell("zombie", "sleep 0 & exec /bin/ums-workload signals").await;
    a.run(&spec).await.unwrap();
    log_has(a, &spec.name, "ready").await;
    let pid = a.status(&spec.name).await.unwrap().pid.unwrap();
    eventually("there is a zombie", async || {
        let children = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap();
        children.split_whitespace().any(|child| {
            let stat = std::fs::read_to_string(format!("/proc/{child}/stat")).unwrap_or_default();
            stat.contains(") Z ")
        })
    })
    .await;
    move_to(a, b, &spec.name, Epoch(1)).await;
    move_to(b, a, &spec.name, Epoch(2)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn lab_the_log_goes_on_whoever_holds_the_pipe() {
    let pair = Pair::new();
    let Pair { a, b, .. } = &pair;
    let line = "exec 3>&1 >/dev/null 2>&1 </dev/null; while :; do echo alive >&3; sleep 0.05; done";
    let spec = pair.shell("quiet", line).await;
    a.run(&spec).await.unwrap();
    for (from, to, epoch) in [(a, b, 1), (b, a, 2)] {
        log_has(from, &spec.name, "alive").await;
        move_to(from, to, &spec.name, Epoch(epoch)).await;
        log_has(to, &spec.name, "alive").await;
    }
}
