//! What must hold.

use ums_model::action::Word;
use ums_model::destination;
use ums_model::facts::{Answer, CopyState};
use ums_model::standing::{Role, Standing};

use crate::claims::{REPAIR_ROUNDS, Rest, Rested, has_claim, lost_at_both, the_past_is_over};
use crate::world::World;

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
    lost_at_both(standings(world))?;
    let states = Answer::ALL.iter().map(|answer| Word::State { answer: *answer });
    let words = [Word::Offer, Word::Accept, Word::Abort, Word::Commit, Word::Lost, Word::Query];
    let words: Vec<_> = words.into_iter().chain(states).collect();
    the_past_is_over(world.present(), &words, |at, epoch, word| {
        world.sites[at].standing.receive(world.facts(at, None), epoch, word, 0)
    })
}

fn standings(world: &World) -> [&Standing; 2] {
    world.sites.each_ref().map(|site| &site.standing)
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
    let standings = standings(world);
    let waits = |standing: &Standing| matches!(standing.role(), Role::Destination(half) if half.stage() == destination::Stage::Stuck);
    if world.bounds.writes_outside && standings.into_iter().any(waits) {
        return Ok(Rest::Stuck);
    }
    let running = (0..2).find(|at| world.sites[*at].copy == CopyState::Running);
    Rested { standings, running, good, original_died: world.original_died }.judge(|at| name(world, at))
}

fn is_good_copy(world: &World, at: usize) -> bool {
    let standings = standings(world);
    let aborted = world.aborted.contains(&standings[at].epoch());
    world.sites[at].copy != CopyState::Gone && has_claim(standings[at], standings[1 - at], aborted)
}

fn name(world: &World, at: usize) -> String {
    format!("{} (copy {})", world.sites[at].standing, world.sites[at].copy)
}
