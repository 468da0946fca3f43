//! Names, numbers and digests as types: what is valid is decided here, once, when the value is made.
//!
//! All of them are `Ord`, `Hash`, printable with `Display`, parsed with `FromStr`, and one plain JSON value on the
//! wire. Reading one from the wire checks it like parsing does, so a value of such a type is always a valid one.

mod bytes;
mod digest;
mod label;
mod migration;

use thiserror::Error;

pub use bytes::Bytes;
pub use digest::{Digest, Fingerprint};
pub use label::{MountName, ServiceName, SiteName, VolumeName};
pub use migration::{Epoch, MigrationId};

/// Longest part of a rejected text that an error repeats, in characters: it may come from a stranger.
const QUOTED_CHARS: usize = 80;

/// A text that is not what it should be, with what would have been allowed.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("invalid {what} {given:?}: allowed is {allowed}")]
pub struct InvalidName {
    /// The kind of thing that was expected, for example `service name`.
    pub what: &'static str,
    /// The text that was given, cut after 80 characters.
    pub given: String,
    /// What would have been valid, in words.
    pub allowed: &'static str,
}

impl InvalidName {
    /// An error about `given`, which should have been a `what`.
    pub fn new(what: &'static str, given: &str, allowed: &'static str) -> Self {
        Self { what, given: given.chars().take(QUOTED_CHARS).collect(), allowed }
    }
}

/// `Display`-compatible serde for a type with `FromStr`: one string on the wire, checked when it is read.
macro_rules! serde_as_text {
    ($name:ident) => {
        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}
pub(crate) use serde_as_text;

#[cfg(test)]
mod tests;
