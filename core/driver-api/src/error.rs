//! The closed set of errors that cross the driver boundary.

use serde::{Deserialize, Serialize};

/// What went wrong, in the words of gRPC's status codes, and two of our own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ErrorCode {
    /// The request itself is wrong; no state would make it right.
    InvalidArgument,
    /// The named object does not exist.
    NotFound,
    /// The object to be made exists, and differs.
    AlreadyExists,
    /// The object is in use.
    Conflict,
    /// The state of the system forbids it now.
    FailedPrecondition,
    /// Lost a race; the caller may start over.
    Aborted,
    /// Out of space, addresses, quota or rate.
    ResourceExhausted,
    /// Known, and not allowed.
    PermissionDenied,
    /// Not known: credentials are missing or wrong.
    Unauthenticated,
    /// The other side does not answer; a retry may help.
    Unavailable,
    /// The deadline passed.
    DeadlineExceeded,
    /// The caller gave up.
    Cancelled,
    /// The driver lacks this optional facet.
    NotImplemented,
    /// Stored data is damaged.
    DataLoss,
    /// The driver panicked or its process died; it is faulted.
    Panicked,
    /// A bug or an unclassified failure; also what an unknown code is read as.
    #[serde(other)]
    Internal,
}

/// An error of a driver: a code for the engine, a message for people.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
pub struct DriverError {
    /// The class.
    pub code: ErrorCode,
    /// One line, without the driver's name (the host adds it).
    pub message: String,
    /// For `Unavailable` and `ResourceExhausted`: the other side's wish how long to wait, in seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_after: Option<u64>,
}

/// The result of every driver method.
pub type DriverResult<T> = Result<T, DriverError>;

impl DriverError {
    /// An error of class `code`.
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
            retry_after: None,
        }
    }
    /// `InvalidArgument`.
    pub fn invalid(message: impl Into<String>) -> Self {
        Self::new(ErrorCode::InvalidArgument, message)
    }
    /// `NotFound`.
    pub fn not_found(message: impl Into<String>) -> Self {
        Self::new(ErrorCode::NotFound, message)
    }
    /// `Internal`.
    pub fn internal(message: impl Into<String>) -> Self {
        Self::new(ErrorCode::Internal, message)
    }
    /// An I/O error with what was being done, classified by its kind.
    pub fn io(doing: impl std::fmt::Display, error: &std::io::Error) -> Self {
        use std::io::ErrorKind;
        let code = match error.kind() {
            ErrorKind::NotFound => ErrorCode::NotFound,
            ErrorKind::PermissionDenied => ErrorCode::PermissionDenied,
            ErrorKind::AlreadyExists => ErrorCode::AlreadyExists,
            ErrorKind::StorageFull | ErrorKind::QuotaExceeded => ErrorCode::ResourceExhausted,
            ErrorKind::ResourceBusy => ErrorCode::Conflict,
            ErrorKind::TimedOut => ErrorCode::DeadlineExceeded,
            ErrorKind::ConnectionRefused
            | ErrorKind::ConnectionReset
            | ErrorKind::HostUnreachable => ErrorCode::Unavailable,
            _ => ErrorCode::Internal,
        };
        Self::new(code, format!("{doing}: {error}"))
    }
}
