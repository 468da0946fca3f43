//! Two sites, each with a Coordinator, a nest and a copy, and what lies between them.

use ums_model::action::{Action, Alarm, Word};
use ums_model::facts::{Answer, CopyState};
use ums_model::names::Epoch;
use ums_model::nest::{self, Deed};
use ums_model::source::{self, Stage};
use ums_model::standing::{Facts, Record, Role, Standing};

use crate::said::{Epochs, Said};

/// How far to look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Bounds {
    pub(crate) epochs: u64,
    /// Whether what a dead Coordinator has asked its nest for may be done at any later time.
    pub(crate) late: bool,
    /// A site whose journal may be put back to an older copy, once.
    pub(crate) rolls_back: Option<usize>,
    pub(crate) weakness: Option<Weakness>,
}

impl Bounds {
    /// Whether it may come to rest only with an operator. Nothing is written outside of what moves.
    pub(crate) fn may_be_stuck(self) -> bool {
        false
    }
}

/// One rule that is not kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Weakness {
    /// A service that is gone is started without a look at the record.
    StartWithoutAsking,
    /// A copy that has not been heard yet is started again by its restart policy.
    StartBehindTheFence,
    /// A nest thaws without having recorded it.
    ThawWithoutRecord,
    /// The end of a dump is sent before the record says that it is complete.
    EndBeforeDumped,
    /// A nest that finds a complete dump thaws.
    SettleDumpedByThaw,
    /// The death of a copy is declared and its nest not told.
    BuryWithoutRecord,
    /// A late word of an older epoch counts.
    EpochLowered,
    /// A service that is at home is started only if its nest knows that already.
    NotTakenHome,
    /// Nobody looks whether a nest has seen a newer epoch than the journal.
    NestUnasked,
    /// A source that comes back does not ask the other site.
    PeerUnasked,
    /// The source keeps it to itself that the service is lost.
    LostUnsaid,
}

/// What a site does next that takes its nest: what the rules say, and the two deeds that they do not know.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Todo {
    Act(Action),
    /// The source's nest dumps the service, and sends the dump.
    Dump,
    /// The destination's nest builds a frozen tree from the dump.
    Build,
}

/// What a Coordinator that is dead has asked its nest for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Late {
    Act(Action),
    /// To be ready for a start, as the service is at home.
    ComeHome,
}

/// What became of a journal.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Kept {
    /// There is no copy of it.
    Nothing,
    /// A copy, as a snapshot of the disk has one.
    Copy(Standing),
    /// The copy is the journal now. `fresh`: its Coordinator has not looked at anything yet.
    PutBack { fresh: bool },
}

/// One site. What survives everything: `standing`, the journal of its Coordinator, and `nest`, the record of its nest.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Site {
    pub(crate) standing: Standing,
    /// What its Coordinator is about to do, beginning with something that takes the nest. While a daemon or a nest is
    /// down nothing happens; that cannot be told from one that is slow.
    pub(crate) todo: Vec<Todo>,
    /// `None` where nothing is that could run: no nest, or one that is prepared, or has discarded its copy. One that was
    /// given up is kept: its files are there.
    pub(crate) nest: Option<nest::Record>,
    pub(crate) copy: CopyState,
    /// What a Coordinator that is dead has asked for.
    pub(crate) late: Option<(Epoch, Late)>,
    pub(crate) kept: Kept,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct World {
    pub(crate) bounds: Bounds,
    pub(crate) sites: [Site; 2],
    pub(crate) said: Said,
    /// Dumps that were sent to their end.
    pub(crate) dumps: Epochs,
    /// Dumps whose service ran at the source afterwards.
    pub(crate) stale: Epochs,
    /// Epochs whose copy at the destination has spoken to the world.
    pub(crate) spoke: Epochs,
    /// Epochs that the source has aborted.
    pub(crate) aborted: Epochs,
    /// Whether a copy died where the service was at home: only then may the service be lost.
    pub(crate) original_died: bool,
    pub(crate) broken: Option<String>,
}

impl Site {
    fn new(standing: Standing, nest: Option<nest::Record>, copy: CopyState) -> Self {
        Self { standing, todo: Vec::new(), nest, copy, late: None, kept: Kept::Nothing }
    }

    pub(crate) fn epoch(&self) -> Epoch {
        self.standing.epoch()
    }

    pub(crate) fn seen(&self) -> nest::Seen {
        let alive = self.copy != CopyState::Gone;
        nest::Seen { alive, tasks: u32::from(alive) }
    }

    /// Where a record can lead to nothing any more there might as well be none.
    pub(crate) fn set_nest(&mut self, record: nest::Record) {
        use nest::Right::{Discarded, Prepared, Restoring};
        self.nest = Some(record).filter(|record| !matches!(record.right(), Prepared | Restoring | Discarded));
        if self.nest.is_none() {
            self.copy = CopyState::Gone;
        }
    }

    /// As [`Self::set_nest`] for what a nest makes of `wish`.
    pub(crate) fn set_wished(&mut self, record: nest::Record, wish: nest::Wish) {
        match (record.right(), wish) {
            (nest::Right::Discarded, nest::Wish::Freeze) => {
                self.nest = Some(record);
                self.copy = CopyState::Gone;
            }
            _ => self.set_nest(record),
        }
    }

    /// Whether the Coordinator asks the other site for its word.
    fn asks(&self) -> bool {
        use ums_model::destination;
        match self.standing.role() {
            Role::Source(source) => matches!(
                source.stage(),
                Stage::Frozen
                    | Stage::Held { .. }
                    | Stage::Aborted { frozen: true }
                    | Stage::Stuck
                    | Stage::Committed { .. }
            ),
            Role::Destination(half) => matches!(half.stage(), destination::Stage::Held { .. }),
        }
    }
}

impl World {
    /// The service runs at site 0; site 1 has never heard of it.
    pub(crate) fn new(bounds: Bounds) -> Self {
        let home = Standing::default().apply(Record::Created).expect("a new name can be created");
        let record = nest::Record::at_home(Epoch::ZERO);
        Self {
            bounds,
            sites: [
                Site::new(home, Some(record), CopyState::Running),
                Site::new(Standing::default(), None, CopyState::Gone),
            ],
            said: Said::default(),
            dumps: Epochs::default(),
            stale: Epochs::default(),
            spoke: Epochs::default(),
            aborted: Epochs::default(),
            original_died: false,
            broken: None,
        }
    }

    /// Whether a journal is not what it was: then only an operator may know who runs the service.
    pub(crate) fn is_put_back(&self) -> bool {
        self.sites.iter().any(|site| matches!(site.kept, Kept::PutBack { .. }))
    }

    /// Whether it must come to rest by itself once everything is repaired.
    pub(crate) fn comes_to_rest(&self) -> bool {
        !self.is_put_back()
    }

    /// The journal of a site becomes an older copy. Its Coordinator ends before that, and with it every connection: what was
    /// said and not heard, and a dump that was sent to it, come never. (A COMMIT that is still on its way when its journal is
    /// put back can be contradicted by nobody.)
    pub(crate) fn put_back(&mut self, at: usize) {
        let Kept::Copy(copy) = std::mem::replace(&mut self.sites[at].kept, Kept::PutBack { fresh: true })
        else {
            return;
        };
        let site = &mut self.sites[at];
        site.standing = copy;
        site.todo.clear();
        site.late = None;
        self.said.clear();
        if matches!(self.sites[at].standing.role(), Role::Destination(_)) {
            self.dumps = Epochs::default();
        }
        self.listen();
    }

    pub(crate) fn facts(&self, at: usize, other: Option<Answer>) -> Facts {
        Facts { copy: self.sites[at].copy, other, writes_outside: false }
    }

    /// Begins a list: its records are written and its words said up to the first thing that takes the nest. Between
    /// these nothing can happen that would not be the same before or after: whatever else happens here looks at no
    /// journal, and a word that was said and not heard is no different from one that was not said. `Err` is a violation.
    pub(crate) fn begin(&mut self, at: usize, todo: impl IntoIterator<Item = Todo>) -> Result<(), String> {
        let mut todo = todo.into_iter();
        self.sites[at].todo.clear();
        while let Some(next) = todo.next() {
            match next {
                Todo::Act(Action::Write { record }) => self.write(at, record)?,
                Todo::Act(Action::Tell { epoch, word }) => self.tell(1 - at, epoch, word),
                Todo::Act(Action::Report {
                    alarm: alarm @ (Alarm::Superseded | Alarm::Contradiction),
                    ..
                }) if !self.is_put_back() => {
                    return Err(format!(
                        "site {at} meets {alarm}, which needs a journal that was rolled back"
                    ));
                }
                Todo::Act(Action::Report { .. }) => {}
                // With the thaw.
                Todo::Act(Action::Open) if matches!(self.sites[at].standing.role(), Role::Source(_)) => {}
                _ => {
                    self.sites[at].todo = std::iter::once(next).chain(todo).collect();
                    break;
                }
            }
        }
        self.listen();
        Ok(())
    }

    fn write(&mut self, at: usize, record: Record) -> Result<(), String> {
        if let Record::Source(event) = record
            && event.step == source::Step::AbortDecided
        {
            self.aborted.insert(event.epoch);
        }
        self.sites[at].standing = self.sites[at].standing.apply(record).map_err(|error| error.to_string())?;
        Ok(())
    }

    /// Whoever waits for the other site's word may get every answer that was true while it waited.
    fn listen(&mut self) {
        for at in [0, 1] {
            if self.sites[at].asks() {
                let epoch = self.sites[at].epoch();
                let answer = self.sites[1 - at].standing.answer(epoch);
                self.tell(at, epoch, Word::State { answer });
            }
        }
        let present = self.present();
        self.said.forget_before(present);
        for epochs in [&mut self.dumps, &mut self.stale, &mut self.spoke, &mut self.aborted] {
            epochs.forget_before(present);
        }
    }

    fn tell(&mut self, to: usize, epoch: Epoch, word: Word) {
        let means_something = match word {
            Word::Query => false,
            Word::Lost => self.bounds.weakness != Some(Weakness::LostUnsaid),
            Word::State { answer } => !matches!(answer, Answer::Undecided | Answer::Preparing),
            _ => true,
        };
        if means_something && epoch >= self.present() {
            self.said.insert(to, epoch, word);
        }
    }

    /// The oldest epoch that still means something to a site.
    pub(crate) fn present(&self) -> Epoch {
        let oldest = |site: &Site| match &site.kept {
            Kept::Copy(copy) => copy.epoch().min(site.epoch()),
            _ => site.epoch(),
        };
        oldest(&self.sites[0]).min(oldest(&self.sites[1]))
    }

    /// The copy at a site dies: by itself, with its keeper, with its container, with its host.
    pub(crate) fn kill(&mut self, at: usize) {
        let site = &mut self.sites[at];
        site.copy = CopyState::Gone;
        self.original_died |= matches!(site.standing.role(), Role::Source(_)) || site.standing.is_home();
    }

    /// A nest starts where another has died.
    pub(crate) fn settle(&mut self, at: usize) -> Result<(), String> {
        self.sites[at].late = None;
        let Some(record) = self.sites[at].nest else { return Ok(()) };
        let mut decision = record.settle();
        if self.bounds.weakness == Some(Weakness::SettleDumpedByThaw) && record.right() == nest::Right::Dumped
        {
            decision =
                nest::Decision { record: Some(nest::Step::ThawBegun.at(record.epoch())), deed: Deed::LetRun };
        }
        if let Some(event) = decision.record {
            let record = record.apply(event).map_err(|error| error.to_string())?;
            self.sites[at].set_nest(record);
        }
        self.deed(at, decision.deed)
    }

    /// What a nest does. `Err` is a violation.
    pub(crate) fn deed(&mut self, at: usize, deed: Deed) -> Result<(), String> {
        match deed {
            Deed::LetRun | Deed::Resume if self.sites[at].copy == CopyState::Frozen => self.runs(at),
            Deed::StandStill if self.sites[at].copy == CopyState::Running => {
                self.sites[at].copy = CopyState::Frozen;
                Ok(())
            }
            Deed::Start => self.runs(at),
            Deed::Open => self.open(at),
            _ => Ok(()),
        }
    }

    fn runs(&mut self, at: usize) -> Result<(), String> {
        self.sites[at].copy = CopyState::Running;
        let (standing, epoch) = (&self.sites[at].standing, self.sites[at].epoch());
        match standing.role() {
            // What a journal says about an epoch that was put back is not what happened in it.
            _ if self.is_put_back() => Ok(()),
            Role::Destination(_) if self.stale.contains(epoch) => {
                Err(format!("site {at} runs a copy of {epoch} that is older than what ran at the source"))
            }
            Role::Source(half) if self.spoke.contains(epoch) && half.stage() != Stage::Idle => {
                Err(format!("site {at} runs its original although the copy of {epoch} has spoken"))
            }
            Role::Source(_) => {
                self.stale.add(self.dumps);
                Ok(())
            }
            Role::Destination(_) => Ok(()),
        }
    }

    fn open(&mut self, at: usize) -> Result<(), String> {
        let standing = &self.sites[at].standing;
        match standing.role() {
            _ if self.is_put_back() => {}
            _ if standing.is_home() => self.spoke.insert(standing.epoch()),
            // Asked for before its migration began.
            Role::Source(_) if self.bounds.late && standing.has_right() => {}
            _ => return Err(format!("site {at} opens its fence as {standing}")),
        }
        Ok(())
    }
}
