//! Keys of paired sites that come and go, and how far this site's own next key has got around.

use std::collections::BTreeMap;

use rusqlite::params;
use ums_model::names::Fingerprint;

use super::{Journal, JournalError};

/// How far another site is with this one's next key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Heard {
    /// It will accept it.
    Noted,
    /// It was spoken to with it, and takes no other one any more.
    Used,
}

impl Heard {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Noted => "noted",
            Self::Used => "used",
        }
    }
}

impl Journal {
    /// The next key of each paired site that has announced one: by that key, the one that holds now.
    pub(crate) async fn next_keys(&self) -> Result<BTreeMap<Fingerprint, Fingerprint>, JournalError> {
        self.pairs("SELECT fingerprint, site FROM next_keys").await
    }

    /// Keys that were replaced: by each of them, the one that holds now.
    pub(crate) async fn former_keys(&self) -> Result<BTreeMap<Fingerprint, Fingerprint>, JournalError> {
        self.pairs("SELECT fingerprint, site FROM former_keys").await
    }

    /// A paired site announces its next key. A later announcement replaces an earlier one.
    pub(crate) async fn note_next_key(
        &self,
        site: Fingerprint,
        next: Fingerprint,
    ) -> Result<(), JournalError> {
        self.write("note a site's next key", move |db| {
            let failed = |source| JournalError::Database { action: "note a site's next key", source };
            let sql = "INSERT OR REPLACE INTO next_keys (site, fingerprint) VALUES (?1, ?2)";
            db.execute(sql, params![site.to_string(), next.to_string()]).map(drop).map_err(failed)
        })
        .await
    }

    /// A paired site has used its next key: in one step it is the one that holds, and the one before means nothing any
    /// more but in what was recorded under it. Safe to repeat.
    pub(crate) async fn adopt_key(&self, site: Fingerprint, next: Fingerprint) -> Result<(), JournalError> {
        self.write("take over a site's next key", move |db| {
            let failed = |source| JournalError::Database { action: "take over a site's next key", source };
            let values = params![site.to_string(), next.to_string()];
            if db
                .execute("DELETE FROM next_keys WHERE site = ?1 AND fingerprint = ?2", values)
                .map_err(failed)?
                == 0
            {
                return Ok(());
            }
            for sql in [
                "UPDATE sites SET fingerprint = ?2 WHERE fingerprint = ?1",
                "UPDATE policies SET site = ?2 WHERE site = ?1",
                "UPDATE invites SET redeemed_by = ?2 WHERE redeemed_by = ?1",
                "UPDATE former_keys SET site = ?2 WHERE site = ?1",
                "INSERT OR REPLACE INTO former_keys (fingerprint, site) VALUES (?1, ?2)",
            ] {
                db.execute(sql, values).map_err(failed)?;
            }
            Ok(())
        })
        .await
    }

    /// Which sites have heard of this site's key `key`, and how.
    pub(crate) async fn heard(&self, key: Fingerprint) -> Result<BTreeMap<Fingerprint, Heard>, JournalError> {
        self.read(move |db| {
            let failed = |source| JournalError::Database { action: "read who knows a key", source };
            let damaged = |why: String| JournalError::Damaged { what: "a key's way", why };
            let sql = "SELECT site, state FROM rotation WHERE fingerprint = ?1";
            let mut statement = db.prepare(sql).map_err(failed)?;
            let mut rows = statement.query([key.to_string()]).map_err(failed)?;
            let mut heard = BTreeMap::new();
            while let Some(row) = rows.next().map_err(failed)? {
                let (site, state): (String, String) =
                    row.get(0).and_then(|site| Ok((site, row.get(1)?))).map_err(failed)?;
                let state = if state == Heard::Used.as_str() { Heard::Used } else { Heard::Noted };
                heard.insert(site.parse().map_err(|error| damaged(format!("{error}")))?, state);
            }
            Ok(heard)
        })
        .await
    }

    /// A site has heard of this site's key `key`.
    pub(crate) async fn has_heard(
        &self,
        key: Fingerprint,
        site: Fingerprint,
        how: Heard,
    ) -> Result<(), JournalError> {
        self.write("note who knows a key", move |db| {
            let failed = |source| JournalError::Database { action: "note who knows a key", source };
            let sql = "INSERT OR REPLACE INTO rotation (fingerprint, site, state) VALUES (?1, ?2, ?3)";
            let values = params![key.to_string(), site.to_string(), how.as_str()];
            db.execute(sql, values).map(drop).map_err(failed)
        })
        .await
    }

    async fn pairs(&self, sql: &'static str) -> Result<BTreeMap<Fingerprint, Fingerprint>, JournalError> {
        self.read(move |db| {
            let failed = |source| JournalError::Database { action: "read the keys of sites", source };
            let damaged = |why: String| JournalError::Damaged { what: "a site's key", why };
            let mut statement = db.prepare(sql).map_err(failed)?;
            let mut rows = statement.query(()).map_err(failed)?;
            let mut keys = BTreeMap::new();
            while let Some(row) = rows.next().map_err(failed)? {
                let (key, site): (String, String) =
                    row.get(0).and_then(|key| Ok((key, row.get(1)?))).map_err(failed)?;
                let parse = |text: String| text.parse().map_err(|error| damaged(format!("{error}")));
                keys.insert(parse(key)?, parse(site)?);
            }
            Ok(keys)
        })
        .await
    }
}
