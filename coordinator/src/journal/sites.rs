//! The paired sites, and the invites that lead to them.

use rusqlite::{Connection, OptionalExtension, Row, params};
use ums_model::names::{Fingerprint, SiteName};
use ums_transfer::pairing::{InviteId, Secret};

use super::{Journal, JournalError};
use crate::clock::unix_ms;

/// Who can dial whom, as far as it was found out when the sites were paired.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Direction {
    /// We reached them.
    pub(crate) we_can_dial: bool,
    /// They reached us.
    pub(crate) they_can_dial: bool,
}

/// A paired site.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PairedRow {
    /// By which it is recognised.
    pub(crate) fingerprint: Fingerprint,
    /// What it calls itself; unique among the paired sites.
    pub(crate) name: SiteName,
    /// Where it can be dialed, best first.
    pub(crate) addresses: Vec<String>,
    /// Who can dial whom.
    pub(crate) direction: Direction,
    /// When it was paired; for people.
    pub(crate) paired_unix_ms: u64,
}

/// What came of an attempt to redeem an invite.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Redeemed {
    /// The site is paired.
    Done,
    /// Another site had used the invite.
    Used,
    /// The invite expired, or never was.
    Unknown,
    /// Another paired site has this name.
    NameTaken,
}

impl Journal {
    /// All paired sites, by name.
    pub(crate) async fn sites(&self) -> Result<Vec<PairedRow>, JournalError> {
        self.read(|db| {
            let sql = "SELECT fingerprint, name, addresses, we_can_dial, they_can_dial, paired_unix_ms
                       FROM sites ORDER BY name";
            read_sites(db, "read the paired sites", sql)
        })
        .await
    }

    /// Records a site as paired. `false`, and nothing is recorded: another paired site has this name. A site that is
    /// paired already gets its new name and addresses.
    pub(crate) async fn pair(&self, site: PairedRow) -> Result<bool, JournalError> {
        self.write("record a paired site", move |db| pair(db, &site)).await
    }

    /// Forgets a paired site and withdraws every invite that it used. `false`: it was not paired.
    pub(crate) async fn unpair(&self, fingerprint: Fingerprint) -> Result<bool, JournalError> {
        self.write("forget a paired site", move |db| {
            let failed = |source| JournalError::Database { action: "forget a paired site", source };
            let print = fingerprint.to_string();
            db.execute("DELETE FROM invites WHERE redeemed_by = ?1", [&print]).map_err(failed)?;
            db.execute("DELETE FROM policies WHERE site = ?1", [&print]).map_err(failed)?;
            db.execute("DELETE FROM next_keys WHERE site = ?1", [&print]).map_err(failed)?;
            Ok(db.execute("DELETE FROM sites WHERE fingerprint = ?1", [&print]).map_err(failed)? > 0)
        })
        .await
    }

    /// Remembers an invite. The secret itself is kept, because proofs are made with it; it is worthless once it is
    /// used or expired, and forgotten then.
    pub(crate) async fn invite(
        &self,
        id: InviteId,
        secret: Secret,
        expires_unix_ms: u64,
    ) -> Result<(), JournalError> {
        self.write("remember an invite", move |db| {
            let failed = |source| JournalError::Database { action: "remember an invite", source };
            db.execute("DELETE FROM invites WHERE expires_unix_ms <= ?1", [unix_ms() as i64])
                .map_err(failed)?;
            let sql = "INSERT INTO invites (id, secret, expires_unix_ms) VALUES (?1, ?2, ?3)";
            db.execute(sql, params![id.to_string(), secret.as_bytes(), expires_unix_ms as i64])
                .map_err(failed)?;
            Ok(())
        })
        .await
    }

    /// The secret of an invite that has not expired, redeemed or not.
    pub(crate) async fn invite_secret(&self, id: InviteId) -> Result<Option<Secret>, JournalError> {
        self.read(move |db| {
            let failed = |source| JournalError::Database { action: "look for an invite", source };
            let sql = "SELECT secret FROM invites WHERE id = ?1 AND expires_unix_ms > ?2";
            let secret: Option<[u8; 16]> = db
                .query_row(sql, params![id.to_string(), unix_ms() as i64], |row| row.get(0))
                .optional()
                .map_err(failed)?;
            Ok(secret.map(Secret::from_bytes))
        })
        .await
    }

    /// Redeems an invite and records the site, in one step. Safe to repeat by the same site.
    pub(crate) async fn redeem(&self, id: InviteId, site: PairedRow) -> Result<Redeemed, JournalError> {
        self.write("redeem an invite", move |db| {
            let failed = |source| JournalError::Database { action: "redeem an invite", source };
            let sql = "SELECT redeemed_by FROM invites WHERE id = ?1 AND expires_unix_ms > ?2";
            let found: Option<Option<String>> = db
                .query_row(sql, params![id.to_string(), unix_ms() as i64], |row| row.get(0))
                .optional()
                .map_err(failed)?;
            let print = site.fingerprint.to_string();
            match found {
                None => return Ok(Redeemed::Unknown),
                Some(Some(other)) if other != print => return Ok(Redeemed::Used),
                Some(_) => {}
            }
            if !pair(db, &site)? {
                return Ok(Redeemed::NameTaken);
            }
            db.execute("UPDATE invites SET redeemed_by = ?2 WHERE id = ?1", params![id.to_string(), print])
                .map_err(failed)?;
            Ok(Redeemed::Done)
        })
        .await
    }
}

/// All sites that `sql` selects, with columns as of [`read_site`].
pub(super) fn read_sites(
    db: &Connection,
    action: &'static str,
    sql: &str,
) -> Result<Vec<PairedRow>, JournalError> {
    let failed = |source| JournalError::Database { action, source };
    let mut statement = db.prepare(sql).map_err(failed)?;
    let mut rows = statement.query(()).map_err(failed)?;
    let mut sites = Vec::new();
    while let Some(row) = rows.next().map_err(failed)? {
        sites.push(read_site(row)?);
    }
    Ok(sites)
}

/// One site, from its fingerprint, name, addresses, directions and the time of its pairing, in this order.
fn read_site(row: &Row<'_>) -> Result<PairedRow, JournalError> {
    let failed = |source| JournalError::Database { action: "read a site", source };
    let (fingerprint, name, addresses): (String, String, String) =
        (|| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))().map_err(failed)?;
    let (we_can_dial, they_can_dial, paired): (bool, bool, i64) =
        (|| Ok((row.get(3)?, row.get(4)?, row.get(5)?)))().map_err(failed)?;
    let damaged = |why: String| JournalError::Damaged { what: "a paired site", why };
    Ok(PairedRow {
        fingerprint: fingerprint.parse().map_err(|error| damaged(format!("{error}")))?,
        name: name.parse().map_err(|error| damaged(format!("{error}")))?,
        addresses: serde_json::from_str(&addresses).map_err(|error| damaged(error.to_string()))?,
        direction: Direction { we_can_dial, they_can_dial },
        paired_unix_ms: paired as u64,
    })
}

fn pair(db: &Connection, site: &PairedRow) -> Result<bool, JournalError> {
    let failed = |source| JournalError::Database { action: "record a paired site", source };
    let print = site.fingerprint.to_string();
    let holder: Option<String> = db
        .query_row("SELECT fingerprint FROM sites WHERE name = ?1", [site.name.as_str()], |row| row.get(0))
        .optional()
        .map_err(failed)?;
    if holder.is_some_and(|holder| holder != print) {
        return Ok(false);
    }
    // A site that comes with an invite is who it shows to be, whatever was said about its key before.
    for sql in [
        "DELETE FROM revoked WHERE fingerprint = ?1",
        "DELETE FROM next_keys WHERE fingerprint = ?1",
        "DELETE FROM former_keys WHERE fingerprint = ?1",
    ] {
        db.execute(sql, [&print]).map_err(failed)?;
    }
    let addresses = serde_json::to_string(&site.addresses)
        .map_err(|source| JournalError::Encode { what: "addresses", source })?;
    let sql = "INSERT OR REPLACE INTO sites
               (fingerprint, name, addresses, we_can_dial, they_can_dial, paired_unix_ms)
               VALUES (?1, ?2, ?3, ?4, ?5, ?6)";
    let Direction { we_can_dial, they_can_dial } = site.direction;
    let paired = site.paired_unix_ms as i64;
    db.execute(sql, params![print, site.name.as_str(), addresses, we_can_dial, they_can_dial, paired])
        .map_err(failed)?;
    Ok(true)
}
