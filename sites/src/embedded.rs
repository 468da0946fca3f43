//! The embedded site: UMS runs services itself, on one host, without an orchestrator.
//!
//! ```text
//! STATE/services/NAME/   one nest each (recipe, record, log, upper directory)
//! STATE/volumes/NAME/    data that travels with a service
//! STATE/store/           images
//! ```
//!
//! Read in this order: [`Embedded`] and its configuration here, `create` (from a spec to a keeper), `lives` (stop and start),
//! `observe` (what a copy is, seen from outside), `keepers` (when one ends), `images`, and `migrate`, which only passes on to the
//! nest.

mod create;
mod images;
mod keepers;
mod lives;
mod migrate;
mod observe;
mod remove;

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::task::spawn_blocking;
use ums_model::error::{ErrorCode, WireError, chain};
use ums_model::message::RestoreRequirements;
use ums_model::names::{Epoch, Fingerprint, MountName, ServiceName, SiteName};
use ums_model::plan::{ServiceFacts, SiteFacts};
use ums_model::policy::FilePolicy;
use ums_model::spec::{ImageRef, ServiceSpec};
use ums_nest::client::{ask, connect};
use ums_nest::deadlines::{Deadlines as NestDeadlines, DeadlinesFile};
use ums_nest::layout::NestDir;
use ums_nest::protocol::{Reply, Request};

use crate::adapter::{Blob, Dump, ImageRequest, NestStream, Restore, ServiceStatus, SiteAdapter, SiteResult};
use crate::deadlines::Deadlines;
use crate::store::{Limits, Store};

/// Longest time that a service gets to end by itself, whatever was asked for.
const MAX_GRACE: Duration = Duration::from_secs(24 * 3600);

/// What an embedded site is made of.
#[derive(Debug, Clone)]
pub struct EmbeddedConfig {
    /// Directory for everything, on storage that survives a restart.
    pub state: PathBuf,
    /// The site's name.
    pub name: SiteName,
    /// The site's identity.
    pub fingerprint: Fingerprint,
    /// The `ums` binary that keepers and nests are started from.
    pub program: PathBuf,
    /// What the site's mount names mean here.
    pub site_mounts: BTreeMap<MountName, PathBuf>,
    /// Name server that services are forwarded to; `None` takes the host's.
    pub resolver: Option<Ipv4Addr>,
    /// How long the site waits for anything.
    pub deadlines: Deadlines,
    /// How long its nests do.
    pub nest_deadlines: NestDeadlines,
}

/// One host that runs services itself.
#[derive(Clone)]
pub struct Embedded {
    config: Arc<EmbeddedConfig>,
    store: Arc<Store>,
    /// Held while a service is created or removed, so that names, ports and place numbers are given once.
    registry: Arc<tokio::sync::Mutex<()>>,
    keepers: Arc<keepers::Keepers>,
}

impl Embedded {
    /// Opens the site: makes its directories, opens the store, clears away what was being removed, and links and
    /// publishes again what has a keeper. Blocking. Safe to repeat; services go on undisturbed.
    pub fn open(config: EmbeddedConfig) -> SiteResult<Self> {
        if config.state.starts_with("/run") || config.state.starts_with("/var/run") {
            let message = format!("{} is volatile, and hidden from keepers", config.state.display());
            return Err(WireError::new(ErrorCode::BadRequest, message)
                .with_hint("choose a directory that survives a restart: ums site --state DIR"));
        }
        for dir in ["services", "volumes", "store"] {
            let path = config.state.join(dir);
            std::fs::create_dir_all(&path)
                .map_err(|error| internal(&format!("make {}", path.display()), &error))?;
        }
        // Set-uid programs of services must not be within reach of the host's users.
        for dir in ["services", "volumes"] {
            let path = config.state.join(dir);
            let mode = std::os::unix::fs::PermissionsExt::from_mode(0o700);
            std::fs::set_permissions(&path, mode)
                .map_err(|error| internal(&format!("protect {}", path.display()), &error))?;
        }
        let limits = Limits { lock_wait: config.deadlines.store, ..Limits::default() };
        let store = Store::open_with(&config.state.join("store"), limits)
            .map_err(|error| chained(ErrorCode::Internal, &error))?;
        let registry = Arc::new(tokio::sync::Mutex::new(()));
        let keepers = Arc::new(keepers::Keepers::none());
        let site = Self { config: Arc::new(config), store: Arc::new(store), registry, keepers };
        site.sweep();
        site.hand_on_deadlines();
        // A runtime of its own, on a thread of its own: the caller may have one already, on which nobody may block.
        let reconnected = std::thread::scope(|scope| {
            let work = || {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
                runtime.map(|runtime| runtime.block_on(site.reconnect()))
            };
            scope.spawn(work).join()
        });
        match reconnected {
            Ok(Ok(result)) => result?,
            Ok(Err(error)) => return Err(internal("start to look after the network", &error)),
            Err(_) => return Err(WireError::new(ErrorCode::Internal, "a task ended unexpectedly")),
        }
        Ok(site)
    }

    fn services_dir(&self) -> PathBuf {
        self.config.state.join("services")
    }

    fn nest_dir(&self, name: &ServiceName) -> NestDir {
        NestDir::new(self.services_dir().join(name.as_str()))
    }

    /// First eight hex digits of the fingerprint: distinguishes sites that share a machine.
    fn short(&self) -> String {
        self.config.fingerprint.short()
    }

    fn cgroup_path(&self, name: &ServiceName) -> String {
        format!("ums-{}/{name}", self.short())
    }

    /// Sends a request to a service's nest; `service-not-found` if there is none.
    async fn ask(&self, name: &ServiceName, request: &Request, within: Duration) -> SiteResult<Reply> {
        let dir = self.existing(name)?;
        self.ask_nest(&dir, request, within).await
    }

    async fn ask_nest(&self, dir: &NestDir, request: &Request, within: Duration) -> SiteResult<Reply> {
        ask(&dir.socket(), request, self.config.deadlines.reach, within).await
    }

    /// Tells the nests that are here how long they may wait. Blocking.
    fn hand_on_deadlines(&self) {
        for name in self.names().unwrap_or_default() {
            let file = DeadlinesFile::of(&self.nest_dir(&name));
            if let Err(error) = file.write(&self.config.nest_deadlines) {
                // On a full disk the old ones hold, with which the service came as far as this.
                tracing::warn!(service = %name, error = %chain(&error), "cannot tell a nest its deadlines");
            }
        }
    }

    /// A request that answers with nothing but success.
    async fn tell(&self, name: &ServiceName, request: Request) -> SiteResult<()> {
        self.ask(name, &request, self.config.deadlines.change).await.map(drop)
    }

    fn existing(&self, name: &ServiceName) -> SiteResult<NestDir> {
        let dir = self.nest_dir(name);
        if dir.recipe().exists() {
            return Ok(dir);
        }
        let message = format!("there is no service {name} at site {}", self.config.name);
        Err(WireError::new(ErrorCode::ServiceNotFound, message).with_hint("ums ps"))
    }
}

/// Work on files, away from the reactor.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> SiteResult<T> + Send + 'static) -> SiteResult<T> {
    match spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => Err(WireError::new(ErrorCode::Internal, format!("a task ended unexpectedly: {error}"))),
    }
}

fn internal(action: &str, error: &dyn std::error::Error) -> WireError {
    WireError::new(ErrorCode::Internal, format!("cannot {action}: {}", chain(error)))
}

fn chained(code: ErrorCode, error: &dyn std::error::Error) -> WireError {
    WireError::new(code, chain(error))
}

/// A reply that does not belong to its request.
fn unexpected(reply: &Reply) -> WireError {
    WireError::new(ErrorCode::Internal, format!("the nest answered something else: {reply:?}"))
}

impl SiteAdapter for Embedded {
    async fn facts(&self) -> SiteResult<SiteFacts> {
        self.site_facts().await
    }

    async fn service_facts(&self, name: &ServiceName) -> SiteResult<ServiceFacts> {
        self.facts_of(name).await
    }

    async fn import_image(&self, source: &ImageRequest) -> SiteResult<ImageRef> {
        self.import(source.clone()).await
    }

    async fn run(&self, spec: &ServiceSpec) -> SiteResult<ServiceStatus> {
        self.create_and_start(spec).await
    }

    async fn stop(&self, name: &ServiceName, grace: Duration) -> SiteResult<ServiceStatus> {
        self.stop_copy(name, grace.min(MAX_GRACE)).await
    }

    async fn signal(&self, name: &ServiceName, signal: i32) -> SiteResult<()> {
        self.tell(name, Request::Signal { signal }).await
    }

    async fn start(&self, name: &ServiceName, epoch: Epoch) -> SiteResult<ServiceStatus> {
        self.start_again(name, epoch).await
    }

    async fn remove(&self, name: &ServiceName, force: bool) -> SiteResult<()> {
        self.remove_service(name, force).await
    }

    async fn list(&self) -> SiteResult<Vec<ServiceStatus>> {
        self.observe_all().await
    }

    async fn status(&self, name: &ServiceName) -> SiteResult<ServiceStatus> {
        self.observe(name).await
    }

    async fn keeper_ended(&self) -> ServiceName {
        self.keepers.next_end().await
    }

    async fn log_path(&self, name: &ServiceName) -> SiteResult<PathBuf> {
        Ok(self.existing(name)?.log())
    }

    async fn exec_stream(&self, name: &ServiceName) -> SiteResult<Box<dyn NestStream>> {
        let dir = self.existing(name)?;
        Ok(Box::new(connect(&dir.socket(), self.config.deadlines.answer).await?))
    }

    async fn image_blobs(&self, digest: &ums_model::names::Digest) -> SiteResult<Vec<Blob>> {
        self.blobs(*digest).await
    }

    async fn missing_blobs(&self, blobs: &[Blob]) -> SiteResult<Vec<Blob>> {
        Ok(self.missing(blobs))
    }

    async fn read_blob(
        &self,
        digest: &ums_model::names::Digest,
    ) -> SiteResult<Box<dyn tokio::io::AsyncRead + Send + Unpin>> {
        self.open_blob(digest)
    }

    async fn write_blob(
        &self,
        blob: &Blob,
        bytes: &mut (dyn tokio::io::AsyncRead + Send + Unpin),
    ) -> SiteResult<()> {
        self.store_blob(blob, bytes).await
    }

    async fn register_image(&self, image: &ImageRef) -> SiteResult<()> {
        self.register(image.clone()).await
    }

    async fn restore_requirements(&self, name: &ServiceName) -> SiteResult<RestoreRequirements> {
        match self.ask(name, &Request::Requirements, self.config.deadlines.answer).await? {
            Reply::Requirements(requirements) => Ok(requirements),
            other => Err(unexpected(&other)),
        }
    }

    async fn dump(&self, name: &ServiceName, epoch: Epoch) -> SiteResult<Dump> {
        self.start_dump(name, epoch).await
    }

    async fn freeze(&self, name: &ServiceName, epoch: Epoch) -> SiteResult<()> {
        self.freeze_copy(name, epoch).await
    }

    async fn thaw(&self, name: &ServiceName, epoch: Epoch) -> SiteResult<()> {
        self.thaw_copy(name, epoch).await
    }

    async fn release(&self, name: &ServiceName, epoch: Epoch) -> SiteResult<()> {
        self.release_copy(name, epoch).await
    }

    async fn arm(
        &self,
        spec: &ServiceSpec,
        epoch: Epoch,
        requirements: &RestoreRequirements,
        files: FilePolicy,
    ) -> SiteResult<()> {
        self.create_and_arm(spec, epoch, requirements, files).await
    }

    async fn restore(&self, name: &ServiceName, epoch: Epoch) -> SiteResult<Restore> {
        self.start_restore(name, epoch).await
    }

    async fn resume(&self, name: &ServiceName, epoch: Epoch) -> SiteResult<()> {
        self.tell(name, Request::Resume { epoch }).await
    }

    async fn open(&self, name: &ServiceName, epoch: Epoch) -> SiteResult<()> {
        self.tell(name, Request::Open { epoch }).await?;
        self.publish(name).await
    }

    async fn discard(&self, name: &ServiceName, epoch: Epoch) -> SiteResult<()> {
        self.discard_copy(name, epoch).await
    }
}

/// Reads the recipe of a nest.
fn recipe(dir: &NestDir) -> SiteResult<ums_nest::recipe::Recipe> {
    ums_nest::recipe::Recipe::read(&dir.recipe()).map_err(|error| chained(ErrorCode::Internal, &error))
}

/// Whether a directory exists and has something in it.
fn has_content(path: &Path) -> bool {
    std::fs::read_dir(path).is_ok_and(|mut entries| entries.next().is_some())
}
