//! `--name value` pairs.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt::Display;
use std::str::FromStr;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};

/// The options of one command. Each is taken once; what is left at the end was a mistake.
#[derive(Debug)]
pub(crate) struct Args(RefCell<BTreeMap<String, String>>);

impl Args {
    pub(crate) fn parse(mut words: impl Iterator<Item = String>) -> Result<Self> {
        let mut options = BTreeMap::new();
        while let Some(word) = words.next() {
            let name = word.strip_prefix("--").with_context(|| format!("`{word}` is not an option"))?;
            let value = words.next().with_context(|| format!("`{word}` needs a value"))?;
            options.insert(name.to_owned(), value);
        }
        Ok(Self(RefCell::new(options)))
    }

    pub(crate) fn optional<T: FromStr<Err: Display>>(&self, name: &str) -> Result<Option<T>> {
        let Some(text) = self.0.borrow_mut().remove(name) else { return Ok(None) };
        text.parse().map(Some).map_err(|error| anyhow!("--{name} {text}: {error}"))
    }

    pub(crate) fn required<T: FromStr<Err: Display>>(&self, name: &str) -> Result<T> {
        self.optional(name)?.with_context(|| format!("--{name} is needed"))
    }

    pub(crate) fn or<T: FromStr<Err: Display>>(&self, name: &str, default: T) -> Result<T> {
        Ok(self.optional(name)?.unwrap_or(default))
    }

    pub(crate) fn millis(&self, name: &str, default: u64) -> Result<Duration> {
        Ok(Duration::from_millis(self.or(name, default)?))
    }

    /// Fails if an option was given that nobody took.
    pub(crate) fn finish(&self) -> Result<()> {
        match self.0.borrow().keys().next() {
            Some(name) => bail!("unknown option --{name}"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(words: &[&str]) -> Result<Args> {
        Args::parse(words.iter().map(|word| (*word).to_owned()))
    }

    #[test]
    fn options_are_taken_once_and_none_is_overlooked() {
        let args = args(&["--mib", "64", "--typo", "1"]).unwrap();
        assert_eq!(args.required::<u64>("mib").unwrap(), 64);
        assert_eq!(args.or("threads", 3).unwrap(), 3);
        assert!(args.finish().unwrap_err().to_string().contains("typo"));
    }

    #[test]
    fn nonsense_is_told() {
        assert!(args(&["mib"]).is_err());
        assert!(args(&["--mib"]).is_err());
        assert!(args(&["--mib", "many"]).unwrap().required::<u64>("mib").is_err());
    }
}
