//! What clients are told, in Docker's words.

use gantry_driver_api::{DriverError, ErrorCode};
use gantry_driver_registry::RegistryError;

/// A failure of the volume service.
#[derive(Debug, thiserror::Error)]
pub enum VolumeError {
    /// No volume of that name.
    #[error("get {0}: no such volume")]
    NotFound(String),
    /// Containers use it.
    #[error("remove {name}: volume is in use - [{}]", .users.join(", "))]
    InUse {
        /// The volume.
        name: String,
        /// Identifiers of the containers.
        users: Vec<String>,
    },
    /// The name is taken by a volume of another driver.
    #[error("create {0}: conflict: volume name must be unique")]
    Conflict(String),
    /// The name cannot be a volume's.
    #[error(
        "create {0}: {0:?} includes invalid characters for a local volume name, only \"[a-zA-Z0-9][a-zA-Z0-9_.-]\" are allowed. If you intended to pass a host directory, use absolute path"
    )]
    InvalidName(String),
    /// The name could be mistaken for a drive's letter.
    #[error(
        "create {0}: volume name is too short, names should be at least two alphanumeric characters"
    )]
    ShortName(String),
    /// The driver is not there.
    #[error(
        "create {name}: error looking up volume plugin {driver}: {}",
        missing(driver, source)
    )]
    NoDriver {
        /// The volume.
        name: String,
        /// The driver asked for.
        driver: String,
        /// Why it is not there.
        source: RegistryError,
    },
    /// The driver refused.
    #[error("{doing} {name}: {source}")]
    Driver {
        /// `create`, `remove`, `mount`, ...
        doing: &'static str,
        /// The volume.
        name: String,
        /// Its error.
        source: DriverError,
    },
    /// The index cannot be read or written.
    #[error("volume index: {0}")]
    Store(#[from] gantry_store::Error),
    /// Copying an image's content into the volume failed.
    #[error("failed to copy the image's content to volume {name}: {source}")]
    Copy {
        /// The volume.
        name: String,
        /// The kernel's answer.
        source: std::io::Error,
    },
    /// A bug: the thread that did the work died.
    #[error("volume service: {0}")]
    Internal(String),
}

/// Docker's words for a driver that nobody has heard of; an own reason for one that cannot be had.
fn missing(driver: &str, error: &RegistryError) -> String {
    match error {
        RegistryError::Unknown { .. } => format!("plugin {driver:?} not found"),
        RegistryError::Unavailable { .. } => error.to_string(),
    }
}

impl VolumeError {
    /// The class, in the words of the driver boundary.
    #[must_use]
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::NotFound(_) => ErrorCode::NotFound,
            Self::InUse { .. } | Self::Conflict(_) => ErrorCode::Conflict,
            Self::InvalidName(_) | Self::ShortName(_) => ErrorCode::InvalidArgument,
            Self::NoDriver { .. } => ErrorCode::NotFound,
            Self::Driver { source, .. } => source.code,
            Self::Store(_) | Self::Copy { .. } | Self::Internal(_) => ErrorCode::Internal,
        }
    }
}
