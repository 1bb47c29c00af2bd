//! What can go wrong with the state file.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

/// A failure of the store. Cloneable, because all writers of one group commit fail together.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Error {
    /// The file is no state file at all.
    #[error("{path}: not a Gantry state file ({detail})")]
    NotAStore {
        /// The file.
        path: PathBuf,
        /// What it looks like instead.
        detail: String,
    },
    /// The file was a state file, and is damaged.
    #[error("{path}: the state file is damaged: {detail}")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What was found.
        detail: String,
    },
    /// Written by a newer program.
    #[error(
        "{path}: the state file has version {found}, this program understands up to {supported}: use a newer Gantry"
    )]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its version.
        found: u32,
        /// The newest version that can be read.
        supported: u32,
    },
    /// Written by a program so old that no migration leads on.
    #[error("{path}: the state file has version {found}, which can no longer be migrated")]
    TooOld {
        /// The file.
        path: PathBuf,
        /// Its version.
        found: u32,
    },
    /// A migration refused; the file is unchanged.
    #[error("{path}: migrating the state file from version {from}: {message}")]
    Migration {
        /// The file.
        path: PathBuf,
        /// The version it has.
        from: u32,
        /// Why.
        message: String,
    },
    /// Another process has the file open.
    #[error("{path}: the state file is in use by another process")]
    Locked {
        /// The file.
        path: PathBuf,
    },
    /// Reading or writing failed; what was not acknowledged is not there.
    #[error("{path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: Arc<io::Error>,
    },
    /// A record cannot be decoded as (or encoded from) the type asked for.
    #[error("record {key:?} of table {table:?}: {detail}")]
    Record {
        /// The table.
        table: String,
        /// The key.
        key: String,
        /// What the decoder said.
        detail: String,
    },
    /// [`crate::Batch::create`] met an existing record; nothing of the batch was applied.
    #[error("record {key:?} of table {table:?} exists already")]
    Exists {
        /// The table.
        table: String,
        /// The key.
        key: String,
    },
    /// The store was closed while the commit waited.
    #[error("the state file is closed")]
    Closed,
}

/// The result of the store's operations.
pub type Result<T> = std::result::Result<T, Error>;
