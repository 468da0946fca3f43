//! Which image a service stands on.

use serde::{Deserialize, Serialize};

use crate::names::Digest;

/// A stored image: its content, and what people call it.
///
/// Two sites mean the same image exactly if the digests are equal; the name is for people only.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ImageRef {
    /// Digest of the image's manifest in the site's store.
    pub digest: Digest,
    /// What the user called it, for example `redis:7` or a directory.
    pub name: String,
}
