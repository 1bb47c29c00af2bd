//! Why a driver cannot be had.

use gantry_driver_api::{DriverError, ErrorCode, Kind};

/// A driver that was asked for is not there.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RegistryError {
    /// No plugin of that name was found.
    #[error("driver {kind}/{name} is not available: no such plugin is installed")]
    Unknown {
        /// What it would drive.
        kind: Kind,
        /// The name asked for.
        name: String,
    },
    /// The plugin is known and cannot be used.
    #[error("driver {kind}/{name} is not available: {reason}")]
    Unavailable {
        /// What it would drive.
        kind: Kind,
        /// The name asked for.
        name: String,
        /// One line for people.
        reason: String,
    },
}

impl From<RegistryError> for DriverError {
    fn from(error: RegistryError) -> Self {
        let code = match error {
            RegistryError::Unknown { .. } => ErrorCode::NotFound,
            RegistryError::Unavailable { .. } => ErrorCode::Unavailable,
        };
        Self::new(code, error.to_string())
    }
}
