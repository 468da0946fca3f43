//! The sites that this one is paired with, in memory: whom to trust, where to dial.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;
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
    known: Arc<RwLock<Known>>,
    /// One for each site that has, or had, a link to here: cancelled when the site is revoked.
    ends: Arc<Mutex<BTreeMap<Fingerprint, CancellationToken>>>,
    /// Links of each site.
    places: Arc<Mutex<BTreeMap<Fingerprint, Arc<Semaphore>>>>,
}

#[derive(Debug, Default)]
struct Known {
    paired: BTreeMap<Fingerprint, PairedRow>,
    /// Revoked sites that still have something to hear about migrations that were under way.
    closing: BTreeMap<Fingerprint, PairedRow>,
    /// Keys that paired sites have announced: the key that holds now, by the next one.
    next: BTreeMap<Fingerprint, Fingerprint>,
    /// The key that holds now, by one that held before. Such a key is trusted with nothing.
    former: BTreeMap<Fingerprint, Fingerprint>,
}

impl Known {
    /// The key that holds now of the site that has, had or will have this one.
    fn current<'a>(&'a self, key: &'a Fingerprint) -> &'a Fingerprint {
        self.next.get(key).or_else(|| self.former.get(key)).unwrap_or(key)
    }
}

impl Peers {
    /// Reads the journal anew.
    pub(crate) async fn reload(&self, journal: &Journal) -> Result<(), JournalError> {
        let by_key = |sites: Vec<PairedRow>| sites.into_iter().map(|site| (site.fingerprint, site)).collect();
        let known = Known {
            paired: by_key(journal.sites().await?),
            closing: by_key(journal.closing().await?),
            next: journal.next_keys().await?,
            former: journal.former_keys().await?,
        };
        *self.known.write().unwrap_or_else(PoisonError::into_inner) = known;
        Ok(())
    }

    /// Whether whoever has this key may have a link. What may be said on it is another question: see
    /// [`Peers::by_fingerprint`] and [`Peers::party`].
    pub(crate) fn trusts(&self, key: &Fingerprint) -> bool {
        let known = self.read();
        known.paired.contains_key(key) || known.closing.contains_key(key) || known.next.contains_key(key)
    }

    /// The paired site that has, had or will have this key.
    pub(crate) fn by_fingerprint(&self, key: &Fingerprint) -> Option<PairedRow> {
        let known = self.read();
        known.paired.get(known.current(key)).cloned()
    }

    /// The other site of a migration that began under this key: a paired one, or a revoked one for as long as a
    /// migration with it has not ended.
    pub(crate) fn party(&self, key: &Fingerprint) -> Option<PairedRow> {
        let known = self.read();
        let current = known.current(key);
        known.paired.get(current).or_else(|| known.closing.get(current)).cloned()
    }

    /// Whether a site was revoked and something with it has not ended.
    pub(crate) fn is_closing(&self, key: &Fingerprint) -> bool {
        let known = self.read();
        known.closing.contains_key(known.current(key))
    }

    /// Whether both are keys of the same site.
    pub(crate) fn are_one(&self, one: &Fingerprint, other: &Fingerprint) -> bool {
        let known = self.read();
        known.current(one) == known.current(other)
    }

    /// Whether this is, was or will be a key of any site that is or was paired.
    pub(crate) fn is_taken(&self, key: &Fingerprint) -> bool {
        let known = self.read();
        known.paired.contains_key(key)
            || known.closing.contains_key(key)
            || known.next.contains_key(key)
            || known.former.contains_key(key)
    }

    /// The site whose next key this is: its key that holds now.
    pub(crate) fn announced(&self, key: &Fingerprint) -> Option<Fingerprint> {
        self.read().next.get(key).copied()
    }

    /// The key that the paired site with this one has announced.
    pub(crate) fn next_of(&self, key: &Fingerprint) -> Option<Fingerprint> {
        self.read().next.iter().find(|(_, site)| *site == key).map(|(next, _)| *next)
    }

    /// Cancelled when the site with this key is revoked. To be asked for before the site is found to be trusted, or a
    /// revocation in between would be missed.
    pub(crate) fn end_of(&self, key: &Fingerprint) -> CancellationToken {
        let current = *self.read().current(key);
        self.ends.lock().unwrap_or_else(PoisonError::into_inner).entry(current).or_default().clone()
    }

    /// Ends the links of a site that was revoked.
    pub(crate) fn end(&self, key: &Fingerprint) {
        let current = *self.read().current(key);
        let end = self.ends.lock().unwrap_or_else(PoisonError::into_inner).remove(&current);
        if let Some(end) = end {
            end.cancel();
        }
    }

    /// One of `most` places for links of the site with this key; `None` if it has them all.
    pub(crate) fn place(&self, key: &Fingerprint, most: usize) -> Option<OwnedSemaphorePermit> {
        let current = *self.read().current(key);
        let mut places = self.places.lock().unwrap_or_else(PoisonError::into_inner);
        let places = places.entry(current).or_insert_with(|| Arc::new(Semaphore::new(most)));
        Arc::clone(places).try_acquire_owned().ok()
    }

    /// The paired site of this name.
    pub(crate) fn by_name(&self, name: &SiteName) -> Result<PairedRow, WireError> {
        self.read().paired.values().find(|site| site.name == *name).cloned().ok_or_else(|| {
            WireError::new(ErrorCode::UnknownSite, format!("no site named {name} is paired with this one"))
        })
    }

    /// All, by name.
    pub(crate) fn all(&self) -> Vec<PairedRow> {
        let mut all: Vec<_> = self.read().paired.values().cloned().collect();
        all.sort_by(|a, b| a.name.cmp(&b.name));
        all
    }

    fn read(&self) -> std::sync::RwLockReadGuard<'_, Known> {
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
