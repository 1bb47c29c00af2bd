//! Why there is no answer, or none that helps.

use std::fmt;

use gantry_plugin_sdk::{DriverError, ErrorCode};
use http::StatusCode;

use super::wire::Failure;

/// Codes of gRPC that another endpoint, or the same one soon, may not answer with.
const TEMPORARY: [i32; 3] = [4, 8, 14];
const NOT_PERMITTED: i32 = 7;
const NOT_ENABLED: i32 = 9;
const OUT_OF_RANGE: i32 = 11;
const UNAUTHENTICATED: i32 = 16;
/// Refusals of requests without a token, or with one that is older than the last change of a user; they have the code of
/// a wrong argument.
const NO_USER: [&str; 2] = ["user name is empty", "revision of auth store is old"];

/// Why there is no answer.
#[derive(Debug)]
pub(crate) enum EtcdError {
    /// No endpoint can answer now. Whether a change was made is not known.
    Away(String),
    /// The answer is no.
    Refused(String),
    /// This host may not ask that, or not at all.
    Denied(String),
    /// The token is not valid (any more).
    Unauthenticated(String),
    /// There are no users to be one of.
    NotEnabled,
    /// The revision asked for is no longer kept.
    Compacted,
    /// The revision asked for was not reached.
    NotYet,
}

impl fmt::Display for EtcdError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Away(why) => write!(f, "the cluster's store does not answer: {why}"),
            Self::Refused(why) => write!(f, "the cluster's store refuses: {why}"),
            Self::Denied(why) | Self::Unauthenticated(why) => {
                write!(f, "the cluster's store does not let this host in: {why}")
            }
            Self::NotEnabled => f.write_str("the cluster's store has no users"),
            Self::Compacted => f.write_str("the cluster's store has forgotten that revision"),
            Self::NotYet => f.write_str("the cluster's store has not come to that revision"),
        }
    }
}

impl From<EtcdError> for DriverError {
    fn from(error: EtcdError) -> Self {
        let code = match error {
            EtcdError::Away(_) | EtcdError::Denied(_) | EtcdError::Unauthenticated(_) => {
                ErrorCode::Unavailable
            }
            EtcdError::Refused(_)
            | EtcdError::NotEnabled
            | EtcdError::Compacted
            | EtcdError::NotYet => ErrorCode::Internal,
        };
        Self::new(code, error.to_string())
    }
}

impl From<DriverError> for EtcdError {
    fn from(error: DriverError) -> Self {
        Self::Refused(error.message)
    }
}

pub(super) type Result<T> = std::result::Result<T, EtcdError>;

/// The whole text of an error: hyper's own says little, its sources the rest.
pub(super) fn reason(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text = format!("{text}: {error}");
        source = error.source();
    }
    text
}

pub(super) fn refusal(status: StatusCode, body: &[u8]) -> EtcdError {
    let failure: Failure = serde_json::from_slice(body).unwrap_or_default();
    let text = match failure.message.as_str() {
        "" if status == StatusCode::NOT_FOUND => {
            format!("{status}: is that where etcd (3.4 or newer) has its clients?")
        }
        "" => status.to_string(),
        message => message.to_owned(),
    };
    match failure.code {
        UNAUTHENTICATED => EtcdError::Unauthenticated(text),
        NOT_PERMITTED => EtcdError::Denied(text),
        NOT_ENABLED if text.contains("authentication is not enabled") => EtcdError::NotEnabled,
        OUT_OF_RANGE if text.contains("has been compacted") => EtcdError::Compacted,
        OUT_OF_RANGE if text.contains("future revision") => EtcdError::NotYet,
        _ if NO_USER.iter().any(|why| text.contains(why)) => EtcdError::Unauthenticated(text),
        0 if status.is_server_error() => EtcdError::Away(text),
        code if TEMPORARY.contains(&code) => EtcdError::Away(text),
        _ => EtcdError::Refused(text),
    }
}
