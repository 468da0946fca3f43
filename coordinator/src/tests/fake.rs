//! A whole site in memory: services are byte strings, copies are states, every call can be made to fail.

mod adapter;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard};

use aws_lc_rs::digest;
use tokio::sync::Notify;
use ums_model::error::{ErrorCode, WireError};
use ums_model::names::{Bytes, Digest, Epoch, ServiceName, SiteName};
use ums_model::plan::{PortInUse, ProcessBlocker};
use ums_model::spec::ServiceSpec;
use ums_sites::adapter::{Blob, CopyState, ServiceStatus, SiteResult};

/// Sees every copy of every service, at all sites, and never forgets that two ran at once.
#[derive(Debug, Clone, Default)]
pub(crate) struct Witness {
    seen: Arc<Mutex<Seen>>,
}

#[derive(Debug, Default)]
struct Seen {
    running: BTreeMap<ServiceName, BTreeSet<SiteName>>,
    crimes: Vec<String>,
}

impl Witness {
    fn set(&self, service: &ServiceName, site: &SiteName, runs: bool) {
        let mut seen = self.seen.lock().unwrap();
        let at = seen.running.entry(service.clone()).or_default();
        if runs {
            at.insert(site.clone())
        } else {
            at.remove(site)
        };
        if at.len() > 1 {
            let crime = format!("{service} runs at {at:?} at once");
            seen.crimes.push(crime);
        }
    }

    fn accuse(&self, crime: String) {
        self.seen.lock().unwrap().crimes.push(crime);
    }

    /// Everything that must not have happened.
    pub(crate) fn crimes(&self) -> Vec<String> {
        self.seen.lock().unwrap().crimes.clone()
    }

    /// Where a service runs.
    pub(crate) fn running(&self, service: &ServiceName) -> BTreeSet<SiteName> {
        self.seen.lock().unwrap().running.get(service).cloned().unwrap_or_default()
    }
}

/// One site. Clones are the same site: it outlives the Coordinator that speaks for it.
#[derive(Debug, Clone)]
pub(crate) struct Fake {
    pub(crate) name: SiteName,
    witness: Witness,
    state: Arc<Mutex<State>>,
    bell: Arc<Notify>,
}

#[derive(Debug, Default)]
struct State {
    copies: BTreeMap<ServiceName, Copy>,
    blobs: BTreeMap<Digest, Vec<u8>>,
    images: BTreeMap<Digest, Vec<Blob>>,
    /// Calls that are to fail, and how often.
    failures: BTreeMap<&'static str, usize>,
    blockers: Vec<ProcessBlocker>,
    ports_in_use: Vec<PortInUse>,
    memory_available: Option<Bytes>,
    logs: PathBuf,
    dump_size: Option<usize>,
    volatile: bool,
    /// Services whose keepers have ended, to be told.
    ended: VecDeque<ServiceName>,
}

#[derive(Debug, Clone)]
struct Copy {
    spec: ServiceSpec,
    state: CopyState,
    epoch: Epoch,
    memory: Vec<u8>,
    open: bool,
    /// Whether its nest's record lets it be started when it has ended.
    may_start: bool,
    /// Whether its keeper lives.
    kept: bool,
    stopped: bool,
}

impl Fake {
    pub(crate) fn new(name: &str, witness: &Witness, logs: PathBuf) -> Self {
        let state = State { logs, ..State::default() };
        let state = Arc::new(Mutex::new(state));
        Self { name: name.parse().unwrap(), witness: witness.clone(), state, bell: Arc::default() }
    }

    /// Lets the next call of this name fail.
    pub(crate) fn fail(&self, call: &'static str) {
        *self.state().failures.entry(call).or_default() += 1;
    }

    /// Whether all failures that were asked for have happened.
    pub(crate) fn has_failed(&self) -> bool {
        self.state().failures.is_empty()
    }

    /// What a running service has in its memory.
    pub(crate) fn memory(&self, service: &ServiceName) -> Option<Vec<u8>> {
        self.state()
            .copies
            .get(service)
            .filter(|copy| copy.state == CopyState::Running)
            .map(|copy| copy.memory.clone())
    }

    /// Lets a running service write into its memory.
    pub(crate) fn write(&self, service: &ServiceName, bytes: &[u8]) {
        let mut state = self.state();
        let copy = state.copies.get_mut(service).filter(|copy| copy.state == CopyState::Running).unwrap();
        copy.memory.extend_from_slice(bytes);
    }

    /// What the site has of a service.
    pub(crate) fn copy(&self, service: &ServiceName) -> CopyState {
        self.state().copies.get(service).map_or(CopyState::Absent, |copy| copy.state)
    }

    /// Whether the service can be talked to.
    pub(crate) fn is_open(&self, service: &ServiceName) -> bool {
        self.state().copies.get(service).is_some_and(|copy| copy.open)
    }

    /// Makes a copy one that never migrated.
    pub(crate) fn forget_epoch(&self, service: &ServiceName) {
        self.change(service, |copy| copy.epoch = Epoch::ZERO).unwrap();
    }

    /// Kills a copy with its keeper.
    pub(crate) fn kill(&self, service: &ServiceName) {
        self.lose(service);
        self.state().ended.push_back(service.clone());
        self.bell.notify_one();
    }

    /// As [`Fake::kill`], but nobody is told: the host was off.
    pub(crate) fn lose(&self, service: &ServiceName) {
        let end = |copy: &mut Copy| (copy.state, copy.kept) = (CopyState::Dead, false);
        self.change(service, end).unwrap();
    }

    /// A nest comes up where another has died, and does what its record grants.
    pub(crate) fn next_nest(&self, service: &ServiceName) {
        self.change(service, |copy| {
            copy.kept = true;
            if copy.may_start && copy.state == CopyState::Dead {
                copy.state = CopyState::Running;
            }
        })
        .unwrap();
    }

    pub(crate) fn block(&self, blocker: ProcessBlocker) {
        self.state().blockers.push(blocker);
    }

    pub(crate) fn use_port(&self, port: PortInUse) {
        self.state().ports_in_use.push(port);
    }

    pub(crate) fn has_memory(&self, memory: Bytes) {
        self.state().memory_available = Some(memory);
    }

    pub(crate) fn is_volatile(&self) {
        self.state().volatile = true;
    }

    pub(crate) fn forget_blobs(&self) {
        self.state().blobs.clear();
    }

    /// Pads dumps to this size.
    pub(crate) fn dump_size(&self, size: usize) {
        self.state().dump_size = Some(size);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    fn may_fail(&self, call: &'static str) -> SiteResult<()> {
        let mut state = self.state();
        let Some(left) = state.failures.get_mut(call) else { return Ok(()) };
        *left -= 1;
        if *left == 0 {
            state.failures.remove(call);
        }
        Err(WireError::new(
            ErrorCode::Internal,
            format!("{call} fails at {} because the test says so", self.name),
        ))
    }

    /// Changes a copy and lets the witness see what became of it.
    fn change<T>(&self, service: &ServiceName, change: impl FnOnce(&mut Copy) -> T) -> SiteResult<T> {
        let mut state = self.state();
        let copy = state.copies.get_mut(service).ok_or_else(|| not_found(service))?;
        let result = change(copy);
        self.witness.set(service, &self.name, copy.state == CopyState::Running);
        Ok(result)
    }

    fn remove_copy(&self, service: &ServiceName) {
        self.state().copies.remove(service);
        self.witness.set(service, &self.name, false);
    }

    fn found(&self, service: &ServiceName) -> SiteResult<Copy> {
        self.state().copies.get(service).cloned().ok_or_else(|| not_found(service))
    }
}

fn not_found(service: &ServiceName) -> WireError {
    WireError::new(ErrorCode::ServiceNotFound, format!("no service {service}"))
}

fn wrong(service: &ServiceName, what: &str, copy: CopyState) -> WireError {
    WireError::new(ErrorCode::Internal, format!("cannot {what} {service}: it is {copy:?}"))
}

fn status(copy: &Copy) -> ServiceStatus {
    ServiceStatus {
        spec: copy.spec.clone(),
        copy: copy.state,
        epoch: copy.epoch,
        pid: (copy.state == CopyState::Running).then_some(1),
        keeper_pid: copy.kept.then_some(1),
        exit_code: (copy.state == CopyState::Dead && copy.kept).then_some(0),
        stopped: copy.stopped,
        since_unix_ms: 0,
    }
}

pub(crate) fn digest_of(bytes: &[u8]) -> Digest {
    Digest::sha256(digest::digest(&digest::SHA256, bytes).as_ref().try_into().unwrap())
}
