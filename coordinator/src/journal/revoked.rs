//! Sites that are out: who they were, and which of them still have something to ask.

use rusqlite::params;

use super::sites::read_sites;
use super::{Journal, JournalError, PairedRow};
use crate::clock::unix_ms;

impl Journal {
    /// Revokes a paired site, in one step: it is no paired site any more, what it may do is forgotten, and with none of
    /// the invites that were given out so far anybody comes in.
    pub(crate) async fn revoke(&self, site: PairedRow) -> Result<(), JournalError> {
        self.write("revoke a site", move |db| {
            let failed = |source| JournalError::Database { action: "revoke a site", source };
            let print = site.fingerprint.to_string();
            let addresses = serde_json::to_string(&site.addresses)
                .map_err(|source| JournalError::Encode { what: "addresses", source })?;
            let sql = "INSERT OR REPLACE INTO revoked (fingerprint, name, addresses, revoked_unix_ms)
                       VALUES (?1, ?2, ?3, ?4)";
            db.execute(sql, params![print, site.name.as_str(), addresses, unix_ms() as i64])
                .map_err(failed)?;
            db.execute("DELETE FROM invites WHERE redeemed_by IS NULL OR redeemed_by = ?1", [&print])
                .map_err(failed)?;
            for sql in [
                "DELETE FROM sites WHERE fingerprint = ?1",
                "DELETE FROM policies WHERE site = ?1",
                "DELETE FROM next_keys WHERE site = ?1",
            ] {
                db.execute(sql, [&print]).map_err(failed)?;
            }
            Ok(())
        })
        .await
    }

    /// Revoked sites with which a migration was under way when they were revoked, and that may not have heard of its end:
    /// for as long as it is in the history, they may ask about it. Without an answer they could not give their half up.
    pub(crate) async fn closing(&self) -> Result<Vec<PairedRow>, JournalError> {
        self.read(|db| {
            let sql = "SELECT r.fingerprint, r.name, r.addresses, 0, 0, r.revoked_unix_ms FROM revoked r
                       WHERE EXISTS (SELECT 1 FROM migrations m
                           WHERE (m.peer = r.fingerprint OR m.peer IN
                                  (SELECT f.fingerprint FROM former_keys f WHERE f.site = r.fingerprint))
                               AND (m.ended_unix_ms IS NULL OR m.ended_unix_ms >= r.revoked_unix_ms
                                    OR (m.role = 'source' AND m.told = 0)))";
            read_sites(db, "read the revoked sites", sql)
        })
        .await
    }
}
