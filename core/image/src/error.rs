//! What can go wrong with images, in Docker's words where clients see them.

use std::io::ErrorKind;

use gantry_driver_api::{DriverError, ErrorCode};
use gantry_model::{Reference, ReferenceError};

/// A failure of the image service. [`Error::code`] classes it for the API.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No image of this name or identifier here.
    #[error("No such image: {0}")]
    NoSuchImage(String),
    /// Not a reference.
    #[error(transparent)]
    Reference(#[from] ReferenceError),
    /// Something else that was named is not here.
    #[error("{0}")]
    NotHere(String),
    /// A request that no state would make right.
    #[error("{0}")]
    Invalid(String),
    /// What the administrator says of a registry is wrong.
    #[error("{0}")]
    Misconfigured(String),
    /// The image is in use.
    #[error("conflict: {0}")]
    Conflict(String),
    /// The registry has the repository, and no such manifest.
    #[error("manifest for {reference} not found: {message}")]
    ManifestUnknown {
        /// As the user would write it.
        reference: String,
        /// The registry's words.
        message: String,
    },
    /// The registry has no such repository.
    #[error("repository {name} not found: {message}")]
    RepositoryUnknown {
        /// The repository.
        name: String,
        /// The registry's words.
        message: String,
    },
    /// The registry does not let us in, or has no such repository: it does not tell which.
    #[error(
        "pull access denied for {name}, repository does not exist or may require 'docker login': {message}"
    )]
    AccessDenied {
        /// The repository.
        name: String,
        /// The registry's words.
        message: String,
    },
    /// The index has no image for the platform.
    #[error("no matching manifest for {0} in the manifest list entries")]
    NoPlatform(String),
    /// The image is here for another platform than the one asked for.
    #[error("{0}")]
    WrongPlatform(String),
    /// A document or archive from outside is malformed, or not what its digest says.
    #[error("{0}")]
    Malformed(String),
    /// A layer cannot be unpacked.
    #[error("failed to register layer: {0}")]
    Layer(String),
    /// The disk is full.
    #[error("{doing}: no space left on device")]
    NoSpace {
        /// What was being done.
        doing: String,
    },
    /// A driver failed.
    #[error("{0}")]
    Driver(DriverError),
    /// A driver is missing.
    #[error(transparent)]
    NoDriver(#[from] gantry_driver_registry::RegistryError),
    /// The one who asked has gone.
    #[error("context canceled")]
    Cancelled,
    /// Blobs.
    #[error(transparent)]
    Content(gantry_content::Error),
    /// Records.
    #[error(transparent)]
    Store(#[from] gantry_store::Error),
    /// The file system, or the reader or writer that was handed in.
    #[error("{doing}: {source}")]
    Io {
        /// What was being done.
        doing: String,
        /// The cause.
        source: std::io::Error,
    },
}

/// The result of the image service's operations.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// The class, for the one table that maps classes to HTTP.
    #[must_use]
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::NoSuchImage(_)
            | Self::NotHere(_)
            | Self::ManifestUnknown { .. }
            | Self::RepositoryUnknown { .. }
            | Self::AccessDenied { .. }
            | Self::NoPlatform(_)
            | Self::WrongPlatform(_) => ErrorCode::NotFound,
            Self::Reference(_) | Self::Invalid(_) | Self::Misconfigured(_) | Self::Malformed(_) => {
                ErrorCode::InvalidArgument
            }
            Self::Conflict(_) => ErrorCode::Conflict,
            // What a registry or a disk cannot do now is no state of this service: Docker says 500.
            Self::Driver(error) => match error.code {
                ErrorCode::Unavailable
                | ErrorCode::DeadlineExceeded
                | ErrorCode::ResourceExhausted => ErrorCode::Internal,
                code => code,
            },
            Self::NoDriver(_) => ErrorCode::Unavailable,
            Self::Cancelled => ErrorCode::Cancelled,
            Self::NoSpace { .. }
            | Self::Layer(_)
            | Self::Content(_)
            | Self::Store(_)
            | Self::Io { .. } => ErrorCode::Internal,
        }
    }

    /// Whether there was no room on the disk.
    pub(crate) fn is_disk_full(&self) -> bool {
        match self {
            Self::NoSpace { .. } => true,
            // A registry that has enough of us says the same.
            Self::Driver(error) => {
                error.code == ErrorCode::ResourceExhausted
                    && error.message.contains("No space left")
            }
            _ => false,
        }
    }

    pub(crate) fn no_such(reference: Reference) -> Self {
        Self::NoSuchImage(reference.with_default_tag().familiar())
    }

    pub(crate) fn io(doing: impl Into<String>, source: std::io::Error) -> Self {
        let doing = doing.into();
        match source.kind() {
            ErrorKind::StorageFull => Self::NoSpace { doing },
            _ => Self::Io { doing, source },
        }
    }
}

impl From<gantry_content::Error> for Error {
    fn from(error: gantry_content::Error) -> Self {
        match error {
            gantry_content::Error::Io { path, source }
                if source.kind() == ErrorKind::StorageFull =>
            {
                Self::io(format!("write {}", path.display()), source)
            }
            other => Self::Content(other),
        }
    }
}

impl From<DriverError> for Error {
    fn from(error: DriverError) -> Self {
        match error.code {
            ErrorCode::Cancelled => Self::Cancelled,
            _ => Self::Driver(error),
        }
    }
}
