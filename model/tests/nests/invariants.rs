//! What must hold.

use ums_model::facts::{Answer, CopyState};
use ums_model::names::Epoch;
use ums_model::source::{self, Own};
use ums_model::standing::Role;
use ums_model::{action::Action, destination};

use crate::deeds;
use crate::steps::acts;
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
}

/// In every single state: one right, one running copy, that one where the right is, and no nest elsewhere that would
/// start another one if its host came up now.
pub(crate) fn always(world: &World) -> Result<(), String> {
    let has_right = |at: usize| world.sites[at].standing.has_right();
    if has_right(0) && has_right(1) {
        return Err("both sites hold the run-right".into());
    }
    let running = |at: usize| world.sites[at].copy == CopyState::Running;
    if running(0) && running(1) {
        return Err("both copies run".into());
    }
    for at in [0, 1] {
        if running(at) && !has_right(at) {
            return Err(format!("the copy at site {at} runs without the run-right"));
        }
        if let Some(record) = world.sites[at].nest.filter(|record| record.may_start() && !has_right(at)) {
            return Err(format!(
                "the nest at site {at} would start its copy, which has no right: it is {record}"
            ));
        }
    }
    lost_at_both(world)
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

/// What is left when everything in flight is gone: journals, records and copies.
pub(crate) fn bare(mut world: World) -> World {
    world.said.clear();
    for site in &mut world.sites {
        site.todo.clear();
        site.late = None;
    }
    world
}

/// The nests and the daemons come back and so does the link, in a [`bare`] world: if one good copy was left, exactly one
/// runs in the end.
pub(crate) fn after_repair(mut world: World) -> Result<Rest, String> {
    the_past_is_over(&world)?;
    let good = (0..2).any(|at| is_good_copy(&world, at));
    for at in [0, 1] {
        world.settle(at)?;
        always(&world)?;
    }
    for _ in 0..REPAIR_ROUNDS {
        let before = world.sites.clone();
        for at in [0, 1] {
            let answer = world.sites[1 - at].standing.answer(world.sites[at].epoch());
            let actions = world.sites[at].standing.recover(world.facts(at, Some(answer)));
            carry_out(&mut world, at, actions)?;
        }
        let said = world.said;
        world.said.clear();
        for at in [0, 1] {
            for (epoch, word) in said.to(at) {
                let actions = world.sites[at].standing.receive(world.facts(at, None), epoch, word, 0);
                carry_out(&mut world, at, actions)?;
            }
        }
        if world.sites == before {
            return judge(&world, good);
        }
    }
    Err(format!("the repaired sites never come to rest: {} and {}", name(&world, 0), name(&world, 1)))
}

fn carry_out(world: &mut World, at: usize, actions: Vec<Action>) -> Result<(), String> {
    let todo = acts(world, at, actions);
    world.begin(at, todo)?;
    while !world.sites[at].todo.is_empty() {
        // The last of all that can become of it is that nobody dies on the way.
        *world = deeds::next(world, at).pop().ok_or("nothing can become of a list")??;
        always(world)?;
    }
    Ok(())
}

/// Nothing that can be said about an epoch which both sites have left behind leads to more than an answer.
fn the_past_is_over(world: &World) -> Result<(), String> {
    for epoch in (1..world.present().0).map(Epoch) {
        for (at, word) in [0, 1].into_iter().flat_map(|at| crate::said::all().map(move |word| (at, word))) {
            let actions = world.sites[at].standing.receive(world.facts(at, None), epoch, word, 0);
            let answers =
                |action: &Action| matches!(action, Action::Tell { epoch: about, .. } if *about == epoch);
            if !actions.iter().all(answers) {
                return Err(format!(
                    "site {at} does {actions:?} because of {word:?} about {epoch}, which is over"
                ));
            }
        }
    }
    Ok(())
}

fn judge(world: &World, good: bool) -> Result<Rest, String> {
    let running = (0..2).find(|at| world.sites[*at].copy == CopyState::Running);
    let home = (0..2).find(|at| world.sites[*at].standing.is_home());
    let lost = (0..2).find(|at| is_lost_source(world, *at));
    // A freeze that a dead Coordinator has asked for may come when the service is at home again and dead. Then its user
    // has to be asked.
    if let Some(at) = home.filter(|_| !world.bounds.late)
        && !world.sites[at].nest.is_some_and(|record| record.may_run())
    {
        return Err(format!(
            "it is at home at site {at}, whose nest would not start it: {}",
            name(world, at)
        ));
    }
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
    let site = &world.sites[at];
    if site.copy == CopyState::Gone {
        return false;
    }
    let epoch = site.epoch();
    match site.standing.role() {
        Role::Source(half) => {
            use source::Stage;
            let has_claim = !matches!(
                half.stage(),
                Stage::Moved
                    | Stage::Released
                    | Stage::Superseded
                    | Stage::Lost
                    | Stage::Stuck
                    | Stage::Held { own: Own::Dead }
                    | Stage::Committed { own: Own::Dead }
                    | Stage::Refused { own: Own::Dead }
            );
            has_claim && world.sites[1 - at].standing.answer(epoch) != Answer::Running
        }
        Role::Destination(half) => {
            use destination::{Stage, Tree};
            match half.stage() {
                Stage::Held { tree: Tree::Alive } => !world.aborted.contains(epoch),
                Stage::CommitSeen { tree: Tree::Alive }
                | Stage::Granted { tree: Tree::Alive, .. }
                | Stage::Running => true,
                _ => false,
            }
        }
    }
}

fn name(world: &World, at: usize) -> String {
    let site = &world.sites[at];
    let record = site.nest.map_or_else(|| "no nest".to_owned(), |record| format!("nest {record}"));
    format!("{} (copy {}, {record})", site.standing, site.copy)
}
