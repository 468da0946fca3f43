//! Two sites and what lies between them.

use std::collections::{BTreeSet, VecDeque};

use ums_model::action::{Action, Alarm, Word};
use ums_model::facts::{Answer, CopyState};
use ums_model::names::Epoch;
use ums_model::source::{self, Stage};
use ums_model::standing::{Facts, Record, Role, Standing};

/// How far to look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Bounds {
    pub(crate) epochs: u64,
    pub(crate) writes_outside: bool,
    pub(crate) weakness: Option<Weakness>,
}

impl World {
    /// Whether it must come to rest by itself once everything is repaired.
    pub(crate) fn comes_to_rest(&self) -> bool {
        true
    }
}

impl Bounds {
    /// Whether it may come to rest only with an operator.
    pub(crate) fn may_be_stuck(self) -> bool {
        self.writes_outside
    }
}

/// One rule that is not kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Weakness {
    /// The source commits without having heard HELD.
    CommitBeforeHeld,
    /// The lease goes on counting after HELD.
    LeaseAfterHeld,
    /// The source thaws when nobody answers its COMMIT.
    ThawAfterCommit,
    /// The destination runs as soon as it is HELD.
    RunWithoutCommit,
    /// The destination says REFUSED although its tree stands.
    RefuseWithoutProof,
    /// A destination forgets that it refused or aborted.
    ForgetTombstone,
    /// The source thaws first and writes ABORT later, if at all.
    ThawBeforeAbort,
    /// The destination thaws first and writes GRANTED later, if at all.
    ThawBeforeGrant,
    /// The source gives up its original as soon as it has committed.
    ReleaseAtCommit,
    /// A source whose own copy is dead has the destination give up the only other one.
    AbortWithoutACopy,
    /// The destination opens its fence as soon as it has thawed.
    OpenBeforeRunning,
    /// The source keeps it to itself that the service is lost.
    LostUnsaid,
    /// A source whose own copy is dead says that the service is lost before it has heard of the other one.
    LostUnasked,
}

/// What a site does next: what the rules say, and the two deeds of a migration that the rules do not know.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Todo {
    Act(Action),
    /// The source dumps its frozen copy and sends the dump.
    SendDump,
    /// The destination builds a frozen tree from the dump.
    Build,
}

/// One site. `standing` is its journal, the only thing that survives everything.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Site {
    pub(crate) standing: Standing,
    /// What it is about to do. A crash of its daemon drops it. While a daemon is down nothing happens at its site;
    /// that cannot be told from a daemon that is slow, so there is no state for it.
    pub(crate) todo: VecDeque<Todo>,
    pub(crate) copy: CopyState,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct World {
    pub(crate) bounds: Bounds,
    pub(crate) sites: [Site; 2],
    /// Everything that was ever said, to whom. Nothing is taken out by hearing it: so it can be heard twice, late, in
    /// any order, or never.
    pub(crate) said: BTreeSet<(usize, Epoch, Word)>,
    /// Dumps that were sent, by epoch.
    pub(crate) dumps: BTreeSet<Epoch>,
    /// Dumps whose service went on running at the source afterwards.
    pub(crate) stale: BTreeSet<Epoch>,
    /// Epochs whose copy at the destination has spoken to the world.
    pub(crate) spoke: BTreeSet<Epoch>,
    /// Epochs that the source has aborted.
    pub(crate) aborted: BTreeSet<Epoch>,
    /// What went wrong on the way here, if anything did.
    pub(crate) broken: Option<String>,
    /// Whether a copy died where the service was at home: only then may the service be lost.
    pub(crate) original_died: bool,
}

impl World {
    /// The service runs at site 0; site 1 has never heard of it.
    pub(crate) fn new(bounds: Bounds) -> Self {
        let site = |standing, copy| Site { standing, todo: VecDeque::new(), copy };
        let home = Standing::default().apply(Record::Created).expect("a new name can be created");
        Self {
            bounds,
            sites: [site(home, CopyState::Running), site(Standing::default(), CopyState::Gone)],
            said: BTreeSet::new(),
            dumps: BTreeSet::new(),
            stale: BTreeSet::new(),
            spoke: BTreeSet::new(),
            aborted: BTreeSet::new(),
            broken: None,
            original_died: false,
        }
    }

    pub(crate) fn facts(&self, at: usize, other: Option<Answer>) -> Facts {
        Facts { copy: self.sites[at].copy, other, writes_outside: self.bounds.writes_outside }
    }

    /// Puts on a site's list what the rules want, without what would change nothing.
    pub(crate) fn plan_to(&mut self, at: usize, actions: impl IntoIterator<Item = Action>) {
        let todo: VecDeque<_> =
            actions.into_iter().filter(|action| self.matters(at, *action)).map(Todo::Act).collect();
        self.sites[at].todo = todo;
    }

    fn matters(&self, at: usize, action: Action) -> bool {
        match action {
            Action::Tell { word: Word::Lost, .. } if self.bounds.weakness == Some(Weakness::LostUnsaid) => {
                false
            }
            Action::Tell { epoch, .. } if epoch < self.present() => false,
            Action::Tell { epoch, word } => !self.said.contains(&(1 - at, epoch, word)),
            Action::Report { alarm, .. } => matches!(alarm, Alarm::Superseded | Alarm::Contradiction),
            Action::Discard | Action::Release => self.sites[at].copy != CopyState::Gone,
            _ => true,
        }
    }

    /// The copy at a site dies.
    pub(crate) fn kill(&mut self, at: usize) {
        let site = &mut self.sites[at];
        site.copy = CopyState::Gone;
        self.original_died |= matches!(site.standing.role(), Role::Source(_)) || site.standing.is_home();
    }

    /// Does the first thing on a site's list. `Err` is a violation.
    pub(crate) fn act(&mut self, at: usize) -> Result<(), String> {
        let Some(todo) = self.sites[at].todo.pop_front() else { return Ok(()) };
        let copy = self.sites[at].copy;
        match todo {
            Todo::Act(Action::Write { record }) => self.write(at, record)?,
            Todo::Act(Action::Freeze) => {
                if copy == CopyState::Running {
                    self.sites[at].copy = CopyState::Frozen;
                }
            }
            Todo::Act(Action::Bury) if copy == CopyState::Gone => {}
            Todo::Act(Action::Bury) => self.failed(at),
            Todo::Act(Action::Thaw) => return self.thaw(at),
            Todo::Act(Action::Open) => self.open(at)?,
            Todo::Act(Action::Discard | Action::Release) => self.sites[at].copy = CopyState::Gone,
            Todo::Act(Action::Tell { epoch, word }) => {
                self.said.insert((1 - at, epoch, word));
                self.forget_the_past();
            }
            Todo::Act(Action::Report {
                alarm: alarm @ (Alarm::Superseded | Alarm::Contradiction), ..
            }) => {
                return Err(format!("site {at} meets {alarm}, which needs a journal that was rolled back"));
            }
            Todo::Act(Action::Report { .. }) => {}
            Todo::SendDump if copy == CopyState::Frozen => {
                self.dumps.insert(self.sites[at].standing.epoch());
            }
            Todo::Build if copy == CopyState::Gone => self.sites[at].copy = CopyState::Frozen,
            Todo::SendDump | Todo::Build => self.failed(at),
        }
        Ok(())
    }

    fn write(&mut self, at: usize, record: Record) -> Result<(), String> {
        if let Record::Source(event) = record
            && event.step == source::Step::AbortDecided
        {
            self.aborted.insert(event.epoch);
        }
        self.sites[at].standing = self.sites[at].standing.apply(record).map_err(|error| error.to_string())?;
        self.forget_the_past();
        Ok(())
    }

    /// The oldest epoch that still means something to a site.
    pub(crate) fn present(&self) -> Epoch {
        self.sites[0].standing.epoch().min(self.sites[1].standing.epoch())
    }

    /// Drops what was said about epochs that both sites have left behind: that nothing can come of it is an invariant
    /// of its own.
    fn forget_the_past(&mut self) {
        let present = self.present();
        self.said.retain(|(_, epoch, _)| *epoch >= present);
        for epochs in [&mut self.dumps, &mut self.stale, &mut self.spoke, &mut self.aborted] {
            epochs.retain(|epoch| *epoch >= present);
        }
    }

    fn thaw(&mut self, at: usize) -> Result<(), String> {
        let site = &mut self.sites[at];
        match site.copy {
            CopyState::Frozen => site.copy = CopyState::Running,
            CopyState::Running => return Ok(()),
            // An action that cannot be done: the rest of the list is dropped and the rules are asked again.
            CopyState::Gone | CopyState::Unknown => {
                self.failed(at);
                return Ok(());
            }
        }
        let epoch = site.standing.epoch();
        match site.standing.role() {
            Role::Destination(_) if self.stale.contains(&epoch) => {
                Err(format!("site {at} runs a copy of {epoch} that is older than what ran at the source"))
            }
            Role::Source(source) if self.spoke.contains(&epoch) && source.stage() != Stage::Idle => {
                Err(format!("site {at} runs its original although the copy of {epoch} has spoken"))
            }
            Role::Source(_) => {
                self.stale.extend(self.dumps.iter().copied());
                Ok(())
            }
            Role::Destination(_) => Ok(()),
        }
    }

    fn open(&mut self, at: usize) -> Result<(), String> {
        let standing = &self.sites[at].standing;
        match standing.role() {
            Role::Destination(_) if standing.is_home() => {
                self.spoke.insert(standing.epoch());
                Ok(())
            }
            Role::Source(_) if standing.may_run() => Ok(()),
            _ => Err(format!("site {at} opens its fence as {standing}")),
        }
    }

    fn failed(&mut self, at: usize) {
        let actions = self.sites[at].standing.recover(self.facts(at, None));
        self.plan_to(at, actions);
    }
}
