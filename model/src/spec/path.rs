//! Paths inside a service.

use std::fmt;
use std::str::FromStr;

use crate::names::{InvalidName, serde_as_text};

/// An absolute path inside a service: no `..`, no `.`, no empty part, no control character, at most 4095 bytes. `/`
/// alone is valid here, but nothing can be mounted on it.
///
/// One site joins such a path to a directory on another site's word, which is why it cannot climb. It may still lead
/// through symbolic links of the image: whoever opens it has to resolve it below the root.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct InnerPath(String);

/// Longest path that Linux takes, without the final NUL.
const MAX_BYTES: usize = 4095;

impl InnerPath {
    /// Checks `text` and makes a path of it. A slash at the end is dropped.
    pub fn new(text: &str) -> Result<Self, InvalidName> {
        let trimmed = if text.len() > 1 { text.strip_suffix('/').unwrap_or(text) } else { text };
        if is_inner_path(trimmed) {
            Ok(Self(trimmed.to_owned()))
        } else {
            Err(InvalidName::new("path inside the service", text, "an absolute path without . and .. parts"))
        }
    }

    /// The path as text, beginning with `/`.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether this is `ancestor` or lies below it.
    pub fn is_within(&self, ancestor: &str) -> bool {
        match self.0.strip_prefix(ancestor) {
            Some(rest) => rest.is_empty() || rest.starts_with('/') || ancestor.ends_with('/'),
            None => false,
        }
    }
}

fn is_inner_path(text: &str) -> bool {
    let Some(parts) = text.strip_prefix('/') else { return false };
    text.len() <= MAX_BYTES
        && !text.chars().any(char::is_control)
        && (parts.is_empty() || parts.split('/').all(|part| !matches!(part, "" | "." | "..")))
}

impl fmt::Display for InnerPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl FromStr for InnerPath {
    type Err = InvalidName;

    fn from_str(text: &str) -> Result<Self, InvalidName> {
        Self::new(text)
    }
}

serde_as_text!(InnerPath);
