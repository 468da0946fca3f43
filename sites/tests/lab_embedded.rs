//! Two embedded sites on one host move a service between them, without Coordinators: the mechanics below every
//! migration. Needs root, runc, CRIU and the `ums` and `ums-workload` programs (`cargo xtask test` provides them).

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use ums_model::names::{Epoch, Fingerprint, ServiceName};
use ums_model::spec::{ImageRef, ServiceSpec};
use ums_sites::adapter::{CopyState, ImageRequest, SiteAdapter};
use ums_sites::embedded::{Embedded, EmbeddedConfig};

/// Longest wait for anything that should happen within a moment.
const PATIENCE: Duration = Duration::from_secs(20);

fn program(variable: &str) -> PathBuf {
    let path = std::env::var_os(variable).map(PathBuf::from);
    path.unwrap_or_else(|| panic!("{variable} must name a program; run `cargo xtask test`, which sets it"))
}

/// Removes what a failed test left at its sites.
struct Cleared<'a>([&'a Embedded; 2]);

impl Drop for Cleared<'_> {
    fn drop(&mut self) {
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let runtime = tokio::runtime::Runtime::new().unwrap();
                runtime.block_on(async {
                    for site in self.0 {
                        for service in site.list().await.unwrap_or_default() {
                            let _ = site.remove(&service.spec.name, true).await;
                        }
                    }
                });
            });
        });
    }
}

/// A site in a directory of its own.
fn site(dir: &Path, name: &str, number: u8) -> Embedded {
    Embedded::open(EmbeddedConfig {
        state: dir.join(name),
        name: name.parse().unwrap(),
        // Distinct first bytes: they name cgroups and links.
        fingerprint: Fingerprint([number ^ std::process::id().to_le_bytes()[0]; 32]),
        program: program("UMS_BIN"),
        site_mounts: BTreeMap::new(),
        resolver: None,
    })
    .unwrap()
}

/// A root directory with nothing but the workload program.
fn root_directory(dir: &Path) -> PathBuf {
    let root = dir.join("root");
    for name in ["bin", "dev", "proc", "sys", "etc", "tmp"] {
        std::fs::create_dir_all(root.join(name)).unwrap();
    }
    std::fs::copy(program("UMS_WORKLOAD"), root.join("bin/ums-workload")).unwrap();
    root
}

async fn move_to(from: &Embedded, to: &Embedded, name: &ServiceName, epoch: Epoch) {
    let spec = from.status(name).await.unwrap().spec;
    let requirements = from.restore_requirements(name).await.unwrap();
    let blobs = from.image_blobs(&spec.image.digest).await.unwrap();
    for blob in to.missing_blobs(&blobs).await.unwrap() {
        let mut bytes = from.read_blob(&blob.digest).await.unwrap();
        to.write_blob(&blob, &mut *bytes).await.unwrap();
    }
    to.register_image(&spec.image).await.unwrap();
    to.arm(&spec, epoch, &requirements).await.unwrap();
    let started = Instant::now();
    let mut dump = from.dump(name, epoch).await.unwrap();
    let mut restore = to.restore(name, epoch).await.unwrap();
    let mut buffer = vec![0; 1 << 20];
    loop {
        let count = dump.stream.read(&mut buffer).await.unwrap();
        if count == 0 {
            break;
        }
        restore.stream.write_all(&buffer[..count]).await.unwrap();
    }
    drop(restore.stream);
    let dumped = dump.done.await.unwrap();
    let restored = restore.done.await.unwrap();
    assert_eq!(from.status(name).await.unwrap().copy, CopyState::Frozen);
    assert_eq!(to.status(name).await.unwrap().copy, CopyState::Held);
    to.resume(name, epoch).await.unwrap();
    to.open(name, epoch).await.unwrap();
    eprintln!("epoch {epoch}: {:?}, {dumped:?}, {restored:?}", started.elapsed());
    from.release(name, epoch).await.unwrap();
    assert_eq!(to.status(name).await.unwrap().copy, CopyState::Running);
    assert!(from.list().await.unwrap().is_empty());
}

async fn log_has(site: &Embedded, name: &ServiceName, wanted: &str) {
    let path = site.log_path(name).await.unwrap();
    let started = Instant::now();
    while !std::fs::read_to_string(&path).unwrap_or_default().contains(wanted) {
        assert!(started.elapsed() < PATIENCE, "{wanted:?} is not in {}", path.display());
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn lab_a_service_moves_there_and_back() {
    let dir = tempfile::tempdir().unwrap();
    let (a, b) = (site(dir.path(), "a", 0xa1), site(dir.path(), "b", 0xb1));
    let _cleared = Cleared([&a, &b]);
    let image: ImageRef = a.import_image(&ImageRequest::Rootfs(root_directory(dir.path()))).await.unwrap();
    let name: ServiceName = "signals".parse().unwrap();
    let mut spec = ServiceSpec::new(name.clone(), image);
    spec.command = ["/bin/ums-workload", "signals"].map(str::to_owned).to_vec();
    let status = a.run(&spec).await.unwrap();
    assert_eq!(status.copy, CopyState::Running);
    move_to(&a, &b, &name, Epoch(1)).await;
    move_to(&b, &a, &name, Epoch(2)).await;
    // It still hears signals, and what it prints still arrives.
    a.signal(&name, 1).await.unwrap();
    log_has(&a, &name, "HUP").await;
    a.remove(&name, true).await.unwrap();
    assert!(a.list().await.unwrap().is_empty());
}
