//! What can go wrong with images, in Docker's words where clients see them.

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
    Content(#[from] gantry_content::Error),
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
            Self::Reference(_) | Self::Invalid(_) | Self::Malformed(_) => {
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
            Self::Layer(_) | Self::Content(_) | Self::Store(_) | Self::Io { .. } => {
                ErrorCode::Internal
            }
        }
    }

    pub(crate) fn no_such(reference: Reference) -> Self {
        Self::NoSuchImage(reference.with_default_tag().familiar())
    }

    pub(crate) fn io(doing: impl Into<String>, source: std::io::Error) -> Self {
        Self::Io {
            doing: doing.into(),
            source,
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
