//! Tokens: made once, shown once, kept as hashes, compared in constant time.

use std::sync::Arc;

use aws_lc_rs::{constant_time, digest, rand};
use axum::extract::{Request, State};
use axum::http::header::{AUTHORIZATION, WWW_AUTHENTICATE};
use axum::http::{Method, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use ums_model::error::{ErrorCode, WireError};
use ums_sites::adapter::SiteAdapter;

use super::extract::Failure;
use crate::core::Core;
use crate::failure;
use crate::journal::TokenRole;

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
    let found = tokens.iter().fold(None, |found, token| {
        let same = constant_time::verify_slices_are_equal(&token.hash, &presented).is_ok();
        if same { Some(token.role) } else { found }
    });
    match found {
        None => unknown("this token is not known here"),
        Some(TokenRole::Admin) => next.run(request).await,
        Some(TokenRole::Read) if matches!(*request.method(), Method::GET | Method::HEAD) => {
            next.run(request).await
        }
        Some(TokenRole::Read) => {
            let error = WireError::new(ErrorCode::Refused, "this token only allows to look".to_owned());
            (
                StatusCode::FORBIDDEN,
                Failure(error.with_hint("use a token with the role admin: ums token new NAME")),
            )
                .into_response()
        }
    }
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
