//! The daemon of a site: everything put together, recovery first, then served, then drained.

mod lock;
mod port;
mod socket;

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock, RwLock};

use tokio::sync::Semaphore;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use ums_model::names::Fingerprint;
use ums_sites::adapter::SiteAdapter;
use ums_transfer::identity::{Identity, IdentityError};
use ums_transfer::link::Greeting;
use ums_transfer::tls::TlsError;

use crate::addresses::announced;
use crate::chronicle::Chronicles;
use crate::config::Config;
use crate::core::Core;
use crate::desk::Desks;
use crate::journal::{Journal, JournalError};
use crate::peers::Peers;
use crate::policies::Policies;
use crate::promises::Promises;
use crate::queue::Queue;
use crate::recovery::recover;
use crate::{restart, rotation};

/// The daemon could not start. Nothing is served, no service was touched unless the message says so.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "the fields are what the messages say")]
pub enum StartError {
    /// The file system refused.
    #[error("cannot {action} {}", path.display())]
    File { action: &'static str, path: PathBuf, source: io::Error },
    /// Another daemon serves this site.
    #[error("another daemon uses {}", path.display())]
    Running { path: PathBuf },
    /// The site's key cannot be used.
    #[error("cannot use the identity of this site")]
    Identity {
        #[from]
        source: IdentityError,
    },
    /// TLS cannot be set up.
    #[error("cannot set up TLS")]
    Tls {
        #[from]
        source: TlsError,
    },
    /// A socket of the configuration is for a group that there is not.
    #[error("there is no group {group} for the socket {}", path.display())]
    NoGroup { path: PathBuf, group: String },
    /// Something that is no socket is where one should be.
    #[error("{} is no socket; it was left as it is", path.display())]
    NoSocket { path: PathBuf },
    /// The port cannot be opened.
    #[error("cannot listen on {address}")]
    Listen { address: SocketAddr, source: io::Error },
    /// The journal lies on storage that forgets, and the configuration does not allow that.
    #[error(
        "{} does not survive a restart of the machine, and with it the record of who may run which service: choose a \
         state directory on a disk (--state), or accept that two copies may run after a restart (--allow-volatile)",
        path.display()
    )]
    Volatile { path: PathBuf },
    /// The site has services, and no journal.
    #[error(
        "the journal {} is missing or empty, but this site has services ({services}), and only the journal knows \
         which of them may run here. No service was touched. Put journal.db, journal.db-wal and journal.decisions back \
         from one copy that was taken while the site was down. Without such a copy: start once with `ums site \
         --new-journal`; what that means stands in docs/decisions/journal.md",
        path.display()
    )]
    Lost { path: PathBuf, services: String },
    /// The journal cannot be used: who may run which service is not known, so nothing is done at all.
    #[error("cannot use the journal: {message}")]
    Journal { message: String },
}

impl From<JournalError> for StartError {
    fn from(error: JournalError) -> Self {
        Self::Journal { message: crate::failure::chain(&error) }
    }
}

/// A site's Coordinator.
#[derive(Debug)]
pub struct Coordinator;

/// A Coordinator that serves. Dropping this does not end it; [`Running::stop`] does, and so does the future that was
/// given to [`Coordinator::start`].
#[derive(Debug)]
pub struct Running {
    /// Where the TLS port listens.
    pub address: SocketAddr,
    /// The Unix socket of the API.
    pub socket: PathBuf,
    /// Who this site is.
    pub fingerprint: Fingerprint,
    stopping: CancellationToken,
    drained: JoinHandle<()>,
}

impl Coordinator {
    /// Starts the Coordinator of `site`.
    ///
    /// `Ok`: every service stands where the journal says, as far as that needs no other site, and the API and the port
    /// are served. When `shutdown` is ready, nothing new is accepted, migrations that are not committed are rolled
    /// back, and what is under way has [`Deadlines::drain`](crate::config::Deadlines::drain) to end; the rest is
    /// recovered by the next start. `Err`: nothing is served. Waits for a daemon before it that is about to end.
    pub async fn start<S: SiteAdapter>(
        config: Config,
        site: S,
        shutdown: impl Future<Output = ()> + Send + 'static,
    ) -> Result<Running, StartError> {
        refuse_volatile(&config, &site).await?;
        let Prepared { lock, identity, journal } = prepare(&config, &site).await?;
        let listener = port::bind(config.listen).await?;
        let address =
            listener.local_addr().map_err(|source| StartError::Listen { address: config.listen, source })?;
        let peers = Peers::default();
        peers.reload(&journal).await?;
        let policies = Policies::read(&journal).await?;
        let core = Arc::new(Core {
            greeting: Greeting::new(config.name.clone()),
            departures: Queue::new(config.limits.migrations, config.limits.queue),
            arrivals: Arc::new(Semaphore::new(config.limits.migrations.get())),
            addresses: OnceLock::from(announced(&config.advertise, address)),
            config,
            site,
            journal,
            identity: RwLock::new(identity),
            rotating: tokio::sync::Mutex::new(()),
            peers,
            policies,
            desks: Desks::default(),
            chronicles: Chronicles::default(),
            promises: Promises::default(),
            stopping: CancellationToken::new(),
            tasks: TaskTracker::new(),
        });
        recover(&core).await?;
        let tls = port::tls(&core)?;
        let unix = socket::bind(&core.config.socket_path())?;
        let groups = core.config.sockets.iter().map(socket::bind_for_group).collect::<Result<Vec<_>, _>>()?;
        let mut serving = vec![
            core.tasks.spawn(port::serve(Arc::clone(&core), listener, tls)),
            core.tasks.spawn(socket::serve(Arc::clone(&core), unix, socket::Door::Own)),
        ];
        for (socket, listener) in core.config.sockets.iter().zip(groups) {
            let door = socket::Door::Group(socket.role);
            serving.push(core.tasks.spawn(socket::serve(Arc::clone(&core), listener, door)));
        }
        tracing::info!(site = %core.config.name, %address, fingerprint = %core.identity().fingerprint(), "serving");
        rotation::attend(&core);
        restart::attend(&core);
        let running = Running {
            address,
            socket: core.config.socket_path(),
            fingerprint: core.identity().fingerprint(),
            stopping: core.stopping.clone(),
            drained: tokio::spawn(drain(core, shutdown, serving, lock)),
        };
        Ok(running)
    }
}

impl Running {
    /// Ends the Coordinator, as its `shutdown` would, and waits for it.
    pub async fn stop(self) {
        self.stopping.cancel();
        self.wait().await;
    }

    /// Waits until the Coordinator has ended.
    pub async fn wait(self) {
        if let Err(error) = self.drained.await {
            tracing::error!(%error, "the Coordinator did not end in order");
        }
    }
}

async fn refuse_volatile<S: SiteAdapter>(config: &Config, site: &S) -> Result<(), StartError> {
    if config.allow_volatile {
        return Ok(());
    }
    let within = config.deadlines.facts;
    match tokio::time::timeout(within, site.facts()).await {
        Ok(Ok(facts)) if facts.durable_journal == Some(false) => {
            Err(StartError::Volatile { path: config.state_dir.clone() })
        }
        Ok(Ok(_)) => Ok(()),
        // What it cannot find out is no reason to leave its services alone.
        Ok(Err(error)) => {
            tracing::warn!(%error, "cannot find out whether the journal survives a restart");
            Ok(())
        }
        Err(_) => {
            tracing::warn!(
                within = within.as_secs_f32(),
                "the site does not say whether its storage survives a restart"
            );
            Ok(())
        }
    }
}

struct Prepared {
    lock: lock::Lock,
    identity: Identity,
    journal: Journal,
}

async fn prepare<S: SiteAdapter>(config: &Config, site: &S) -> Result<Prepared, StartError> {
    lock::private_dir(&config.state_dir)?;
    let lock = lock::take(config.lock_path(), config.deadlines.drain).await?;
    let (dir, path) = (config.identity_dir(), config.journal_path());
    if !blocking(move || Ok(Journal::exists(&path)?)).await? {
        refuse_lost(config, site).await?;
    }
    let path = config.journal_path();
    let open = move || Ok((Identity::load_or_create(&dir)?, Journal::open(&path)?));
    let (identity, journal) = blocking(open).await?;
    Ok(Prepared { lock, identity, journal })
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, StartError> + Send + 'static,
) -> Result<T, StartError> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|error| StartError::Journal { message: error.to_string() })?
}

/// A site that has services has a journal that says who may run them. One that has lost it does not begin another by
/// itself.
async fn refuse_lost<S: SiteAdapter>(config: &Config, site: &S) -> Result<(), StartError> {
    if config.new_journal {
        tracing::warn!("a new journal is begun, whatever services are here: an operator said so");
        return Ok(());
    }
    let unknown = |why: String| StartError::Journal {
        message: format!("there is none, and whether this site has services cannot be found out: {why}"),
    };
    let listed = tokio::time::timeout(config.deadlines.act, site.list()).await;
    let services =
        listed.map_err(|error| unknown(error.to_string()))?.map_err(|error| unknown(error.to_string()))?;
    if services.is_empty() {
        return Ok(());
    }
    let names: Vec<_> = services.iter().map(|service| service.spec.name.to_string()).collect();
    Err(StartError::Lost { path: config.journal_path(), services: names.join(", ") })
}

async fn drain<S: SiteAdapter>(
    core: Arc<Core<S>>,
    shutdown: impl Future<Output = ()>,
    serving: Vec<JoinHandle<()>>,
    lock: lock::Lock,
) {
    tokio::select! {
        () = shutdown => core.stopping.cancel(),
        () = core.stopping.cancelled() => {}
    }
    core.tasks.close();
    if tokio::time::timeout(core.config.deadlines.drain, core.tasks.wait()).await.is_err() {
        tracing::warn!("some requests did not end in time; what they left is recovered by the next start");
    }
    serving.iter().for_each(JoinHandle::abort);
    socket::remove(&core.config.socket_path());
    core.config.sockets.iter().for_each(|socket| socket::remove(&socket.path));
    tracing::info!(site = %core.config.name, "ended");
    // The journal is closed before the next daemon may open it.
    drop(core);
    drop(lock);
}
