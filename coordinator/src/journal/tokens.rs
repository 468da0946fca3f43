//! Tokens with which the API is used from another machine. Only their hashes are kept.

use rusqlite::params;

use super::{Journal, JournalError};
use crate::view::TokenRole;

/// One token, without the token.
#[derive(Debug, Clone)]
pub(crate) struct TokenRow {
    /// What it is called; unique.
    pub(crate) name: String,
    /// What it allows.
    pub(crate) role: TokenRole,
    /// SHA-256 of the token. It has 256 random bits, so it needs no salt and no slow hash.
    pub(crate) hash: [u8; 32],
    /// When it was made; for people.
    pub(crate) created_unix_ms: u64,
    /// When it opens nothing any more, by this site's wall clock. `None`: never.
    pub(crate) expires_unix_ms: Option<u64>,
}

impl Journal {
    /// Remembers a token. `false`, and nothing is remembered: there is one of this name.
    pub(crate) async fn add_token(&self, token: TokenRow) -> Result<bool, JournalError> {
        self.write("remember a token", move |db| {
            let failed = |source| JournalError::Database { action: "remember a token", source };
            let sql = "INSERT OR IGNORE INTO tokens (name, role, hash, created_unix_ms, expires_unix_ms)
                       VALUES (?1, ?2, ?3, ?4, ?5)";
            let (created, expires) =
                (token.created_unix_ms as i64, token.expires_unix_ms.map(|at| at as i64));
            let values = params![token.name, token.role.as_str(), token.hash, created, expires];
            Ok(db.execute(sql, values).map_err(failed)? > 0)
        })
        .await
    }

    /// All tokens, oldest first.
    pub(crate) async fn tokens(&self) -> Result<Vec<TokenRow>, JournalError> {
        self.read(|db| {
            let failed = |source| JournalError::Database { action: "read the tokens", source };
            let sql = "SELECT name, role, hash, created_unix_ms, expires_unix_ms FROM tokens
                       ORDER BY created_unix_ms, name";
            let mut statement = db.prepare_cached(sql).map_err(failed)?;
            let tokens = statement.query_map((), |row| {
                let role: String = row.get(1)?;
                // Whatever is not understood may do less, not more.
                let role = match role.as_str() {
                    "admin" => TokenRole::Admin,
                    "operator" => TokenRole::Operator,
                    _ => TokenRole::Viewer,
                };
                let (created, expires): (i64, Option<i64>) = (row.get(3)?, row.get(4)?);
                let (name, hash) = (row.get(0)?, row.get(2)?);
                let expires_unix_ms = expires.map(|at| at as u64);
                Ok(TokenRow { name, role, hash, created_unix_ms: created as u64, expires_unix_ms })
            });
            tokens.and_then(Iterator::collect).map_err(failed)
        })
        .await
    }

    /// Forgets a token. `false`: there was none.
    pub(crate) async fn remove_token(&self, name: &str) -> Result<bool, JournalError> {
        let name = name.to_owned();
        self.write("forget a token", move |db| {
            let failed = |source| JournalError::Database { action: "forget a token", source };
            Ok(db.execute("DELETE FROM tokens WHERE name = ?1", [&name]).map_err(failed)? > 0)
        })
        .await
    }
}
