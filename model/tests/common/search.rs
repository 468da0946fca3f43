//! The search itself, by `stateright`: breadth-first over all states, on all cores, so that a violation comes with its
//! shortest story.

use std::collections::HashMap;
use std::fmt;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Arc, Mutex, PoisonError};

use stateright::{Checker, Model, Property};

use crate::claims::Rest;
use crate::invariants::{after_repair, always, bare};
use crate::steps::{Happening, successors};
use crate::world::{Bounds, World};

/// Threads that search. More than there are cores do no harm.
const THREADS: usize = 2;
/// Parts of the memory of repaired worlds, so that threads seldom wait for each other.
const SHARDS: usize = 64;

/// Two sites that migrate one service, as the checker wants it.
struct Sites {
    bounds: Bounds,
    /// Many states differ only in what is in flight, which a repair forgets.
    repaired: Vec<Mutex<HashMap<u64, Result<Rest, ()>>>>,
}

/// Something that happens, with the world after it.
#[derive(Clone)]
struct Move {
    at: usize,
    happening: Happening,
    after: Arc<World>,
}

impl PartialEq for Move {
    fn eq(&self, other: &Self) -> bool {
        (self.at, &self.after) == (other.at, &other.after)
    }
}

impl fmt::Debug for Move {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "site {}: {:?}", self.at, self.happening)
    }
}

impl Sites {
    fn new(bounds: Bounds) -> Self {
        Self { bounds, repaired: (0..SHARDS).map(|_| Mutex::default()).collect() }
    }

    /// How the world comes to rest when both daemons and the link come back.
    fn rest(&self, world: &World) -> Result<Rest, ()> {
        let bare = bare(world.clone());
        // Recognized by its hash: among ten million a collision has a chance of about 1 in 400,000.
        let mut hasher = DefaultHasher::new();
        bare.hash(&mut hasher);
        let key = hasher.finish();
        let shard = &self.repaired[key as usize % SHARDS];
        if let Some(rest) = shard.lock().unwrap_or_else(PoisonError::into_inner).get(&key) {
            return *rest;
        }
        let rest = after_repair(bare).map_err(|_| ());
        shard.lock().unwrap_or_else(PoisonError::into_inner).insert(key, rest);
        rest
    }
}

impl Model for Sites {
    type State = World;
    type Action = Move;

    fn init_states(&self) -> Vec<World> {
        vec![World::new(self.bounds)]
    }

    fn actions(&self, world: &World, actions: &mut Vec<Move>) {
        // What is broken is told, not continued.
        if world.broken.is_some() {
            return;
        }
        for next in successors(world) {
            let after =
                next.result.unwrap_or_else(|violation| World { broken: Some(violation), ..world.clone() });
            actions.push(Move { at: next.at, happening: next.happening, after: Arc::new(after) });
        }
    }

    fn next_state(&self, _: &World, action: Move) -> Option<World> {
        Some(Arc::unwrap_or_clone(action.after))
    }

    fn properties(&self) -> Vec<Property<Self>> {
        let mut properties = vec![
            Property::<Self>::always(SAFE, |_, world| world.broken.is_none() && always(world).is_ok()),
            Property::<Self>::always(LIVE, |sites, world| {
                world.broken.is_some() || !world.comes_to_rest() || sites.rest(world).is_ok()
            }),
            // A search that never saw these did not search.
            Property::<Self>::sometimes("it moves", |sites, world| sites.rest(world) == Ok(Rest::Moved)),
            Property::<Self>::sometimes("it is rolled back", |sites, world| {
                sites.rest(world) == Ok(Rest::RolledBack)
            }),
            Property::<Self>::sometimes("it is lost, and both say so", |sites, world| {
                sites.rest(world) == Ok(Rest::Lost)
            }),
        ];
        if self.bounds.may_be_stuck() {
            properties.push(Property::<Self>::sometimes("it is stuck", |sites, world| {
                sites.rest(world) == Ok(Rest::Stuck)
            }));
        }
        properties
    }
}

/// In every state: one right, one running copy and that one where the right is, and no word before RUNNING is durable.
const SAFE: &str = "never two, and never without a right";
/// From every state, once everything is repaired.
const LIVE: &str = "exactly one in the end, or both say that there is none";

/// Explores everything that can happen, to the end. Returns how many states there are; panics with the story if one
/// of them is wrong.
pub(crate) fn explore(bounds: Bounds) -> usize {
    let checker = Sites::new(bounds).checker().threads(THREADS).spawn_bfs().join();
    assert!(checker.is_done(), "the search did not come to its end");
    if let Some(story) = story(&checker) {
        panic!("{story}");
    }
    checker.assert_properties();
    println!("{bounds:?}: {} states, {} transitions", checker.unique_state_count(), checker.state_count());
    checker.unique_state_count()
}

/// The shortest story that ends badly; `None` if there is none.
pub(crate) fn counterexample(bounds: Bounds) -> Option<String> {
    let finish = stateright::HasDiscoveries::AnyFailures;
    story(&Sites::new(bounds).checker().threads(THREADS).finish_when(finish).spawn_bfs().join())
}

fn story(checker: &impl Checker<Sites>) -> Option<String> {
    let (property, path) =
        [SAFE, LIVE].into_iter().find_map(|name| Some((name, checker.discovery(name)?)))?;
    let last = path.last_state().clone();
    let why = last.broken.clone().or_else(|| always(&last).err());
    let why = why.or_else(|| after_repair(bare(last)).err()).unwrap_or_default();
    let steps: Vec<String> = path.into_actions().iter().map(|step| format!("  {step:?}")).collect();
    Some(format!("{}\n=> not so: {property}: {why}", steps.join("\n")))
}
