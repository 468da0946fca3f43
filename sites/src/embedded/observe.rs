//! What is here, seen from outside: nests are asked, and what cannot answer is looked at.

use std::time::Duration;

use ums_engine::facts::{HostQuery, host_facts};
use ums_model::error::{ErrorCode, WireError};
use ums_model::names::{Bytes, ServiceName};
use ums_model::phase::Approach;
use ums_model::plan::{PortInUse, ServiceFacts, SiteFacts};
use ums_nest::client::ask;
use ums_nest::keeper::KeeperId;
use ums_nest::layout::NestDir;
use ums_nest::protocol::{NestStatus, Reply, Request};
use ums_nest::right::{Record, Right};

use super::{Embedded, blocking, chained, internal, recipe, unexpected};
use crate::adapter::{CopyState, ServiceStatus, SiteResult};

/// How long a list waits for one nest that is just being restarted by its keeper.
const PATIENCE: Duration = Duration::from_secs(10);

/// How long a look at a service may take: much of /proc, and the size of its files.
const FACTS_DEADLINE: Duration = Duration::from_secs(120);

impl Embedded {
    /// Names of all services with a nest directory, in order.
    pub(super) fn names(&self) -> SiteResult<Vec<ServiceName>> {
        let dir = self.services_dir();
        let entries =
            std::fs::read_dir(&dir).map_err(|error| internal(&format!("list {}", dir.display()), &error))?;
        let mut names: Vec<ServiceName> = entries
            .flatten()
            .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
            .filter(|name| self.nest_dir(name).recipe().exists())
            .collect();
        names.sort();
        Ok(names)
    }

    pub(super) async fn observe_all(&self) -> SiteResult<Vec<ServiceStatus>> {
        let mut all = Vec::new();
        for name in self.names()? {
            match self.observe(&name).await {
                Ok(status) => all.push(status),
                // Removed while we looked.
                Err(error) if error.code == ErrorCode::ServiceNotFound => {}
                Err(error) => return Err(error),
            }
        }
        Ok(all)
    }

    pub(super) async fn observe(&self, name: &ServiceName) -> SiteResult<ServiceStatus> {
        let dir = self.existing(name)?;
        let recipe = recipe(&dir)?;
        let keeper = keeper(&dir);
        let status = match keeper {
            Some(_) => match ask(&dir.socket(), &Request::Status, PATIENCE).await? {
                Reply::Status(status) => Some(status),
                other => return Err(unexpected(&other)),
            },
            None => None,
        };
        let record = match &status {
            Some(status) => Some(status.record),
            None => Record::read(&dir.right()).map_err(|error| chained(ErrorCode::Internal, &error))?,
        };
        let exit: Option<ums_nest::keeper::Exit> =
            std::fs::read(dir.exit()).ok().and_then(|text| serde_json::from_slice(&text).ok());
        Ok(ServiceStatus {
            spec: recipe.spec,
            copy: status.as_ref().map_or(CopyState::Dead, copy_state),
            epoch: record.map(|record| record.epoch).unwrap_or_default(),
            pid: keeper
                .zip(status.as_ref().and_then(|status| status.pid))
                .and_then(|(keeper, pid)| outside(keeper, pid)),
            keeper_pid: keeper.map(|keeper| keeper.pid),
            exit_code: exit.map(|exit| exit.code),
            since_unix_ms: status.map_or(0, |status| status.since_unix_ms),
        })
    }

    /// Facts about a service; one whose keeper is dead does not run, and nobody is left to ask.
    pub(super) async fn facts_of(&self, name: &ServiceName) -> SiteResult<ServiceFacts> {
        let dir = self.existing(name)?;
        let digest = recipe(&dir)?.spec.image.digest;
        let mut facts = match keeper(&dir) {
            Some(_) => match ask(&dir.socket(), &Request::Facts, FACTS_DEADLINE).await? {
                Reply::Facts(facts) => facts,
                other => return Err(unexpected(&other)),
            },
            None => ServiceFacts {
                running: false,
                migrating: None,
                approach: Approach::Container,
                memory: Bytes::ZERO,
                files: Bytes::ZERO,
                tasks: 0,
                threads: 0,
                image_at_source: false,
                image_at_destination: false,
                image_bytes: Bytes::ZERO,
                blockers: Vec::new(),
            },
        };
        let blobs = self.blobs(digest).await.unwrap_or_default();
        facts.image_at_source = !blobs.is_empty() && self.missing(&blobs).is_empty();
        Ok(facts)
    }

    pub(super) async fn site_facts(&self) -> SiteResult<SiteFacts> {
        let site = self.clone();
        blocking(move || {
            let query =
                HostQuery { storage: &site.config.state, journal: &site.config.state, deadline: PATIENCE };
            let host = host_facts(&query).map_err(|error| chained(ErrorCode::Internal, &error))?;
            let mut facts = host.into_site_facts(site.config.name.clone(), site.config.fingerprint);
            facts.services = site.names()?;
            for name in &facts.services {
                let published =
                    recipe(&site.nest_dir(name)).map(|recipe| recipe.place.ports).unwrap_or_default();
                facts.ports_in_use.extend(
                    published.iter().map(|port| PortInUse { port: port.host, protocol: port.protocol }),
                );
            }
            facts.ports_in_use.sort();
            facts.ports_in_use.dedup();
            facts.site_mounts = site.config.site_mounts.keys().cloned().collect();
            let volumes = std::fs::read_dir(site.config.state.join("volumes"))
                .map_err(|error| internal("list the volumes", &error))?;
            facts.volumes = volumes
                .flatten()
                .filter(|entry| super::has_content(&entry.path()))
                .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
                .collect();
            Ok(facts)
        })
        .await
    }

    /// Starts a service that has ended, with the files it had. Its keeper is started again if it is gone.
    pub(super) async fn start_again(&self, name: &ServiceName) -> SiteResult<ServiceStatus> {
        let dir = self.existing(name)?;
        let record = Record::read(&dir.right()).map_err(|error| chained(ErrorCode::Internal, &error))?;
        if !matches!(record, None | Some(Record { right: Right::Run, .. })) {
            let message = format!("service {name} has no right to run at site {}", self.config.name);
            return Err(WireError::new(ErrorCode::Refused, message).with_hint(format!("ums status {name}")));
        }
        if keeper(&dir).is_none() {
            let place = recipe(&dir)?.place;
            let keeper = self.start_keeper(name).await?;
            let connected = ums_frontman::host::connect(&place, keeper.pid).await;
            connected.map_err(|error| chained(ErrorCode::Internal, &error))?;
        }
        self.tell(name, Request::Start).await?;
        self.publish(name).await?;
        self.observe(name).await
    }
}

/// The keeper of a nest directory, if it lives.
pub(super) fn keeper(dir: &NestDir) -> Option<KeeperId> {
    let text = std::fs::read(dir.keeper()).ok()?;
    serde_json::from_slice::<KeeperId>(&text).ok().filter(KeeperId::is_alive)
}

/// The pid that a process below a keeper has in our own pid namespace; `None` if it is gone.
fn outside(keeper: KeeperId, inside: u32) -> Option<u32> {
    std::fs::read_dir("/proc")
        .ok()?
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok())
        .find(|pid| {
            let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
            let field =
                |name: &str| status.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default();
            // Everything that has lost its parent in the keeper's namespace is the keeper's child.
            let ours = field("PPid:").trim().parse() == Ok(keeper.pid);
            // One number for each pid namespace from ours inwards; the keeper's is the next one.
            ours && field("NSpid:").split_whitespace().nth(1).and_then(|pid| pid.parse().ok()) == Some(inside)
        })
}

fn copy_state(status: &NestStatus) -> CopyState {
    let whole = status.tasks > 0 && status.tasks >= status.record.tasks;
    match status.record.right {
        Right::Run if status.pid.is_none() => CopyState::Dead,
        Right::Run | Right::Dumping | Right::Dumped if status.tasks > 0 && status.frozen => CopyState::Frozen,
        Right::Run | Right::Dumping if status.tasks > 0 => CopyState::Running,
        Right::Prepared | Right::Restoring => CopyState::Prepared,
        Right::Held if whole && status.frozen => CopyState::Held,
        _ => CopyState::Dead,
    }
}
