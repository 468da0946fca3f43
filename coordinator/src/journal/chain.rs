//! Hash chains: every row carries a hash over itself and over the hash of the row before it, so that a row that was
//! changed, moved or removed is noticed by whoever walks along the chain.
//!
//! The hash has no key. It tells damage, not malice: who may write the file may also compute a whole new chain. Against
//! that helps only a hash that is kept elsewhere.

use std::fmt;

use serde::{Deserialize, Serialize};

/// BLAKE3 over a row and all rows before it; written as 64 hex digits.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Hash(pub(crate) [u8; 32]);

/// The end of a chain: the number of its last row, and that row's hash. Of an empty chain both are zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Head {
    /// Number of the last row.
    pub(crate) seq: u64,
    /// Its hash.
    pub(crate) hash: Hash,
}

impl Hash {
    /// The hash of the row that has number `seq` and consists of `fields`, behind the row whose hash is `self`. `chain`
    /// names the chain: a row of one is none of another.
    pub(crate) fn link(self, chain: &'static str, seq: u64, fields: &[&[u8]]) -> Self {
        let mut hasher = blake3::Hasher::new_derive_key(chain);
        hasher.update(&self.0);
        hasher.update(&seq.to_le_bytes());
        for field in fields {
            // With its length, so that no byte can change sides.
            hasher.update(&(field.len() as u64).to_le_bytes());
            hasher.update(field);
        }
        Self(*hasher.finalize().as_bytes())
    }

    /// Reads what [`fmt::Display`] has written.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        blake3::Hash::from_hex(text).ok().map(|hash| Self(*hash.as_bytes()))
    }
}

impl fmt::Display for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(blake3::Hash::from_bytes(self.0).to_hex().as_str())
    }
}

impl fmt::Debug for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for Hash {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Hash {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text).ok_or_else(|| serde::de::Error::custom(format!("{text:?} is no hash")))
    }
}
