//! Numbers that look random and can be computed again: what memory, files, keys and streams must contain.

/// A splitmix64 generator: fast, seedable, and without a pattern that compresses.
#[derive(Debug, Clone)]
pub struct Random(u64);

impl Random {
    /// A generator whose whole output follows from `seed`.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// A generator for one of many things told apart by three numbers.
    pub fn of(seed: u64, thing: u64, generation: u64) -> Self {
        let outer = mix(seed ^ mix(thing.wrapping_add(STEP)));
        Self(mix(outer ^ mix(generation.wrapping_mul(STEP).wrapping_add(1))))
    }

    /// The next 64 bits.
    pub fn word(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(STEP);
        mix(self.0)
    }

    /// A number from 0 to `bound - 1`, evenly enough for tests; 0 if `bound` is 0.
    pub fn below(&mut self, bound: u64) -> u64 {
        let wide = u128::from(self.word()) * u128::from(bound);
        u64::try_from(wide >> 64).expect("the upper half of 128 bits")
    }

    /// Fills `bytes` with the next output.
    pub fn fill(&mut self, bytes: &mut [u8]) {
        let (words, rest) = bytes.as_chunks_mut::<8>();
        for word in words {
            *word = self.word().to_le_bytes();
        }
        let last = self.word().to_le_bytes();
        rest.copy_from_slice(&last[..rest.len()]);
    }
}

const STEP: u64 = 0x9e37_79b9_7f4a_7c15;

fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_gives_the_same_bytes_and_another_does_not() {
        let bytes = |seed, thing, generation| {
            let mut bytes = [0; 100];
            Random::of(seed, thing, generation).fill(&mut bytes);
            bytes
        };
        assert_eq!(bytes(1, 2, 3), bytes(1, 2, 3));
        assert_ne!(bytes(1, 2, 3), bytes(1, 3, 2));
        assert_ne!(bytes(1, 2, 3), bytes(2, 2, 3));
        assert_ne!(bytes(1, 2, 3), bytes(1, 2, 4));
    }

    #[test]
    fn below_stays_below_and_reaches_every_number() {
        let mut random = Random::new(1);
        let mut seen = [false; 7];
        for _ in 0..1000 {
            seen[usize::try_from(random.below(7)).unwrap()] = true;
        }
        assert_eq!(seen, [true; 7]);
    }
}
