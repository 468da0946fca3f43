//! CRIU is killed at many moments of a dump, of a tree that checks itself all the time.

use std::fs;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use ums_engine::criu::dump::{ArmedDump, DumpError};
use ums_engine::criu::mend::Mended;

use crate::machine::{Machine, Version, length, wait_until};
use crate::service::Service;

/// Moments per test, spread over all that CRIU does while the tree is in its hands.
const MOMENTS: u64 = 10;

/// What became of a tree.
#[derive(Debug)]
enum Fate {
    /// The dump was complete.
    Dumped,
    Whole(Mended),
    Lost(String),
}

/// The files of all processes.
fn outputs(service: &Service) -> Vec<PathBuf> {
    let of = |number: u32| PathBuf::from(format!("{}.{number}", service.file.display()));
    [service.file.clone(), of(1), of(2), of(3)].to_vec()
}

/// Every process goes through at least two whole rounds of its own checks.
fn assert_whole(service: &Service, moment: &str) {
    for file in outputs(service) {
        let before = length(&file);
        let said = || fs::read_to_string(&file).unwrap_or_default();
        let well = || !said().contains("BAD");
        wait_until(&format!("{} checks itself {moment}", file.display()), || {
            !well() || length(&file) >= before + 2 * "alive\n".len() as u64
        });
        assert!(well(), "{} {moment}: {:?}", file.display(), said().lines().last());
    }
}

/// CRIU has left nothing in any process.
fn assert_clean(service: &Service) {
    for pid in service.cgroup.procs().expect("processes") {
        let maps = fs::read_to_string(format!("/proc/{pid}/maps")).expect("mappings");
        assert!(!maps.contains("CRIUMFD"), "process {pid}: {maps}");
        for entry in fs::read_dir(format!("/proc/{pid}/fd")).expect("descriptors").flatten() {
            let target = fs::read_link(entry.path()).unwrap_or_default();
            let name = target.to_string_lossy();
            assert!(!name.contains("CRIUMFD") && !name.contains("dump.log"), "process {pid}: {name}");
        }
    }
}

/// Kills CRIU when its log has `size` bytes, unless the dump is over before.
fn kill_at(criu: &OwnedFd, log: &Path, size: u64, over: &AtomicBool) {
    while length(log) < size {
        if over.load(Ordering::Relaxed) {
            return;
        }
        std::hint::spin_loop();
    }
    // It may have ended just now.
    let _ = pidfd_send_signal(criu, Signal::KILL);
}

async fn dump(service: &Service, images: &str, size: Option<u64>) -> Fate {
    let armed = ArmedDump::arm(service.request(images)).await.expect("arm");
    let log = service.machine.folder(images).join("dump.log");
    let criu = armed.criu().and_then(|pid| Pid::from_raw(i32::try_from(pid).ok()?)).expect("CRIU waits");
    let criu = pidfd_open(criu, PidfdFlags::empty()).expect("CRIU waits");
    let over = Arc::new(AtomicBool::new(false));
    let told = Arc::clone(&over);
    let killer = size.map(|size| thread::spawn(move || kill_at(&criu, &log, size, &told)));
    let result = armed.run(|| async { Ok(()) }).await;
    over.store(true, Ordering::Relaxed);
    killer.map(thread::JoinHandle::join).transpose().expect("the killer");
    match result {
        Ok(_) => Fate::Dumped,
        Err(DumpError::Killed { mended, .. }) => Fate::Whole(mended),
        Err(DumpError::Harmed { harm, .. }) => Fate::Lost(harm),
        Err(other) => panic!("CRIU was killed, and yet: {other:?}"),
    }
}

async fn kill_criu_everywhere(version: Version) {
    let begin = |machine| {
        let service = Service::start(machine, "checked");
        assert_whole(&service, "before");
        service
    };
    let mut service = begin(Machine::new(version));
    let log = |service: &Service, images: &str| length(&service.machine.folder(images).join("dump.log"));
    drop(ArmedDump::arm(service.request("armed")).await.expect("arm").abort().await);
    let first = log(&service, "armed");
    assert!(matches!(dump(&service, "undisturbed", None).await, Fate::Dumped));
    let last = log(&service, "undisturbed");
    service.cgroup.thaw().expect("thaw");
    assert_whole(&service, "after an undisturbed dump");

    let mut fates = [0; 4];
    for number in 0..MOMENTS {
        let moment = format!("moment{number}");
        let size = first + (last - first) * number / MOMENTS;
        let fate = dump(&service, &moment, Some(size)).await;
        eprintln!("{number} of {MOMENTS} ({size} bytes of log): {fate:?}");
        match &fate {
            Fate::Lost(harm) => {
                // It stands, and says so.
                let before: Vec<_> = outputs(&service).iter().map(|file| length(file)).collect();
                let frozen = service.cgroup.is_frozen().expect("state");
                assert!(frozen || harm.contains("none"), "{harm}");
                crate::machine::assert_stands(&service.file);
                let after: Vec<_> = outputs(&service).iter().map(|file| length(file)).collect();
                assert_eq!(before, after);
                let machine = Machine::new(version);
                service = begin(machine);
                fates[3] += 1;
                continue;
            }
            Fate::Dumped => {
                service.cgroup.thaw().expect("thaw");
                fates[0] += 1;
            }
            Fate::Whole(mended) if mended.cured.is_empty() => fates[1] += 1,
            Fate::Whole(_) => fates[2] += 1,
        }
        assert!(!service.cgroup.is_frozen().expect("state"));
        assert_clean(&service);
        assert_whole(&service, &moment);
    }
    let [dumped, unharmed, cured, lost] = fates;
    eprintln!("dumped {dumped}, unharmed {unharmed}, cured {cured}, lost {lost}");
    assert!(unharmed + cured > 0, "CRIU was killed too late each time");
    // It can be dumped still.
    assert!(matches!(dump(&service, "last", None).await, Fate::Dumped));
}

#[tokio::test]
async fn lab_a_tree_whose_criu_is_killed_is_whole_or_stands_v1() {
    kill_criu_everywhere(Version::V1).await;
}

#[tokio::test]
async fn lab_a_tree_whose_criu_is_killed_is_whole_or_stands_v2() {
    kill_criu_everywhere(Version::V2).await;
}
