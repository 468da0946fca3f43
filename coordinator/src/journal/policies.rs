//! What each paired site may do here, and what came from it.

use std::collections::BTreeMap;

use rusqlite::params;
use ums_model::names::{Bytes, Fingerprint, ServiceName};
use ums_model::policy::Policy;

use super::{Journal, JournalError};

/// A service that came from another site.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ArrivalRow {
    /// Which site.
    pub(crate) site: Fingerprint,
    /// The memory that it counts with.
    pub(crate) memory: Bytes,
    /// The disk space that it counts with.
    pub(crate) disk: Bytes,
}

impl Journal {
    /// The policies that were set; a site that has none here has the default.
    pub(crate) async fn policies(&self) -> Result<BTreeMap<Fingerprint, Policy>, JournalError> {
        self.read(|db| {
            let failed = |source| JournalError::Database { action: "read the policies", source };
            let damaged = |why: String| JournalError::Damaged { what: "a policy", why };
            let mut statement = db.prepare("SELECT site, policy FROM policies").map_err(failed)?;
            let mut rows = statement.query(()).map_err(failed)?;
            let mut policies = BTreeMap::new();
            while let Some(row) = rows.next().map_err(failed)? {
                let (site, policy): (String, String) =
                    row.get(0).and_then(|site| Ok((site, row.get(1)?))).map_err(failed)?;
                let site = site.parse().map_err(|error| damaged(format!("{error}")))?;
                // One that cannot be read must not become one that allows more.
                policies
                    .insert(site, serde_json::from_str(&policy).map_err(|error| damaged(error.to_string()))?);
            }
            Ok(policies)
        })
        .await
    }

    /// Sets the policy for a site.
    pub(crate) async fn set_policy(&self, site: Fingerprint, policy: &Policy) -> Result<(), JournalError> {
        let json = serde_json::to_string(policy)
            .map_err(|source| JournalError::Encode { what: "a policy", source })?;
        self.write("set a policy", move |db| {
            let failed = |source| JournalError::Database { action: "set a policy", source };
            let sql = "INSERT OR REPLACE INTO policies (site, policy) VALUES (?1, ?2)";
            db.execute(sql, params![site.to_string(), json]).map(drop).map_err(failed)
        })
        .await
    }

    /// The services that came from other sites, also those that have gone since.
    pub(crate) async fn arrivals(&self) -> Result<BTreeMap<ServiceName, ArrivalRow>, JournalError> {
        self.read(|db| {
            let failed = |source| JournalError::Database { action: "read where services came from", source };
            let damaged = |why: String| JournalError::Damaged { what: "the origin of a service", why };
            let sql = "SELECT service, site, memory, disk FROM arrivals";
            let mut statement = db.prepare(sql).map_err(failed)?;
            let mut rows = statement.query(()).map_err(failed)?;
            let mut arrivals = BTreeMap::new();
            while let Some(row) = rows.next().map_err(failed)? {
                let (service, site): (String, String) =
                    row.get(0).and_then(|service| Ok((service, row.get(1)?))).map_err(failed)?;
                let (memory, disk): (i64, i64) =
                    row.get(2).and_then(|memory| Ok((memory, row.get(3)?))).map_err(failed)?;
                let arrival = ArrivalRow {
                    site: site.parse().map_err(|error| damaged(format!("{error}")))?,
                    memory: Bytes(memory as u64),
                    disk: Bytes(disk as u64),
                };
                arrivals.insert(service.parse().map_err(|error| damaged(format!("{error}")))?, arrival);
            }
            Ok(arrivals)
        })
        .await
    }

    /// Notes where a service comes from.
    pub(crate) async fn arrive(&self, service: ServiceName, from: ArrivalRow) -> Result<(), JournalError> {
        self.write("note where a service comes from", move |db| {
            let failed =
                |source| JournalError::Database { action: "note where a service comes from", source };
            let sql = "INSERT OR REPLACE INTO arrivals (service, site, memory, disk) VALUES (?1, ?2, ?3, ?4)";
            let (memory, disk) = (from.memory.get() as i64, from.disk.get() as i64);
            let values = params![service.as_str(), from.site.to_string(), memory, disk];
            db.execute(sql, values).map(drop).map_err(failed)
        })
        .await
    }

    /// Forgets where a service came from: the one of this name is this site's own.
    pub(crate) async fn forget_arrival(&self, service: ServiceName) -> Result<(), JournalError> {
        self.write("forget where a service came from", move |db| {
            let failed =
                |source| JournalError::Database { action: "forget where a service came from", source };
            db.execute("DELETE FROM arrivals WHERE service = ?1", [service.as_str()])
                .map(drop)
                .map_err(failed)
        })
        .await
    }
}
