//! What can go wrong with blobs.

use std::io;
use std::path::{Path, PathBuf};

use gantry_model::Digest;

/// A failure of the blob store.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No such blob.
    #[error("content {0} not found")]
    NotFound(Digest),
    /// The bytes are not those that the digest names.
    #[error("unexpected digest: wanted {wanted}, got {found}")]
    Mismatch {
        /// What was wanted.
        wanted: Digest,
        /// What the bytes have.
        found: Digest,
    },
    /// More or fewer bytes than announced.
    #[error("unexpected size of {digest}: wanted {wanted} bytes, got {found}")]
    Size {
        /// The blob.
        digest: Digest,
        /// What was announced.
        wanted: u64,
        /// What came; for excess, what had come when it was noticed.
        found: u64,
    },
    /// Larger than the reader wanted to hold.
    #[error("content {digest} is larger than {limit} bytes")]
    TooLarge {
        /// The blob.
        digest: Digest,
        /// The reader's limit.
        limit: u64,
    },
    /// Somebody else is writing this blob.
    #[error("content {0} is being written")]
    Busy(Digest),
    /// The file system failed.
    #[error("{path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// Leases could not be read or written.
    #[error(transparent)]
    Store(#[from] gantry_store::Error),
}

impl Error {
    pub(crate) fn io(path: &Path, source: io::Error) -> Self {
        Self::Io {
            path: path.into(),
            source,
        }
    }
}

/// The result of the blob store's operations.
pub type Result<T> = std::result::Result<T, Error>;
