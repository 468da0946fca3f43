//! What images are called, and what a user's word for one can mean.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use ums_model::names::Digest;

use super::error::StoreError;

/// Longest name; registries allow 255 for the repository alone, nobody types more.
const LONGEST: usize = 300;

/// Shortest beginning of a digest that is taken for one.
const SHORTEST_PREFIX: usize = 6;

/// An image's identity: the digest of its manifest. The same at every site.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ImageId(pub Digest);

impl fmt::Display for ImageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// An image's name with its tag, `redis:7` or `registry.example/team/web:1.2`. Names move from image to image.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ImageName(String);

impl ImageName {
    /// The name as text, always with a tag.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// `base:tag`, if that is a name.
    pub(super) fn tagged(base: &str, tag: &str) -> Option<Self> {
        format!("{base}:{tag}").parse().ok()
    }
}

impl FromStr for ImageName {
    type Err = StoreError;

    fn from_str(text: &str) -> Result<Self, StoreError> {
        let bad = |reason| Err(StoreError::BadName { name: text.chars().take(LONGEST).collect(), reason });
        let allowed = |c: char| c.is_ascii_alphanumeric() || "._-/:".contains(c);
        if text.is_empty() || text.len() > LONGEST {
            return bad("it must have 1 to 300 characters");
        }
        if !text.chars().all(allowed) {
            return bad("letters, digits and . _ - / : are allowed");
        }
        if text.starts_with("sha256:") {
            return bad("it looks like a digest");
        }
        let (path, tag) = split_tag(text);
        if path.split('/').any(str::is_empty) || tag.is_some_and(|tag| tag.is_empty() || tag.contains('/')) {
            return bad("a part of it is empty");
        }
        Ok(Self(format!("{path}:{}", tag.unwrap_or("latest"))))
    }
}

impl TryFrom<String> for ImageName {
    type Error = StoreError;

    fn try_from(text: String) -> Result<Self, StoreError> {
        text.parse()
    }
}

impl From<ImageName> for String {
    fn from(name: ImageName) -> Self {
        name.0
    }
}

impl fmt::Display for ImageName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

/// A name's repository and tag. The port of a registry is no tag.
fn split_tag(text: &str) -> (&str, Option<&str>) {
    match text.rsplit_once(':') {
        Some((path, tag)) if !tag.contains('/') => (path, Some(tag)),
        _ => (text, None),
    }
}

/// What a user's word for an image can mean, in the order in which to look.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Meant {
    /// One of these names; the first that exists counts.
    Name(Vec<ImageName>),
    Digest(Digest),
    /// The beginning of a digest, in hex.
    Beginning(String),
}

/// Meanings of `reference`.
///
/// Docker leaves `docker.io/library/` and `docker.io/` away when it shows names, Podman adds `localhost/`; people copy
/// what they see.
pub(super) fn meanings(reference: &str) -> Vec<Meant> {
    let mut meanings = Vec::new();
    if let Ok(digest) = reference.parse() {
        meanings.push(Meant::Digest(digest));
    }
    if let Ok(name) = reference.parse::<ImageName>() {
        let mut names = vec![name.clone()];
        for registry in ["docker.io/library/", "docker.io/", "localhost/"] {
            if let Some(short) = name.0.strip_prefix(registry) {
                names.push(ImageName(short.to_owned()));
            }
            names.push(ImageName(format!("{registry}{}", name.0)));
        }
        meanings.push(Meant::Name(names));
    }
    let digits = reference.strip_prefix("sha256:").unwrap_or(reference);
    if (SHORTEST_PREFIX..=64).contains(&digits.len()) && digits.bytes().all(|digit| digit.is_ascii_hexdigit())
    {
        meanings.push(Meant::Beginning(digits.to_ascii_lowercase()));
    }
    meanings
}

/// Whether `reference`, as a user wrote it, and `name`, as an archive has it, mean the same image.
pub(super) fn same(reference: &str, name: &str) -> bool {
    reference == name
        || meanings(reference).iter().any(|meant| match meant {
            Meant::Name(names) => name.parse().is_ok_and(|name| names.contains(&name)),
            _ => false,
        })
}
