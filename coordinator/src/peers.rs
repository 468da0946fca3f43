//! The sites that this one is paired with, in memory: whom to trust, where to dial.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};

use ums_model::error::{ErrorCode, WireError};
use ums_model::names::{Fingerprint, SiteName};
use ums_transfer::Deadlines;
use ums_transfer::identity::Identity;
use ums_transfer::link::{self, Greeting, Link, LinkError, Purpose};

use crate::failure;
use crate::journal::{Journal, JournalError, PairedRow};

/// The paired sites. The journal is the truth, this is its copy: TLS asks in every handshake and cannot wait.
#[derive(Debug, Clone, Default)]
pub(crate) struct Peers {
    known: Arc<RwLock<BTreeMap<Fingerprint, PairedRow>>>,
}

impl Peers {
    /// Reads the journal anew.
    pub(crate) async fn reload(&self, journal: &Journal) -> Result<(), JournalError> {
        let sites = journal.sites().await?;
        *self.known.write().unwrap_or_else(PoisonError::into_inner) =
            sites.into_iter().map(|site| (site.fingerprint, site)).collect();
        Ok(())
    }

    /// Whether the site with this fingerprint is paired.
    pub(crate) fn trusts(&self, fingerprint: &Fingerprint) -> bool {
        self.read().contains_key(fingerprint)
    }

    /// The paired site with this fingerprint.
    pub(crate) fn by_fingerprint(&self, fingerprint: &Fingerprint) -> Option<PairedRow> {
        self.read().get(fingerprint).cloned()
    }

    /// The paired site of this name.
    pub(crate) fn by_name(&self, name: &SiteName) -> Result<PairedRow, WireError> {
        self.read().values().find(|site| site.name == *name).cloned().ok_or_else(|| {
            WireError::new(ErrorCode::UnknownSite, format!("no site named {name} is paired with this one"))
        })
    }

    /// Whether both are keys of the same site.
    pub(crate) fn are_one(&self, one: &Fingerprint, other: &Fingerprint) -> bool {
        one == other
    }

    /// All, by name.
    pub(crate) fn all(&self) -> Vec<PairedRow> {
        let mut all: Vec<_> = self.read().values().cloned().collect();
        all.sort_by(|a, b| a.name.cmp(&b.name));
        all
    }

    fn read(&self) -> std::sync::RwLockReadGuard<'_, BTreeMap<Fingerprint, PairedRow>> {
        self.known.read().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Dials `site` at its addresses, best first. `Ok`: the site there has the identity that was paired. `Err` is what the
/// most telling attempt said: a wrong identity says more than an address that does not answer. Safe to repeat.
pub(crate) async fn dial(
    site: &PairedRow,
    purpose: Purpose,
    identity: &Identity,
    greeting: &Greeting,
    deadlines: &Deadlines,
) -> Result<Link, WireError> {
    let mut failure: Option<WireError> = None;
    for address in &site.addresses {
        match link::connect(address, identity, site.fingerprint, purpose, greeting, deadlines).await {
            Ok(link) => return Ok(link),
            Err(error) => {
                let error: &LinkError = &error;
                let error = failure::no_link(&site.name, error);
                let keep = failure.as_ref().is_some_and(|kept| kept.code != ErrorCode::Unreachable);
                if !keep {
                    failure = Some(error);
                }
            }
        }
    }
    Err(failure.unwrap_or_else(|| {
        let message = format!("no address of site {} is known", site.name);
        WireError::new(ErrorCode::Unreachable, message)
            .with_hint("pair again with an address that can be dialed: ums pair invite at the other site")
    }))
}
