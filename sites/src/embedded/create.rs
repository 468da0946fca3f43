//! From a spec to a running keeper.

use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use ums_engine::spawn::{Namespaces, Spawn};
use ums_engine::userns::{self, IdRange};
use ums_frontman::host;
use ums_frontman::layout::{PlaceLayout, free_index};
use ums_model::error::{ErrorCode, WireError};
use ums_model::message::RestoreRequirements;
use ums_model::names::{Epoch, ServiceName};
use ums_model::nest::{Record, Right};
use ums_model::policy::FilePolicy;
use ums_model::spec::{PortPublish, ServiceSpec};
use ums_nest::deadlines::DeadlinesFile;
use ums_nest::keeper::KeeperId;
use ums_nest::layout::NestDir;
use ums_nest::protocol::Request;
use ums_nest::recipe::{Bind, Recipe};
use ums_nest::right;

use super::remove::remove_tree;
use super::{Embedded, blocking, chained, has_content, internal, recipe};
use crate::adapter::{ServiceStatus, SiteResult};
use crate::store::{ImageConfig, ImageId, UnpackPolicy};

/// How often a keeper that starts is looked for.
const KEEPER_POLL: Duration = Duration::from_millis(2);
/// `PATH` of a service whose image does not say one.
const DEFAULT_PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

impl Embedded {
    /// Makes a nest for the service and starts it. Err = nothing of it is left.
    pub(super) async fn create_and_start(&self, spec: &ServiceSpec) -> SiteResult<ServiceStatus> {
        spec.check().map_err(|error| chained(ErrorCode::BadRequest, &error))?;
        self.refuse_without_ids(spec).await?;
        {
            let _registry = self.registry.lock().await;
            self.refuse_taken(&spec.name)?;
            self.refuse_taken_ports(spec).await?;
            self.create(spec, None, Record::at_home(Epoch::ZERO)).await?;
        }
        let started = async {
            self.ask(&spec.name, &Request::Start, self.config.deadlines.change).await?;
            self.publish(&spec.name).await?;
            self.observe(&spec.name).await
        };
        match started.await {
            Ok(status) => Ok(status),
            Err(error) => {
                let _registry = self.registry.lock().await;
                self.tear_down(&spec.name).await?;
                Err(error)
            }
        }
    }

    /// Makes a nest that waits for a restore. Err = nothing of it is left. An earlier attempt is replaced.
    pub(super) async fn create_and_arm(
        &self,
        spec: &ServiceSpec,
        epoch: Epoch,
        requirements: &RestoreRequirements,
        files: FilePolicy,
    ) -> SiteResult<()> {
        spec.check().map_err(|error| chained(ErrorCode::BadRequest, &error))?;
        {
            let _registry = self.registry.lock().await;
            self.clear_remains(spec, epoch).await?;
            self.refuse_taken_ports(spec).await?;
            self.refuse_taken_volumes(spec)?;
            let record = Record::prepared(epoch, requirements.tasks);
            if let Err(error) = self.create(spec, Some(files), record).await {
                for volume in &spec.volumes {
                    // Made for it just now, and empty; one that was there before holds something or is in use.
                    let _ = std::fs::remove_dir(self.volume_dir(volume.name.as_str()));
                }
                return Err(error);
            }
        }
        let armed = self.tell(&spec.name, Request::Arm { epoch, requirements: requirements.clone() }).await;
        if let Err(error) = armed {
            self.discard_copy(&spec.name, epoch).await?;
            return Err(error);
        }
        Ok(())
    }

    /// What already lies in a volume of that name would be mixed with what arrives, and one that another service uses
    /// would go away with this one.
    fn refuse_taken_volumes(&self, spec: &ServiceSpec) -> SiteResult<()> {
        let others = self.volumes_of_others(&spec.name)?;
        for volume in &spec.volumes {
            let path = self.volume_dir(volume.name.as_str());
            if has_content(&path) || others.contains(&path) {
                let message = format!(
                    "volume {} of service {} exists at site {} already",
                    volume.name, spec.name, self.config.name
                );
                return Err(WireError::new(ErrorCode::NameTaken, message)
                    .with_hint("move its content away on that host, then try again: ums migrate"));
            }
        }
        Ok(())
    }

    /// A service shall not find itself root on the host because the host cannot do better.
    async fn refuse_without_ids(&self, spec: &ServiceSpec) -> SiteResult<()> {
        if !spec.user_namespace {
            return Ok(());
        }
        let state = self.config.state.clone();
        if blocking(move || Ok(userns::is_usable(&state))).await? != Some(false) {
            return Ok(());
        }
        let message = format!(
            "site {} cannot give service {} a user namespace: that needs Linux 5.19, user.max_user_namespaces above 0, \
             and a state directory on ext4, xfs or btrfs",
            self.config.name, spec.name
        );
        Err(WireError::new(ErrorCode::Unsupported, message)
            .with_hint("start it without one, as root of the host: ums run --no-user-namespace ..."))
    }

    fn refuse_taken(&self, name: &ServiceName) -> SiteResult<()> {
        if self.nest_dir(name).recipe().exists() {
            let message = format!("service {name} exists at site {} already", self.config.name);
            return Err(WireError::new(ErrorCode::NameTaken, message)
                .with_hint(format!("choose another --name, or `ums rm {name}` first")));
        }
        Ok(())
    }

    /// A port leads to one service, or to whatever the host itself listens with.
    async fn refuse_taken_ports(&self, spec: &ServiceSpec) -> SiteResult<()> {
        if spec.ports.is_empty() {
            return Ok(());
        }
        let used = self.site_facts().await?.ports_in_use;
        let taken = |port: &&PortPublish| {
            used.iter().any(|used| used.port == port.host && used.protocol == port.protocol)
        };
        let Some(port) = spec.ports.iter().find(taken) else { return Ok(()) };
        let message =
            format!("port {}/{} is taken at site {}", port.host, port.protocol.as_str(), self.config.name);
        Err(WireError::new(ErrorCode::PortTaken, message)
            .with_hint("publish another one with -p, or see who has it: ums ps; ss -lntu"))
    }

    /// A directory whose copy can never run again may be replaced; anything else is another service of that name.
    async fn clear_remains(&self, spec: &ServiceSpec, epoch: Epoch) -> SiteResult<()> {
        let dir = self.nest_dir(&spec.name);
        if !dir.recipe().exists() {
            return Ok(());
        }
        let record = right::read(&dir.right()).map_err(|error| chained(ErrorCode::Internal, &error))?;
        let never_runs = |record: Record| {
            matches!(record.right(), Right::Prepared | Right::Restoring | Right::Discarded)
                && record.epoch() <= epoch
        };
        match record.is_some_and(never_runs) {
            true => self.tear_down_with_volumes(&spec.name).await,
            false => self.refuse_taken(&spec.name),
        }
    }

    /// Directories, recipe, record, keeper, link. `files`: what is accepted of another site, if the service is not this
    /// one's. Err = nothing of it is left but empty volumes.
    async fn create(&self, spec: &ServiceSpec, files: Option<FilePolicy>, record: Record) -> SiteResult<()> {
        let made = async {
            let taken = host::taken(&self.config.nest_deadlines.network)
                .await
                .map_err(|error| chained(ErrorCode::Internal, &error))?;
            self.write_recipe(spec, files, record, taken).await?;
            self.start_connected(&spec.name).await
        };
        if let Err(error) = made.await {
            self.tear_down(&spec.name).await?;
            return Err(error);
        }
        Ok(())
    }

    /// Starts the keeper of an existing nest directory and links its place. Err = no keeper of it is left.
    pub(super) async fn start_connected(&self, name: &ServiceName) -> SiteResult<()> {
        let place = recipe(&self.nest_dir(name))?.place;
        let connected = async {
            let keeper = self.start_keeper(name).await?;
            self.keepers.watch(name, keeper);
            let network = &self.config.nest_deadlines.network;
            host::connect(&place, keeper.pid, network)
                .await
                .map_err(|error| chained(ErrorCode::Internal, &error))
        };
        if let Err(error) = connected.await {
            self.end_keeper(name).await?;
            return Err(error);
        }
        Ok(())
    }

    async fn write_recipe(
        &self,
        spec: &ServiceSpec,
        files: Option<FilePolicy>,
        record: Record,
        taken: Vec<u16>,
    ) -> SiteResult<()> {
        let (site, spec) = (self.clone(), spec.clone());
        blocking(move || {
            let image = ImageId(spec.image.digest);
            let policy = files.map_or(UnpackPolicy::LOCAL, UnpackPolicy::of_peer);
            let missing = |error| chained(ErrorCode::ImageMissing, &error);
            let config = site.store.config(&image).map_err(missing)?;
            let rootfs = site.store.rootfs(&image, policy).map_err(missing)?;
            let mut recipe = site.recipe_of(&spec, &config, rootfs.lower.clone(), &taken)?;
            recipe.files = files.unwrap_or_default();
            let dir = site.nest_dir(&spec.name);
            // Without a recipe it is what a crash has left, and must not become this service's files.
            remove_tree(dir.path())?;
            let write = || -> std::io::Result<()> {
                std::fs::create_dir_all(dir.path())?;
                std::fs::create_dir_all(dir.upper())?;
                // An overlay shows its upper directory's attributes as the root's.
                let owner = |id| recipe.ids.map_or(Some(id), |ids| ids.outside(id));
                std::os::unix::fs::chown(dir.upper(), owner(rootfs.uid), owner(rootfs.gid))?;
                let mode = std::os::unix::fs::PermissionsExt::from_mode(rootfs.mode);
                std::fs::set_permissions(dir.upper(), mode)?;
                for bind in &recipe.volumes {
                    std::fs::create_dir_all(&bind.host)?;
                }
                Ok(())
            };
            write().map_err(|error| internal(&format!("make {}", dir.path().display()), &error))?;
            right::write(&dir.right(), &record).map_err(|error| chained(ErrorCode::Internal, &error))?;
            DeadlinesFile::of(&dir)
                .write(&site.config.nest_deadlines)
                .map_err(|error| chained(ErrorCode::Internal, &error))?;
            // Last: a directory without a recipe is a leftover, not a service.
            recipe.write(&dir.recipe()).map_err(|error| chained(ErrorCode::Internal, &error))
        })
        .await
    }

    fn recipe_of(
        &self,
        spec: &ServiceSpec,
        image: &ImageConfig,
        lower: Vec<PathBuf>,
        taken: &[u16],
    ) -> SiteResult<Recipe> {
        let command = if spec.command.is_empty() { &image.cmd } else { &spec.command };
        let args: Vec<String> = image.entrypoint.iter().chain(command).cloned().collect();
        if args.is_empty() {
            let message = format!("image {} says no command", spec.image.name);
            return Err(WireError::new(ErrorCode::BadRequest, message)
                .with_hint(format!("ums run --name {} ... -- COMMAND", spec.name)));
        }
        let mut site_mounts = Vec::new();
        for mount in &spec.site_mounts {
            let host = self.config.site_mounts.get(&mount.name).ok_or_else(|| {
                let message = format!("site {} has no site mount {}", self.config.name, mount.name);
                WireError::new(ErrorCode::BadRequest, message)
                    .with_hint(format!("restart its daemon with --site-mount {}=DIR", mount.name))
            })?;
            let (name, inside) = (mount.name.clone(), mount.path.as_str().to_owned());
            site_mounts.push(Bind { name, host: host.clone(), inside, read_only: mount.read_only });
        }
        let volumes = spec.volumes.iter().map(|volume| Bind {
            name: volume.name.clone(),
            host: self.volume_dir(volume.name.as_str()),
            inside: volume.path.as_str().to_owned(),
            read_only: volume.read_only,
        });
        let place = self.place_of(spec, taken)?;
        Ok(Recipe {
            spec: spec.clone(),
            lower,
            args,
            env: environment(spec, image),
            workdir: spec
                .workdir
                .as_ref()
                .map(|path| path.as_str().to_owned())
                .or_else(|| image.workdir.clone())
                .unwrap_or_else(|| "/".into()),
            user: spec.user.clone().or_else(|| image.user.clone()).unwrap_or_default(),
            volumes: volumes.collect(),
            site_mounts,
            cgroup: self.cgroup_path(&spec.name),
            ids: spec.user_namespace.then(|| ids_of(&place)),
            files: FilePolicy::default(),
            place,
        })
    }

    /// `taken`: numbers whose addresses this host has already.
    fn place_of(&self, spec: &ServiceSpec, taken: &[u16]) -> SiteResult<PlaceLayout> {
        let used = self
            .names()?
            .into_iter()
            .filter_map(|name| recipe(&self.nest_dir(&name)).ok())
            .map(|recipe| recipe.place.index);
        let index = free_index(used.chain(taken.iter().copied()))
            .ok_or_else(|| WireError::new(ErrorCode::Internal, "all place numbers of this site are taken"))?;
        Ok(PlaceLayout {
            service: spec.name.clone(),
            site: self.short(),
            index,
            ports: spec.ports.clone(),
            inner: spec.network,
            resolver: self.config.resolver.or_else(host_resolver),
        })
    }

    /// Starts the keeper of an existing nest directory, away from this process.
    async fn start_keeper(&self, name: &ServiceName) -> SiteResult<KeeperId> {
        let dir = self.nest_dir(name);
        let _ = std::fs::remove_file(dir.keeper());
        let _ = std::fs::remove_file(dir.socket());
        let pid = self
            .spawn_keeper(&dir)
            .map_err(|error| internal(&format!("start the keeper of {name}"), &error))?;
        let started = Instant::now();
        loop {
            if let Ok(text) = std::fs::read(dir.keeper())
                && let Ok(id) = serde_json::from_slice::<KeeperId>(&text)
            {
                return Ok(id);
            }
            let alive = KeeperId::of(&pid.to_string()).is_some_and(|id| id.is_alive());
            if !alive || started.elapsed() > self.config.deadlines.keeper_start {
                // It has not made anything yet that would be left.
                if let Some(pid) = Pid::from_raw(pid) {
                    let _ = kill_process(pid, Signal::KILL);
                }
                let message =
                    format!("the keeper of {name} did not come up: see {}", dir.diagnosis().display());
                return Err(WireError::new(ErrorCode::Internal, message).with_hint("ums doctor"));
            }
            tokio::time::sleep(KEEPER_POLL).await;
        }
    }

    /// Answers the keeper's pid.
    fn spawn_keeper(&self, dir: &NestDir) -> std::io::Result<i32> {
        let diagnosis = std::fs::File::options().create(true).append(true).open(dir.diagnosis())?;
        let mut command = Command::new(&self.config.program);
        command.arg("keeper").arg("--dir").arg(dir.path()).arg("--program").arg(&self.config.program);
        command.current_dir("/").stdin(Stdio::null()).stdout(Stdio::null()).stderr(diagnosis);
        let namespaces = Namespaces { pid: true, mount: true, network: true };
        Spawn::new(command).namespaces(namespaces).session().detach()
    }

    pub(super) fn volume_dir(&self, name: &str) -> PathBuf {
        self.config.state.join("volumes").join(name)
    }

    /// Publishes the ports of a service that may run.
    pub(super) async fn publish(&self, name: &ServiceName) -> SiteResult<()> {
        let recipe = recipe(&self.existing(name)?)?;
        host::publish(&recipe.place, &self.config.nest_deadlines.network)
            .await
            .map_err(|error| chained(ErrorCode::Internal, &error))
    }
}

/// The ids of a service with a user namespace: as many as 16 bits can tell apart, and no two places of a site have one
/// in common.
fn ids_of(place: &PlaceLayout) -> IdRange {
    /// Behind what other tools give to users and containers of this host.
    const FIRST: u32 = 0x7000_0000;
    const COUNT: u32 = 0x1_0000;
    IdRange { first: FIRST + u32::from(place.index) * COUNT, count: COUNT }
}

/// Image environment, then the spec's; a later value replaces an earlier one.
fn environment(spec: &ServiceSpec, image: &ImageConfig) -> Vec<String> {
    let own = spec.env.iter().map(|(name, value)| format!("{name}={value}"));
    let all = [DEFAULT_PATH.to_owned(), format!("HOSTNAME={}", spec.hostname())].into_iter();
    let mut result: Vec<String> = Vec::new();
    for pair in all.chain(image.env.iter().cloned()).chain(own) {
        let name = pair.split('=').next().unwrap_or_default();
        match result.iter().position(|other| other.split('=').next() == Some(name)) {
            Some(position) => result[position] = pair,
            None => result.push(pair),
        }
    }
    result
}

/// A name server of this host that can be reached from another network namespace; `None` if there is none.
fn host_resolver() -> Option<std::net::Ipv4Addr> {
    // systemd-resolved's stub listens on loopback only; its upstream list is the second file.
    ["/etc/resolv.conf", "/run/systemd/resolve/resolv.conf"].iter().find_map(|path| {
        let text = std::fs::read_to_string(path).ok()?;
        text.lines()
            .filter_map(|line| line.trim().strip_prefix("nameserver"))
            .filter_map(|address| address.trim().parse::<std::net::Ipv4Addr>().ok())
            .find(|address| !address.is_loopback())
    })
}
