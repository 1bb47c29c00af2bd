//! Errors, with the class that the API's status code is chosen by.

use gantry_driver_api::{DriverError, ErrorCode};
use gantry_driver_registry::RegistryError;

/// Results of this crate.
pub type Result<T> = std::result::Result<T, NetworkError>;

/// The class of a [`NetworkError`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ErrorKind {
    /// The request is wrong in itself (400).
    Invalid,
    /// The request is right, and not allowed here (403).
    Forbidden,
    /// What was named does not exist (404).
    NotFound,
    /// The state of something else is in the way (409).
    Conflict,
    /// The driver lacks it (501).
    NotImplemented,
    /// The driver does not answer (503).
    Unavailable,
    /// Everything else (500).
    Internal,
}

/// A failure, in the words that Docker's clients expect.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct NetworkError {
    /// The class.
    pub kind: ErrorKind,
    /// One line for people.
    pub message: String,
}

impl NetworkError {
    /// An error of class `kind`.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self {
            kind,
            message: message.into(),
        }
    }
    pub(crate) fn invalid(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Invalid, message)
    }
    pub(crate) fn forbidden(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Forbidden, message)
    }
    pub(crate) fn conflict(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Conflict, message)
    }
    pub(crate) fn internal(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Internal, message)
    }
    pub(crate) fn no_network(name: &str) -> Self {
        Self::new(ErrorKind::NotFound, format!("network {name} not found"))
    }
    pub(crate) fn io(doing: impl std::fmt::Display, error: &std::io::Error) -> Self {
        Self::internal(format!("{doing}: {error}"))
    }
}

impl From<DriverError> for NetworkError {
    fn from(error: DriverError) -> Self {
        let kind = match error.code {
            ErrorCode::InvalidArgument => ErrorKind::Invalid,
            ErrorCode::NotFound => ErrorKind::NotFound,
            ErrorCode::AlreadyExists | ErrorCode::Conflict | ErrorCode::Aborted => {
                ErrorKind::Conflict
            }
            ErrorCode::PermissionDenied => ErrorKind::Forbidden,
            ErrorCode::NotImplemented => ErrorKind::NotImplemented,
            ErrorCode::Unavailable | ErrorCode::DeadlineExceeded => ErrorKind::Unavailable,
            _ => ErrorKind::Internal,
        };
        Self::new(kind, error.message)
    }
}

impl From<RegistryError> for NetworkError {
    fn from(error: RegistryError) -> Self {
        DriverError::from(error).into()
    }
}
