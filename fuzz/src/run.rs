//! Inputs under watch.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind, set_hook, take_hook};
use std::time::Instant;

use anyhow::Result;
use ums_engine::counting::measured;

use crate::corpus;
use crate::mutate::{Random, mutate};
use crate::targets::Target;

/// How often a failing input is made smaller at most.
const MAX_STEPS: usize = 10_000;

/// An input that a decoder does not bear.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// Its bytes.
    pub input: Vec<u8>,
    /// What it does.
    pub what: Harm,
}

/// What an input does to a decoder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Harm {
    /// It panics, with these words.
    Panic(String),
    /// It has it hold so many bytes, of so many that it may.
    Memory(usize, usize),
}

impl fmt::Display for Harm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Panic(words) => write!(f, "it panics: {words}"),
            Self::Memory(held, most) => write!(f, "it holds {held} bytes where {most} are allowed"),
        }
    }
}

/// Gives one input to a decoder: whether it took it.
pub fn one(target: &Target, input: &[u8]) -> Result<bool, Harm> {
    let most = target.floor + target.factor * input.len();
    let (ended, held) = measured(|| catch_unwind(AssertUnwindSafe(|| (target.decode)(input))));
    match ended {
        Err(payload) => {
            let words = payload.downcast_ref::<String>().map(String::as_str);
            let words = words.or_else(|| payload.downcast_ref::<&str>().copied()).unwrap_or("without words");
            Err(Harm::Panic(words.to_owned()))
        }
        Ok(_) if held > most => Err(Harm::Memory(held, most)),
        Ok(taken) => Ok(taken),
    }
}

/// When a run ends.
#[derive(Debug, Clone, Copy)]
pub enum Until {
    /// After so many inputs.
    Count(u64),
    /// At this time.
    Time(Instant),
}

/// Changed inputs that a decoder bore.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tally {
    /// How many.
    pub inputs: u64,
    /// How many of them it took; all others it refused.
    pub taken: u64,
}

/// Gives all kept inputs to a decoder and then changed ones. On `Ok` it bore them all. On `Err` the first that it did
/// not, as small as it could be made.
pub fn many(target: &Target, seed: u64, until: Until) -> Result<Result<Tally, Failure>> {
    let kept: Vec<Vec<u8>> = corpus::kept(target.name)?.into_iter().map(|kept| kept.bytes).collect();
    let hook = take_hook();
    // A panic is a finding, and printed as one.
    set_hook(Box::new(|_| {}));
    let result = all(target, &kept, seed, until);
    set_hook(hook);
    Ok(result)
}

fn all(target: &Target, kept: &[Vec<u8>], seed: u64, until: Until) -> Result<Tally, Failure> {
    let failed = |input: &[u8], what| Err(smaller(target, Failure { input: input.to_vec(), what }));
    for input in kept {
        if let Err(what) = one(target, input) {
            return failed(input, what);
        }
    }
    let mut random = Random::new(seed);
    let mut tally = Tally::default();
    while match until {
        Until::Count(most) => tally.inputs < most,
        Until::Time(end) => Instant::now() < end,
    } {
        let from = &kept[random.below(kept.len())];
        let input = mutate(from, kept, &mut random);
        match one(target, &input) {
            Err(what) => return failed(&input, what),
            Ok(taken) => tally.taken += u64::from(taken),
        }
        tally.inputs += 1;
    }
    Ok(tally)
}

/// Leaves out pieces, large ones first, as long as the input does the same kind of harm.
fn smaller(target: &Target, mut failure: Failure) -> Failure {
    let mut length = failure.input.len() / 2;
    let mut steps = 0;
    while length > 0 {
        let mut at = 0;
        while at + length <= failure.input.len() && steps < MAX_STEPS {
            let mut input = failure.input.clone();
            input.drain(at..at + length);
            steps += 1;
            match one(target, &input) {
                Err(what) if std::mem::discriminant(&what) == std::mem::discriminant(&failure.what) => {
                    failure = Failure { input, what };
                }
                _ => at += length,
            }
        }
        length /= 2;
    }
    failure
}

#[cfg(test)]
mod tests {
    use super::*;

    fn panics(input: &[u8]) -> bool {
        assert!(!input.windows(2).any(|pair| pair == b"\xff{"), "a defect");
        true
    }

    fn holds(input: &[u8]) -> bool {
        let length = input.first().copied().unwrap_or(0);
        vec![1_u8; usize::from(length) << 16].is_empty()
    }

    const fn target(decode: fn(&[u8]) -> bool) -> Target {
        Target { name: "spec", decode, factor: 10, floor: 1 << 20, count: 0 }
    }

    #[test]
    fn a_panic_is_found_and_made_small() {
        let failure = many(&target(panics), 1, Until::Count(2_000_000)).unwrap().unwrap_err();
        assert_eq!(failure.input, b"\xff{");
        assert_eq!(failure.what, Harm::Panic("a defect".to_owned()));
    }

    #[test]
    fn too_much_memory_is_found() {
        let failure = many(&target(holds), 1, Until::Count(1000)).unwrap().unwrap_err();
        assert!(matches!(failure.what, Harm::Memory(held, _) if held > 1 << 20));
        assert!(one(&target(holds), b"\x01").is_ok());
    }

    #[test]
    fn the_same_seed_gives_the_same_inputs() {
        let inputs = |seed| {
            let mut random = Random::new(seed);
            let kept = vec![br#"{"name": "web"}"#.to_vec(), b"another one".to_vec()];
            (0..100).map(|_| mutate(&kept[0], &kept, &mut random)).collect::<Vec<_>>()
        };
        assert_eq!(inputs(7), inputs(7));
        assert_ne!(inputs(7), inputs(8));
    }
}
