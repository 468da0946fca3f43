//! Where CRIU calls back during a dump, and what a refusal there does.

use std::os::fd::AsRawFd;
use std::path::Path;

use ums_engine::criu::rpc::{Kind, NetworkLock, Options, Request};
use ums_engine::criu::swrk::{Event, Swrk};
use ums_engine::criu::version;

use crate::machine::{Machine, SOON, Version, assert_runs};
use crate::service::Service;

/// Dumps, refuses at one point, and tells the points that were reached and whether the dump succeeded.
async fn dump(service: &Service, images: &Path, refuse: &str) -> (Vec<String>, bool) {
    let directory = std::fs::File::open(images).expect("open the images");
    let options = Options {
        images_dir_fd: directory.as_raw_fd(),
        pid: Some(service.pid),
        leave_running: Some(true),
        notify_scripts: Some(true),
        log_file: Some("dump.log".to_owned()),
        network_lock: Some(NetworkLock::Skip as i32),
        external: vec![format!("net[{}]:network", inode(service.pid))],
        ..Options::default()
    };
    let mut criu = Swrk::spawn(&service.machine.criu).expect("start CRIU");
    let request = Request { kind: Kind::Dump as i32, opts: Some(options), notify_success: None };
    criu.send(&request, SOON).await.expect("send");
    let mut points = Vec::new();
    let success = loop {
        match criu.next(SOON).await.expect("an event") {
            Event::Reached { point, .. } => {
                criu.answer(point != refuse, SOON).await.expect("answer");
                points.push(point);
            }
            Event::Done(response) => break response.success,
        }
    };
    criu.ended(SOON).await.expect("CRIU ends");
    (points, success)
}

fn inode(pid: i32) -> u64 {
    use std::os::unix::fs::MetadataExt;
    std::fs::metadata(format!("/proc/{pid}/ns/net")).expect("network namespace").ino()
}

#[tokio::test]
async fn lab_callbacks_come_in_order() {
    let service = Service::start(Machine::new(Version::V1), "tree");
    let (points, success) = dump(&service, &service.machine.folder("images"), "nothing").await;
    assert!(success);
    assert_eq!(points, ["pre-dump", "network-lock", "query-ext-files", "post-dump", "network-unlock"]);
}

#[tokio::test]
async fn lab_a_refusal_at_any_point_of_a_dump_undoes_it() {
    let service = Service::start(Machine::new(Version::V1), "tree");
    for point in ["pre-dump", "network-lock", "query-ext-files", "post-dump"] {
        let (points, success) = dump(&service, &service.machine.folder(point), point).await;
        assert!(points.iter().any(|reached| reached == point));
        assert!(!success, "refused at {point}");
        assert_runs(&service.file);
    }
}

#[tokio::test]
async fn lab_the_installed_criu_is_new_enough_and_keeps_what_it_learned() {
    let machine = Machine::new(Version::V1);
    let found = version::version(&machine.criu, SOON).await.expect("a version");
    assert!(found >= version::MINIMUM);
    let cache = Path::new("/run/criu.kdat");
    assert!(!cache.exists());
    version::warm_up(&machine.criu, SOON).await.expect("warm up");
    assert!(cache.exists(), "CRIU learned nothing, or /run is no tmpfs");
}
