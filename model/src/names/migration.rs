//! Which migration: its id, and the epoch that orders all migrations of one service.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{InvalidName, serde_as_text};

/// Number of a migration of one service. Epochs only grow; every record, message and run-right carries one.
///
/// A service that never moved is in epoch 0; its first migration has epoch 1.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Epoch(pub u64);

impl Epoch {
    /// The epoch of a service that never moved.
    pub const ZERO: Self = Self(0);

    /// The epoch after this one. The very last one is its own successor, which no state machine accepts as newer.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }
}

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl FromStr for Epoch {
    type Err = InvalidName;

    fn from_str(text: &str) -> Result<Self, InvalidName> {
        text.parse().map(Self).map_err(|_| InvalidName::new("epoch", text, "a whole number from 0 up"))
    }
}

/// Identity of one migration, unique over all sites. The caller makes the [`Uuid`]; this crate has no randomness.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MigrationId(Uuid);

impl MigrationId {
    /// The id made of `uuid`.
    pub const fn new(uuid: Uuid) -> Self {
        Self(uuid)
    }

    /// The uuid inside.
    pub const fn uuid(self) -> Uuid {
        self.0
    }
}

impl From<Uuid> for MigrationId {
    fn from(uuid: Uuid) -> Self {
        Self(uuid)
    }
}

impl fmt::Display for MigrationId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl FromStr for MigrationId {
    type Err = InvalidName;

    fn from_str(text: &str) -> Result<Self, InvalidName> {
        Uuid::try_parse(text)
            .map(Self)
            .map_err(|_| InvalidName::new("migration id", text, "a UUID such as 0198f0a4-...-..."))
    }
}

serde_as_text!(MigrationId);
