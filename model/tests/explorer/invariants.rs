//! What must hold.

use ums_model::action::{Action, Word};
use ums_model::destination::{self, Tree};
use ums_model::facts::{Answer, CopyState};
use ums_model::names::Epoch;
use ums_model::source::{self, Own};
use ums_model::standing::Role;

use crate::world::World;

/// Rounds of talking after which a repaired pair of sites must have come to rest.
const REPAIR_ROUNDS: usize = 20;

/// How a repaired world came to rest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Rest {
    /// At the site where it was created, without ever having left.
    RolledBack,
    /// At the site to which the last migration took it.
    Moved,
    /// Both copies are gone and both sites say so.
    Lost,
    /// It waits for an operator, as it should.
    Stuck,
}

/// In every single state: one right, one running copy, and that one where the right is.
pub(crate) fn always(world: &World) -> Result<(), String> {
    let rights = world.sites.iter().filter(|site| site.standing.has_right()).count();
    if rights > 1 {
        return Err("both sites hold the run-right".into());
    }
    let running = |at: usize| world.sites[at].copy == CopyState::Running;
    if running(0) && running(1) {
        return Err("both copies run".into());
    }
    if let Some(at) = (0..2).find(|at| running(*at) && !world.sites[*at].standing.has_right()) {
        return Err(format!("the copy at site {at} runs without the run-right"));
    }
    lost_at_both(world)?;
    the_past_is_over(world)
}

/// A destination says that the service is lost only where the source has said so before.
fn lost_at_both(world: &World) -> Result<(), String> {
    for at in [0, 1] {
        let source = &world.sites[1 - at].standing;
        if is_lost_destination(world, at)
            && !(is_lost_source(world, 1 - at) && source.epoch() == world.sites[at].standing.epoch())
        {
            return Err(format!("site {at} says that it is lost, the source says {source}"));
        }
    }
    Ok(())
}

fn is_lost_source(world: &World, at: usize) -> bool {
    matches!(world.sites[at].standing.role(), Role::Source(half) if half.stage() == source::Stage::Lost)
}

fn is_lost_destination(world: &World, at: usize) -> bool {
    let role = world.sites[at].standing.role();
    matches!(role, Role::Destination(half) if half.stage() == destination::Stage::Lost)
}

/// Nothing that can be said about an epoch which both sites have left behind leads to more than an answer.
fn the_past_is_over(world: &World) -> Result<(), String> {
    let states = Answer::ALL.iter().map(|answer| Word::State { answer: *answer });
    let words: Vec<_> = [Word::Offer, Word::Accept, Word::Abort, Word::Commit, Word::Lost, Word::Query]
        .into_iter()
        .chain(states)
        .collect();
    for epoch in (1..world.present().0).map(Epoch) {
        for (at, word) in [0, 1].into_iter().flat_map(|at| words.iter().map(move |word| (at, *word))) {
            let actions = world.sites[at].standing.receive(world.facts(at, None), epoch, word, 0);
            if !actions
                .iter()
                .all(|action| matches!(action, Action::Tell { epoch: about, .. } if *about == epoch))
            {
                return Err(format!(
                    "site {at} does {actions:?} because of {word:?} about {epoch}, which is over"
                ));
            }
        }
    }
    Ok(())
}

/// What is left when everything in flight is gone: journals and copies.
pub(crate) fn bare(mut world: World) -> World {
    world.said.clear();
    for site in &mut world.sites {
        site.todo.clear();
    }
    world
}

/// Both daemons come back and so does the link, in a [`bare`] world: if one good copy was left, exactly one runs in
/// the end.
pub(crate) fn after_repair(mut world: World) -> Result<Rest, String> {
    let good = (0..2).any(|at| is_good_copy(&world, at));
    for _ in 0..REPAIR_ROUNDS {
        let before = world.sites.clone();
        for at in [0, 1] {
            let epoch = world.sites[at].standing.epoch();
            let answer = world.sites[1 - at].standing.answer(epoch);
            let actions = world.sites[at].standing.recover(world.facts(at, Some(answer)));
            world.plan_to(at, actions);
            finish(&mut world, at)?;
        }
        for (at, epoch, word) in std::mem::take(&mut world.said) {
            let actions = world.sites[at].standing.receive(world.facts(at, None), epoch, word, 0);
            world.plan_to(at, actions);
            finish(&mut world, at)?;
        }
        if world.sites == before {
            return judge(&world, good);
        }
    }
    Err(format!("the repaired sites never come to rest: {} and {}", name(&world, 0), name(&world, 1)))
}

fn finish(world: &mut World, at: usize) -> Result<(), String> {
    while !world.sites[at].todo.is_empty() {
        world.act(at)?;
        always(world)?;
    }
    Ok(())
}

fn judge(world: &World, good: bool) -> Result<Rest, String> {
    let stuck = world.bounds.writes_outside
        && world.sites.iter().any(|site| {
            matches!(site.standing.role(), Role::Destination(d) if d.stage() == destination::Stage::Stuck)
        });
    if stuck {
        return Ok(Rest::Stuck);
    }
    let running = (0..2).find(|at| world.sites[*at].copy == CopyState::Running);
    let home = (0..2).find(|at| world.sites[*at].standing.is_home());
    let lost = (0..2).find(|at| is_lost_source(world, *at));
    match (running, home) {
        (Some(at), Some(home)) if at == home => {}
        // It ended by itself at home; its restart policy takes over.
        (None, Some(_)) if !good => {}
        (None, None) if !good && lost.is_some() => {
            return match lost.filter(|at| is_lost_destination(world, 1 - at)) {
                None => {
                    Err(format!("lost, and only one site says so: {} and {}", name(world, 0), name(world, 1)))
                }
                Some(_) if !world.original_died => Err("lost, though no original ever died".into()),
                Some(_) => Ok(Rest::Lost),
            };
        }
        _ => {
            let rest = format!("{} and {}", name(world, 0), name(world, 1));
            return Err(format!("after repair nobody runs the service, though a good copy was left: {rest}"));
        }
    }
    Ok(if home == Some(0) { Rest::RolledBack } else { Rest::Moved })
}

/// A copy that still has a claim to run: not given up by a decision, not outlived by a later one.
fn is_good_copy(world: &World, at: usize) -> bool {
    if world.sites[at].copy == CopyState::Gone {
        return false;
    }
    let epoch = world.sites[at].standing.epoch();
    match world.sites[at].standing.role() {
        Role::Source(source) => {
            let has_claim = !matches!(
                source.stage(),
                source::Stage::Moved
                    | source::Stage::Released
                    | source::Stage::Superseded
                    | source::Stage::Lost
                    | source::Stage::Stuck
                    | source::Stage::Held { own: Own::Dead }
                    | source::Stage::Committed { own: Own::Dead }
                    | source::Stage::Refused { own: Own::Dead }
            );
            has_claim && world.sites[1 - at].standing.answer(epoch) != Answer::Running
        }
        Role::Destination(destination) => match destination.stage() {
            destination::Stage::Held { tree: Tree::Alive } => !world.aborted.contains(&epoch),
            destination::Stage::CommitSeen { tree: Tree::Alive }
            | destination::Stage::Granted { tree: Tree::Alive, .. }
            | destination::Stage::Running => true,
            _ => false,
        },
    }
}

fn name(world: &World, at: usize) -> String {
    format!("{} (copy {})", world.sites[at].standing, world.sites[at].copy)
}
