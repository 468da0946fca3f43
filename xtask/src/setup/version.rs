//! Versions as programs print them: numbers between dots, compared number by number.

use std::fmt;

/// A version such as `4.2.1`; what follows the numbers (`-rc1`, `+ds1`) is not part of it.
#[derive(Debug, Clone)]
pub(crate) struct Version(Vec<u64>);

impl Version {
    /// A version that is known beforehand.
    pub(crate) fn new(numbers: &[u64]) -> Self {
        Self(numbers.to_vec())
    }

    /// The first version in a program's answer to `--version`: the first word that starts with a number, with or
    /// without a `v` before it, and has a dot.
    pub(crate) fn find(text: &str) -> Option<Self> {
        text.split_whitespace().find_map(Self::parse)
    }

    fn parse(word: &str) -> Option<Self> {
        let word = word.strip_prefix('v').unwrap_or(word);
        let end = word.find(|letter: char| !letter.is_ascii_digit() && letter != '.').unwrap_or(word.len());
        let numbers = word[..end].trim_end_matches('.').split('.').map(|number| number.parse().ok());
        let numbers = numbers.collect::<Option<Vec<u64>>>()?;
        (numbers.len() > 1).then_some(Self(numbers))
    }

    /// Whether this version is `least` or newer; missing numbers count as zero.
    pub(crate) fn at_least(&self, least: &Self) -> bool {
        let length = self.0.len().max(least.0.len());
        let padded = |version: &Self| {
            let mut numbers = version.0.clone();
            numbers.resize(length, 0);
            numbers
        };
        padded(self) >= padded(least)
    }
}

impl fmt::Display for Version {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let numbers: Vec<String> = self.0.iter().map(u64::to_string).collect();
        formatter.write_str(&numbers.join("."))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_found_in_what_programs_print() {
        let found = |text: &str| Version::find(text).map(|version| version.to_string());
        assert_eq!(found("Version: 4.2.1\nGitID: 0").as_deref(), Some("4.2.1"));
        assert_eq!(found("runc version 1.3.6+ds1\nspec: 1.2.1").as_deref(), Some("1.3.6"));
        assert_eq!(found("tool v2.0-rc1").as_deref(), Some("2.0"));
        assert_eq!(found("Version: unknown 7"), None);
    }

    #[test]
    fn numbers_are_compared_as_numbers() {
        let at_least =
            |version: &str, least: &[u64]| Version::find(version).unwrap().at_least(&Version::new(least));
        assert!(at_least("4.2.1", &[4, 2, 1]));
        assert!(at_least("4.10", &[4, 2, 1]));
        assert!(at_least("5.0", &[4, 2, 1]));
        assert!(at_least("4.2.0", &[4, 2]));
        assert!(at_least("4.2", &[4, 2, 0]));
        assert!(!at_least("4.2", &[4, 2, 1]));
        assert!(!at_least("3.17.1", &[4, 2, 1]));
    }
}
