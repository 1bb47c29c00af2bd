//! Mark and sweep.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use gantry_model::{Digest, Timestamp};

use crate::{ContentStore, Error, Result};

/// What a collection removed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Collected {
    /// The blobs.
    pub blobs: Vec<Digest>,
    /// Bytes of blobs and abandoned ingests.
    pub bytes: u64,
}

impl ContentStore {
    /// Removes blobs that are neither in what `roots` returns nor protected by a lease or a [`crate::Hold`], and ingests
    /// that nobody will go on with. `roots` is asked twice: first to find what may be garbage, then, while nothing can
    /// become protected or unprotected, to be sure. Only then are the blobs renamed away; a thread of its own deletes
    /// them, so that nobody waits for a disk that frees blocks. What a crash leaves of that is deleted after the next
    /// collection.
    ///
    /// # Errors
    /// [`Error::Io`], [`Error::Store`], and what `roots` failed with (nothing is removed then).
    pub fn collect<E: From<Error>>(
        &self,
        roots: impl Fn() -> std::result::Result<HashSet<Digest>, E>,
    ) -> std::result::Result<Collected, E> {
        let _alone = self.shared.collecting.lock();
        for name in self.shared.protection.lock().expire(Timestamp::now()) {
            self.shared.leases.delete(&name).detach();
        }
        let mut candidates = self.list()?;
        let live = roots()?;
        candidates.retain(|digest| !live.contains(digest));
        let mut collected = Collected::default();
        {
            let mut protection = self.shared.protection.lock();
            candidates.retain(|digest| !protection.protects(digest));
            if !candidates.is_empty() {
                let live = roots()?;
                candidates.retain(|digest| !live.contains(digest));
            }
            for digest in candidates {
                collected.bytes += self.size(&digest).unwrap_or(0);
                self.bury(&digest)?;
                collected.blobs.push(digest);
            }
        }
        self.each_abandoned(|path| {
            collected.bytes += path.metadata().map_or(0, |meta| meta.len());
            let grave = self.trash().join(path.file_name().unwrap_or_default());
            std::fs::rename(path, &grave).map_err(|e| Error::io(path, e))
        })?;
        self.empty_trash();
        Ok(collected)
    }

    /// Blobs that nobody wants at this moment.
    ///
    /// # Errors
    /// [`Error::Io`], and what `roots` failed with.
    pub fn garbage<E: From<Error>>(
        &self,
        roots: impl Fn() -> std::result::Result<HashSet<Digest>, E>,
    ) -> std::result::Result<Vec<Digest>, E> {
        let mut blobs = self.list()?;
        let live = roots()?;
        let mut protection = self.shared.protection.lock();
        blobs.retain(|digest| !live.contains(digest) && !protection.protects(digest));
        Ok(blobs)
    }

    /// Takes a blob's name away; [`Self::empty_trash`] takes the rest.
    fn bury(&self, digest: &Digest) -> Result<()> {
        let path = self.path(digest);
        let grave = self.trash().join(ingest_name(digest));
        std::fs::rename(&path, &grave).map_err(|e| Error::io(&path, e))
    }

    fn trash(&self) -> PathBuf {
        self.shared.root.join("trash")
    }

    fn empty_trash(&self) {
        // Not the store itself: whoever closes it need not wait.
        let (emptying, trash) = (self.shared.emptying.clone(), self.trash());
        let thread = std::thread::Builder::new().name("trash".into()).spawn(move || {
            let _alone = emptying.lock();
            for path in files(&trash).unwrap_or_default() {
                if let Err(error) = std::fs::remove_file(&path) {
                    tracing::warn!(path = %path.display(), %error, "cannot delete what was collected");
                }
            }
        });
        if let Err(error) = thread {
            tracing::warn!(%error, "what was collected is deleted later");
        }
    }

    /// Files of ingests that nobody writes and nobody will go on with: without a digest, whole meanwhile, or not leased
    /// any more.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn abandoned(&self) -> Result<Vec<PathBuf>> {
        let mut paths = Vec::new();
        self.each_abandoned(|path| {
            paths.push(path.to_owned());
            Ok(())
        })?;
        Ok(paths)
    }

    /// Calls `each` for what is abandoned, while no ingest can begin.
    fn each_abandoned(&self, mut each: impl FnMut(&Path) -> Result<()>) -> Result<()> {
        let active = self.shared.active.lock();
        let protection = self.shared.protection.lock();
        for path in files(&self.shared.root.join("ingest"))? {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            let digest = name
                .split_once('-')
                .and_then(|(algorithm, hex)| format!("{algorithm}:{hex}").parse::<Digest>().ok());
            let wanted = digest
                .is_some_and(|digest| !self.contains(&digest) && protection.is_leased(&digest));
            if !wanted && !active.contains(&*name) {
                each(&path)?;
            }
        }
        Ok(())
    }
}

/// The name under which a blob is written, and under which it is deleted.
pub(crate) fn ingest_name(digest: &Digest) -> String {
    format!("{}-{}", digest.algorithm(), digest.hex())
}

fn files(directory: &Path) -> Result<Vec<PathBuf>> {
    std::fs::read_dir(directory)
        .and_then(|entries| entries.map(|entry| Ok(entry?.path())).collect())
        .map_err(|e| Error::io(directory, e))
}
