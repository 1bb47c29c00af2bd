//! The redb file: opening, telling damage from foreign files, and reopening after an I/O error.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::RwLock;
use redb::{Database, ReadableDatabase, TableDefinition};

use crate::{Error, Options, Result, migrate};

/// Every table of records has string keys and JSON values.
pub(crate) fn definition(name: &str) -> TableDefinition<'_, &'static str, &'static [u8]> {
    TableDefinition::new(name)
}

/// What the file is, and which version.
pub(crate) const META: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("_meta");
/// The key in [`META`] of the format's name, and its value.
pub(crate) const FORMAT: (&str, &[u8]) = ("format", b"gantry-state");
/// The key in [`META`] of the version of the records, little-endian.
pub(crate) const VERSION: &str = "version";

/// The open file. `None` inside after an I/O error that could not be recovered from yet: redb refuses to go on with a
/// file whose last write failed (a full disk, say) until it has been opened anew.
pub(crate) struct Db {
    path: PathBuf,
    cache: usize,
    database: RwLock<Option<Database>>,
}

impl Db {
    pub(crate) fn open(path: &Path, options: &Options<'_>) -> Result<Self> {
        let existed = path.metadata().is_ok_and(|meta| meta.len() > 0);
        let database = open_file(path, options.cache)?;
        let db = Self {
            path: path.into(),
            cache: options.cache,
            database: RwLock::new(Some(database)),
        };
        if existed {
            db.check_format()?;
        }
        migrate::run(&db, options, !existed)?;
        if !existed {
            sync_parent(path).map_err(|error| db.io(error))?;
        }
        Ok(db)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    fn io(&self, error: io::Error) -> Error {
        Error::Io {
            path: self.path.clone(),
            source: Arc::new(error),
        }
    }

    /// A redb file of some other program must not be written to.
    fn check_format(&self) -> Result<()> {
        let format = self.with(|database| {
            let transaction = database.begin_read()?;
            match transaction.open_table(META) {
                Ok(table) => Ok(table.get(FORMAT.0)?.map(|value| value.value().to_vec())),
                Err(redb::TableError::TableDoesNotExist(_)) => Ok(None),
                Err(error) => Err(error.into()),
            }
        })?;
        if format.as_deref() == Some(FORMAT.1) {
            return Ok(());
        }
        Err(Error::NotAStore {
            path: self.path.clone(),
            detail: "a database of another program".into(),
        })
    }

    /// Runs `work` on the open database.
    pub(crate) fn with<R>(
        &self,
        work: impl FnOnce(&Database) -> std::result::Result<R, redb::Error>,
    ) -> Result<R> {
        let guard = self.database.read();
        let database = guard.as_ref().ok_or_else(|| {
            self.io(io::Error::other(
                "closed after an I/O error that has not passed yet",
            ))
        })?;
        work(database).map_err(|error| classify(&self.path, error))
    }

    /// Opens the file anew after a failed write. What was acknowledged is there; what was not is not.
    pub(crate) fn reopen(&self) {
        let mut guard = self.database.write();
        *guard = None;
        match open_file(&self.path, self.cache) {
            Ok(database) => *guard = Some(database),
            Err(error) => tracing::error!(%error, "the state file cannot be opened again"),
        }
    }
}

fn open_file(path: &Path, cache: usize) -> Result<Database> {
    use std::os::unix::fs::OpenOptionsExt;
    // Made here rather than by redb, for the mode.
    std::fs::OpenOptions::new()
        .create(true)
        .append(true)
        .mode(0o600)
        .open(path)
        .map_err(|error| Error::Io {
            path: path.into(),
            source: Arc::new(error),
        })?;
    // redb asserts on some damaged pages instead of returning an error.
    std::panic::catch_unwind(|| Database::builder().set_cache_size(cache).create(path))
        .map_err(|_| Error::Damaged {
            path: path.into(),
            detail: "inconsistent pages".into(),
        })?
        .map_err(|error| match error {
            redb::DatabaseError::Storage(redb::StorageError::Io(source))
                if source.kind() == io::ErrorKind::InvalidData =>
            {
                Error::NotAStore {
                    path: path.into(),
                    detail: source.to_string(),
                }
            }
            other => classify(path, other.into()),
        })
}

pub(crate) fn classify(path: &Path, error: redb::Error) -> Error {
    let path = path.to_owned();
    match error {
        redb::Error::DatabaseAlreadyOpen | redb::Error::LockProtocolMismatch => {
            Error::Locked { path }
        }
        redb::Error::UpgradeRequired(version) => Error::NotAStore {
            path,
            detail: format!("database format {version}"),
        },
        redb::Error::Io(source) => Error::Io {
            path,
            source: Arc::new(source),
        },
        redb::Error::PreviousIo => Error::Io {
            path,
            source: Arc::new(io::Error::other("an earlier write failed")),
        },
        redb::Error::Corrupted(detail) => Error::Damaged { path, detail },
        other => Error::Damaged {
            path,
            detail: other.to_string(),
        },
    }
}

fn sync_parent(path: &Path) -> io::Result<()> {
    let parent = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    std::fs::File::open(parent)?.sync_all()
}
