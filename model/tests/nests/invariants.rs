//! What must hold.

use ums_model::action::Action;
use ums_model::facts::CopyState;
use ums_model::standing::Standing;

use crate::claims::{REPAIR_ROUNDS, Rest, Rested, has_claim, lost_at_both, the_past_is_over};
use crate::deeds;
use crate::steps::{acts, comes_home};
use crate::world::{Kept, World};

/// In every single state: one right, one running copy, that one where the right is, and no nest elsewhere that would
/// start another one if its host came up now.
pub(crate) fn always(world: &World) -> Result<(), String> {
    let has_right = |at: usize| world.sites[at].standing.has_right();
    let running = |at: usize| world.sites[at].copy == CopyState::Running;
    if running(0) && running(1) {
        return Err("both copies run".into());
    }
    // What a journal says that was put back means nothing, until nest or peer have contradicted it.
    if world.is_put_back() {
        return Ok(());
    }
    if has_right(0) && has_right(1) {
        return Err("both sites hold the run-right".into());
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
    lost_at_both(standings(world))
}

fn standings(world: &World) -> [&Standing; 2] {
    world.sites.each_ref().map(|site| &site.standing)
}

/// What is left when everything in flight is gone: journals, records and copies.
pub(crate) fn bare(mut world: World) -> World {
    world.said.clear();
    for site in &mut world.sites {
        site.todo.clear();
        site.late = None;
        if let Kept::Copy(_) = site.kept {
            site.kept = Kept::Nothing;
        }
    }
    world
}

/// The nests and the daemons come back and so does the link, in a [`bare`] world: if one good copy was left, exactly one
/// runs in the end.
pub(crate) fn after_repair(mut world: World) -> Result<Rest, String> {
    let words: Vec<_> = crate::said::all().collect();
    the_past_is_over(world.present(), &words, |at, epoch, word| {
        world.sites[at].standing.receive(world.facts(at, None), epoch, word, 0)
    })?;
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

fn judge(world: &World, good: bool) -> Result<Rest, String> {
    let running = (0..2).find(|at| world.sites[*at].copy == CopyState::Running);
    let standings = standings(world);
    let home = (0..2).find(|at| standings[*at].is_home());
    // A freeze that a dead Coordinator has asked for may have come when the service was at home again and dead; also then it
    // can be started.
    let lets_start = |at: usize| match world.bounds.late {
        true => comes_home(world, at, standings[at].epoch()).is_some_and(|record| record.may_start()),
        false => world.sites[at].nest.is_some_and(|record| record.may_run()),
    };
    if let Some(at) = home
        && !lets_start(at)
    {
        return Err(format!(
            "it is at home at site {at}, whose nest does not let it be started: {}",
            name(world, at)
        ));
    }
    Rested { standings, running, good, original_died: world.original_died }.judge(|at| name(world, at))
}

fn is_good_copy(world: &World, at: usize) -> bool {
    let standings = standings(world);
    let aborted = world.aborted.contains(standings[at].epoch());
    world.sites[at].copy != CopyState::Gone && has_claim(standings[at], standings[1 - at], aborted)
}

fn name(world: &World, at: usize) -> String {
    let site = &world.sites[at];
    let record = site.nest.map_or_else(|| "no nest".to_owned(), |record| format!("nest {record}"));
    format!("{} (copy {}, {record})", site.standing, site.copy)
}
