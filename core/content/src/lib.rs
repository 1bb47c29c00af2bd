//! Content-addressed blob store: ingest, verification, leases, garbage collection.
//!
//! Blobs lie as in an OCI image layout: `blobs/<algorithm>/<hex>`; what is still being written lies in `ingest/`.
//! Invariants:
//! - a file under a digest's name has that digest: bytes are hashed while they are written, and only a verified file
//!   is renamed to its name, after its data has been flushed;
//! - names are made durable by [`ContentStore::sync`], which whoever commits a record that points to blobs calls once
//!   before it, for any number of them;
//! - an ingest that was cut off is kept under the digest it was to become, and goes on where it was;
//! - [`ContentStore::collect`] removes only what is neither reachable from the roots it is given nor protected. Whoever
//!   brings in blobs has a [`Lease`] on them until a record points to them; leases are records themselves, so that
//!   a crash does not lose half a download, and they expire;
//! - where a crash may lose what has come, a [`Hold`] does instead of a lease: it protects what comes in while it lives;
//! - blobs go by way of `trash/`: taking their names away is quick, and giving back their blocks is nobody's to wait for.
//!
//! It does not know what is inside a blob, and it does not fetch.

mod error;
mod gc;
mod hasher;
mod ingest;
mod lease;

pub use error::{Error, Result};
pub use gc::Collected;
pub use hasher::Hasher;
pub use ingest::Ingest;
pub use lease::{Hold, Lease, LeaseInfo, unreadable_leases};

use std::collections::HashSet;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use gantry_model::Digest;
use gantry_store::{Store, Table};
use parking_lot::Mutex;

use crate::lease::{LeaseRecord, Protection};

/// The algorithms that have a directory.
const ALGORITHMS: [&str; 2] = ["sha256", "sha512"];

/// The blob store of one data-root. Cheap to clone; all methods may be called concurrently and block.
#[derive(Clone)]
pub struct ContentStore {
    shared: Arc<Shared>,
}

pub(crate) struct Shared {
    root: PathBuf,
    leases: Table<LeaseRecord>,
    /// Names in `ingest/` that are being written.
    active: Mutex<HashSet<String>>,
    protection: Mutex<Protection>,
    /// One collection at a time.
    collecting: Mutex<()>,
    /// One thread at a time that deletes what collections have taken away.
    emptying: Arc<Mutex<()>>,
}

impl std::fmt::Debug for ContentStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ContentStore")
            .field("root", &self.shared.root)
            .finish_non_exhaustive()
    }
}

impl ContentStore {
    /// Opens the store in the directory `root`, making it when it is absent. Leases are kept in `store`.
    ///
    /// # Errors
    /// [`Error::Io`], [`Error::Store`].
    pub fn open(root: &Path, store: &Store) -> Result<Self> {
        for directory in ALGORITHMS
            .iter()
            .map(|algorithm| root.join("blobs").join(algorithm))
            .chain([root.join("ingest"), root.join("trash")])
        {
            std::fs::create_dir_all(&directory).map_err(|e| Error::io(&directory, e))?;
        }
        let marker = root.join("oci-layout");
        if !marker.exists() {
            std::fs::write(&marker, br#"{"imageLayoutVersion":"1.0.0"}"#)
                .map_err(|e| Error::io(&marker, e))?;
        }
        let leases: Table<LeaseRecord> = store.table(lease::TABLE);
        Ok(Self {
            shared: Arc::new(Shared {
                root: root.into(),
                protection: Mutex::new(Protection::load(leases.list()?)),
                leases,
                active: Mutex::default(),
                collecting: Mutex::default(),
                emptying: Arc::default(),
            }),
        })
    }

    /// The store's directory.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.shared.root
    }

    /// Where the blob is or would be.
    #[must_use]
    pub fn path(&self, digest: &Digest) -> PathBuf {
        self.shared
            .root
            .join("blobs")
            .join(digest.algorithm())
            .join(digest.hex())
    }

    /// The blob's length; `None` when it is not there.
    #[must_use]
    pub fn size(&self, digest: &Digest) -> Option<u64> {
        let meta = self.path(digest).metadata().ok()?;
        meta.is_file().then_some(meta.len())
    }

    /// Whether the blob is there.
    #[must_use]
    pub fn contains(&self, digest: &Digest) -> bool {
        self.size(digest).is_some()
    }

    /// Opens a blob for reading.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::Io`].
    pub fn open_blob(&self, digest: &Digest) -> Result<File> {
        let path = self.path(digest);
        File::open(&path).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => Error::NotFound(digest.clone()),
            _ => Error::io(&path, error),
        })
    }

    /// Reads a small blob whole and verifies it once more.
    ///
    /// # Errors
    /// [`Error::TooLarge`] beyond `limit` bytes, [`Error::Mismatch`] when the disk has damaged it, [`Error::NotFound`],
    /// [`Error::Io`].
    pub fn read(&self, digest: &Digest, limit: u64) -> Result<Vec<u8>> {
        let file = self.open_blob(digest)?;
        let mut bytes = Vec::new();
        file.take(limit + 1)
            .read_to_end(&mut bytes)
            .map_err(|e| Error::io(&self.path(digest), e))?;
        if bytes.len() as u64 > limit {
            return Err(Error::TooLarge {
                digest: digest.clone(),
                limit,
            });
        }
        let mut hasher = Hasher::for_digest(digest);
        hasher.update(&bytes);
        hasher.verify(digest)?;
        Ok(bytes)
    }

    /// Stores bytes under their SHA-256.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn write(&self, bytes: &[u8]) -> Result<Digest> {
        let mut hasher = Hasher::sha256();
        hasher.update(bytes);
        let digest = hasher.finish();
        self.write_as(bytes, &digest)?;
        Ok(digest)
    }

    /// Stores bytes under the digest that they have, unless they are there.
    ///
    /// # Errors
    /// [`Error::Mismatch`], [`Error::Io`].
    pub fn write_as(&self, bytes: &[u8], digest: &Digest) -> Result<()> {
        if !self.claim(digest) {
            let mut ingest = self.begin_unnamed()?;
            ingest.write(bytes)?;
            ingest.finish_as(digest)?;
        }
        Ok(())
    }

    /// Deletes a blob; an absent one is no error.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn delete(&self, digest: &Digest) -> Result<()> {
        let path = self.path(digest);
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(Error::io(&path, error)),
            _ => Ok(()),
        }
    }

    /// The digests of all blobs, in any order.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn list(&self) -> Result<Vec<Digest>> {
        let mut digests = Vec::new();
        for algorithm in ALGORITHMS {
            let directory = self.shared.root.join("blobs").join(algorithm);
            for entry in std::fs::read_dir(&directory).map_err(|e| Error::io(&directory, e))? {
                let entry = entry.map_err(|e| Error::io(&directory, e))?;
                let name = format!("{algorithm}:{}", entry.file_name().to_string_lossy());
                digests.extend(name.parse::<Digest>().ok());
            }
        }
        Ok(digests)
    }

    /// Makes the names of all finished blobs durable.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn sync(&self) -> Result<()> {
        for algorithm in ALGORITHMS {
            let directory = self.shared.root.join("blobs").join(algorithm);
            File::open(&directory)
                .and_then(|file| file.sync_all())
                .map_err(|e| Error::io(&directory, e))?;
        }
        Ok(())
    }
}
