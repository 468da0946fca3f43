//! Everything that can happen next.

use std::collections::VecDeque;

use ums_model::action::{Action, Word};
use ums_model::destination::{self, Destination};
use ums_model::facts::{Answer, CopyState};
use ums_model::names::Epoch;
use ums_model::source::{self, Source};
use ums_model::standing::{Record, Role, RunRight, Standing};

use crate::world::{Todo, Weakness, World};

/// What happened, for the story of a violation.
#[derive(Debug, Clone, Copy)]
#[expect(dead_code, reason = "the fields are there to be printed")]
pub(crate) enum Happening {
    Act(Todo),
    StartMigration,
    FreezeAndDump,
    Restore,
    LeaseRunsOut,
    /// A restart, a deadline, an abort by the user, a repetition: the rules are asked without news.
    Tick,
    Hear(Epoch, Word),
    ServiceStartsAgain,
    DaemonCrash,
    MachineCrash,
    CopyDies,
    /// The rule that is not kept.
    Weakness,
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
        let mut push = |happening, result: Result<World, String>| all.push(Next { at, happening, result });
        let with = |change: &dyn Fn(&mut World)| {
            let mut next = world.clone();
            change(&mut next);
            Ok(next)
        };
        let doing = |todo: VecDeque<Todo>| with(&|next| next.sites[at].todo = todo.clone());
        let site = &world.sites[at];
        if let Some(todo) = site.todo.front() {
            let mut next = world.clone();
            let result = next.act(at).map(|()| next);
            push(Happening::Act(*todo), result);
        } else {
            for (happening, todo) in undertakings(world, at) {
                push(happening, doing(todo));
            }
            if site.standing.run_right() == RunRight::Run && site.copy == CopyState::Gone {
                push(Happening::ServiceStartsAgain, with(&|next| next.sites[at].copy = CopyState::Running));
            }
            if let Some(next) = weakened(world, at) {
                push(Happening::Weakness, Ok(next));
            }
        }
        {
            let fail = |daemon: bool, copy: bool| {
                with(&|next| {
                    if daemon {
                        next.sites[at].todo.clear();
                    }
                    if copy {
                        next.kill(at);
                    }
                })
            };
            if !site.todo.is_empty() {
                push(Happening::DaemonCrash, fail(true, false));
            }
            if site.copy != CopyState::Gone {
                push(Happening::CopyDies, fail(false, true));
                if !site.todo.is_empty() {
                    push(Happening::MachineCrash, fail(true, true));
                }
            }
        }
    }
    all
}

/// What a site with nothing to do may begin.
fn undertakings(world: &World, at: usize) -> Vec<(Happening, VecDeque<Todo>)> {
    let site = &world.sites[at];
    let standing = &site.standing;
    let mut all = Vec::new();
    let mut begin = |happening, todo: Vec<Todo>| {
        if !todo.is_empty() {
            all.push((happening, VecDeque::from(todo)));
        }
    };
    let acts = |actions: Vec<Action>| {
        let mut next = world.clone();
        next.plan_to(at, actions);
        Vec::from(std::mem::take(&mut next.sites[at].todo))
    };

    let epoch = standing.epoch();
    if standing.is_home() && site.copy == CopyState::Running && epoch < Epoch(world.bounds.epochs) {
        let offer = Action::Tell { epoch: epoch.next(), word: Word::Offer };
        begin(Happening::StartMigration, vec![source(source::Step::Started, epoch.next()), Todo::Act(offer)]);
    }
    if is_source(standing, source::Stage::Preparing) && world.said.contains(&(at, epoch, Word::Accept)) {
        let freeze = [source(source::Step::FreezeBegun, epoch), Todo::Act(Action::Freeze), Todo::SendDump];
        begin(Happening::FreezeAndDump, freeze.to_vec());
    }
    if let Role::Destination(destination) = standing.role() {
        if matches!(destination.stage(), destination::Stage::Reserved { .. }) && world.dumps.contains(&epoch)
        {
            let restore = [
                destination_step(destination::Step::RestoreBegun, epoch),
                Todo::Build,
                destination_step(destination::Step::HeldReached, epoch),
                tell(epoch, Word::State { answer: Answer::Held }),
            ];
            begin(Happening::Restore, restore.to_vec());
        }
        begin(Happening::LeaseRunsOut, acts(destination.lease_expired()));
    }
    begin(Happening::Tick, acts(standing.recover(world.facts(at, None))));
    for (_, epoch, word) in world.said.iter().filter(|(to, ..)| *to == at) {
        let actions = standing.receive(world.facts(at, None), *epoch, *word, 0);
        begin(Happening::Hear(*epoch, *word), acts(actions));
    }
    all
}

/// The state after the one thing that a weakened rule allows, where it makes a difference.
fn weakened(world: &World, at: usize) -> Option<World> {
    use destination::Step as D;
    use source::Step as S;
    let standing = &world.sites[at].standing;
    let epoch = standing.epoch();
    let is_held = |d: &Destination| d.stage() == destination::Stage::Held { tree: destination::Tree::Alive };
    let todo = match (world.bounds.weakness?, standing.role()) {
        (Weakness::CommitBeforeHeld, Role::Source(s))
            if s.stage() == source::Stage::Frozen && world.sites[at].copy == CopyState::Frozen =>
        {
            vec![source(S::HeldArrived, epoch), source(S::CommitDecided, epoch), tell(epoch, Word::Commit)]
        }
        (Weakness::LeaseAfterHeld, Role::Destination(d)) if is_held(d) => {
            vec![destination_step(D::AbortReceived, epoch), Todo::Act(Action::Discard)]
        }
        (Weakness::ThawAfterCommit, Role::Source(s)) if is_committed(s) => vec![
            source(S::RefusedArrived, epoch),
            source(S::RevokedDecided, epoch),
            Todo::Act(Action::Thaw),
            source(S::Thawed, epoch),
        ],
        (Weakness::RunWithoutCommit, Role::Destination(d)) if is_held(d) => vec![
            destination_step(D::CommitReceived, epoch),
            destination_step(D::GrantWritten, epoch),
            Todo::Act(Action::Thaw),
        ],
        (Weakness::RefuseWithoutProof, Role::Destination(d))
            if matches!(d.stage(), destination::Stage::Granted { tree: destination::Tree::Alive, .. }) =>
        {
            let refused = Word::State { answer: Answer::Refused };
            vec![
                destination_step(D::TreeGone, epoch),
                destination_step(D::RefusedWritten, epoch),
                tell(epoch, refused),
            ]
        }
        (Weakness::ThawBeforeAbort, Role::Source(s)) if s.stage() == source::Stage::Frozen => {
            vec![Todo::Act(Action::Thaw)]
        }
        (Weakness::ThawBeforeGrant, Role::Destination(d)) if is_held(d) => vec![Todo::Act(Action::Thaw)],
        (Weakness::ReleaseAtCommit, Role::Source(s)) if is_committed(s) => vec![Todo::Act(Action::Release)],
        (Weakness::AbortWithoutACopy, Role::Source(s)) if s.stage() == source::Stage::Stuck => {
            vec![tell(epoch, Word::Abort)]
        }
        (Weakness::LostUnasked, Role::Source(s)) if s.stage() == source::Stage::Stuck => {
            vec![tell(epoch, Word::Lost)]
        }
        (Weakness::OpenBeforeRunning, Role::Destination(d))
            if matches!(d.stage(), destination::Stage::Granted { .. })
                && world.sites[at].copy == CopyState::Running =>
        {
            vec![Todo::Act(Action::Open)]
        }
        (Weakness::ForgetTombstone, Role::Destination(d)) if d.is_resting() && epoch > Epoch::ZERO => {
            let mut next = world.clone();
            next.sites[at].standing = Standing::default();
            return Some(next);
        }
        _ => return None,
    };
    let mut next = world.clone();
    next.sites[at].todo = todo.into();
    Some(next)
}

fn is_source(standing: &Standing, stage: source::Stage) -> bool {
    matches!(standing.role(), Role::Source(source) if source.stage() == stage)
}

fn is_committed(source: &Source) -> bool {
    source.stage() == source::Stage::Committed { own: source::Own::Alive }
}

fn source(step: source::Step, epoch: Epoch) -> Todo {
    Todo::Act(Action::Write { record: Record::Source(step.at(epoch)) })
}

fn destination_step(step: destination::Step, epoch: Epoch) -> Todo {
    Todo::Act(Action::Write { record: Record::Destination(step.at(epoch)) })
}

fn tell(epoch: Epoch, word: Word) -> Todo {
    Todo::Act(Action::Tell { epoch, word })
}
