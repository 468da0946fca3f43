//! Names of everything a test leaves on the machine: `umst-<pid>-<n>`, where `pid` is the test process.
//!
//! Network namespaces, temporary directories and the environment of started daemons all carry the tag. A later
//! run can therefore tell the leftovers of a killed run (its pid is gone) from the property of a live one.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

/// Every name that the testbed gives to something outside its own process begins with this.
pub const PREFIX: &str = "umst-";

/// Environment variable that marks every process started for a test; its value is a [`Tag`].
pub const MARKER: &str = "UMS_TESTBED";

static NEXT: AtomicU32 = AtomicU32::new(0);

/// One test's name on this machine, unique among all live test processes and within this one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tag(String);

impl Tag {
    /// A fresh tag of this process.
    pub fn fresh() -> Self {
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        Self(format!("{PREFIX}{}-{number}", std::process::id()))
    }

    /// The tag as text, for example `umst-4123-0`.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The temporary directory of this tag; not created by this call.
    pub fn directory(&self) -> PathBuf {
        std::env::temp_dir().join(&self.0)
    }
}

impl fmt::Display for Tag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The pid in a name that a testbed gave, or `None` if the name is not one of ours.
pub fn owner(name: &str) -> Option<u32> {
    name.strip_prefix(PREFIX)?.split('-').next()?.parse().ok()
}

/// The tag at the beginning of a name that a testbed gave: `umst-4123-0` of `umst-4123-0-wire`.
pub fn of(name: &str) -> Option<&str> {
    owner(name)?;
    let number = name[PREFIX.len()..].find('-')? + PREFIX.len() + 1;
    let end = name[number..].find('-').map_or(name.len(), |dash| number + dash);
    name[number..end].parse::<u32>().ok().map(|_| &name[..end])
}

/// Whether `name` is ours and the process that made it is gone.
pub fn is_leftover(name: &str) -> bool {
    owner(name).is_some_and(|pid| !Path::new(&format!("/proc/{pid}")).exists())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn owner_is_read_from_the_name() {
        assert_eq!(owner("umst-4123-0-a"), Some(4123));
        assert_eq!(owner("umst-4123"), Some(4123));
        assert_eq!(owner("umst-x-0"), None);
        assert_eq!(owner("other-4123-0"), None);
        assert_eq!(of("umst-4123-10-wire"), Some("umst-4123-10"));
        assert_eq!(of("umst-4123-10"), Some("umst-4123-10"));
        assert_eq!(of("umst-4123"), None);
        assert_eq!(of("umst-4123-x"), None);
    }

    #[test]
    fn names_of_this_process_are_no_leftovers() {
        let tag = Tag::fresh();
        assert_eq!(owner(tag.as_str()), Some(std::process::id()));
        assert!(!is_leftover(tag.as_str()));
        assert!(!is_leftover("somebody-elses"));
        assert_ne!(Tag::fresh(), tag);
    }
}
