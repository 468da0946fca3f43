//! What every part of a Coordinator shares: the site that it speaks for, its journal, its peers, its desks.

use std::sync::{Arc, OnceLock, PoisonError, RwLock};
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use ums_model::error::{ErrorCode, WireError};
use ums_model::facts::CopyState;
use ums_model::names::{Epoch, MigrationId, ServiceName};
use ums_model::plan::SiteFacts;
use ums_sites::adapter::{self, SiteAdapter, SiteResult};
use ums_transfer::identity::Identity;
use ums_transfer::link::{Greeting, Link, Purpose};

use crate::chronicle::Chronicles;
use crate::config::Config;
use crate::desk::{Desks, Hold, Holder, Lane};
use crate::failure;
use crate::journal::{Journal, PairedRow};
use crate::peers::{self, Peers};
use crate::policies::Policies;
use crate::promises::Promises;
use crate::queue::Queue;

/// One site's Coordinator, as its parts see it.
pub(crate) struct Core<S> {
    /// What was configured.
    pub(crate) config: Config,
    /// The site itself.
    pub(crate) site: S,
    /// What must not be forgotten.
    pub(crate) journal: Journal,
    /// Who this site is.
    pub(crate) identity: RwLock<Identity>,
    /// One at a time may give this site a new key.
    pub(crate) rotating: tokio::sync::Mutex<()>,
    /// How it introduces itself.
    pub(crate) greeting: Greeting,
    /// Whom it trusts.
    pub(crate) peers: Peers,
    /// Where each service stands.
    pub(crate) desks: Desks,
    /// What each migration tells.
    pub(crate) chronicles: Chronicles,
    /// What each of them may do.
    pub(crate) policies: Policies,
    /// What was promised to other sites.
    pub(crate) promises: Promises,
    /// Whose turn it is to leave.
    pub(crate) departures: Queue,
    /// One permit for each migration that may arrive at once.
    pub(crate) arrivals: Arc<Semaphore>,
    /// Cancelled when the daemon shuts down.
    pub(crate) stopping: CancellationToken,
    /// Everything that runs in the background.
    pub(crate) tasks: TaskTracker,
    /// Where other sites can dial this one; known once the port is open.
    pub(crate) addresses: OnceLock<Vec<String>>,
}

/// What a look at a copy saw.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Seen {
    /// What counts for the rules.
    pub(crate) copy: CopyState,
    /// Whether anything at all is here: a nest without tasks is no copy, but it has to be cleared away.
    pub(crate) remains: bool,
    /// The newest epoch that the nest of a copy that runs or ran has seen. Of a copy that only came the journal knows
    /// more, or answers for it what is safe.
    pub(crate) epoch: Epoch,
}

impl<S: SiteAdapter> Core<S> {
    /// Awaits an answer of the site, or of the world behind it, for at most `within`. `doing` completes "cannot ...".
    pub(crate) async fn within<T>(
        &self,
        within: Duration,
        doing: &str,
        work: impl Future<Output = SiteResult<T>>,
    ) -> SiteResult<T> {
        match tokio::time::timeout(within, work).await {
            Ok(result) => result,
            Err(_) => Err(failure::late(doing, within)),
        }
    }

    /// Looks at the copy of `service` here, now.
    pub(crate) async fn look(&self, service: &ServiceName) -> Seen {
        let doing = format!("look at service {service}");
        match self.within(self.config.deadlines.act, &doing, self.site.status(service)).await {
            Ok(status) => Seen {
                copy: match status.copy {
                    adapter::CopyState::Absent | adapter::CopyState::Prepared | adapter::CopyState::Dead => {
                        CopyState::Gone
                    }
                    adapter::CopyState::Running => CopyState::Running,
                    adapter::CopyState::Frozen | adapter::CopyState::Held => CopyState::Frozen,
                },
                remains: status.copy != adapter::CopyState::Absent,
                epoch: match status.copy {
                    adapter::CopyState::Running | adapter::CopyState::Frozen => status.epoch,
                    _ => Epoch::ZERO,
                },
            },
            Err(error) if error.code == ErrorCode::ServiceNotFound => {
                Seen { copy: CopyState::Gone, remains: false, epoch: Epoch::ZERO }
            }
            Err(error) => {
                tracing::warn!(%service, %error, "cannot look at a service");
                Seen { copy: CopyState::Unknown, remains: true, epoch: Epoch::ZERO }
            }
        }
    }

    /// Facts about this site, under the name and identity by which others know it.
    pub(crate) async fn facts(&self) -> SiteResult<SiteFacts> {
        let mut facts = self
            .within(self.config.deadlines.facts, "collect facts about this site", self.site.facts())
            .await?;
        facts.name = self.config.name.clone();
        facts.fingerprint = self.identity().fingerprint();
        Ok(facts)
    }

    /// Who this site is now.
    pub(crate) fn identity(&self) -> Identity {
        self.identity.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// From now on this site is somebody else: on new links, and where its port is dialed.
    pub(crate) fn change_identity(&self, identity: Identity) {
        *self.identity.write().unwrap_or_else(PoisonError::into_inner) = identity;
    }

    /// A link to a paired site, or to the other side of a migration with a revoked one.
    pub(crate) async fn dial(&self, site: &PairedRow, purpose: Purpose) -> Result<Link, WireError> {
        let Some(site) = self.peers.party(&site.fingerprint) else {
            let message = format!("site {} is not paired any more", site.name);
            return Err(WireError::new(ErrorCode::NotPaired, message));
        };
        let (identity, deadlines) = (self.identity(), self.config.deadlines.link());
        let dialed = peers::dial(&site, purpose, &identity, &self.greeting, &deadlines).await;
        let next = self.peers.next_of(&site.fingerprint);
        match (dialed, next) {
            // It has changed over to the key that it had announced.
            (Err(error), Some(next)) if error.code == ErrorCode::WrongIdentity => {
                let site = PairedRow { fingerprint: next, ..site };
                let link = peers::dial(&site, purpose, &identity, &self.greeting, &deadlines).await?;
                self.adopt(&next).await?;
                Ok(link)
            }
            (dialed, _) => dialed,
        }
    }

    /// A holder of a lane who stops when the daemon does.
    pub(crate) fn holder(&self, migration: Option<MigrationId>, doing: &'static str, hold: Hold) -> Holder {
        Holder { migration, doing, hold, stop: self.stopping.child_token() }
    }

    /// The lane of `service`, for a user's request or a step of a migration.
    pub(crate) async fn take(&self, service: &ServiceName, holder: Holder) -> Result<Lane, WireError> {
        self.desks.desk(service).take(holder, self.config.deadlines.act).await
    }

    /// Whether one more migration may begin: every decision of it will find a place in the journal. `Err`: nothing was
    /// touched.
    pub(crate) async fn room_for_decisions(&self) -> Result<(), WireError> {
        self.journal.admit(self.chronicles.count()).await.map_err(|error| failure::journal(&error))
    }

    /// Where other sites can dial this one.
    pub(crate) fn addresses(&self) -> Vec<String> {
        self.addresses.get().cloned().unwrap_or_default()
    }
}
