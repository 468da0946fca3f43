//! Random numbers that a seed determines (SplitMix64), for the course of a soak.

/// A sequence of numbers. The same seed gives the same sequence, everywhere and always.
#[derive(Debug, Clone)]
pub(super) struct Dice(u64);

impl Dice {
    /// The sequence of this seed.
    pub(super) fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// A sequence of its own for somebody; drawing from it does not move this one.
    pub(super) fn branch(&self, number: u64) -> Self {
        Self(Self(self.0 ^ number.wrapping_mul(0xA24B_AED4_963E_E407)).next())
    }

    /// A number below `limit`, which is small against 2^64.
    ///
    /// # Panics
    /// If `limit` is 0.
    pub(super) fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }

    /// One of `choices`; `None` if there is none.
    pub(super) fn pick<T: Copy>(&mut self, choices: &[T]) -> Option<T> {
        let index = self.below(choices.len().max(1) as u64);
        choices.get(usize::try_from(index).ok()?).copied()
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_determines_everything() {
        let draw = |seed| {
            let mut dice = Dice::new(seed);
            (0..8).map(|_| dice.below(1000)).collect::<Vec<_>>()
        };
        assert_eq!(draw(1), draw(1));
        assert_ne!(draw(1), draw(2));
        assert_ne!(Dice::new(1).branch(1).below(1 << 40), Dice::new(1).branch(2).below(1 << 40));
        assert_eq!(Dice::new(0).next(), 0xE220_A839_7B1D_CDAF, "the published first number of seed 0");
    }

    #[test]
    fn every_choice_comes_and_none_comes_of_nothing() {
        let mut dice = Dice::new(9);
        let drawn: std::collections::BTreeSet<u8> = (0..100).filter_map(|_| dice.pick(&[1, 2, 3])).collect();
        assert_eq!(drawn.len(), 3);
        assert_eq!(dice.pick::<u8>(&[]), None);
    }
}
