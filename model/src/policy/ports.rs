//! Ranges of ports.

use std::fmt;
use std::str::FromStr;

use crate::names::{InvalidName, serde_as_text};

const ALLOWED: &str = "PORT or FIRST-LAST, from 1 to 65535";

/// Ports from the first to the last one, both included. Never empty, never with port 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PortRange {
    first: u16,
    last: u16,
}

impl PortRange {
    /// `None` if `first` is 0 or behind `last`.
    pub const fn new(first: u16, last: u16) -> Option<Self> {
        if first == 0 || first > last { None } else { Some(Self { first, last }) }
    }

    /// Those that no program needs a privilege for.
    pub const fn unprivileged() -> Self {
        Self { first: 1024, last: u16::MAX }
    }

    /// Whether `port` is one of them.
    pub const fn contains(self, port: u16) -> bool {
        self.first <= port && port <= self.last
    }
}

impl fmt::Display for PortRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = if self.first == self.last {
            self.first.to_string()
        } else {
            format!("{}-{}", self.first, self.last)
        };
        f.pad(&text)
    }
}

impl FromStr for PortRange {
    type Err = InvalidName;

    fn from_str(text: &str) -> Result<Self, InvalidName> {
        let read = || {
            let (first, last) = text.split_once('-').unwrap_or((text, text));
            let number = |text: &str| {
                let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
                digits.then(|| text.parse().ok()).flatten()
            };
            Self::new(number(first)?, number(last)?)
        };
        read().ok_or_else(|| InvalidName::new("range of ports", text, ALLOWED))
    }
}

serde_as_text!(PortRange);
