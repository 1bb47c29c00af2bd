//! Writing blobs: hashed as they come, under their name only when they are whole.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use gantry_model::Digest;
use gantry_sys::writeback;

use crate::gc::ingest_name;
use crate::{ContentStore, Error, Hasher, Result, Shared};

/// So many written bytes are sent on their way to the disk at once, so that little is left for the end.
const FLUSH: u64 = 4 << 20;

/// Distinguishes the unnamed ingests of one process.
static NEXT: AtomicU64 = AtomicU64::new(0);

/// A blob being written. Dropping it unfinished keeps what has come when the blob's digest is known (to be resumed),
/// and removes it otherwise.
#[derive(Debug)]
pub struct Ingest {
    shared: Arc<Shared>,
    name: String,
    path: PathBuf,
    file: File,
    hasher: Hasher,
    written: u64,
    /// Bytes that are on their way to the disk at least.
    flushing: u64,
    expected: Option<(Digest, Option<u64>)>,
    keep: bool,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared")
            .field("root", &self.root)
            .finish_non_exhaustive()
    }
}

impl ContentStore {
    /// Begins (or goes on with) the blob `digest`; `size` is checked where it is known. What an earlier ingest left is
    /// read once to restore the hash: [`Ingest::offset`] says how much is there already.
    ///
    /// # Errors
    /// [`Error::Busy`] while another ingest of the same blob is under way; [`Error::Io`].
    pub fn begin(&self, digest: &Digest, size: Option<u64>) -> Result<Ingest> {
        let name = ingest_name(digest);
        if !self.shared.active.lock().insert(name.clone()) {
            return Err(Error::Busy(digest.clone()));
        }
        let mut ingest = self
            .open_ingest(name, Hasher::for_digest(digest))
            .inspect_err(|_| {
                self.shared.active.lock().remove(&ingest_name(digest));
            })?;
        ingest.expected = Some((digest.clone(), size));
        ingest.keep = true;
        ingest.restore()?;
        Ok(ingest)
    }

    /// Begins a blob whose digest is not known yet; it becomes its SHA-256.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn begin_unnamed(&self) -> Result<Ingest> {
        let name = format!(
            "new-{}-{}",
            std::process::id(),
            NEXT.fetch_add(1, Ordering::Relaxed)
        );
        self.shared.active.lock().insert(name.clone());
        let mut ingest = self
            .open_ingest(name.clone(), Hasher::sha256())
            .inspect_err(|_| {
                self.shared.active.lock().remove(&name);
            })?;
        ingest.restart()?;
        Ok(ingest)
    }

    fn open_ingest(&self, name: String, hasher: Hasher) -> Result<Ingest> {
        let path = self.shared.root.join("ingest").join(&name);
        let file = File::options()
            .create(true)
            .read(true)
            .write(true)
            .truncate(false)
            .open(&path)
            .map_err(|e| Error::io(&path, e))?;
        Ok(Ingest {
            shared: self.shared.clone(),
            name,
            path,
            file,
            hasher,
            written: 0,
            flushing: 0,
            expected: None,
            keep: false,
        })
    }
}

impl Ingest {
    /// Bytes that are there.
    #[must_use]
    pub fn offset(&self) -> u64 {
        self.written
    }

    /// Reads back what an earlier ingest left.
    fn restore(&mut self) -> Result<()> {
        let mut buffer = vec![0; 256 << 10];
        loop {
            let count = self.file.read(&mut buffer).map_err(|e| self.io(e))?;
            if count == 0 {
                break;
            }
            self.hasher.update(&buffer[..count]);
            self.written += count as u64;
        }
        if let Some((_, Some(size))) = self.expected
            && self.written > size
        {
            self.restart()?;
        }
        Ok(())
    }

    /// Hands out what is there already, in pieces, until `each` returns `false`.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn replay(&mut self, mut each: impl FnMut(&[u8]) -> bool) -> Result<()> {
        self.file.seek(SeekFrom::Start(0)).map_err(|e| self.io(e))?;
        let mut buffer = vec![0; 128 << 10];
        loop {
            let count = self.file.read(&mut buffer).map_err(|e| self.io(e))?;
            if count == 0 || !each(&buffer[..count]) {
                break;
            }
        }
        self.file.seek(SeekFrom::End(0)).map_err(|e| self.io(e))?;
        Ok(())
    }

    /// Gives the blob up and removes what has come.
    pub fn discard(mut self) {
        self.keep = false;
    }

    /// Throws away what has come, and begins anew.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn restart(&mut self) -> Result<()> {
        self.file.set_len(0).map_err(|e| self.io(e))?;
        self.file.seek(SeekFrom::Start(0)).map_err(|e| self.io(e))?;
        (self.written, self.flushing) = (0, 0);
        self.hasher = match &self.expected {
            Some((digest, _)) => Hasher::for_digest(digest),
            None => Hasher::sha256(),
        };
        Ok(())
    }

    /// Appends bytes.
    ///
    /// # Errors
    /// [`Error::Size`] as soon as there are more than announced; [`Error::Io`].
    pub fn write(&mut self, bytes: &[u8]) -> Result<()> {
        let total = self.written + bytes.len() as u64;
        if let Some((digest, Some(wanted))) = &self.expected
            && total > *wanted
        {
            return Err(Error::Size {
                digest: digest.clone(),
                wanted: *wanted,
                found: total,
            });
        }
        self.file.write_all(bytes).map_err(|e| self.io(e))?;
        self.hasher.update(bytes);
        if total / FLUSH > self.written / FLUSH {
            writeback::begin(&self.file, self.flushing, total - self.flushing);
            self.flushing = total;
        }
        self.written = total;
        Ok(())
    }

    /// Verifies, flushes and gives the blob its name. A damaged one is thrown away, so that the next attempt begins
    /// anew.
    ///
    /// # Errors
    /// [`Error::Size`] when bytes are missing (they are kept), [`Error::Mismatch`], [`Error::Io`].
    pub fn finish(mut self) -> Result<Digest> {
        match self.expected.take() {
            None => {
                let digest = std::mem::replace(&mut self.hasher, Hasher::sha256()).finish();
                self.place(&digest)?;
                Ok(digest)
            }
            Some((digest, size)) => {
                if let Some(wanted) = size
                    && self.written < wanted
                {
                    return Err(Error::Size {
                        digest,
                        wanted,
                        found: self.written,
                    });
                }
                self.keep = false;
                let hasher = std::mem::replace(&mut self.hasher, Hasher::sha256());
                hasher.verify(&digest)?;
                self.place(&digest)?;
                Ok(digest)
            }
        }
    }

    /// As [`Ingest::finish`], for an unnamed ingest that must turn out to be `digest`.
    ///
    /// # Errors
    /// As [`Ingest::finish`].
    pub fn finish_as(mut self, digest: &Digest) -> Result<()> {
        if digest.algorithm() == "sha256" {
            self.expected = Some((digest.clone(), None));
            return self.finish().map(|_| ());
        }
        // Hashed as SHA-256 on the way in: read it once more.
        self.expected = Some((digest.clone(), None));
        self.file.seek(SeekFrom::Start(0)).map_err(|e| self.io(e))?;
        self.hasher = Hasher::for_digest(digest);
        self.written = 0;
        self.restore()?;
        self.finish().map(|_| ())
    }

    fn place(&mut self, digest: &Digest) -> Result<()> {
        self.file.sync_data().map_err(|e| self.io(e))?;
        let target = self
            .shared
            .root
            .join("blobs")
            .join(digest.algorithm())
            .join(digest.hex());
        let mut protection = self.shared.protection.lock();
        std::fs::rename(&self.path, &target).map_err(|e| Error::io(&target, e))?;
        protection.note(digest);
        self.keep = true;
        Ok(())
    }

    fn io(&self, error: std::io::Error) -> Error {
        Error::io(&self.path, error)
    }
}

impl Drop for Ingest {
    fn drop(&mut self) {
        if !self.keep
            && let Err(error) = std::fs::remove_file(&self.path)
        {
            tracing::warn!(path = %self.path.display(), %error, "an unfinished blob cannot be removed");
        }
        self.shared.active.lock().remove(&self.name);
    }
}
