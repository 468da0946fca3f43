//! From requests to values, from errors to responses: always in our own words.

use axum::Json;
use axum::body::Bytes;
use axum::extract::{FromRequest, FromRequestParts, Path, Request};
use axum::http::StatusCode;
use axum::http::request::Parts;
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use serde::de::DeserializeOwned;
use ums_model::error::{ErrorCode, WireError};

/// What a handler returns.
pub(super) type Answer<T> = Result<Json<T>, Failure>;

/// An error on its way out.
#[derive(Debug)]
pub(super) struct Failure(pub(super) WireError);

/// A JSON body. An empty one stands for the type's empty object.
#[derive(Debug)]
pub(super) struct Body<T>(pub(super) T);

/// The parameters behind the question mark.
#[derive(Debug)]
pub(super) struct Params<T>(pub(super) T);

/// The one name or id in the path.
#[derive(Debug)]
pub(super) struct Named<T>(pub(super) T);

impl From<WireError> for Failure {
    fn from(error: WireError) -> Self {
        Self(error)
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let status =
            StatusCode::from_u16(self.0.code.http_status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        (status, Json(self.0)).into_response()
    }
}

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for Body<T> {
    type Rejection = Failure;

    async fn from_request(request: Request, state: &S) -> Result<Self, Failure> {
        let bytes = Bytes::from_request(request, state)
            .await
            .map_err(|rejection| bad(format!("cannot read the body: {}", rejection.body_text())))?;
        let json: &[u8] = if bytes.is_empty() { b"{}" } else { &bytes };
        serde_json::from_slice(json)
            .map(Self)
            .map_err(|error| bad(format!("cannot understand the body: {error}")))
    }
}

impl<T: DeserializeOwned, S: Send + Sync> FromRequestParts<S> for Params<T> {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Failure> {
        axum::extract::Query::try_from_uri(&parts.uri)
            .map(|axum::extract::Query(params)| Self(params))
            .map_err(|rejection| bad(format!("cannot understand the parameters: {}", rejection.body_text())))
    }
}

impl<T: std::str::FromStr<Err: std::fmt::Display>, S: Send + Sync> FromRequestParts<S> for Named<T> {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Failure> {
        let Path(text) = Path::<String>::from_request_parts(parts, state)
            .await
            .map_err(|rejection| bad(format!("cannot understand the path: {}", rejection.body_text())))?;
        text.parse().map(Self).map_err(|error: T::Err| bad(error.to_string()))
    }
}

/// An answer in JSON.
pub(super) fn json<T: Serialize>(value: T) -> Answer<T> {
    Ok(Json(value))
}

fn bad(message: String) -> Failure {
    Failure(WireError::new(ErrorCode::BadRequest, message))
}
