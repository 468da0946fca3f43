//! What the API takes and gives, as types: its clients (the command line, tests, other programs in Rust) use the same
//! ones. The same shapes stand in `openapi.json`.

use serde::{Deserialize, Serialize};
use ums_model::action::Alarm;
use ums_model::names::{Epoch, Fingerprint, MigrationId, ServiceName, SiteName};
use ums_model::phase::{Approach, Mode, Outcome, Phase};
use ums_model::plan::{SiteFacts, Warning};
use ums_model::report::Report;
use ums_model::spec::{
    ImageRef, InnerNetwork, InnerPath, Limits, PortPublish, RestartPolicy, ServiceSpec, SiteMount,
    VolumeMount,
};
use ums_sites::adapter::{ImageRequest, ServiceStatus};

/// `GET /v1/site`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct SiteView {
    /// What it is called.
    pub name: SiteName,
    /// By which others recognise it.
    pub fingerprint: Fingerprint,
    /// Where others can dial it, best first.
    pub addresses: Vec<String>,
    /// Its software and release.
    pub software: String,
    /// The daemon's process.
    pub pid: u32,
}

/// `GET /v1/doctor`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct DoctorView {
    /// Whether nothing prevents this site from taking part in migrations. A paired site that does not answer is not
    /// this one's defect.
    pub ok: bool,
    /// What was looked at, one by one.
    pub checks: Vec<Check>,
    /// What is worth knowing.
    pub warnings: Vec<Warning>,
    /// What was found out about the site.
    pub site: SiteFacts,
}

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Check {
    /// What.
    pub name: String,
    /// Whether it is as it has to be.
    pub ok: bool,
    /// What was found.
    pub detail: String,
    /// What to do about it; empty if it is fine.
    #[serde(default)]
    pub remedy: String,
}

/// Body of `POST /v1/services`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CreateService {
    /// Its name, the same at every site.
    pub name: ServiceName,
    /// Where its image comes from.
    pub image: ImageRequest,
    /// What to run; empty means what the image says.
    #[serde(default)]
    pub command: Vec<String>,
    /// Environment, in order.
    #[serde(default)]
    pub env: Vec<(String, String)>,
    /// Working directory.
    #[serde(default)]
    pub workdir: Option<InnerPath>,
    /// User, and group.
    #[serde(default)]
    pub user: Option<String>,
    /// Volumes.
    #[serde(default)]
    pub volumes: Vec<VolumeMount>,
    /// Published ports.
    #[serde(default)]
    pub ports: Vec<PortPublish>,
    /// What it may use at most.
    #[serde(default)]
    pub limits: Limits,
    /// What happens when it ends by itself; by default nothing.
    #[serde(default)]
    pub restart: Option<RestartPolicy>,
    /// Things of the site that are mounted into it.
    #[serde(default)]
    pub site_mounts: Vec<SiteMount>,
    /// Host name inside.
    #[serde(default)]
    pub hostname: Option<String>,
    /// Its inner network, if not the usual one.
    #[serde(default)]
    pub network: Option<InnerNetwork>,
    /// Whether it gets a user namespace of its own; by default it does.
    #[serde(default)]
    pub user_namespace: Option<bool>,
}

impl CreateService {
    /// A service with nothing but a name and an image.
    #[must_use]
    pub fn new(name: ServiceName, image: ImageRequest) -> Self {
        Self {
            name,
            image,
            command: Vec::new(),
            env: Vec::new(),
            workdir: None,
            user: None,
            volumes: Vec::new(),
            ports: Vec::new(),
            limits: Limits::default(),
            restart: None,
            site_mounts: Vec::new(),
            hostname: None,
            network: None,
            user_namespace: None,
        }
    }

    /// The service that is wanted, on an image that the site has.
    pub(crate) fn on(self, image: ImageRef) -> ServiceSpec {
        ServiceSpec {
            name: self.name,
            image,
            command: self.command,
            env: self.env,
            workdir: self.workdir,
            user: self.user,
            volumes: self.volumes,
            ports: self.ports,
            limits: self.limits,
            restart: self.restart.unwrap_or(RestartPolicy::No),
            site_mounts: self.site_mounts,
            hostname: self.hostname,
            network: self.network.unwrap_or_default(),
            user_namespace: self.user_namespace.unwrap_or(true),
        }
    }
}

/// One service of this site.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ServiceView {
    /// What the site observes.
    #[serde(flatten)]
    pub status: ServiceStatus,
    /// The migration that it is in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub migration: Option<MigrationId>,
    /// What people must be told about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub alarm: Option<Alarm>,
    /// Where it stands in the two-party commit, for people.
    pub standing: String,
}

/// Body of `POST /v1/services/{name}/stop`; may be left out.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct StopService {
    /// Milliseconds between SIGTERM and SIGKILL; 10 s if not said.
    pub grace_ms: Option<u64>,
}

/// Body of `POST /v1/services/{name}/signal`.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SignalService {
    /// Number of the signal.
    pub signal: i32,
}

/// Body of `POST /v1/services/{name}/resolve`.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ResolveService {
    /// What an operator says about a service that cannot be decided by rule.
    pub verdict: ums_model::source::Verdict,
}

/// A service after an operator's word.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ResolvedView {
    /// Where it stands now in the two-party commit, for people.
    pub standing: String,
    /// The service, if it is still here.
    pub service: Option<ServiceView>,
}

/// Body of `POST /v1/migrations`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StartMigration {
    /// Which service.
    pub service: ServiceName,
    /// To which paired site.
    pub to: SiteName,
    /// How its state shall travel; cold if not said.
    #[serde(default)]
    pub mode: Option<Mode>,
}

/// Answer to `POST /v1/migrations`.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct MigrationStarted {
    /// By which it can be watched.
    pub migration: MigrationId,
}

/// Which side of a migration this site is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SideView {
    /// It gives the service away.
    Source,
    /// It takes it.
    Destination,
}

/// How far a migration is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum MigrationState {
    /// It waits for its turn; nothing has begun.
    Queued,
    /// It goes on.
    Active,
    /// It is committed and the destination has not answered yet; it goes on by itself.
    InDoubt,
    /// It waits for the other site or an operator.
    Stuck,
    /// It has ended.
    Ended,
}

/// One migration.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct MigrationView {
    /// Which.
    pub migration: MigrationId,
    /// Of which service.
    pub service: ServiceName,
    /// Its epoch.
    pub epoch: Epoch,
    /// Which side this site is.
    pub role: SideView,
    /// The other one.
    pub peer: SiteName,
    /// From where.
    pub source: SiteName,
    /// To where.
    pub destination: SiteName,
    /// How the state travels.
    pub mode: Mode,
    /// On which level.
    pub approach: Approach,
    /// Whether the service has a user namespace of its own.
    pub user_namespace: bool,
    /// How far it is.
    pub state: MigrationState,
    /// The phase that it is in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub phase: Option<Phase>,
    /// What people must be told about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub alarm: Option<Alarm>,
    /// When it began, by this site's wall clock.
    pub started_unix_ms: u64,
    /// When it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended_unix_ms: Option<u64>,
    /// How it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outcome: Option<Outcome>,
    /// All its numbers, and why it did not succeed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub report: Option<Report>,
}

/// A paired site.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct PairedView {
    /// What it is called.
    pub name: SiteName,
    /// By which it is recognised.
    pub fingerprint: Fingerprint,
    /// Where it can be dialed, best first.
    pub addresses: Vec<String>,
    /// This site reached it when they were paired.
    pub we_can_dial: bool,
    /// It reached this site when they were paired.
    pub they_can_dial: bool,
    /// When they were paired.
    pub paired_unix_ms: u64,
}

/// Answer to `POST /v1/sites/invite`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct InviteView {
    /// To be given to the other site's user. Whoever has it can pair with this site, once: treat it like a password.
    pub token: String,
    /// This site's own fingerprint, to be compared with what the other site shows.
    pub fingerprint: Fingerprint,
    /// Where the token says that this site can be dialed.
    pub addresses: Vec<String>,
    /// When the token expires.
    pub expires_unix_ms: u64,
}

/// Body of `POST /v1/sites/accept`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AcceptInvite {
    /// The token of the other site.
    pub token: String,
}

/// Answer to `POST /v1/sites/accept`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct AcceptedView {
    /// The other site, now paired.
    pub site: PairedView,
    /// This site's own fingerprint, to be compared with what the other site shows.
    pub fingerprint: Fingerprint,
}

/// Body of `POST /v1/site/rotate`; may be left out.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RotateKey {
    /// Whether not to wait for sites that do not answer; they have to be paired anew.
    pub forget: bool,
}

/// How far a new key of this site is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RotationView {
    /// The new key's.
    pub fingerprint: Fingerprint,
    /// Whether it holds already.
    pub holds: bool,
    /// Paired sites that have not heard of it. They are waited for, unless it holds.
    pub waiting: Vec<SiteName>,
}

/// What came of revoking a site.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RevokedView {
    /// What it was called.
    pub site: SiteName,
    /// By which it was recognised.
    pub fingerprint: Fingerprint,
    /// Migrations with it that were rolled back.
    pub aborted: Vec<MigrationId>,
    /// Migrations with it that go on: they are committed, or may be.
    pub going_on: Vec<MigrationId>,
}

/// What the bearer of a token, or a user of a socket, may do. Each may do what those before it may.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TokenRole {
    /// Look, and change nothing.
    #[serde(alias = "read")]
    Viewer,
    /// Start, stop, enter, move and remove services, within what the administrator allows.
    Operator,
    /// Everything: also whom to trust, what they may do, and what happens to a service that no rule can decide about.
    Admin,
}

impl TokenRole {
    /// The word for it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Viewer => "viewer",
            Self::Operator => "operator",
            Self::Admin => "admin",
        }
    }
}

/// Body of `POST /v1/tokens`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CreateToken {
    /// What to call it; unique.
    pub name: String,
    /// What it allows; `admin` if not said.
    #[serde(default)]
    pub role: Option<TokenRole>,
    /// Seconds from now on in which it can be used; for ever if not said.
    #[serde(default)]
    pub expires_in_s: Option<u64>,
}

/// A token of the API, without the token.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct TokenView {
    /// What it is called.
    pub name: String,
    /// What it allows.
    pub role: TokenRole,
    /// When it was made.
    pub created_unix_ms: u64,
    /// When it opens nothing any more; never if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_unix_ms: Option<u64>,
}

/// Answer to `POST /v1/tokens`: the only time that the token itself is shown.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct TokenCreated {
    /// What is known about it from now on.
    #[serde(flatten)]
    pub about: TokenView,
    /// For `Authorization: Bearer ...`.
    pub token: String,
}
