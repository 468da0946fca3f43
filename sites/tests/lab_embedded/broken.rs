//! Streams that break, and requests that are refused: the service runs on, or nothing is left.

use tokio::io::AsyncReadExt as _;
use ums_model::error::ErrorCode;
use ums_model::names::Epoch;
use ums_model::policy::FilePolicy;
use ums_sites::adapter::{CopyState, SiteAdapter};

use crate::pair::{
    Pair, arm, assert_nothing_left, copy, dump, log_has, mounts, move_to, restore, status_with,
};

const MEMORY: &[&str] = &["memhog", "--mib", "64"];

#[tokio::test(flavor = "multi_thread")]
async fn lab_a_dump_that_nobody_reads_to_its_end_changes_nothing() {
    let pair = Pair::new();
    let Pair { a, b, .. } = &pair;
    let name = pair.run("hog", MEMORY).await;
    let before = a.status(&name).await.unwrap();
    let mounted = mounts(a, &name).await;
    // Cut at once, and in the middle of memory.
    for (epoch, read) in [(1, 1), (2, 8 << 20)] {
        let mut dumping = a.dump(&name, Epoch(epoch)).await.unwrap();
        let mut buffer = vec![0; read];
        dumping.stream.read_exact(&mut buffer).await.unwrap();
        drop(dumping.stream);
        dumping.done.await.unwrap_err();
        let after = status_with(a, &name, "it runs", |status| status.copy == CopyState::Running).await;
        assert_eq!((after.pid, after.epoch), (before.pid, Epoch(epoch)));
        assert_eq!(mounts(a, &name).await, mounted);
        a.thaw(&name, Epoch(epoch)).await.unwrap();
    }
    // An epoch that is over cannot come back.
    let (_, refused) = dump(a, &name, Epoch(1)).await;
    assert_eq!(refused.unwrap_err().code, ErrorCode::Refused);
    move_to(a, b, &name, Epoch(3)).await;
    b.signal(&name, 9).await.unwrap();
    status_with(b, &name, "its end is known", |status| status.exit_code == Some(137)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn lab_an_archive_that_is_cut_leaves_nothing() {
    let pair = Pair::new();
    let Pair { a, b, .. } = &pair;
    let mut spec = pair.spec("signals", &["signals"]).await;
    spec.volumes = vec!["shelf:/data".parse().unwrap()];
    let name = spec.name.clone();
    a.run(&spec).await.unwrap();
    std::fs::write(pair.state("a").join("volumes/shelf/kept"), "kept").unwrap();
    let mut whole = Vec::new();
    for (epoch, part) in [(1, 0.0), (2, 0.5), (3, 0.99), (4, 0.7)] {
        let epoch = Epoch(epoch);
        arm(a, b, &name, epoch).await.unwrap();
        let (archive, dumped) = dump(a, &name, epoch).await;
        dumped.unwrap();
        let length = (archive.len() as f64 * part) as usize;
        let error = restore(b, &name, epoch, &archive[..length]).await.unwrap_err();
        assert!(matches!(error.code, ErrorCode::LinkCut | ErrorCode::RestoreFailed), "{error:?}");
        assert_eq!(copy(b, &name).await, CopyState::Dead);
        // Restored again from the same nest it is not, and a new attempt replaces what is left.
        // Whether the second answer comes or the first one again: it did not come to be.
        restore(b, &name, epoch, &archive).await.unwrap_err();
        assert_eq!(copy(b, &name).await, CopyState::Dead);
        if epoch != Epoch(2) {
            b.discard(&name, epoch).await.unwrap();
            assert_nothing_left(&pair.state("b"), 0xb1);
            assert!(!pair.state("b").join("volumes/shelf").exists());
        }
        a.thaw(&name, epoch).await.unwrap();
        whole = archive;
    }
    // Damage is found wherever it is.
    arm(a, b, &name, Epoch(5)).await.unwrap();
    let middle = whole.len() / 2;
    whole[middle] ^= 1;
    restore(b, &name, Epoch(5), &whole).await.unwrap_err();
    b.discard(&name, Epoch(5)).await.unwrap();
    assert_nothing_left(&pair.state("b"), 0xb1);
    move_to(a, b, &name, Epoch(6)).await;
    b.signal(&name, 1).await.unwrap();
    log_has(b, &name, "HUP").await;
}

/// A plan says it before; a source that has hidden it from its plan is refused where the files are written.
#[tokio::test(flavor = "multi_thread")]
async fn lab_a_device_that_no_plan_spoke_of_is_not_made() {
    let pair = Pair::new();
    let Pair { a, b, .. } = &pair;
    let name = pair.run("signals", &["signals"]).await;
    let upper = pair.state("a").join("services/signals/upper");
    let planted =
        std::process::Command::new("mknod").arg(upper.join("memory")).args(["c", "1", "1"]).status();
    assert!(planted.unwrap().success());
    let found = a.service_facts(&name).await.unwrap().special_files;
    assert_eq!((found.device.as_deref(), found.set_uid), (Some("memory in its root"), None));
    arm(a, b, &name, Epoch(1)).await.unwrap();
    let (archive, dumped) = dump(a, &name, Epoch(1)).await;
    dumped.unwrap();
    let refused = restore(b, &name, Epoch(1), &archive).await.unwrap_err();
    assert_eq!((refused.code, &*refused.hint), (ErrorCode::Refused, FilePolicy::DEVICES), "{refused}");
    b.discard(&name, Epoch(1)).await.unwrap();
    assert_nothing_left(&pair.state("b"), 0xb1);
    a.thaw(&name, Epoch(1)).await.unwrap();
    assert_eq!(copy(a, &name).await, CopyState::Running);
}

#[tokio::test(flavor = "multi_thread")]
async fn lab_what_cannot_be_armed_leaves_nothing() {
    let pair = Pair::new();
    let Pair { a, b, .. } = &pair;
    let name = pair.run("signals", &["signals"]).await;
    arm(a, b, &name, Epoch(1)).await.unwrap();
    // An attempt that was given up is replaced by a newer one, not by an older one.
    arm(a, b, &name, Epoch(2)).await.unwrap();
    assert_eq!(arm(a, b, &name, Epoch(1)).await.unwrap_err().code, ErrorCode::NameTaken);
    b.discard(&name, Epoch(1)).await.unwrap();
    assert_eq!(copy(b, &name).await, CopyState::Prepared);
    b.discard(&name, Epoch(2)).await.unwrap();
    assert_nothing_left(&pair.state("b"), 0xb1);

    let spec = a.status(&name).await.unwrap().spec;
    let mut requirements = a.restore_requirements(&name).await.unwrap();
    requirements.stdio_pipes[1] = Some("file:/etc/shadow".into());
    b.arm(&spec, Epoch(3), &requirements, FilePolicy::default()).await.unwrap_err();
    assert_nothing_left(&pair.state("b"), 0xb1);

    // Without files of an older service of that name, which was not removed to its end.
    let upper = pair.state("b").join("services/signals/upper/etc");
    std::fs::create_dir_all(&upper).unwrap();
    std::fs::write(upper.join("strange"), "").unwrap();
    move_to(a, b, &name, Epoch(4)).await;
    assert!(!upper.join("strange").exists());
}
