//! An amount of bytes that prints and parses as people write it.

use std::fmt;
use std::iter::Sum;
use std::ops::Add;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::InvalidName;

/// An amount of bytes. A plain number on the wire; `1.0 GiB` on the screen; `512m`, `1g`, `1.5GiB` from users, always
/// in powers of 1024.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Bytes(pub u64);

const UNITS: [(&str, u64); 4] = [("KiB", 1 << 10), ("MiB", 1 << 20), ("GiB", 1 << 30), ("TiB", 1 << 40)];
const ALLOWED: &str = "a number of bytes, or one with a unit: 4096, 512k, 512m, 1.5g, 1 GiB";

impl Bytes {
    /// No bytes.
    pub const ZERO: Self = Self(0);

    /// `n` KiB.
    pub const fn kib(n: u64) -> Self {
        Self(n.saturating_mul(1 << 10))
    }

    /// `n` MiB.
    pub const fn mib(n: u64) -> Self {
        Self(n.saturating_mul(1 << 20))
    }

    /// `n` GiB.
    pub const fn gib(n: u64) -> Self {
        Self(n.saturating_mul(1 << 30))
    }

    /// The bare number.
    pub const fn get(self) -> u64 {
        self.0
    }

    /// This amount and `percent` of it on top, rounded up.
    #[must_use]
    pub const fn plus_percent(self, percent: u64) -> Self {
        let extra = (self.0 as u128 * percent as u128).div_ceil(100);
        let sum = self.0 as u128 + extra;
        Self(if sum > u64::MAX as u128 { u64::MAX } else { sum as u64 })
    }
}

/// Saturates: an amount that does not fit is "more than there is", never a small number.
impl Add for Bytes {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self(self.0.saturating_add(other.0))
    }
}

impl Sum for Bytes {
    fn sum<I: Iterator<Item = Self>>(amounts: I) -> Self {
        amounts.fold(Self::ZERO, Add::add)
    }
}

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let unit = UNITS.iter().rev().find(|(_, size)| self.0 >= *size);
        let text = match unit {
            Some((name, size)) => format!("{:.1} {name}", self.0 as f64 / *size as f64),
            None => format!("{} B", self.0),
        };
        f.pad(&text)
    }
}

impl FromStr for Bytes {
    type Err = InvalidName;

    fn from_str(text: &str) -> Result<Self, InvalidName> {
        parse(text).map(Self).ok_or_else(|| InvalidName::new("size", text, ALLOWED))
    }
}

fn parse(text: &str) -> Option<u64> {
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    let size: u64 = match unit.trim_start_matches(' ').to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "k" | "kb" | "kib" => 1 << 10,
        "m" | "mb" | "mib" => 1 << 20,
        "g" | "gb" | "gib" => 1 << 30,
        "t" | "tb" | "tib" => 1 << 40,
        _ => return None,
    };
    let Some((whole, fraction)) = number.split_once('.') else {
        return number.parse::<u64>().ok()?.checked_mul(size);
    };
    // Exact up to nine decimals; half a byte means nothing, so a fraction needs a unit.
    if whole.is_empty() || fraction.is_empty() || fraction.len() > 9 || fraction.contains('.') || size == 1 {
        return None;
    }
    let scale = 10_u128.pow(u32::try_from(fraction.len()).ok()?);
    let part = u128::from(fraction.parse::<u64>().ok()?) * u128::from(size) / scale;
    whole.parse::<u64>().ok()?.checked_mul(size)?.checked_add(u64::try_from(part).ok()?)
}
