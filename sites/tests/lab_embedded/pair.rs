//! Two sites and what a test does with them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use ums_model::names::{Epoch, Fingerprint, ServiceName};
use ums_model::policy::Policy;
use ums_model::spec::{ImageRef, ServiceSpec};
use ums_nest::deadlines::Deadlines as NestDeadlines;
use ums_sites::adapter::{CopyState, Dumped, ImageRequest, Restored, ServiceStatus, SiteAdapter, SiteResult};
use ums_sites::deadlines::Deadlines;
use ums_sites::embedded::{Embedded, EmbeddedConfig};

/// Longest wait for anything that should happen within a moment.
const PATIENCE: Duration = Duration::from_secs(20);
const POLL: Duration = Duration::from_millis(10);

/// Two sites in directories of their own; what a test leaves at them is removed.
pub(crate) struct Pair {
    pub(crate) a: Embedded,
    pub(crate) b: Embedded,
    dir: tempfile::TempDir,
}

fn program(variable: &str) -> PathBuf {
    let path = std::env::var_os(variable).map(PathBuf::from);
    path.unwrap_or_else(|| panic!("{variable} must name a program; run `cargo xtask test`, which sets it"))
}

impl Pair {
    pub(crate) fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let (a, b) = (open(dir.path(), "a", 0xa1), open(dir.path(), "b", 0xb1));
        Self { a, b, dir }
    }

    /// Site A as a daemon that was started again finds it.
    pub(crate) async fn reopen_a(&self) -> Embedded {
        let dir = self.dir.path().to_owned();
        tokio::task::spawn_blocking(move || open(&dir, "a", 0xa1)).await.unwrap()
    }

    pub(crate) fn state(&self, site: &str) -> PathBuf {
        self.dir.path().join(site)
    }

    /// A service of the workload program, in a root directory with nothing else.
    pub(crate) async fn spec(&self, name: &str, command: &[&str]) -> ServiceSpec {
        let root = self.dir.path().join("root");
        for name in ["bin", "dev", "proc", "sys", "etc", "tmp", "data"] {
            std::fs::create_dir_all(root.join(name)).unwrap();
        }
        std::fs::write(root.join("etc/deleted"), "of the image").unwrap();
        std::fs::copy(program("UMS_WORKLOAD"), root.join("bin/ums-workload")).unwrap();
        let image: ImageRef = self.a.import_image(&ImageRequest::Rootfs(root)).await.unwrap();
        let mut spec = ServiceSpec::new(name.parse().unwrap(), image);
        spec.command =
            std::iter::once("/bin/ums-workload").chain(command.iter().copied()).map(str::to_owned).collect();
        spec
    }

    /// A service that is a line of shell. The shell comes from this host.
    pub(crate) async fn shell(&self, name: &str, line: &str) -> ServiceSpec {
        let root = self.dir.path().join("root");
        for program in
            ["/bin/sh", "/bin/sleep", "/lib64/ld-linux-x86-64.so.2", "/lib/x86_64-linux-gnu/libc.so.6"]
        {
            let to = root.join(program.trim_start_matches('/'));
            std::fs::create_dir_all(to.parent().unwrap()).unwrap();
            std::fs::copy(program, to).unwrap();
        }
        let mut spec = self.spec(name, &[]).await;
        spec.command = ["/bin/sh", "-c", line].map(str::to_owned).to_vec();
        spec
    }

    /// Runs [`Self::spec`] at A.
    pub(crate) async fn run(&self, name: &str, command: &[&str]) -> ServiceName {
        let spec = self.spec(name, command).await;
        assert_eq!(self.a.run(&spec).await.unwrap().copy, CopyState::Running);
        spec.name
    }
}

impl Drop for Pair {
    fn drop(&mut self) {
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let runtime = tokio::runtime::Runtime::new().unwrap();
                runtime.block_on(async {
                    for site in [&self.a, &self.b] {
                        for service in site.list().await.unwrap_or_default() {
                            let _ = site.remove(&service.spec.name, true).await;
                        }
                    }
                });
            });
        });
    }
}

fn open(dir: &Path, name: &str, number: u8) -> Embedded {
    Embedded::open(EmbeddedConfig {
        state: dir.join(name),
        name: name.parse().unwrap(),
        fingerprint: fingerprint(number),
        program: program("UMS_BIN"),
        site_mounts: BTreeMap::new(),
        resolver: None,
        deadlines: Deadlines::default(),
        nest_deadlines: NestDeadlines::default(),
    })
    .unwrap()
}

/// Distinct first bytes: they name cgroups, links and tables.
pub(crate) fn fingerprint(number: u8) -> Fingerprint {
    let [low, high, ..] = std::process::id().to_le_bytes();
    let mut bytes = [number; 32];
    (bytes[1], bytes[2]) = (low, high);
    Fingerprint(bytes)
}

/// Brings image and armed nest to `to`.
pub(crate) async fn arm(from: &Embedded, to: &Embedded, name: &ServiceName, epoch: Epoch) -> SiteResult<()> {
    let spec = from.status(name).await.unwrap().spec;
    let requirements = from.restore_requirements(name).await.unwrap();
    let blobs = from.image_blobs(&spec.image.digest).await.unwrap();
    for blob in to.missing_blobs(&blobs).await.unwrap() {
        let mut bytes = from.read_blob(&blob.digest).await.unwrap();
        to.write_blob(&blob, &mut *bytes).await.unwrap();
    }
    to.register_image(&spec.image).await.unwrap();
    let files = Policy::default().files(&spec);
    to.arm(&spec, epoch, &requirements, files).await
}

/// Dumps into memory.
pub(crate) async fn dump(from: &Embedded, name: &ServiceName, epoch: Epoch) -> (Vec<u8>, SiteResult<Dumped>) {
    let mut dump = from.dump(name, epoch).await.unwrap();
    let mut archive = Vec::new();
    dump.stream.read_to_end(&mut archive).await.unwrap();
    (archive, dump.done.await)
}

/// Restores from memory.
pub(crate) async fn restore(
    to: &Embedded,
    name: &ServiceName,
    epoch: Epoch,
    archive: &[u8],
) -> SiteResult<Restored> {
    let mut restore = to.restore(name, epoch).await.unwrap();
    // A nest that refuses what it reads hangs up.
    let _ = restore.stream.write_all(archive).await;
    drop(restore.stream);
    restore.done.await
}

/// Up to HELD at `to`, with the original frozen at `from`.
pub(crate) async fn hold(from: &Embedded, to: &Embedded, name: &ServiceName, epoch: Epoch) {
    arm(from, to, name, epoch).await.unwrap();
    let (archive, dumped) = dump(from, name, epoch).await;
    let dumped = dumped.unwrap();
    let restored = restore(to, name, epoch, &archive).await.unwrap();
    assert_eq!(dumped.tasks, restored.tasks);
    assert_eq!(copy(from, name).await, CopyState::Frozen);
    assert_eq!(copy(to, name).await, CopyState::Held);
}

/// A whole migration.
pub(crate) async fn move_to(from: &Embedded, to: &Embedded, name: &ServiceName, epoch: Epoch) {
    hold(from, to, name, epoch).await;
    to.resume(name, epoch).await.unwrap();
    to.open(name, epoch).await.unwrap();
    from.release(name, epoch).await.unwrap();
    assert_eq!(copy(to, name).await, CopyState::Running);
    assert!(from.list().await.unwrap().is_empty());
}

pub(crate) async fn copy(site: &Embedded, name: &ServiceName) -> CopyState {
    site.status(name).await.unwrap().copy
}

/// Waits until `wanted` is true of the service.
pub(crate) async fn status_with(
    site: &Embedded,
    name: &ServiceName,
    what: &str,
    wanted: impl Fn(&ServiceStatus) -> bool,
) -> ServiceStatus {
    let started = Instant::now();
    loop {
        let status = site.status(name).await.unwrap();
        if wanted(&status) {
            return status;
        }
        assert!(started.elapsed() < PATIENCE, "{what}: {status:?}");
        tokio::time::sleep(POLL).await;
    }
}

/// Waits until `wanted` holds.
pub(crate) async fn eventually(what: &str, wanted: impl AsyncFn() -> bool) {
    let started = Instant::now();
    while !wanted().await {
        assert!(started.elapsed() < PATIENCE, "{what}");
        tokio::time::sleep(POLL).await;
    }
}

pub(crate) async fn log_has(site: &Embedded, name: &ServiceName, wanted: &str) {
    let path = site.log_path(name).await.unwrap();
    eventually(&format!("{wanted:?} is in {}", path.display()), async || {
        std::fs::read_to_string(&path).unwrap_or_default().contains(wanted)
    })
    .await;
}

/// The directory that a service has as its root, as this process sees it.
pub(crate) async fn root_of(site: &Embedded, name: &ServiceName) -> PathBuf {
    let pid = site.status(name).await.unwrap().pid.unwrap();
    format!("/proc/{pid}/root").into()
}

pub(crate) fn kill(pid: u32) {
    let pid = Pid::from_raw(i32::try_from(pid).unwrap()).unwrap();
    kill_process(pid, Signal::KILL).unwrap();
}

/// Kills the nest of a service and waits until its successor answers.
pub(crate) async fn kill_nest(site: &Embedded, name: &ServiceName) {
    let keeper = site.status(name).await.unwrap().keeper_pid.unwrap();
    let nest = nest_below(keeper).unwrap();
    kill(nest);
    eventually("there is another nest", async || nest_below(keeper).is_some_and(|found| found != nest)).await;
    site.status(name).await.unwrap();
}

pub(crate) fn nest_below(keeper: u32) -> Option<u32> {
    let children = format!("/proc/{keeper}/task/{keeper}/children");
    let children = std::fs::read_to_string(children).unwrap_or_default();
    children.split_whitespace().filter_map(|pid| pid.parse().ok()).find(|pid| {
        let words = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        words.split(|byte| *byte == 0).nth(1) == Some(b"nest")
    })
}

/// What is mounted in the keeper's mount namespace below `/run/ums`.
pub(crate) async fn mounts(site: &Embedded, name: &ServiceName) -> Vec<String> {
    let keeper = site.status(name).await.unwrap().keeper_pid.unwrap();
    let text = std::fs::read_to_string(format!("/proc/{keeper}/mountinfo")).unwrap();
    let points = text.lines().filter_map(|line| line.split(' ').nth(4));
    points.filter_map(|point| point.strip_prefix("/run/ums/")).map(str::to_owned).collect()
}

/// Nothing of a service is at a site: neither directory nor cgroup nor rule nor link.
pub(crate) fn assert_nothing_left(state: &Path, number: u8) {
    let left: Vec<_> =
        std::fs::read_dir(state.join("services")).unwrap().flatten().map(|one| one.path()).collect();
    assert!(left.is_empty(), "{left:?}");
    let short = fingerprint(number).short();
    for hierarchy in ["freezer", "memory", "unified", "."] {
        let cgroup = Path::new("/sys/fs/cgroup").join(hierarchy).join(format!("ums-{short}"));
        assert!(!cgroup.exists(), "{}", cgroup.display());
    }
    let said = |program: &str, args: &[&str]| {
        let output = std::process::Command::new(program).args(args).output().unwrap();
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    assert!(!said("nft", &["list", "tables"]).contains(&format!("ums_{short}")), "nft tables");
    assert!(!said("ip", &["-oneline", "link", "show"]).contains(&format!("u{short}-")), "links");
}
