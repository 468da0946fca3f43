//! Names that people choose: of services, sites, volumes and site mounts.

use std::fmt;
use std::str::FromStr;

use super::{InvalidName, serde_as_text};

/// Longest name, in characters: a DNS label, so that every orchestrator accepts it.
const MAX_CHARS: usize = 63;

const ALLOWED: &str = "1 to 63 characters out of a-z, 0-9 and -, not starting with -";

fn is_label(text: &str) -> bool {
    !text.is_empty()
        && text.len() <= MAX_CHARS
        && !text.starts_with('-')
        && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
}

macro_rules! label {
    ($(#[$meta:meta])* $name:ident, $what:literal) => {
        $(#[$meta])*
        ///
        /// 1 to 63 characters out of `a-z`, `0-9` and `-`, not starting with `-`: safe as a file name, a host name and
        /// an object name in every orchestrator.
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(String);

        impl $name {
            /// Checks `text` and makes a name of it.
            pub fn new(text: impl Into<String>) -> Result<Self, InvalidName> {
                let text = text.into();
                if is_label(&text) { Ok(Self(text)) } else { Err(InvalidName::new($what, &text, ALLOWED)) }
            }

            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }

        impl FromStr for $name {
            type Err = InvalidName;

            fn from_str(text: &str) -> Result<Self, InvalidName> {
                Self::new(text)
            }
        }

        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }

        serde_as_text!($name);
    };
}

label!(
    /// Name of a service, the same at every site.
    ServiceName, "service name"
);
label!(
    /// Name of a site, as its administrator chose it. Trust never rests on it: that is what the
    /// [`Fingerprint`](super::Fingerprint) is for.
    SiteName, "site name"
);
label!(
    /// Name of a volume of a service. A volume travels with its service.
    VolumeName, "volume name"
);
label!(
    /// Name of a site mount: something of the site that does not travel. Each site says for itself what it means.
    MountName, "site mount name"
);
