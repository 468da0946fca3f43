//! What was said, and sets of epochs, in few bits.

use ums_model::action::Word;
use ums_model::facts::Answer;
use ums_model::names::Epoch;

/// Epochs that can be told apart: more than any search begins.
const EPOCHS: usize = 8;

/// A set of epochs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub(crate) struct Epochs(u8);

impl Epochs {
    pub(crate) fn insert(&mut self, epoch: Epoch) {
        self.0 |= 1 << index(epoch);
    }

    pub(crate) fn add(&mut self, others: Self) {
        self.0 |= others.0;
    }

    pub(crate) fn contains(self, epoch: Epoch) -> bool {
        self.0 & 1 << index(epoch) != 0
    }

    pub(crate) fn forget_before(&mut self, epoch: Epoch) {
        self.0 &= u8::MAX << index(epoch);
    }
}

/// Everything that was ever said, to whom, about which epoch. Nothing is taken out by hearing it: so it can be heard
/// twice, late, in any order, or never.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub(crate) struct Said([[u32; EPOCHS]; 2]);

impl Said {
    pub(crate) fn insert(&mut self, to: usize, epoch: Epoch, word: Word) {
        self.0[to][index(epoch)] |= 1 << bit(word);
    }

    pub(crate) fn contains(&self, to: usize, epoch: Epoch, word: Word) -> bool {
        self.0[to][index(epoch)] & 1 << bit(word) != 0
    }

    pub(crate) fn forget_before(&mut self, epoch: Epoch) {
        for to in &mut self.0 {
            to[..index(epoch)].fill(0);
        }
    }

    pub(crate) fn clear(&mut self) {
        *self = Self::default();
    }

    pub(crate) fn to(&self, at: usize) -> impl Iterator<Item = (Epoch, Word)> {
        let words = self.0[at];
        (0..EPOCHS).flat_map(move |epoch| {
            all()
                .filter(move |word| words[epoch] & 1 << bit(*word) != 0)
                .map(move |word| (Epoch(epoch as u64), word))
        })
    }
}

fn index(epoch: Epoch) -> usize {
    usize::try_from(epoch.0).ok().filter(|index| *index < EPOCHS).expect("an epoch within the bounds")
}

pub(crate) fn all() -> impl Iterator<Item = Word> {
    let rejects = (0..EPOCHS as u64).map(|epoch| Word::Reject { highest: Epoch(epoch) });
    let states = Answer::ALL.iter().map(|answer| Word::State { answer: *answer });
    [Word::Offer, Word::Accept, Word::Abort, Word::Commit, Word::Lost]
        .into_iter()
        .chain(rejects)
        .chain(states)
}

fn bit(word: Word) -> usize {
    match word {
        Word::Offer => 0,
        Word::Accept => 1,
        Word::Abort => 2,
        Word::Commit => 3,
        Word::Lost => 4,
        Word::Reject { highest } => 5 + index(highest),
        Word::State { answer } => 5 + EPOCHS + answer as usize,
        Word::Query => unreachable!("whoever asks is answered: there is no word for it"),
    }
}
