//! Two sites on one machine: real TLS, real journals, fake services; each Coordinator in a runtime of its own, so that
//! it can be ended in the middle of anything, as by SIGKILL.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use serde_json::json;
use tempfile::TempDir;
use tokio::runtime::{Builder, Runtime};
use ums_model::error::WireError;
use ums_model::names::{MigrationId, ServiceName};
use ums_model::phase::Outcome;
use ums_model::standing::Standing;

use super::client::{Client, PATIENCE};
use super::fake::{Fake, Witness};
use super::proxy::Proxy;
use crate::config::{Config, Deadlines};
use crate::fault::{Act, Faults, Step};
use crate::journal::Journal;
use crate::view::{AcceptedView, InviteView, MigrationStarted, MigrationState, MigrationView, ServiceView};
use crate::{Coordinator, Running};

const TICK: Duration = Duration::from_millis(2);

/// One site of a lab.
pub(crate) struct Node {
    pub(crate) fake: Fake,
    pub(crate) client: Client,
    pub(crate) proxy: Proxy,
    pub(crate) config: Config,
    life: Option<(Runtime, Running)>,
}

/// The two.
pub(crate) struct Lab {
    pub(crate) a: Node,
    pub(crate) b: Node,
    pub(crate) witness: Witness,
    pub(crate) dir: TempDir,
    // Last: everything above uses it.
    pub(crate) runtime: Runtime,
}

/// Short enough that a cut link is noticed within a test, long enough for a loaded machine.
fn deadlines() -> Deadlines {
    Deadlines {
        idle: Duration::from_secs(4),
        keep_alive: Duration::from_millis(200),
        lease: Duration::from_secs(8),
        commit: Duration::from_secs(8),
        answer: Duration::from_secs(8),
        held: Duration::from_secs(20),
        retry_least: Duration::from_millis(10),
        retry_most: Duration::from_millis(100),
        follow: Duration::from_millis(5),
        drain: Duration::from_secs(10),
        ..Deadlines::default()
    }
}

impl Node {
    fn new(name: &str, dir: &TempDir, witness: &Witness, runtime: &Runtime) -> Self {
        let logs = dir.path().join(format!("{name}-logs"));
        std::fs::create_dir(&logs).unwrap();
        let proxy = Proxy::start(runtime.handle());
        let mut config = Config::new(dir.path().join(name), name.parse().unwrap());
        config.listen = "127.0.0.1:0".parse().unwrap();
        config.advertise = vec![proxy.address.to_string()];
        config.deadlines = deadlines();
        let client = Client::new(runtime.handle(), &config.socket_path());
        Self { fake: Fake::new(name, witness, logs), client, proxy, config, life: None }
    }

    /// Starts the Coordinator, with failures on purpose.
    pub(crate) fn start(&mut self, faults: impl IntoIterator<Item = (Step, Act)>) {
        assert!(self.life.is_none());
        let runtime = Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let config = Config { faults: Faults::new(faults), ..self.config.clone() };
        let start = Coordinator::start(config, self.fake.clone(), std::future::pending());
        let running =
            runtime.block_on(async { tokio::time::timeout(PATIENCE, start).await.unwrap().unwrap() });
        self.proxy.lead_to(running.address);
        self.life = Some((runtime, running));
    }

    /// Ends it as SIGKILL does: nothing is cleaned up, nothing is said.
    pub(crate) fn crash(&mut self) {
        let (runtime, _) = self.life.take().unwrap();
        runtime.shutdown_background();
    }

    /// Ends it in order.
    pub(crate) fn stop(&mut self) {
        let (runtime, running) = self.life.take().unwrap();
        runtime.block_on(running.stop());
    }

    pub(crate) fn restart(&mut self, faults: impl IntoIterator<Item = (Step, Act)>) {
        self.stop();
        self.start(faults);
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.life.as_ref().unwrap().1.address
    }

    pub(crate) fn fingerprint(&self) -> ums_model::names::Fingerprint {
        self.life.as_ref().unwrap().1.fingerprint
    }

    /// Starts a service here.
    pub(crate) fn run(&self, service: &str) -> Result<ServiceView, WireError> {
        self.client.post("/v1/services", &json!({"name": service, "image": {"image": "redis"}, "ports": [{"host": 8080, "container": 80}]}))
    }

    pub(crate) fn migrate(&self, service: &str, to: &str) -> Result<MigrationId, WireError> {
        let started: MigrationStarted =
            self.client.post("/v1/migrations", &json!({"service": service, "to": to}))?;
        Ok(started.migration)
    }

    pub(crate) fn migration(&self, id: MigrationId) -> MigrationView {
        self.client.get(&format!("/v1/migrations/{id}")).unwrap()
    }

    /// Waits for the end of a migration, as this site sees it.
    pub(crate) fn end_of(&self, id: MigrationId) -> MigrationView {
        wait_for(&format!("the end of {id} at {}", self.fake.name), || {
            Some(self.migration(id)).filter(|view| view.state == MigrationState::Ended)
        })
    }

    /// What the journal makes of a service. The Coordinator must not run.
    pub(crate) fn standing(&self, service: &ServiceName) -> Standing {
        assert!(self.life.is_none(), "the journal belongs to the Coordinator");
        let journal = Journal::open(&self.config.journal_path()).unwrap();
        let runtime = Builder::new_current_thread().build().unwrap();
        runtime.block_on(journal.standings()).unwrap().remove(service).unwrap_or_default()
    }
}

impl Lab {
    /// Two sites that are not paired, with failures on purpose.
    pub(crate) fn strangers(
        a: impl IntoIterator<Item = (Step, Act)>,
        b: impl IntoIterator<Item = (Step, Act)>,
    ) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let witness = Witness::default();
        let mut node_a = Node::new("a", &dir, &witness, &runtime);
        let mut node_b = Node::new("b", &dir, &witness, &runtime);
        node_a.start(a);
        node_b.start(b);
        Self { a: node_a, b: node_b, witness, dir, runtime }
    }

    /// Two paired sites; `web` runs at A.
    pub(crate) fn new(
        a: impl IntoIterator<Item = (Step, Act)>,
        b: impl IntoIterator<Item = (Step, Act)>,
    ) -> Self {
        let lab = Self::strangers(a, b);
        lab.pair();
        lab.a.run("web").unwrap();
        lab
    }

    pub(crate) fn pair(&self) {
        let invite: InviteView = self.a.client.post("/v1/sites/invite", &json!({})).unwrap();
        let accepted: AcceptedView =
            self.b.client.post("/v1/sites/accept", &json!({"token": invite.token})).unwrap();
        assert_eq!(accepted.site.fingerprint, invite.fingerprint);
    }

    pub(crate) fn cut(&self) {
        self.a.proxy.cut();
        self.b.proxy.cut();
    }

    pub(crate) fn heal(&self) {
        self.a.proxy.heal();
        self.b.proxy.heal();
    }

    /// Waits until `web` runs at exactly one site, can be talked to there, and nothing of it is left at the other;
    /// then ends both Coordinators and compares their journals. Returns where it runs.
    pub(crate) fn settled_at(&mut self) -> String {
        let web = web();
        wait_for("one copy of web", || {
            let (a, b) = (&self.a.fake, &self.b.fake);
            let here = self.witness.running(&web);
            let (one, other) = if here.contains(&a.name) { (a, b) } else { (b, a) };
            let settled = here.len() == 1
                && one.is_open(&web)
                && other.copy(&web) == ums_sites::adapter::CopyState::Absent;
            settled.then_some(())
        });
        for node in [&self.a, &self.b] {
            let unended = || -> Option<()> {
                let views: Vec<MigrationView> = node.client.get("/v1/migrations").unwrap();
                views.iter().all(|view| view.state == MigrationState::Ended).then_some(())
            };
            wait_for(&format!("the end of all migrations at {}", node.fake.name), unended);
        }
        assert_eq!(self.witness.crimes(), Vec::<String>::new());
        self.a.stop();
        self.b.stop();
        let (a, b) = (self.a.standing(&web), self.b.standing(&web));
        assert!(a.has_right() != b.has_right(), "exactly one has the right: {a} and {b}");
        let (at, home) = if a.has_right() { ("a", &a) } else { ("b", &b) };
        assert!(home.is_home(), "{home}");
        assert_eq!(self.witness.running(&web), BTreeSet::from([at.parse().unwrap()]));
        at.to_owned()
    }

    /// [`Lab::settled_at`], and the next migration from there works, with no failures on purpose.
    pub(crate) fn settles_at(&mut self, expected: &str, memory: &[u8]) {
        assert_eq!(self.settled_at(), expected);
        self.a.start([]);
        self.b.start([]);
        let (from, to) = if expected == "a" { (&self.a, &self.b) } else { (&self.b, &self.a) };
        assert_eq!(from.fake.memory(&web()).unwrap(), memory);
        let ended = from.end_of(from.migrate("web", to.fake.name.as_str()).unwrap());
        assert_eq!(ended.outcome, Some(Outcome::Done), "{:?}", ended.report);
        assert_eq!(to.fake.memory(&web()).unwrap(), memory);
        assert_ne!(self.settled_at(), expected);
    }
}

pub(crate) fn web() -> ServiceName {
    "web".parse().unwrap()
}

/// The journal of a site that does not run, as it was: what an operator, or a snapshot, puts back.
pub(crate) struct Backup {
    dir: TempDir,
}

impl Backup {
    pub(crate) fn of(node: &Node) -> Self {
        let backup = Self { dir: tempfile::tempdir().unwrap() };
        for file in Self::files(node) {
            std::fs::copy(&file, backup.dir.path().join(file.file_name().unwrap())).unwrap();
        }
        backup
    }

    /// Removes the whole journal.
    pub(crate) fn remove(&self, node: &Node) {
        Self::files(node).iter().for_each(|file| std::fs::remove_file(file).unwrap());
    }

    pub(crate) fn put_back(&self, node: &Node) {
        self.remove(node);
        for entry in std::fs::read_dir(self.dir.path()).unwrap() {
            let file = entry.unwrap();
            std::fs::copy(file.path(), node.config.state_dir.join(file.file_name())).unwrap();
        }
    }

    fn files(node: &Node) -> Vec<PathBuf> {
        assert!(node.life.is_none(), "a copy of a journal in use is none");
        // The journal's thread may still be closing it; it alone has it until then.
        if node.config.journal_path().exists() {
            let db = rusqlite::Connection::open(node.config.journal_path()).unwrap();
            db.busy_timeout(PATIENCE).unwrap();
            db.query_row("SELECT count(*) FROM records", (), |row| row.get::<_, i64>(0)).unwrap();
        }
        let entries = std::fs::read_dir(&node.config.state_dir).unwrap();
        let files = entries.map(|entry| entry.unwrap().path());
        files.filter(|file| file.file_stem().is_some_and(|stem| stem == "journal")).collect()
    }
}

/// A place where a step waits.
pub(crate) struct Gate {
    file: PathBuf,
}

impl Gate {
    pub(crate) fn new(dir: &TempDir, name: &str) -> Self {
        let file = dir.path().join(name);
        std::fs::write(&file, "").unwrap();
        Self { file }
    }

    pub(crate) fn act(&self) -> Act {
        Act::Pause(self.file.clone())
    }

    /// Waits until a step waits here.
    pub(crate) fn reached(&self) {
        let reached = PathBuf::from(format!("{}.reached", self.file.display()));
        wait_for("a step at its gate", || reached.exists().then_some(()));
    }

    pub(crate) fn open(&self) {
        std::fs::remove_file(&self.file).unwrap();
    }
}

/// Waits for a value.
pub(crate) fn wait_for<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let begun = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(begun.elapsed() < PATIENCE, "waited for {what} in vain");
        std::thread::sleep(TICK);
    }
}
