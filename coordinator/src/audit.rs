//! The audit: one record per migration, and one per word of an operator, each chained to the one before it.
//!
//! It is for people who were not there: who gave which service to whom, how it ended, and what it rested on. It is kept
//! in the journal and never pruned. The chain tells whether a record was changed or removed in the middle; whether the
//! newest ones were cut off, or all of it was made anew, tells only a hash that was kept elsewhere.

use std::path::Path;

use serde::{Deserialize, Serialize};
use ums_model::error::{ErrorCode, WireError};
use ums_model::names::{Epoch, Fingerprint, MigrationId, ServiceName, SiteName};
use ums_model::phase::{Approach, Mode, Outcome};
use ums_model::source::Verdict;
use ums_sites::adapter::SiteAdapter;

use crate::core::Core;
use crate::failure;
use crate::journal::{self, Hash, JournalError};
use crate::view::SideView;

/// What a record of the audit is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum AuditKind {
    /// A migration ended.
    Migration,
    /// An operator decided what no rule could.
    Resolve,
}

/// One record of the audit, in the words of the site that keeps it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditEntry {
    /// What happened.
    pub kind: AuditKind,
    /// When it was written down, by this site's wall clock.
    pub at_unix_ms: u64,
    /// Which migration.
    pub migration: MigrationId,
    /// Of which service.
    pub service: ServiceName,
    /// Its epoch.
    pub epoch: Epoch,
    /// Which side this site is.
    pub role: SideView,
    /// What the other site was called.
    pub peer: SiteName,
    /// The other site's identity.
    pub peer_fingerprint: Fingerprint,
    /// On which level it was done.
    pub approach: Approach,
    /// How the state travelled.
    pub mode: Mode,
    /// Whether the service runs without a user namespace of its own, so that its root is root on the host.
    pub without_user_namespace: bool,
    /// When the migration began.
    pub started_unix_ms: u64,
    /// When it ended, if it did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended_unix_ms: Option<u64>,
    /// How it ended, if it did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outcome: Option<Outcome>,
    /// What kind of failure it was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<ErrorCode>,
    /// What an operator said, if one did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verdict: Option<Verdict>,
    /// How many decisions about it the journal has so far.
    pub decisions: u64,
    /// Hash over these decisions, and through their own chain over all that the journal decided before.
    pub decisions_hash: String,
}

/// A record of the audit and its place in the chain.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditRecord {
    /// Its number: they have no gaps.
    pub seq: u64,
    /// Hash over it and all before it, 64 hex digits.
    pub hash: String,
    /// What it says.
    #[serde(flatten)]
    pub entry: AuditEntry,
}

/// What came of walking along the whole chain.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditCheck {
    /// Whether nothing is wrong.
    pub ok: bool,
    /// How many records are in order, from the first on.
    pub records: u64,
    /// Hash of the last of them: keep it elsewhere, and a later check tells whether anything up to here was cut off or
    /// made anew.
    pub head: String,
    /// The first thing that is wrong.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub broken: Option<AuditBroken>,
}

/// Where the audit is broken, and how.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditBroken {
    /// Number of the first record that is not what was written.
    pub seq: u64,
    /// What is wrong with it.
    pub why: String,
}

/// The records behind number `after`, at most `limit`, of the journal at `path`, whose site does not run. Changes
/// nothing.
pub fn list_offline(path: &Path, after: u64, limit: usize) -> Result<Vec<AuditRecord>, WireError> {
    journal::audit_offline(path, |db| journal::audit_list(db, after, limit))
        .map_err(|error| offline(path, &error))
}

/// Walks along the audit of the journal at `path`, whose site does not run. `head` is the hash of a record, from
/// earlier. `Ok` says whether it is whole. Changes nothing.
pub fn check_offline(path: &Path, head: Option<&str>) -> Result<AuditCheck, WireError> {
    let head = head.map(parse).transpose()?;
    journal::audit_offline(path, |db| journal::audit_check(db, head)).map_err(|error| offline(path, &error))
}

pub(crate) async fn list<S: SiteAdapter>(
    core: &Core<S>,
    after: u64,
    limit: usize,
) -> Result<Vec<AuditRecord>, WireError> {
    core.journal.audit(after, limit).await.map_err(|error| failure::journal(&error))
}

pub(crate) async fn check<S: SiteAdapter>(
    core: &Core<S>,
    head: Option<&str>,
) -> Result<AuditCheck, WireError> {
    let head = head.map(parse).transpose()?;
    core.journal.audit_check(head).await.map_err(|error| failure::journal(&error))
}

fn parse(head: &str) -> Result<Hash, WireError> {
    Hash::parse(head).ok_or_else(|| {
        let message = format!("{head:?} is no hash of a record: it has 64 hex digits");
        WireError::new(ErrorCode::BadRequest, message).with_hint("see the hashes: ums audit list")
    })
}

fn offline(path: &Path, error: &JournalError) -> WireError {
    let message = format!("cannot read the audit in {}: {}", path.display(), failure::chain(error));
    WireError::new(ErrorCode::Internal, message)
        .with_hint("if the site runs, ask it, without --journal: ums audit list")
}
