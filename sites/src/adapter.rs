//! What a Coordinator asks of its site: the intra-system coordination, whatever the orchestrator is.
//!
//! Two implementations exist: [`crate::embedded::Embedded`] and the fake in the Coordinator's tests. Every call names
//! the service and, where a migration is meant, its epoch; every call is safe to repeat unless it says otherwise.

use std::future::Future;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::io::{AsyncRead, AsyncWrite};
use ums_model::error::WireError;
use ums_model::message::RestoreRequirements;
use ums_model::names::{Bytes, Digest, Epoch, ServiceName};
use ums_model::plan::{ServiceFacts, SiteFacts};
use ums_model::policy::FilePolicy;
use ums_model::spec::ServiceSpec;

/// Why a site could not do what it was asked: already in the form that users and the other site see, because the
/// adapter is where orchestrator, nest and CRIU causes are known.
pub type SiteResult<T> = Result<T, WireError>;

/// A byte stream to a nest.
pub trait NestStream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> NestStream for T {}

/// What a site observes of its own copy of a service, from the kernel, not from memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CopyState {
    /// No nest and no process of the service is here.
    Absent,
    /// A nest is here and waits for a restore; no process of the service exists.
    Prepared,
    /// The tasks run.
    Running,
    /// The cgroup reads back frozen and has tasks: the original of a source.
    Frozen,
    /// Restored, complete, frozen, and never yet run here.
    Held,
    /// The service ended or was killed; its nest may still be here.
    Dead,
}

/// One line of `ums ps`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ServiceStatus {
    /// What the service is.
    pub spec: ServiceSpec,
    /// What is observed of its copy here.
    pub copy: CopyState,
    /// Highest epoch this site's nest has seen for it; 0 if it never migrated.
    pub epoch: Epoch,
    /// Pid of the service's first process in the site's pid namespace, while it exists.
    pub pid: Option<u32>,
    /// Pid of the keeper.
    pub keeper_pid: Option<u32>,
    /// Exit status if the service ended: the code, or 128 + signal.
    pub exit_code: Option<i32>,
    /// Whether a user has stopped it, so that only a user starts it again.
    #[serde(default)]
    pub stopped: bool,
    /// Unix time in milliseconds at which it was started or restored here.
    pub since_unix_ms: u64,
}

/// A blob of an image that travels.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Blob {
    /// Content address.
    pub digest: Digest,
    /// Size in bytes as stored and sent.
    pub size: Bytes,
}

/// What `dump` promises when its stream has ended well.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Dumped {
    /// Tasks (processes) in the dumped tree; the destination counts its restored tree against it.
    pub tasks: u32,
    /// Milliseconds from the first stop of a task to the complete dump.
    pub dump_ms: f64,
    /// CLOCK_BOOTTIME of this host in milliseconds when the service stopped running.
    pub frozen_at_boot_ms: f64,
    /// Bytes of memory images before compression.
    pub memory_bytes: u64,
    /// Bytes of files (upper directory, volumes) sent.
    pub file_bytes: u64,
}

/// What `restore` promises: HELD. CRIU has exited with success, every restored task sits in a cgroup that reads back
/// FROZEN, the tree was counted, files are synced.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Restored {
    /// Restored tasks.
    pub tasks: u32,
    /// Milliseconds from the last byte to HELD.
    pub restore_ms: f64,
}

/// A dump that is being written and read at once. Read `stream` to its end, then ask `done`.
pub struct Dump {
    /// Frames of an archive (`ums_transfer::archive`), ending with its End record. If it breaks before that, the nest
    /// thaws the service by itself: nobody can have committed.
    pub stream: Box<dyn AsyncRead + Send + Unpin>,
    /// Resolves once the nest has answered: Ok = the service is frozen, complete, and stays so until `thaw` or
    /// `release`; Err = it runs as before, except with `link-cut` or `stuck` and where the nest itself died: then only
    /// `status` tells, and `thaw` lets it run.
    pub done: std::pin::Pin<Box<dyn Future<Output = SiteResult<Dumped>> + Send>>,
}

/// A restore that is being fed. Write all frames of the archive, then drop `stream` and ask `done`.
pub struct Restore {
    /// Takes the frames of the archive.
    pub stream: Box<dyn AsyncWrite + Send + Unpin>,
    /// Ok = HELD; Err = nothing of the copy is left and nothing ran.
    pub done: std::pin::Pin<Box<dyn Future<Output = SiteResult<Restored>> + Send>>,
}

/// One site, as its Coordinator sees it.
pub trait SiteAdapter: Send + Sync + 'static {
    /// Facts about the host for `plan` and `doctor`; touches nothing.
    fn facts(&self) -> impl Future<Output = SiteResult<SiteFacts>> + Send;
    /// Facts about a running service, read without stopping it.
    fn service_facts(&self, name: &ServiceName) -> impl Future<Output = SiteResult<ServiceFacts>> + Send;

    /// Imports an image from a path on this host or resolves a stored one; returns its name and digest in a spec-ready
    /// form.
    fn import_image(
        &self,
        source: &ImageRequest,
    ) -> impl Future<Output = SiteResult<ums_model::spec::ImageRef>> + Send;
    /// Starts a new service. Err = nothing is left of it. Not for a name that exists (name-taken).
    fn run(&self, spec: &ServiceSpec) -> impl Future<Output = SiteResult<ServiceStatus>> + Send;
    /// Ends the service: SIGTERM, after `grace` SIGKILL; it stays listed with its exit code. Ok = it stays stopped until
    /// `start`, whatever its restart policy says, also after a restart of its keeper or its host. Safe to repeat.
    fn stop(
        &self,
        name: &ServiceName,
        grace: Duration,
    ) -> impl Future<Output = SiteResult<ServiceStatus>> + Send;
    /// Sends a signal to the service's first process.
    fn signal(&self, name: &ServiceName, signal: i32) -> impl Future<Output = SiteResult<()>> + Send;
    /// Starts a stopped service again. Asked only where the journal says that the service is at home here since `epoch`:
    /// that counts for more than what a dead Coordinator has asked for until then, and for less than a newer epoch.
    fn start(
        &self,
        name: &ServiceName,
        epoch: Epoch,
    ) -> impl Future<Output = SiteResult<ServiceStatus>> + Send;
    /// Removes a stopped service (or a running one with `force`) with its files; volumes stay.
    fn remove(&self, name: &ServiceName, force: bool) -> impl Future<Output = SiteResult<()>> + Send;
    /// All services of the site.
    fn list(&self) -> impl Future<Output = SiteResult<Vec<ServiceStatus>>> + Send;
    /// One service; `service-not-found` if there is none.
    fn status(&self, name: &ServiceName) -> impl Future<Output = SiteResult<ServiceStatus>> + Send;
    /// The next service whose keeper ends, by itself or because it was killed, while this site is open; waits for one. What
    /// has no keeper when the site is opened is not told. Nothing is lost when this is dropped and asked again.
    fn keeper_ended(&self) -> impl Future<Output = ServiceName> + Send;
    /// The log file of the service on this host.
    fn log_path(&self, name: &ServiceName) -> impl Future<Output = SiteResult<PathBuf>> + Send;
    /// A connection on which the caller speaks the nest's exec protocol (`ums_nest::exec`).
    fn exec_stream(&self, name: &ServiceName)
    -> impl Future<Output = SiteResult<Box<dyn NestStream>>> + Send;

    /// Blobs of the image, manifest included.
    fn image_blobs(&self, digest: &Digest) -> impl Future<Output = SiteResult<Vec<Blob>>> + Send;
    /// Which of them this site lacks.
    fn missing_blobs(&self, blobs: &[Blob]) -> impl Future<Output = SiteResult<Vec<Blob>>> + Send;
    /// Reads a blob.
    fn read_blob(
        &self,
        digest: &Digest,
    ) -> impl Future<Output = SiteResult<Box<dyn AsyncRead + Send + Unpin>>> + Send;
    /// Stores a blob read from `bytes`; verified against digest and size, nothing is left on Err.
    fn write_blob(
        &self,
        blob: &Blob,
        bytes: &mut (dyn AsyncRead + Send + Unpin),
    ) -> impl Future<Output = SiteResult<()>> + Send;
    /// Names a complete image.
    fn register_image(
        &self,
        image: &ums_model::spec::ImageRef,
    ) -> impl Future<Output = SiteResult<()>> + Send;

    /// What the destination must know to prepare (stdio pipe names, task count, sizes).
    fn restore_requirements(
        &self,
        name: &ServiceName,
    ) -> impl Future<Output = SiteResult<RestoreRequirements>> + Send;
    /// Source: stop the service and dump it. Fence closes first.
    fn dump(&self, name: &ServiceName, epoch: Epoch) -> impl Future<Output = SiteResult<Dump>> + Send;
    /// A copy that has no right to run (any more): stop it where it is, fence closed. Ok = no task of it runs and none is
    /// started, also by a nest, a host or an orchestrator that starts again, until `thaw` or `release`. Also Ok if it is
    /// frozen already, dead, or was never here; one that is dead only a `thaw` of a newer epoch lets be started.
    fn freeze(&self, name: &ServiceName, epoch: Epoch) -> impl Future<Output = SiteResult<()>> + Send;
    /// Source, before commit or after revocation: let the original run again, fence open. Ok = it runs. Also Ok if it runs
    /// already. Where the copy and its keeper are gone, Ok = the service may be started anew from its files.
    fn thaw(&self, name: &ServiceName, epoch: Epoch) -> impl Future<Output = SiteResult<()>> + Send;
    /// Source, after RUNNING(E): end the frozen original and remove it (tree, files, volumes that moved, place). Ok if gone already.
    fn release(&self, name: &ServiceName, epoch: Epoch) -> impl Future<Output = SiteResult<()>> + Send;

    /// Destination: make everything that can exist before the freeze (nest, namespaces, fence closed, mounts, runc and CRIU
    /// waiting). `files`: what may be among the files of the image and of the service; a file of the service that may not is
    /// refused when it comes, with the option of the policy as its hint, and of the image's programs it is taken off.
    fn arm(
        &self,
        spec: &ServiceSpec,
        epoch: Epoch,
        requirements: &RestoreRequirements,
        files: FilePolicy,
    ) -> impl Future<Output = SiteResult<()>> + Send;
    /// Destination: restore from an archive into HELD.
    fn restore(&self, name: &ServiceName, epoch: Epoch) -> impl Future<Output = SiteResult<Restore>> + Send;
    /// Destination, after GRANTED(E) is durable: thaw. Ok = every task is thawed; the fence stays closed.
    fn resume(&self, name: &ServiceName, epoch: Epoch) -> impl Future<Output = SiteResult<()>> + Send;
    /// Destination, after RUNNING(E) is durable: open the fence and publish the ports.
    fn open(&self, name: &ServiceName, epoch: Epoch) -> impl Future<Output = SiteResult<()>> + Send;
    /// Destination: end and remove whatever exists of the copy of this epoch. Ok = proven gone; a copy of
    /// another epoch stays.
    fn discard(&self, name: &ServiceName, epoch: Epoch) -> impl Future<Output = SiteResult<()>> + Send;
}

/// Where the image of a new service comes from.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ImageRequest {
    /// `--image REF`: a stored name or digest, or a path to an OCI layout or docker-archive on the site's host.
    Image(String),
    /// `--rootfs DIR`: a plain root directory on the site's host.
    Rootfs(PathBuf),
}

/// A published address of a service.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Published {
    /// Address on the site.
    pub address: SocketAddr,
}
