//! What a service may use at most.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::names::{Bytes, InvalidName};

/// Upper limits; `None` means no limit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// Memory of all its processes together.
    #[serde(default)]
    pub memory: Option<Bytes>,
    /// Processor time.
    #[serde(default)]
    pub cpus: Option<MilliCpus>,
}

/// Processor time in thousandths of one CPU: `--cpus 1.5` is 1500. From 1 to 1,000,000 (a thousand CPUs).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "u32", into = "u32")]
pub struct MilliCpus(u32);

const MAX_MILLI: u32 = 1_000_000;
const ALLOWED: &str = "CPUs from 0.001 to 1000 with at most three decimals, for example 1.5";

impl MilliCpus {
    /// Thousandths of a CPU; an error outside of 1 to 1,000,000.
    pub fn new(milli: u32) -> Result<Self, InvalidName> {
        if (1..=MAX_MILLI).contains(&milli) {
            Ok(Self(milli))
        } else {
            Err(InvalidName::new("number of CPUs", &format!("{milli}m"), ALLOWED))
        }
    }

    /// Thousandths of a CPU.
    pub const fn get(self) -> u32 {
        self.0
    }
}

impl TryFrom<u32> for MilliCpus {
    type Error = InvalidName;

    fn try_from(milli: u32) -> Result<Self, InvalidName> {
        Self::new(milli)
    }
}

impl From<MilliCpus> for u32 {
    fn from(cpus: MilliCpus) -> Self {
        cpus.0
    }
}

impl fmt::Display for MilliCpus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (whole, rest) = (self.0 / 1000, self.0 % 1000);
        if rest == 0 {
            return write!(f, "{whole}");
        }
        write!(f, "{whole}.{}", format!("{rest:03}").trim_end_matches('0'))
    }
}

impl FromStr for MilliCpus {
    type Err = InvalidName;

    fn from_str(text: &str) -> Result<Self, InvalidName> {
        parse(text)
            .and_then(|milli| Self::new(milli).ok())
            .ok_or_else(|| InvalidName::new("number of CPUs", text, ALLOWED))
    }
}

fn parse(text: &str) -> Option<u32> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, "0"));
    let digits = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
    if !digits(whole) || !digits(fraction) || fraction.len() > 3 {
        return None;
    }
    let fraction: u32 = format!("{fraction:0<3}").parse().ok()?;
    whole.parse::<u32>().ok()?.checked_mul(1000)?.checked_add(fraction)
}
