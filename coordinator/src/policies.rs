//! What each paired site may do here: its policy, and what it has here already.
//!
//! The checks themselves are [`ums_model::policy`]'s. This module knows the numbers: which services came from whom, and
//! which migrations are under way with whom. A service counts for the site that it came from for as long as it is here.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{PoisonError, RwLock};

use ums_model::error::{ErrorCode, WireError};
use ums_model::names::{Bytes, Fingerprint, MigrationId, ServiceName};
use ums_model::plan::Blocker;
use ums_model::policy::{Policy, Usage, Wish};
use ums_model::source;
use ums_model::standing::{Role as Half, Standing};
use ums_sites::adapter::SiteAdapter;

use crate::core::Core;
use crate::failure;
use crate::journal::{ArrivalRow, Journal, JournalError, PairedRow, Role};

/// The journal is the truth, this is its copy: who takes a place in it is decided under one lock.
#[derive(Debug, Default)]
pub(crate) struct Policies {
    known: RwLock<Known>,
}

#[derive(Debug, Default)]
struct Known {
    policies: BTreeMap<Fingerprint, Policy>,
    arrivals: BTreeMap<ServiceName, ArrivalRow>,
}

impl Policies {
    /// What the journal says.
    pub(crate) async fn read(journal: &Journal) -> Result<Self, JournalError> {
        let known = Known { policies: journal.policies().await?, arrivals: journal.arrivals().await? };
        Ok(Self { known: RwLock::new(known) })
    }

    /// Reads the policies anew; where services came from is known.
    pub(crate) async fn reload(&self, journal: &Journal) -> Result<(), JournalError> {
        let policies = journal.policies().await?;
        self.known.write().unwrap_or_else(PoisonError::into_inner).policies = policies;
        Ok(())
    }

    /// The policy for a site.
    pub(crate) fn of(&self, site: &Fingerprint) -> Policy {
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        known.policies.get(site).cloned().unwrap_or_default()
    }
}

impl<S: SiteAdapter> Core<S> {
    /// What this site's policy has against a service that wants to come from `peer`. Touches nothing.
    pub(crate) fn against_arrival(&self, peer: &PairedRow, wish: &Wish) -> Vec<Blocker> {
        let known = self.policies.known.read().unwrap_or_else(PoisonError::into_inner);
        let usage = self.usage(&known, peer, &wish.service);
        self.check_arrival(&known, peer, wish, &usage)
    }

    /// What this site's policy has against giving `service` to `peer`.
    pub(crate) fn against_departure(&self, peer: &PairedRow, service: &ServiceName) -> Option<Blocker> {
        self.policies.of(&peer.fingerprint).outgoing(service, &peer.name, &self.config.name)
    }

    /// Takes a place for a service that comes from `peer`; the caller holds its lane. `Ok` with nothing in it: the place
    /// is taken, durably, for as long as the lane is held or the service is here. `Ok` with reasons, and `Err`: none is.
    pub(crate) async fn admit(&self, peer: &PairedRow, wish: &Wish) -> Result<Vec<Blocker>, WireError> {
        let arrival = ArrivalRow { site: peer.fingerprint, memory: wish.memory, disk: wish.disk };
        {
            let mut known = self.policies.known.write().unwrap_or_else(PoisonError::into_inner);
            let usage = self.usage(&known, peer, &wish.service);
            let mut blockers = self.check_arrival(&known, peer, wish, &usage);
            if blockers.is_empty() {
                let policy = known.policies.get(&peer.fingerprint).cloned().unwrap_or_default();
                blockers.extend(policy.busy(&usage, &peer.name, &self.config.name));
            }
            if !blockers.is_empty() {
                return Ok(blockers);
            }
            known.arrivals.insert(wish.service.clone(), arrival.clone());
        }
        self.journal
            .arrive(wish.service.clone(), arrival)
            .await
            .map(|()| Vec::new())
            .map_err(|error| failure::journal(&error))
    }

    /// The service of this name is this site's own from now on, wherever one came from before.
    pub(crate) async fn is_own(&self, service: &ServiceName) -> Result<(), WireError> {
        let came = {
            let known = self.policies.known.read().unwrap_or_else(PoisonError::into_inner);
            known.arrivals.contains_key(service)
        };
        if came {
            let forget = self.journal.forget_arrival(service.clone());
            forget.await.map_err(|error| failure::journal(&error))?;
            self.policies.known.write().unwrap_or_else(PoisonError::into_inner).arrivals.remove(service);
        }
        Ok(())
    }

    /// Sets the policy for a paired site. Holds from the next offer on; what is here stays.
    pub(crate) async fn set_policy(&self, peer: &PairedRow, policy: Policy) -> Result<(), WireError> {
        const ENTRIES: usize = 256;
        let lists =
            [policy.incoming.len(), policy.outgoing.len(), policy.ports.len(), policy.site_mounts.len()];
        if lists.into_iter().any(|length| length > ENTRIES) {
            let message = format!("a list of a policy has at most {ENTRIES} entries");
            return Err(WireError::new(ErrorCode::BadRequest, message));
        }
        let set = self.journal.set_policy(peer.fingerprint, &policy);
        set.await.map_err(|error| failure::journal(&error))?;
        self.policies.reload(&self.journal).await.map_err(|error| failure::journal(&error))?;
        tracing::info!(site = %peer.name, ?policy, "the policy for a site was changed");
        Ok(())
    }

    fn check_arrival(&self, known: &Known, peer: &PairedRow, wish: &Wish, usage: &Usage) -> Vec<Blocker> {
        let mut found = Vec::new();
        if !self.config.incoming {
            let message = format!("site {} takes no services of other sites", self.config.name);
            found.push(
                Blocker::new(ErrorCode::Refused, Some(&self.config.name), message)
                    .with_remedy("set `incoming = true` in its configuration"),
            );
        }
        let policy = known.policies.get(&peer.fingerprint).cloned().unwrap_or_default();
        found.extend(policy.incoming(wish, usage, &peer.name, &self.config.name));
        found
    }

    /// What came from `peer` and is here or on its way, `service` aside.
    fn usage(&self, known: &Known, peer: &PairedRow, service: &ServiceName) -> Usage {
        let mut usage = Usage::default();
        let asked = service;
        let mut under_way = self.arriving_from(peer);
        for (service, arrival) in &known.arrivals {
            if service == asked || !self.peers.are_one(&arrival.site, &peer.fingerprint) {
                continue;
            }
            let Some(desk) = self.desks.find(service) else { continue };
            let holder = desk.holder();
            if holder.is_none() && !is_here(&desk.standing()) {
                continue;
            }
            under_way.extend(holder.and_then(|holder| holder.migration));
            usage.services = usage.services.saturating_add(1);
            usage.memory = [usage.memory, arrival.memory].into_iter().sum::<Bytes>();
            usage.disk = [usage.disk, arrival.disk].into_iter().sum::<Bytes>();
        }
        // The service in question is in no migration but the one that asks.
        let own = self.desks.find(asked).and_then(|desk| desk.holder());
        if let Some(own) = own.and_then(|holder| holder.migration) {
            under_way.remove(&own);
        }
        usage.migrations = u32::try_from(under_way.len()).unwrap_or(u32::MAX);
        usage
    }

    fn arriving_from(&self, peer: &PairedRow) -> BTreeSet<MigrationId> {
        let under_way = self.chronicles.under_way().into_iter();
        let arriving = under_way
            .filter(|row| row.role == Role::Destination && self.peers.are_one(&row.peer, &peer.fingerprint));
        arriving.map(|row| row.id).collect()
    }
}

/// Whether a service takes up anything here.
fn is_here(standing: &Standing) -> bool {
    match standing.role() {
        Half::Destination(half) => !half.is_resting(),
        Half::Source(half) => !matches!(half.stage(), source::Stage::Released | source::Stage::Lost),
    }
}
