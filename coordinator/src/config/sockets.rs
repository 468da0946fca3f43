//! Sockets for users who are not root.

use std::path::PathBuf;

use serde::Deserialize;

use crate::view::TokenRole;

/// A Unix socket of the API that one group of users may open, with one role. The kernel checks who opens it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GroupSocket {
    /// Where it is. Its directory must exist, let the group in, and let nobody write into it but root.
    pub path: PathBuf,
    /// Name or number of the group.
    pub group: String,
    /// What its users may do.
    pub role: TokenRole,
}
