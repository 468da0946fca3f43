//! How an input becomes another one.

/// Random numbers that are the same everywhere for the same seed (SplitMix64).
#[derive(Debug, Clone)]
pub struct Random(u64);

impl Random {
    /// Begins with a seed.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next number.
    pub fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `bound`; 0 if there is none.
    pub fn below(&mut self, bound: usize) -> usize {
        match bound as u64 {
            0 => 0,
            bound => usize::try_from(self.number() % bound).unwrap_or(0),
        }
    }
}

/// Longest input.
const MAX_LENGTH: usize = 64 << 10;
/// Numbers that stand at borders.
const EDGES: [u64; 12] = [
    0,
    1,
    0x7f,
    0x80,
    0xff,
    0x7fff,
    0xffff,
    0x7fff_ffff,
    0x8000_0000,
    0xffff_ffff,
    0x7fff_ffff_ffff_ffff,
    0xffff_ffff_ffff_ffff,
];

/// Changes an input in one to four places; `corpus` is where foreign pieces come from.
pub fn mutate(input: &[u8], corpus: &[Vec<u8>], random: &mut Random) -> Vec<u8> {
    let mut bytes = input.to_vec();
    for _ in 0..=random.below(4) {
        change(&mut bytes, corpus, random);
    }
    bytes.truncate(MAX_LENGTH);
    bytes
}

fn change(bytes: &mut Vec<u8>, corpus: &[Vec<u8>], random: &mut Random) {
    let at = random.below(bytes.len());
    let length = 1 + random.below((bytes.len() - at).min(32));
    let end = (at + length).min(bytes.len());
    match random.below(10) {
        // A bit, a byte, a number at a border in either order.
        0 => {
            if let Some(byte) = bytes.get_mut(at) {
                *byte ^= 1 << random.below(8);
            }
        }
        1 => {
            if let Some(byte) = bytes.get_mut(at) {
                *byte = random.number().to_le_bytes()[0];
            }
        }
        2 => {
            let width = [1, 2, 4, 8][random.below(4)];
            let edge = EDGES[random.below(EDGES.len())];
            let number = if random.below(2) == 0 { edge.to_le_bytes() } else { edge.to_be_bytes() };
            let number = if random.below(2) == 0 { &number[..width] } else { &number[8 - width..] };
            bytes.iter_mut().skip(at).zip(number).for_each(|(byte, new)| *byte = *new);
        }
        // Less, twice, elsewhere.
        3 => bytes.truncate(at),
        4 => drop(bytes.drain(at..end)),
        5 => {
            let piece = bytes[at..end].to_vec();
            let to = random.below(bytes.len() + 1);
            bytes.splice(to..to, piece);
        }
        6 => {
            let piece = bytes[at..end].to_vec();
            for _ in 0..random.below(64) {
                bytes.splice(at..at, piece.iter().copied());
            }
        }
        // A piece of another input, in place of some or between; the rest of another one.
        7 | 8 => {
            let other = &corpus[random.below(corpus.len())];
            let from = random.below(other.len());
            let piece = &other[from..(from + 1 + random.below(64)).min(other.len())];
            let until = if random.below(2) == 0 { at } else { end };
            bytes.splice(at..until, piece.iter().copied());
        }
        _ => {
            let other = &corpus[random.below(corpus.len())];
            bytes.truncate(at);
            bytes.extend_from_slice(&other[random.below(other.len())..]);
        }
    }
}
