//! Breadth-first over all states.

use std::collections::{HashMap, HashSet, VecDeque};
use std::hash::{DefaultHasher, Hash, Hasher};

use crate::invariants::{Rest, after_repair, always, bare};
use crate::steps::{Happening, successors};
use crate::world::World;

/// More states than any sensible bounds have: the search gives up loudly rather than eat the machine.
const MOST_STATES: usize = 20_000_000;

/// What the search came to.
pub(crate) enum Found {
    /// All states were seen and all were well. How many, and how they come to rest when repaired.
    Nothing { states: usize, moved: usize, rolled_back: usize, lost: usize, stuck: usize },
    /// The shortest story that ends badly.
    Violation(String),
}

/// How a state was reached first.
struct Origin {
    parent: usize,
    at: usize,
    happening: Happening,
}

pub(crate) fn explore(start: World) -> Found {
    // States are recognized by their 64-bit hash: among ten million a collision has a chance of about 1 in 400,000,
    // and would hide one state, not invent one.
    let mut seen = HashSet::from([fingerprint(&start)]);
    let mut origins: Vec<Option<Origin>> = vec![None];
    let mut queue = VecDeque::from([(0, start)]);
    // Many states differ only in what is in flight, which a repair forgets.
    let mut repaired: HashMap<u64, Rest> = HashMap::new();
    let (mut moved, mut rolled_back, mut lost, mut stuck) = (0, 0, 0, 0);
    while let Some((index, world)) = queue.pop_front() {
        let rest = always(&world).and_then(|()| {
            let bare = bare(world.clone());
            let key = fingerprint(&bare);
            match repaired.get(&key) {
                Some(rest) => Ok(*rest),
                None => after_repair(bare).inspect(|rest| {
                    repaired.insert(key, *rest);
                }),
            }
        });
        match rest {
            Ok(Rest::Moved) => moved += 1,
            Ok(Rest::RolledBack) => rolled_back += 1,
            Ok(Rest::Lost) => lost += 1,
            Ok(Rest::Stuck) => stuck += 1,
            Err(violation) => return Found::Violation(story(&origins, index, &violation)),
        }
        for next in successors(&world) {
            let origin = Origin { parent: index, at: next.at, happening: next.happening };
            match next.result {
                Ok(state) if seen.insert(fingerprint(&state)) => {
                    queue.push_back((origins.len(), state));
                    origins.push(Some(origin));
                    assert!(origins.len() < MOST_STATES, "too many states");
                }
                Ok(_) => {}
                Err(violation) => {
                    origins.push(Some(origin));
                    return Found::Violation(story(&origins, origins.len() - 1, &violation));
                }
            }
        }
    }
    Found::Nothing { states: origins.len(), moved, rolled_back, lost, stuck }
}

fn fingerprint(world: &World) -> u64 {
    let mut hasher = DefaultHasher::new();
    world.hash(&mut hasher);
    hasher.finish()
}

fn story(origins: &[Option<Origin>], last: usize, violation: &str) -> String {
    let path = std::iter::successors(origins[last].as_ref(), |origin| origins[origin.parent].as_ref());
    let mut lines: Vec<_> =
        path.map(|origin| format!("  site {}: {:?}", origin.at, origin.happening)).collect();
    lines.reverse();
    format!("{}\n=> {violation}", lines.join("\n"))
}
