//! Everything that can happen next.

use ums_model::action::{Action, Word};
use ums_model::destination;
use ums_model::facts::CopyState;
use ums_model::names::Epoch;
use ums_model::nest::{self, Right};
use ums_model::source;
use ums_model::standing::{Record, Role};

use crate::deeds;
use crate::world::{Kept, Late, Todo, Weakness, World};

/// What happened, for the story of a violation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Happening {
    Act(Todo),
    /// What a dead Coordinator has asked for is done.
    Late(Epoch, Late),
    StartMigration,
    FreezeAndDump,
    Restore,
    LeaseRunsOut,
    /// A restart, a deadline, an abort by the user, a repetition: the rules are asked.
    Tick,
    Hear(Epoch, Word),
    /// The restart policy, the orchestrator or the user starts the service.
    ServiceStarts,
    /// Its nest is killed, and another one comes up.
    NestDies,
    DaemonCrash,
    /// The copy, its keeper or its container is gone.
    CopyDies,
    MachineCrash,
    /// A snapshot of its disk is taken.
    Snapshot,
    /// The journal is put back to the snapshot.
    PutBack,
}

/// One possible next state, or the violation on the way to it.
pub(crate) struct Next {
    pub(crate) at: usize,
    pub(crate) happening: Happening,
    pub(crate) result: Result<World, String>,
}

pub(crate) fn successors(world: &World) -> Vec<Next> {
    let mut all = Vec::new();
    for at in [0, 1] {
        let mut push = |happening, result: Result<World, String>| {
            if result.as_ref() != Ok(world) {
                all.push(Next { at, happening, result });
            }
        };
        let change = |change: &dyn Fn(&mut World) -> Result<(), String>| {
            let mut next = world.clone();
            change(&mut next).map(|()| next)
        };
        let site = &world.sites[at];
        if let Some(todo) = site.todo.first() {
            for result in deeds::next(world, at) {
                push(Happening::Act(*todo), result);
            }
            push(
                Happening::DaemonCrash,
                change(&|next| {
                    next.sites[at].todo.clear();
                    Ok(())
                }),
            );
            if let Todo::Act(action) = todo
                && world.bounds.late
            {
                push(
                    Happening::DaemonCrash,
                    change(&|next| {
                        next.sites[at].todo.clear();
                        next.sites[at].late = Some((site.epoch(), Late::Act(*action)));
                        Ok(())
                    }),
                );
            }
        } else {
            for (happening, todo) in undertakings(world, at) {
                push(
                    happening,
                    change(&|next| {
                        if let Kept::PutBack { fresh } = &mut next.sites[at].kept {
                            *fresh = false;
                        }
                        next.begin(at, todo.clone())
                    }),
                );
            }
        }
        if let Some((epoch, wanted)) = site.late {
            for result in deeds::late(world, at, epoch, wanted) {
                push(Happening::Late(epoch, wanted), result);
            }
        }
        // A user wants it to be started, and the Coordinator that was asked dies.
        if world.bounds.late
            && site.todo.is_empty()
            && site.standing.is_home()
            && site.copy == CopyState::Gone
        {
            push(
                Happening::DaemonCrash,
                change(&|next| {
                    next.sites[at].late = Some((site.epoch(), Late::ComeHome));
                    Ok(())
                }),
            );
        }
        if world.bounds.rolls_back == Some(at) {
            match &site.kept {
                Kept::Nothing => push(
                    Happening::Snapshot,
                    change(&|next| {
                        next.sites[at].kept = Kept::Copy(site.standing.clone());
                        Ok(())
                    }),
                ),
                Kept::Copy(copy) if *copy != site.standing => push(
                    Happening::PutBack,
                    change(&|next| {
                        next.put_back(at);
                        Ok(())
                    }),
                ),
                _ => {}
            }
        }
        push(Happening::NestDies, change(&|next| next.settle(at)));
        if may_start(world, at) {
            push(Happening::ServiceStarts, change(&|next| start(next, at)));
        }
        if site.copy != CopyState::Gone {
            push(
                Happening::CopyDies,
                change(&|next| {
                    next.kill(at);
                    Ok(())
                }),
            );
            push(
                Happening::MachineCrash,
                change(&|next| {
                    next.kill(at);
                    next.sites[at].todo.clear();
                    next.sites[at].late = None;
                    Ok(())
                }),
            );
        }
    }
    all
}

/// Whether a service that is not there is started if somebody wants it: the nest looks into its record and asks nobody,
/// but whoever wants it may be the user, who is asked whether it is at home.
fn may_start(world: &World, at: usize) -> bool {
    let site = &world.sites[at];
    if site.copy != CopyState::Gone {
        return false;
    }
    match (world.bounds.weakness, site.nest) {
        (Some(Weakness::StartWithoutAsking), Some(_)) => true,
        (Some(Weakness::StartBehindTheFence), Some(record)) => record.may_run(),
        (_, Some(record)) => {
            let by_user = site.kept != (Kept::PutBack { fresh: true })
                && site.standing.is_home()
                && site.todo.is_empty()
                && comes_home(world, at, site.epoch()).is_some();
            record.may_start() || by_user
        }
        (_, None) => false,
    }
}

fn start(world: &mut World, at: usize) -> Result<(), String> {
    let site = &world.sites[at];
    let is_asked = site.nest.is_some_and(|record| !record.may_start()) && site.standing.is_home();
    if is_asked && let Some(record) = comes_home(world, at, site.epoch()) {
        world.sites[at].set_nest(record);
        world.deed(at, nest::Deed::Open)?;
    }
    world.deed(at, nest::Deed::Start)
}

/// The record of a nest that is told that the service is at home there in `epoch`; `None` where it does not believe that.
pub(crate) fn comes_home(world: &World, at: usize, epoch: Epoch) -> Option<nest::Record> {
    let record = world.sites[at].nest?;
    if world.bounds.weakness == Some(Weakness::NotTakenHome) {
        return Some(record).filter(nest::Record::may_start);
    }
    let decision = record.decide(epoch, nest::Wish::ComeHome, world.sites[at].seen()).ok()?;
    record.apply(decision.record?).ok()
}

/// What a Coordinator with nothing to do may begin.
fn undertakings(world: &World, at: usize) -> Vec<(Happening, Vec<Todo>)> {
    let site = &world.sites[at];
    let standing = &site.standing;
    let epoch = site.epoch();
    let mut all = Vec::new();
    if let Some(todo) = overtaken(world, at) {
        return vec![(Happening::Tick, todo)];
    }
    // A Coordinator that comes back asks the other site before it does anything, and it is answered.
    if site.kept == (Kept::PutBack { fresh: true }) {
        let answer = world.sites[1 - at].standing.answer(epoch);
        let asks = standing.asks_on_return() && world.bounds.weakness != Some(Weakness::PeerUnasked);
        let other = asks.then_some(answer);
        return vec![(Happening::Tick, acts(world, at, standing.recover(world.facts(at, other))))];
    }
    // Nor does it hear anybody before it has refused what it finds under way; what it had asked for may still come.
    let is_under_way = matches!(
        standing.role(),
        Role::Destination(half)
            if matches!(half.stage(), destination::Stage::Reserved { .. } | destination::Stage::Restoring { .. })
    );
    if site.late.is_some() && is_under_way {
        return vec![(Happening::Tick, acts(world, at, standing.recover(world.facts(at, None))))];
    }
    if standing.is_home() && site.copy == CopyState::Running && epoch < Epoch(world.bounds.epochs) {
        let next = epoch.next();
        let todo = vec![source(source::Step::Started, next), tell(next, Word::Offer)];
        all.push((Happening::StartMigration, todo));
    }
    match standing.role() {
        Role::Source(half) => {
            if half.stage() == source::Stage::Preparing && world.said.contains(at, epoch, Word::Accept) {
                let todo = vec![source(source::Step::FreezeBegun, epoch), Todo::Dump];
                all.push((Happening::FreezeAndDump, todo));
            }
        }
        Role::Destination(half) => {
            let is_reserved = matches!(half.stage(), destination::Stage::Reserved { .. });
            if is_reserved && world.dumps.contains(epoch) {
                let todo = vec![
                    destination(destination::Step::RestoreBegun, epoch),
                    Todo::Build,
                    destination(destination::Step::HeldReached, epoch),
                    tell(epoch, Word::State { answer: ums_model::facts::Answer::Held }),
                ];
                all.push((Happening::Restore, todo));
            }
            // It ends with the Coordinator that gave it; where that makes no difference it may as well run out later.
            if !matches!(site.kept, Kept::PutBack { .. }) {
                all.push((Happening::LeaseRunsOut, acts(world, at, half.lease_expired())));
            }
        }
    }
    all.push((Happening::Tick, acts(world, at, standing.recover(world.facts(at, None)))));
    for (about, word) in world.said.to(at) {
        if let Word::State { answer } = word
            && about == epoch
        {
            let actions = standing.recover(world.facts(at, Some(answer)));
            all.push((Happening::Tick, acts(world, at, actions)));
        }
        let actions = standing.receive(world.facts(at, None), about, word, 0);
        all.push((Happening::Hear(about, word), acts(world, at, actions)));
    }
    all.retain(|(_, todo)| !todo.is_empty());
    all
}

/// What a Coordinator does whose nest has seen a newer epoch than its journal.
fn overtaken(world: &World, at: usize) -> Option<Vec<Todo>> {
    let site = &world.sites[at];
    let seen = site.nest.filter(|_| world.bounds.weakness != Some(Weakness::NestUnasked))?.epoch();
    let records = (seen > site.epoch()).then(|| site.standing.overtaken(seen))?;
    let writes = records.unwrap_or_default().into_iter().map(|record| Todo::Act(Action::Write { record }));
    Some(writes.chain([Todo::Act(Action::Freeze)]).collect())
}

/// What the rules want, without what would change nothing.
pub(crate) fn acts(world: &World, at: usize, actions: Vec<Action>) -> Vec<Todo> {
    let site = &world.sites[at];
    let matters = |action: &Action| match action {
        Action::Discard | Action::Release => site.nest.is_some(),
        // Its nest has nothing that it could run.
        Action::Bury => site.nest.is_some(),
        _ => true,
    };
    actions.into_iter().filter(matters).map(Todo::Act).collect()
}

/// Whether the nest here holds something of a source's original that stands still.
pub(crate) fn is_released_by(record: nest::Record, epoch: Epoch) -> bool {
    record.epoch() == epoch && matches!(record.right(), Right::Dumped | Right::Discarded)
}

fn source(step: source::Step, epoch: Epoch) -> Todo {
    Todo::Act(Action::Write { record: Record::Source(step.at(epoch)) })
}

fn destination(step: destination::Step, epoch: Epoch) -> Todo {
    Todo::Act(Action::Write { record: Record::Destination(step.at(epoch)) })
}

fn tell(epoch: Epoch, word: Word) -> Todo {
    Todo::Act(Action::Tell { epoch, word })
}
