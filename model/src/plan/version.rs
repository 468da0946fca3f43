//! Version numbers as programs print them.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The oldest CRIU that dumps sockets on current kernels.
pub const CRIU_MIN: Version = Version { major: 4, minor: 2, patch: 1 };
/// The oldest runc that knows time namespaces.
pub const RUNC_MIN: Version = Version { major: 1, minor: 2, patch: 0 };

/// Three numbers; whatever follows them (`-rc.1`, `~ds1`, `-amd64`) does not count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Version {
    /// First number.
    pub major: u32,
    /// Second number.
    pub minor: u32,
    /// Third number.
    pub patch: u32,
}

impl Version {
    /// The first version number in `text`, which may be a program's whole output: `Version: 4.2.1`,
    /// `runc version 1.3.6+ds1`, `6.18.0-amd64`. A missing third number is 0; `None` if there are not even two.
    pub fn find(text: &str) -> Option<Self> {
        text.split(|c: char| !c.is_ascii_digit() && c != '.').find_map(Self::parse)
    }

    fn parse(word: &str) -> Option<Self> {
        let mut numbers = word.split('.').map(|part| part.parse::<u32>());
        let (major, minor) = (numbers.next()?.ok()?, numbers.next()?.ok()?);
        let patch = numbers.next().and_then(Result::ok).unwrap_or(0);
        Some(Self { major, minor, patch })
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.major, self.minor, self.patch)
    }
}
