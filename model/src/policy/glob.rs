//! Patterns of names.

use std::fmt;
use std::str::FromStr;

use crate::names::{InvalidName, serde_as_text};

/// Longest pattern, in characters.
const MAX_CHARS: usize = 100;
const ALLOWED: &str = "1 to 100 characters out of a-z, 0-9, -, * (any characters) and ? (any one character)";

/// A pattern of names: `*` stands for any characters, also for none, and `?` for any one.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Glob(String);

impl Glob {
    /// Checks `text` and makes a pattern of it.
    pub fn new(text: impl Into<String>) -> Result<Self, InvalidName> {
        let text = text.into();
        let known = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'-' | b'*' | b'?');
        if text.is_empty() || text.len() > MAX_CHARS || !text.bytes().all(known) {
            return Err(InvalidName::new("pattern", &text, ALLOWED));
        }
        Ok(Self(text))
    }

    /// The pattern of every name.
    pub fn any() -> Self {
        Self("*".to_owned())
    }

    /// Whether the whole of `name` is what the pattern says. Takes time in proportion to both lengths multiplied at
    /// most, whatever the pattern.
    pub fn matches(&self, name: &str) -> bool {
        let (pattern, name) = (self.0.as_bytes(), name.as_bytes());
        let (mut at, mut read) = (0, 0);
        // Where the last star was, and how much of the name it has taken so far.
        let mut star: Option<(usize, usize)> = None;
        while read < name.len() {
            match pattern.get(at) {
                Some(b'*') => {
                    star = Some((at, read));
                    at += 1;
                }
                Some(byte) if *byte == b'?' || *byte == name[read] => {
                    at += 1;
                    read += 1;
                }
                _ => {
                    let Some((place, taken)) = star else { return false };
                    star = Some((place, taken + 1));
                    at = place + 1;
                    read = taken + 1;
                }
            }
        }
        pattern[at..].iter().all(|byte| *byte == b'*')
    }
}

impl fmt::Display for Glob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl FromStr for Glob {
    type Err = InvalidName;

    fn from_str(text: &str) -> Result<Self, InvalidName> {
        Self::new(text)
    }
}

serde_as_text!(Glob);
