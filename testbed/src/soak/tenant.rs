//! One database that moves to and fro: the service, its clients, and what is known about its content.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use super::book::{Book, KEYS, collection, register};
use super::collection::{self, Order};
use super::dice::Dice;
use super::history::{Action, Flaw, Key, Operation, Value, Why};
use super::postgres_store::PostgresStore;
use super::redis_store::RedisStore;
use super::register;
use super::report::Violation;
use super::session::{Sessions, insist_there, outcome};
use super::store::{Answer, Store};
use crate::dial::Dialer;
use crate::lab::Lab;
use crate::net::SiteIndex;
use crate::service::Service;
use crate::workload::{Database, Workload};

/// How long a database may take to be ready, or to answer the auditor.
const PATIENCE: Duration = Duration::from_secs(90);
/// Clients of one database.
pub(super) const SESSIONS: u32 = 4;
/// The session number of whoever reads everything back.
const AUDITOR: u32 = SESSIONS;
/// Between two looks at the book.
const POLL: Duration = Duration::from_millis(5);

/// A database under load.
#[derive(Debug)]
pub(super) struct Tenant<'a> {
    database: Database,
    pub(super) service: Service<'a>,
    pub(super) book: Arc<Book>,
    dialer: Dialer,
    sessions: Option<Sessions>,
    identity: String,
    settled: BTreeMap<Key, Settled>,
    checked: u64,
}

/// What a key of an old generation must still hold at the end.
#[derive(Debug)]
enum Settled {
    /// One of these.
    Register(Vec<Option<Value>>),
    /// All of the first, and of others only the second, which may come late.
    Collection(Vec<Value>, HashSet<Value>),
}

impl<'a> Tenant<'a> {
    /// Starts a database and its clients.
    pub(super) fn start(lab: &'a Lab, site: SiteIndex, database: Database, dice: &Dice) -> Result<Self> {
        let service = lab.start(site, &Workload::Witnessed(database))?;
        let dialer = service.dialer()?;
        let book = Arc::new(Book::new());
        let (identity, sessions) = match database {
            Database::Redis => settle_in::<RedisStore>(&dialer, &book, dice),
            Database::Postgres => settle_in::<PostgresStore>(&dialer, &book, dice),
        }
        .with_context(|| format!("{database:?} at site {site}"))?;
        let sessions = Some(sessions);
        Ok(Self { database, service, book, dialer, sessions, identity, settled: BTreeMap::new(), checked: 0 })
    }

    /// Its name for people.
    pub(super) fn title(&self) -> &'static str {
        match self.database {
            Database::Redis => "redis",
            Database::Postgres => "postgres",
        }
    }

    /// Which database it is.
    pub(super) fn database(&self) -> Database {
        self.database
    }

    /// Operations whose place in a history was checked.
    pub(super) fn checked(&self) -> u64 {
        self.checked
    }

    /// Ends the present generation, reads it back, and checks it.
    ///
    /// On `Ok` what is wrong with it. On `Err` the database did not answer.
    pub(super) fn check_generation(&mut self) -> Result<Vec<Violation>> {
        match self.database {
            Database::Redis => self.check_generation_of::<RedisStore>(),
            Database::Postgres => self.check_generation_of::<PostgresStore>(),
        }
    }

    /// Ends the load, and reads everything back that was ever written.
    pub(super) fn finish(&mut self) -> Result<Vec<Violation>> {
        let wrong = self.sessions.as_ref().map(Sessions::wrong).unwrap_or_default();
        self.sessions = None;
        let mut violations: Vec<Violation> = wrong.into_iter().map(|what| self.broken(what)).collect();
        violations.extend(self.check_generation()?);
        violations.extend(match self.database {
            Database::Redis => self.read_back::<RedisStore>(),
            Database::Postgres => self.read_back::<PostgresStore>(),
        }?);
        Ok(violations)
    }

    fn check_generation_of<S: Store>(&mut self) -> Result<Vec<Violation>> {
        let generation = self.book.turn();
        let end = Instant::now() + PATIENCE;
        while !self.book.is_complete(generation) {
            ensure!(Instant::now() < end, "a client of {} has not ended within {PATIENCE:?}", self.title());
            thread::sleep(POLL);
        }
        let book = Arc::clone(&self.book);
        let found = insist_there::<S, _>(&self.dialer, PATIENCE, |store| {
            audit(store, &book, generation)?;
            store.identity()
        });
        let mut violations: Vec<Violation> = self
            .sessions
            .as_ref()
            .map(Sessions::wrong)
            .unwrap_or_default()
            .into_iter()
            .map(|what| self.broken(what))
            .collect();
        match found.with_context(|| format!("reading {} back", self.title()))? {
            Ok(identity) if identity == self.identity => {}
            Ok(identity) => violations.push(self.broken(format!(
                "the server that answers is not the one that was started: {identity} instead of {}",
                self.identity
            ))),
            Err(what) => violations.push(self.broken(what)),
        }
        let operations = self.book.tear_out(generation);
        self.checked += operations.len() as u64;
        let mut by_key: BTreeMap<Key, Vec<Operation>> = BTreeMap::new();
        for operation in operations {
            by_key.entry(operation.key).or_default().push(operation);
        }
        for (key, history) in by_key {
            let checked = match key == collection(generation) {
                true => collection::check(&history, S::ORDER),
                false => register::check(&history),
            };
            if let Err(flaw) = checked {
                violations.push(self.violated(&flaw, history));
                continue;
            }
            let settled = match key == collection(generation) {
                true => settled_collection(&history),
                false => Settled::Register(register::may_hold(&history)),
            };
            self.settled.insert(key, settled);
        }
        Ok(violations)
    }

    fn read_back<S: Store>(&self) -> Result<Vec<Violation>> {
        let settled = &self.settled;
        let found = insist_there::<S, _>(&self.dialer, PATIENCE, |store| {
            store.audit()?;
            let wrong =
                settled.iter().map(|(key, settled)| Ok((key, settled.compare(store, *key, S::ORDER)?)));
            wrong.collect::<Answer<Vec<_>>>()
        });
        match found.with_context(|| format!("reading {} back at the end", self.title()))? {
            Err(what) => Ok(vec![self.broken(what)]),
            Ok(all) => {
                let wrong = all.into_iter().filter_map(|(key, wrong)| Some((key, wrong?)));
                let violation = |(key, what): (&Key, String)| Violation {
                    kind: Why::Lost.word(),
                    service: self.title(),
                    what: format!("key {} of an old generation: {what}", key.0),
                    history: Vec::new(),
                };
                Ok(wrong.map(violation).collect())
            }
        }
    }

    fn violated(&self, flaw: &Flaw, history: Vec<Operation>) -> Violation {
        Violation { kind: flaw.why.word(), service: self.title(), what: flaw.to_string(), history }
    }

    fn broken(&self, what: String) -> Violation {
        Violation { kind: Why::Broken.word(), service: self.title(), what, history: Vec::new() }
    }
}

impl Settled {
    /// What is wrong with what a key holds by now, if anything is.
    fn compare<S: Store>(&self, store: &mut S, key: Key, order: Order) -> Answer<Option<String>> {
        match self {
            Self::Register(may) => {
                let holds = store.read(key)?;
                Ok((!may.contains(&holds)).then(|| format!("it holds {holds:?} instead of one of {may:?}")))
            }
            Self::Collection(must, may) => {
                let holds = store.read_all(key)?;
                let set: HashSet<Value> = holds.iter().copied().collect();
                let kept = match order {
                    Order::Kept => holds.starts_with(must),
                    Order::None => must.iter().all(|value| set.contains(value)),
                };
                let must: HashSet<Value> = must.iter().copied().collect();
                let others = set.iter().all(|value| must.contains(value) || may.contains(value));
                Ok((!kept || !others || set.len() != holds.len())
                    .then(|| format!("it holds {holds:?} instead of {must:?} and perhaps {may:?}")))
            }
        }
    }
}

/// Makes the tables, and lets the clients in.
fn settle_in<S: Store>(dialer: &Dialer, book: &Arc<Book>, dice: &Dice) -> Result<(String, Sessions)> {
    // Nothing is prepared twice: a server that answers this once is up.
    let identity = insist_there::<S, _>(dialer, PATIENCE, Store::identity)?;
    let prepared = insist_there::<S, _>(dialer, PATIENCE, Store::prepare)?;
    let identity = prepared.and(identity).map_err(anyhow::Error::msg)?;
    Ok((identity, Sessions::start::<S>(dialer, book, SESSIONS, dice)?))
}

/// Reads every key of a generation, and enters it into the book.
fn audit<S: Store>(store: &mut S, book: &Book, generation: u64) -> Answer<()> {
    for number in 0..KEYS - 1 {
        let key = register(generation, number);
        let entry = book.begin_in(generation);
        let answer = store.read(key);
        let action = Action::Read(answer.as_ref().ok().copied().flatten());
        let answer = answer.map(drop);
        book.end(entry, AUDITOR, key, action, outcome(&answer));
        answer?;
    }
    let key = collection(generation);
    let entry = book.begin_in(generation);
    let answer = store.read_all(key);
    let action = Action::ReadAll(answer.as_ref().ok().cloned().unwrap_or_default());
    let answer = answer.map(drop);
    book.end(entry, AUDITOR, key, action, outcome(&answer));
    answer
}

fn settled_collection(history: &[Operation]) -> Settled {
    // The auditor's read is the last and has all that was acknowledged.
    let longest = history.iter().filter_map(|operation| match &operation.action {
        Action::ReadAll(values) => Some(values),
        _ => None,
    });
    let must = longest.max_by_key(|values| values.len()).cloned().unwrap_or_default();
    let may = history.iter().filter_map(|operation| match operation.action {
        Action::Append { value, .. } if operation.settled().is_none() => Some(value),
        _ => None,
    });
    Settled::Collection(must, may.collect())
}
