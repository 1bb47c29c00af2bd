//! What handlers ask of a request.

mod query;

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::{FromRequest, FromRequestParts, Request};
use base64::Engine as _;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use gantry_wire::{ApiVersion, AuthConfig, lenient};
use http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use http::request::Parts;
use http::{HeaderMap, StatusCode};
use serde::de::DeserializeOwned;

use crate::error::ApiError;
use crate::socket::Conn;

pub(crate) use query::Query;

/// The longest JSON body that is read.
const MAX_JSON: usize = 16 << 20;

/// The version asked for.
pub(crate) struct Version(pub(crate) ApiVersion);

impl<S: Sync> FromRequestParts<S> for Version {
    type Rejection = ApiError;
    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, ApiError> {
        let version = parts.extensions.get().copied();
        Ok(Self(version.unwrap_or(ApiVersion::MAX)))
    }
}

/// The connection that is answered on.
pub(crate) struct Client(pub(crate) Arc<Conn>);

impl<S: Sync> FromRequestParts<S> for Client {
    type Rejection = ApiError;
    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, ApiError> {
        let conn = parts.extensions.get::<Arc<Conn>>().cloned();
        conn.map(Self).ok_or_else(ApiError::no_such_page)
    }
}

/// The one variable part of the path, decoded.
pub(crate) struct Path(pub(crate) String);

impl<S: Send + Sync> FromRequestParts<S> for Path {
    type Rejection = ApiError;
    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        match axum::extract::Path::from_request_parts(parts, state).await {
            Ok(axum::extract::Path(part)) => Ok(Self(part)),
            Err(error) => Err(ApiError::bad_request(error.body_text())),
        }
    }
}

/// A JSON body; `None` when there is no body at all.
pub(crate) struct Json<T>(pub(crate) Option<T>);

impl<S: Sync, T: DeserializeOwned> FromRequest<S> for Json<T> {
    type Rejection = ApiError;
    async fn from_request(request: Request, _state: &S) -> Result<Self, ApiError> {
        let (parts, body) = request.into_parts();
        check_json(&parts.headers, &body)?;
        let bytes = axum::body::to_bytes(body, MAX_JSON).await.map_err(|_| {
            ApiError::new(
                StatusCode::PAYLOAD_TOO_LARGE,
                "http: request body too large",
            )
        })?;
        if bytes.is_empty() {
            return Ok(Self(None));
        }
        Ok(Self(lenient::from_slice(&bytes)?))
    }
}

impl<T: Default> Json<T> {
    /// The body, or the zero value when there is none.
    pub(crate) fn or_default(self) -> T {
        self.0.unwrap_or_default()
    }
}

/// dockerd wants a JSON body to be called one, and forgives the lack of a name only where there is no body.
fn check_json(headers: &HeaderMap, body: &Body) -> Result<(), ApiError> {
    let named = headers
        .get(CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default();
    let empty = headers.get(CONTENT_LENGTH).is_none_or(|v| v == "0")
        && axum::body::HttpBody::is_end_stream(body);
    if named.is_empty() {
        return if empty {
            Ok(())
        } else {
            Err(ApiError::bad_request(
                "malformed Content-Type header (): mime: no media type",
            ))
        };
    }
    let media_type = named.split(';').next().unwrap_or_default().trim();
    if media_type.eq_ignore_ascii_case("application/json") {
        Ok(())
    } else {
        Err(ApiError::bad_request(format!(
            "unsupported Content-Type header ({named}): must be 'application/json'"
        )))
    }
}

/// `X-Registry-Auth` and `X-Registry-Config`; credentials that cannot be read are none, as with dockerd.
pub(crate) struct RegistryAuth(pub(crate) gantry_wire::RegistryAuth);

impl<S: Sync> FromRequestParts<S> for RegistryAuth {
    type Rejection = ApiError;
    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, ApiError> {
        let one: Option<AuthConfig> = in_header(parts, "x-registry-auth");
        let many: Option<BTreeMap<String, AuthConfig>> = in_header(parts, "x-registry-config");
        Ok(Self(gantry_wire::RegistryAuth {
            one: one.filter(|auth| *auth != AuthConfig::default()),
            many: many.unwrap_or_default(),
        }))
    }
}

/// JSON in base64.
fn in_header<T: DeserializeOwned>(parts: &Parts, name: &str) -> Option<T> {
    let json = decode_base64(parts.headers.get(name)?.as_bytes())?;
    lenient::from_slice(&json).ok()
}

/// Base64 of either alphabet, with or without padding: clients differ.
fn decode_base64(text: &[u8]) -> Option<Vec<u8>> {
    let config =
        GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
    [&alphabet::URL_SAFE, &alphabet::STANDARD]
        .into_iter()
        .find_map(|alphabet| GeneralPurpose::new(alphabet, config).decode(text).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_of_all_sorts() {
        for text in ["Pz8_", "Pz8/", "YQ==", "YQ"] {
            assert!(decode_base64(text.as_bytes()).is_some(), "{text}");
        }
        assert_eq!(decode_base64(b"!"), None);
    }
}
