//! Tokens: made once, shown once, kept as hashes, compared in constant time.

use std::sync::Arc;

use aws_lc_rs::{constant_time, digest, rand};
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::http::header::{AUTHORIZATION, WWW_AUTHENTICATE};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use ums_model::error::{ErrorCode, WireError};
use ums_sites::adapter::SiteAdapter;

use super::extract::Failure;
use crate::clock::unix_ms;
use crate::core::Core;
use crate::failure;
use crate::view::TokenRole;

/// What every token starts with, so that one is recognised where it should not be.
const PREFIX: &str = "ums-api-";
/// Random bytes in a token.
const LENGTH: usize = 32;

/// A new token, and the hash by which it is recognised.
pub(super) fn new_token() -> Result<(String, [u8; 32]), WireError> {
    let mut random = [0_u8; LENGTH];
    rand::fill(&mut random)
        .map_err(|_| WireError::new(ErrorCode::Internal, "the system has no random numbers".to_owned()))?;
    let hex: String = random.iter().map(|byte| format!("{byte:02x}")).collect();
    let token = format!("{PREFIX}{hex}");
    let hash = hash(&token);
    Ok((token, hash))
}

/// Lets a request through that bears a token which allows it.
pub(super) async fn require_token<S: SiteAdapter>(
    State(core): State<Arc<Core<S>>>,
    request: Request,
    next: Next,
) -> Response {
    let header = request.headers().get(AUTHORIZATION).and_then(|value| value.to_str().ok());
    let presented = header
        .and_then(|value| value.split_once(' '))
        .and_then(|(scheme, token)| scheme.eq_ignore_ascii_case("bearer").then(|| hash(token.trim())));
    let Some(presented) = presented else {
        return unknown("a token is needed to use this API from another machine");
    };
    let tokens = match core.journal.tokens().await {
        Ok(tokens) => tokens,
        Err(error) => return Failure(failure::journal(&error)).into_response(),
    };
    // All are compared, and each as a whole: how long it takes says nothing about any of them.
    let now = unix_ms();
    let found = tokens.iter().fold(None, |found, token| {
        let same = constant_time::verify_slices_are_equal(&token.hash, &presented).is_ok();
        let holds = token.expires_unix_ms.is_none_or(|at| now < at);
        if same && holds { Some(token.role) } else { found }
    });
    match found {
        None => unknown("this token is not known here, or has expired"),
        Some(role) => {
            let mut request = request;
            request.extensions_mut().insert(Granted(role));
            next.run(request).await
        }
    }
}

/// Who asks, as far as the door knows: put into every request by the token, or by the socket that it came through.
#[derive(Debug, Clone, Copy)]
pub(super) struct Granted(pub(super) TokenRole);

/// Lets a request through whose maker may use a route that needs `needed`. One about whom nothing is known may not.
pub(super) async fn gate(needed: TokenRole, request: Request, next: Next) -> Response {
    match request.extensions().get::<Granted>() {
        Some(Granted(role)) if *role >= needed => next.run(request).await,
        granted => {
            let role = granted.map_or("nobody", |Granted(role)| role.as_str());
            forbidden(role, needed, "this")
        }
    }
}

/// The answer to somebody who may not do `what`.
pub(super) fn forbidden(role: &str, needed: TokenRole, what: &str) -> Response {
    let needed = needed.as_str();
    let error = WireError::new(ErrorCode::Refused, format!("{what} needs the role {needed}, not {role}"))
        .with_hint(format!(
            "ask for a token of that role, made at the site: ums token new NAME --role {needed}"
        ));
    (StatusCode::FORBIDDEN, Failure(error)).into_response()
}

fn unknown(why: &str) -> Response {
    let error = WireError::new(ErrorCode::Refused, why.to_owned())
        .with_hint("make one at the site: ums token new NAME");
    (StatusCode::UNAUTHORIZED, [(WWW_AUTHENTICATE, "Bearer")], Failure(error)).into_response()
}

fn hash(token: &str) -> [u8; 32] {
    let hash = digest::digest(&digest::SHA256, token.as_bytes());
    hash.as_ref().try_into().expect("SHA-256 has 32 bytes")
}
