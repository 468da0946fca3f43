//! `/v1/tokens`

use std::sync::Arc;

use axum::extract::{Path, State};
use axum::http::StatusCode;
use ums_model::error::{ErrorCode, WireError};
use ums_sites::adapter::SiteAdapter;

use super::auth::new_token;
use super::extract::{Answer, Body, Failure, json};
use crate::clock::unix_ms;
use crate::core::Core;
use crate::failure;
use crate::journal::TokenRow;
use crate::view::{CreateToken, TokenCreated, TokenRole, TokenView};

/// Longest name of a token, in characters.
const NAME: usize = 100;
/// The last moment that the journal can hold.
const NEVER: u64 = i64::MAX as u64;

pub(super) async fn list<S: SiteAdapter>(State(core): State<Arc<Core<S>>>) -> Answer<Vec<TokenView>> {
    let tokens = core.journal.tokens().await.map_err(|error| failure::journal(&error))?;
    json(tokens.into_iter().map(view).collect())
}

pub(super) async fn create<S: SiteAdapter>(
    State(core): State<Arc<Core<S>>>,
    Body(wanted): Body<CreateToken>,
) -> Answer<TokenCreated> {
    let name = wanted.name;
    if name.is_empty() || name.chars().count() > NAME || name.chars().any(|c| c.is_control() || c == '/') {
        let message = format!("the name of a token has 1 to {NAME} printable characters and no slash");
        return Err(WireError::new(ErrorCode::BadRequest, message).into());
    }
    let (token, hash) = new_token()?;
    let now = unix_ms();
    let row = TokenRow {
        name,
        role: wanted.role.unwrap_or(TokenRole::Admin),
        hash,
        created_unix_ms: now,
        expires_unix_ms: wanted.expires_in_s.map(|s| now.saturating_add(s.saturating_mul(1000)).min(NEVER)),
    };
    if !core.journal.add_token(row.clone()).await.map_err(|error| failure::journal(&error))? {
        let message = format!("there is a token called {} already", row.name);
        return Err(WireError::new(ErrorCode::NameTaken, message)
            .with_hint("choose another name; see those that are taken: ums token ls")
            .into());
    }
    json(TokenCreated { about: view(row), token })
}

pub(super) async fn remove<S: SiteAdapter>(
    State(core): State<Arc<Core<S>>>,
    Path(name): Path<String>,
) -> Result<StatusCode, Failure> {
    if core.journal.remove_token(&name).await.map_err(|error| failure::journal(&error))? {
        return Ok(StatusCode::NO_CONTENT);
    }
    Err(WireError::new(ErrorCode::BadRequest, format!("there is no token called {name}")).into())
}

fn view(row: TokenRow) -> TokenView {
    let TokenRow { name, role, created_unix_ms, expires_unix_ms, .. } = row;
    TokenView { name, role, created_unix_ms, expires_unix_ms }
}
