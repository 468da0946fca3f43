//! What a nest makes of what it is asked for, with everything that may die on the way.

use ums_model::action::Action;
use ums_model::facts::CopyState;
use ums_model::names::Epoch;
use ums_model::nest::{Deed, Fate, Record, Right, Step, Wish};
use ums_model::standing::Role;

use crate::steps::is_released_by;
use crate::world::{Late, Todo, Weakness, World};

/// How far a nest gets.
enum Done {
    /// All of it.
    Well(World),
    /// It refuses, or something is not as it should be: the Coordinator drops its list and asks the rules again.
    Not(World),
    /// The nest, or the Coordinator, dies on the way.
    PartOf(World),
    Wrong(String),
}

/// Everything that can become of the first thing on a site's list.
pub(crate) fn next(world: &World, at: usize) -> Vec<Result<World, String>> {
    let Some((todo, rest)) = world.sites[at].todo.split_first() else { return Vec::new() };
    let done = match todo {
        Todo::Act(action) => act(world, at, world.sites[at].epoch(), *action),
        Todo::Dump => dump(world, at),
        Todo::Build => build(world, at),
    };
    let mut all = Vec::new();
    for done in done {
        match done {
            Done::Well(after) => {
                let mut crashed = after.clone();
                crashed.sites[at].todo.clear();
                all.push(Ok(crashed));
                let mut next = after;
                all.push(next.begin(at, rest.iter().copied()).map(|()| next));
            }
            Done::Not(mut after) | Done::PartOf(mut after) => {
                after.sites[at].todo.clear();
                all.push(Ok(after));
            }
            Done::Wrong(violation) => all.push(Err(violation)),
        }
    }
    all
}

/// What a dead Coordinator has asked for, done now; whoever lives has its own list.
pub(crate) fn late(world: &World, at: usize, epoch: Epoch, wanted: Late) -> Vec<Result<World, String>> {
    let mut world = world.clone();
    world.sites[at].late = None;
    let mut meant = epoch;
    if world.bounds.weakness == Some(Weakness::EpochLowered)
        && let Some(record) = world.sites[at].nest
    {
        meant = epoch.max(record.epoch());
    }
    let done = match wanted {
        Late::Act(action) => act(&world, at, meant, action),
        Late::ComeHome => wish(&world, at, meant, Wish::ComeHome, ANY),
    };
    done.into_iter()
        .map(|done| match done {
            Done::Well(after) | Done::Not(after) | Done::PartOf(after) => Ok(after),
            Done::Wrong(violation) => Err(violation),
        })
        .collect()
}

/// As the embedded site does it.
fn act(world: &World, at: usize, epoch: Epoch, action: Action) -> Vec<Done> {
    let (record, standing) = (world.sites[at].nest, &world.sites[at].standing);
    let is_source = matches!(standing.role(), Role::Source(_));
    let nothing = |fine: bool| match fine {
        true => vec![Done::Well(world.clone())],
        false => vec![Done::Not(world.clone())],
    };
    let Some(record) = record else {
        return nothing(!matches!(action, Action::Thaw | Action::Open));
    };
    match action {
        Action::Bury if world.bounds.weakness == Some(Weakness::BuryWithoutRecord) => {
            nothing(world.sites[at].copy == CopyState::Gone)
        }
        Action::Freeze => wish(world, at, epoch, Wish::Freeze, &[CopyState::Frozen, CopyState::Gone]),
        Action::Bury => wish(world, at, epoch, Wish::Freeze, &[CopyState::Gone]),
        Action::Thaw if is_source => wish(world, at, epoch, Wish::Thaw, ANY),
        Action::Thaw => wish(world, at, epoch, Wish::Resume, ANY),
        Action::Open => wish(world, at, epoch, Wish::Open, ANY),
        Action::Release if is_released_by(record, epoch) => wish(world, at, epoch, Wish::Release, ANY),
        Action::Release => nothing(false),
        Action::Discard => match record.fate(epoch) {
            Fate::Ends => wish(world, at, epoch, Wish::Discard, ANY),
            Fate::IsAnother => nothing(true),
            Fate::MayRun => nothing(false),
        },
        Action::Write { .. } | Action::Tell { .. } | Action::Report { .. } => nothing(true),
    }
}

const ANY: &[CopyState] = CopyState::ALL;

/// A wish of the site: the record, then the deed, then a look at the copy.
fn wish(world: &World, at: usize, epoch: Epoch, wish: Wish, wanted: &[CopyState]) -> Vec<Done> {
    let site = &world.sites[at];
    let Some(record) = site.nest else { return vec![Done::Not(world.clone())] };
    let Ok(decision) = record.decide(epoch, wish, site.seen()) else { return vec![Done::Not(world.clone())] };
    // One that nobody has heard may be ended by a journal that has lost its grant.
    let may_end = world.is_put_back() && record.is_fenced();
    if decision.deed == Deed::End && site.copy == CopyState::Running && !may_end {
        return vec![Done::Wrong(format!("site {at} ends a copy that runs"))];
    }
    let after = match decision.record.map_or(Ok(record), |event| record.apply(event)) {
        Ok(after) => after,
        Err(error) => return vec![Done::Wrong(error.to_string())],
    };
    let mut recorded = world.clone();
    let without_record = world.bounds.weakness == Some(Weakness::ThawWithoutRecord)
        && matches!(decision.deed, Deed::LetRun | Deed::Resume);
    if !without_record {
        recorded.sites[at].set_wished(after, wish);
    }
    let mut done = recorded.clone();
    if let Err(violation) = done.deed(at, decision.deed) {
        return vec![Done::Wrong(violation)];
    }
    let mut all = Vec::new();
    // What opens or ends a copy makes no difference that could be seen between record and deed.
    if done != recorded && !matches!(decision.deed, Deed::Open | Deed::End) {
        all.push(Done::PartOf(recorded));
    }
    all.push(if wanted.contains(&done.sites[at].copy) { Done::Well(done) } else { Done::Not(done) });
    all
}

/// Freeze, dump, and send it.
fn dump(world: &World, at: usize) -> Vec<Done> {
    let site = &world.sites[at];
    let epoch = site.epoch();
    let begun = site.nest.filter(|_| site.copy == CopyState::Running).and_then(|record| {
        let decision = record.decide(epoch, Wish::Dump, site.seen()).ok()?;
        record.apply(decision.record?).ok()
    });
    let Some(dumping) = begun else { return vec![Done::Not(world.clone())] };
    let mut began = world.clone();
    began.sites[at].set_nest(dumping);
    let mut froze = began.clone();
    froze.sites[at].copy = CopyState::Frozen;
    let mut complete = froze.clone();
    match dumping.apply(Step::DumpComplete { tasks: 1 }.at(epoch)) {
        Ok(dumped) => complete.sites[at].set_nest(dumped),
        Err(error) => return vec![Done::Wrong(error.to_string())],
    }
    let mut sent = complete.clone();
    sent.dumps.insert(epoch);
    let mut all = vec![Done::PartOf(began), Done::PartOf(froze.clone()), Done::PartOf(complete)];
    if world.bounds.weakness == Some(Weakness::EndBeforeDumped) {
        froze.dumps.insert(epoch);
        all.push(Done::PartOf(froze));
    }
    all.push(Done::Well(sent));
    all
}

/// Restore the dump, into HELD. A nest that dies on the way leaves nothing.
fn build(world: &World, at: usize) -> Vec<Done> {
    let site = &world.sites[at];
    let epoch = site.epoch();
    // What was given up is replaced, as everything that can never run.
    let is_free = |record: Record| record.fate(epoch) == Fate::Ends && record.right() == Right::Discarded;
    if !site.nest.is_none_or(is_free) || site.copy != CopyState::Gone {
        return vec![Done::Not(world.clone())];
    }
    let prepared = Record::prepared(epoch, 1);
    let held = [Step::RestoreBegun, Step::HeldReached { tasks: 1 }]
        .into_iter()
        .try_fold(prepared, |record, step| record.apply(step.at(epoch)));
    match held {
        Ok(held) if held.right() == Right::Held => {
            let mut after = world.clone();
            after.sites[at].set_nest(held);
            after.sites[at].copy = CopyState::Frozen;
            vec![Done::Not(world.clone()), Done::Well(after)]
        }
        Ok(other) => vec![Done::Wrong(format!("a restore ends as {other}"))],
        Err(error) => vec![Done::Wrong(error.to_string())],
    }
}
