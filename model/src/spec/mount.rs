//! What is mounted into a service beside its own file system.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::InnerPath;
use crate::names::{InvalidName, MountName, VolumeName};

/// A volume: data of the service, kept by the site under a name, travelling with the service.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct VolumeMount {
    /// Its name at every site.
    pub name: VolumeName,
    /// Where the service sees it.
    pub path: InnerPath,
    /// Whether the service may only read it.
    #[serde(default)]
    pub read_only: bool,
}

/// Something of the site (a device directory, a shared disk, a recorder) that is mounted into the service and does
/// **not** travel: after a migration the service sees what the other site has under the same name.
///
/// Each site says in its own configuration which of its directories or files a name means; a site that has no such
/// name cannot take the service.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct SiteMount {
    /// Under which name every site looks it up.
    pub name: MountName,
    /// Where the service sees it.
    pub path: InnerPath,
    /// Whether the service may only read it.
    #[serde(default)]
    pub read_only: bool,
}

const ALLOWED: &str = "NAME:/path or NAME:/path:ro";

/// Splits `NAME:/path[:ro|:rw]` into its parts.
fn split(text: &str) -> Option<(&str, &str, bool)> {
    let (name, rest) = text.split_once(':')?;
    if let Some(path) = rest.strip_suffix(":ro") {
        return Some((name, path, true));
    }
    Some((name, rest.strip_suffix(":rw").unwrap_or(rest), false))
}

macro_rules! parse_and_print {
    ($name:ident, $what:literal) => {
        impl FromStr for $name {
            type Err = InvalidName;

            /// Reads `NAME:/path[:ro]`.
            fn from_str(text: &str) -> Result<Self, InvalidName> {
                let (name, path, read_only) =
                    split(text).ok_or_else(|| InvalidName::new($what, text, ALLOWED))?;
                Ok(Self { name: name.parse()?, path: path.parse()?, read_only })
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                // A path that itself ends like a flag needs the flag spelled out to be read back as it is.
                let path = self.path.as_str();
                let flag = match self.read_only {
                    true => ":ro",
                    false if path.ends_with(":ro") || path.ends_with(":rw") => ":rw",
                    false => "",
                };
                write!(f, "{}:{}{flag}", self.name, self.path)
            }
        }
    };
}

parse_and_print!(VolumeMount, "volume");
parse_and_print!(SiteMount, "site mount");
