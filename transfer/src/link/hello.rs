//! What is said in the handshake. This part never changes its meaning; see the versioning rule.

use std::fmt;

use serde::{Deserialize, Serialize};
use ums_model::names::{MigrationId, SiteName};

/// A version of what is spoken on a link after the handshake.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Version(pub u16);

impl Version {
    /// From here on a source says `lost`, and a destination answers it.
    pub const LOST: Self = Self(2);
}

/// The versions that this software speaks, oldest first.
pub const VERSIONS: &[Version] = &[Version(1), Version::LOST];

/// Longest name of a software that is shown, in characters: it comes from outside.
const SHOWN_CHARS: usize = 64;

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// How a site introduces itself on its links.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Greeting {
    /// Its name.
    pub site: SiteName,
    /// Its software and release.
    pub software: String,
    /// What it speaks; [`VERSIONS`], unless a test says otherwise.
    pub versions: Vec<Version>,
}

impl Greeting {
    /// This software at the site `site`.
    #[must_use]
    pub fn new(site: SiteName) -> Self {
        Self { site, software: format!("ums {}", env!("CARGO_PKG_VERSION")), versions: VERSIONS.to_vec() }
    }
}

/// What a link is for. The dialing site says it once; it decides who takes the link over at the other side.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Purpose {
    /// Questions and answers between two Coordinators.
    Control,
    /// One migration, from its offer to its release.
    Migration {
        /// Which one. It is bound to the fingerprint at the other end by whoever takes the link over.
        id: MigrationId,
    },
    /// Nothing but whether it is possible.
    Probe,
    /// The dialing site announces its next key.
    Rotate,
    /// A word that this version does not know. Always refused, never sent.
    #[serde(other, skip_serializing)]
    Unknown,
}

/// The first message of the dialing site.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Hello {
    pub(super) versions: Vec<Version>,
    pub(super) software: String,
    pub(super) site: SiteName,
    pub(super) purpose: Purpose,
}

/// The part of a [`Hello`] that every version has.
#[derive(Debug, Deserialize)]
pub(super) struct Offer {
    pub(super) versions: Vec<Version>,
}

/// The answer to it.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "answer", rename_all = "kebab-case")]
pub(super) enum Answer {
    Welcome {
        version: Version,
        software: String,
        site: SiteName,
    },
    NoCommonVersion {
        versions: Vec<Version>,
    },
    UnknownPurpose,
    #[serde(other, skip_serializing)]
    Unknown,
}

impl Hello {
    pub(super) fn new(greeting: &Greeting, purpose: Purpose) -> Self {
        let Greeting { site, software, versions } = greeting.clone();
        Self { versions, software, site, purpose }
    }
}

pub(super) fn highest_common(ours: &[Version], theirs: &[Version]) -> Option<Version> {
    ours.iter().filter(|version| theirs.contains(version)).max().copied()
}

/// What another site says of itself, fit for a terminal.
pub(super) fn printable(text: &str) -> String {
    text.chars().filter(|c| !ums_model::text::is_hidden(*c)).take(SHOWN_CHARS).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn versions(numbers: &[u16]) -> Vec<Version> {
        numbers.iter().copied().map(Version).collect()
    }

    #[test]
    fn the_highest_common_version_is_picked() {
        let pick = |ours: &[u16], theirs: &[u16]| highest_common(&versions(ours), &versions(theirs));
        assert_eq!(pick(&[1, 2, 3], &[4, 2, 1]), Some(Version(2)));
        assert_eq!(pick(&[1], &[2]), None);
        assert_eq!(pick(&[1], &[]), None);
    }

    #[test]
    fn an_unknown_purpose_is_read_as_such() {
        let purpose: Purpose = serde_json::from_str(r#"{"kind":"teleport","where":"up"}"#).unwrap();
        assert_eq!(purpose, Purpose::Unknown);
        let purpose = Purpose::Migration { id: "0198f0a4-0000-7000-8000-000000000001".parse().unwrap() };
        let json = serde_json::to_string(&purpose).unwrap();
        assert_eq!(json, r#"{"kind":"migration","id":"0198f0a4-0000-7000-8000-000000000001"}"#);
        assert_eq!(serde_json::from_str::<Purpose>(&json).unwrap(), purpose);
    }

    #[test]
    fn the_hello_is_what_it_always_was() {
        let hello = Hello::new(&Greeting::new(SiteName::new("edge").unwrap()), Purpose::Probe);
        let json = serde_json::to_value(&hello).unwrap();
        assert_eq!(json["versions"], serde_json::json!([1, 2]));
        assert_eq!(json["purpose"], serde_json::json!({"kind": "probe"}));
        let newer = r#"{"versions":[7],"more":1}"#;
        assert_eq!(serde_json::from_str::<Offer>(newer).unwrap().versions, versions(&[7]));
    }
}
