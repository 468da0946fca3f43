//! What is here, seen from outside: nests are asked, and what cannot answer is looked at.

use std::path::Path;

use tokio::task::JoinSet;
use ums_engine::cgroup::Cgroup;
use ums_engine::facts::{HostQuery, host_facts};
use ums_frontman::host;
use ums_model::error::ErrorCode;
use ums_model::names::{Bytes, ServiceName};
use ums_model::nest::{self, Record, Right};
use ums_model::phase::Approach;
use ums_model::plan::{PortInUse, ServiceFacts, SiteFacts};
use ums_model::policy::SpecialFiles;
use ums_nest::keeper::KeeperId;
use ums_nest::layout::NestDir;
use ums_nest::protocol::{NestStatus, Reply, Request};
use ums_nest::{right, stopped};

use super::{Embedded, blocking, chained, internal, recipe, unexpected};
use crate::adapter::{CopyState, ServiceStatus, SiteResult};

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
        let mut looks = JoinSet::new();
        for name in self.names()? {
            let site = self.clone();
            looks.spawn(async move { site.observe(&name).await });
        }
        let mut all = Vec::new();
        for look in looks.join_all().await {
            match look {
                Ok(status) => all.push(status),
                // Removed while we looked.
                Err(error) if error.code == ErrorCode::ServiceNotFound => {}
                Err(error) => return Err(error),
            }
        }
        all.sort_by(|one, other| one.spec.name.cmp(&other.spec.name));
        Ok(all)
    }

    pub(super) async fn observe(&self, name: &ServiceName) -> SiteResult<ServiceStatus> {
        let dir = self.existing(name)?;
        let recipe = recipe(&dir)?;
        let seen = match keeper(&dir) {
            Some(_) => match self.ask_nest(&dir, &Request::Status, self.config.deadlines.status).await {
                Ok(Reply::Status(status)) => Seen::by_nest(&status),
                Ok(other) => return Err(unexpected(&other)),
                Err(error) => {
                    tracing::warn!(service = %name, error = %error.message, "a nest does not answer: looked at its copy from outside");
                    self.look_from_outside(name)?
                }
            },
            None => Seen { record: read_record(&dir)?, ..Seen::default() },
        };
        // Again: it may have ended while its nest was asked.
        let keeper = keeper(&dir);
        let exit = || -> Option<ums_nest::keeper::Exit> {
            std::fs::read(dir.exit()).ok().and_then(|text| serde_json::from_slice(&text).ok())
        };
        let copy = keeper.map_or(CopyState::Dead, |_| copy_state(&seen));
        Ok(ServiceStatus {
            spec: recipe.spec,
            copy,
            epoch: seen.record.map(|record| record.epoch()).unwrap_or_default(),
            pid: keeper.zip(seen.pid).and_then(|(keeper, pid)| outside(keeper, pid)),
            keeper_pid: keeper.map(|keeper| keeper.pid),
            exit_code: match copy {
                CopyState::Running => None,
                _ => seen.exit.or_else(exit).map(|exit| exit.code),
            },
            stopped: stopped::is_noted(&dir),
            since_unix_ms: seen.since_unix_ms,
        })
    }

    /// What the kernel shows of a copy whose nest is just being started again, or cannot be.
    fn look_from_outside(&self, name: &ServiceName) -> SiteResult<Seen> {
        let failed = |error| chained(ErrorCode::Internal, &error);
        let cgroup = Cgroup::of_container(&Path::new("/").join(self.cgroup_path(name))).map_err(failed)?;
        let tasks = cgroup.procs().map_err(failed)?.len();
        Ok(Seen {
            record: read_record(&self.nest_dir(name))?,
            tasks: u32::try_from(tasks).unwrap_or(u32::MAX),
            frozen: cgroup.is_frozen().unwrap_or(false),
            runs: tasks > 0,
            ..Seen::default()
        })
    }

    /// Facts about a service; one whose keeper is dead does not run, and nobody is left to ask.
    pub(super) async fn facts_of(&self, name: &ServiceName) -> SiteResult<ServiceFacts> {
        let dir = self.existing(name)?;
        let digest = recipe(&dir)?.spec.image.digest;
        let mut facts = match keeper(&dir) {
            Some(_) => match self.ask_nest(&dir, &Request::Facts, self.config.deadlines.facts).await? {
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
                special_files: SpecialFiles::default(),
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
            let query = HostQuery {
                storage: &site.config.state,
                journal: &site.config.state,
                deadline: site.config.deadlines.tools,
            };
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

    /// Links the place of a keeper that lives, if it is not linked.
    pub(super) async fn plug_in(&self, name: &ServiceName, keeper: KeeperId) -> SiteResult<()> {
        let dir = self.nest_dir(name);
        let place = recipe(&dir)?.place;
        let failed = |error| chained(ErrorCode::Internal, &error);
        let network = &self.config.nest_deadlines.network;
        if host::is_connected(&place, network).await.map_err(failed)? {
            return Ok(());
        }
        host::connect(&place, keeper.pid, network).await.map_err(failed)?;
        self.ask_nest(&dir, &Request::Wire, self.config.deadlines.status).await.map(drop)
    }

    /// After a restart of the daemon: links and published ports are as the records say, whatever became of them.
    pub(super) async fn reconnect(&self) -> SiteResult<()> {
        for name in self.names()? {
            if let Err(error) = self.reconnect_one(&name).await {
                tracing::warn!(service = %name, error = %error.message, "cannot restore the network of a service");
            }
        }
        Ok(())
    }

    async fn reconnect_one(&self, name: &ServiceName) -> SiteResult<()> {
        let dir = self.nest_dir(name);
        let keeper = keeper(&dir).inspect(|keeper| self.keepers.watch(name, *keeper));
        let place = recipe(&dir)?.place;
        let failed = |error| chained(ErrorCode::Internal, &error);
        let network = &self.config.nest_deadlines.network;
        let Some(keeper) = keeper else {
            // Its ports lead nowhere any more.
            return host::disconnect(&place, network).await.map_err(failed);
        };
        self.plug_in(name, keeper).await?;
        match read_record(&dir)?.map(|record| record.right()) {
            Some(Right::Run | Right::Dumping | Right::Dumped) => {
                host::publish(&place, network).await.map_err(failed)
            }
            _ => host::withdraw(&place, network).await.map_err(failed),
        }
    }
}

/// What is known of a copy.
#[derive(Debug, Default)]
struct Seen {
    record: Option<Record>,
    tasks: u32,
    frozen: bool,
    /// Whether what is left of it is not the service any more.
    harmed: bool,
    /// Whether its first process lives.
    runs: bool,
    /// In the keeper's pid namespace.
    pid: Option<u32>,
    exit: Option<ums_nest::keeper::Exit>,
    since_unix_ms: u64,
}

impl Seen {
    fn by_nest(status: &NestStatus) -> Self {
        Self {
            record: Some(status.record),
            tasks: status.tasks,
            frozen: status.frozen,
            harmed: status.harmed,
            runs: status.pid.is_some(),
            pid: status.pid,
            exit: status.exit,
            since_unix_ms: status.since_unix_ms,
        }
    }
}

pub(super) fn read_record(dir: &NestDir) -> SiteResult<Option<Record>> {
    right::read(&dir.right()).map_err(|error| chained(ErrorCode::Internal, &error))
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
            let status = ums_engine::process::text(pid, "status").unwrap_or_default();
            let field =
                |name: &str| status.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default();
            // Everything that has lost its parent in the keeper's namespace is the keeper's child.
            let ours = field("PPid:").trim().parse() == Ok(keeper.pid);
            // One number for each pid namespace from ours inwards; the keeper's is the next one.
            ours && field("NSpid:").split_whitespace().nth(1).and_then(|pid| pid.parse().ok()) == Some(inside)
        })
}

/// The kernel's word counts before the record's: a copy that runs without a right must be seen to run, or somebody
/// would let another one run.
fn copy_state(seen: &Seen) -> CopyState {
    let right = seen.record.map(|record| record.right());
    let whole =
        seen.record.is_none_or(|record| record.is_whole(nest::Seen { alive: seen.runs, tasks: seen.tasks }));
    match right {
        Some(Right::Prepared | Right::Restoring) => CopyState::Prepared,
        Some(Right::Discarded) => CopyState::Dead,
        _ if !seen.runs || seen.tasks == 0 => CopyState::Dead,
        _ if !seen.frozen => CopyState::Running,
        // Nothing will ever run again of what stands there.
        _ if seen.harmed => CopyState::Dead,
        Some(Right::Held) if whole => CopyState::Held,
        Some(Right::Dumped) if whole => CopyState::Frozen,
        Some(Right::Held | Right::Dumped) => CopyState::Dead,
        Some(Right::Run | Right::Dumping) | None => CopyState::Frozen,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_is_what_record_and_kernel_say_together() {
        let state = |right, tasks, frozen| {
            let text = format!(r#"{{"epoch":1,"right":"{right}","tasks":2}}"#);
            let record = Some(serde_json::from_str(&text).unwrap());
            copy_state(&Seen { record, tasks, frozen, runs: tasks > 0, ..Seen::default() })
        };
        // One that may run is not counted: it forks as it likes.
        assert_eq!(state(Right::Run, 1, false), CopyState::Running);
        assert_eq!(state(Right::Run, 1, true), CopyState::Frozen);
        assert_eq!(state(Right::Run, 0, false), CopyState::Dead);
        assert_eq!(state(Right::Dumping, 2, false), CopyState::Running);
        // One that waits for a decision is whole or dead.
        assert_eq!(state(Right::Dumped, 2, true), CopyState::Frozen);
        assert_eq!(state(Right::Dumped, 1, true), CopyState::Dead);
        assert_eq!(state(Right::Held, 2, true), CopyState::Held);
        assert_eq!(state(Right::Held, 1, true), CopyState::Dead);
        // One that runs without a right is no dead one.
        assert_eq!(state(Right::Held, 2, false), CopyState::Running);
        assert_eq!(state(Right::Dumped, 1, false), CopyState::Running);
        assert_eq!(state(Right::Dumped, 0, false), CopyState::Dead);
        assert_eq!(state(Right::Prepared, 2, false), CopyState::Prepared);
        assert_eq!(state(Right::Discarded, 2, true), CopyState::Dead);
        assert_eq!(copy_state(&Seen { tasks: 2, runs: true, ..Seen::default() }), CopyState::Running);
        assert_eq!(copy_state(&Seen::default()), CopyState::Dead);
        // One that was harmed is dead, unless it runs.
        let harmed =
            |frozen| copy_state(&Seen { tasks: 2, runs: true, harmed: true, frozen, ..Seen::default() });
        assert_eq!((harmed(true), harmed(false)), (CopyState::Dead, CopyState::Running));
    }
}
