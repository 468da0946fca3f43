//! What is said on a link whose purpose is a new key.

use serde::{Deserialize, Serialize};

use crate::error::WireError;
use crate::names::Fingerprint;

/// One message about a site's next key. The link proves who says it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "kebab-case")]
pub enum KeyMessage {
    /// The dialing site: this will be my key; take both until you see it.
    Next {
        /// The next one.
        fingerprint: Fingerprint,
    },
    /// The other one: it is noted, durably.
    Noted {
        /// The key that was noted.
        fingerprint: Fingerprint,
    },
    /// The other one: it is not.
    Refused {
        /// Why.
        error: WireError,
    },
}
