//! Mark and sweep.

use std::collections::HashSet;
use std::fs::Metadata;
use std::time::{Duration, SystemTime};

use gantry_model::{Digest, Timestamp};
use gantry_store::Batch;

use crate::{ContentStore, Error, Result};

/// How long a cut-off ingest is kept for the next attempt.
const PARTIAL_LIFETIME: Duration = Duration::from_secs(24 * 3600);

/// What a collection removed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Collected {
    /// The blobs.
    pub blobs: Vec<Digest>,
    /// Bytes of blobs and abandoned ingests.
    pub bytes: u64,
}

impl ContentStore {
    /// Removes blobs that are neither in what `roots` returns nor leased, and ingests abandoned for a day. `roots` is
    /// called after new leases have been held off, so a blob whose lease was released because a record points to it
    /// now is found by one of the two. Does nothing while somebody has a [`crate::Hold`].
    ///
    /// # Errors
    /// [`Error::Io`], [`Error::Store`], and what `roots` failed with (nothing is removed then).
    pub fn collect<E: From<Error>>(
        &self,
        roots: impl FnOnce() -> std::result::Result<HashSet<Digest>, E>,
    ) -> std::result::Result<Collected, E> {
        // Whoever holds collections off calls again when it is done.
        let Some(_alone) = self.shared.holds.try_write() else {
            return Ok(Collected::default());
        };
        let _guard = self.shared.collecting.lock();
        let leased = self.leased()?;
        let mut live = roots()?;
        live.extend(leased);
        let mut collected = Collected::default();
        for digest in self.list()? {
            if live.contains(&digest) {
                continue;
            }
            collected.bytes += self.size(&digest).unwrap_or(0);
            self.delete(&digest)?;
            collected.blobs.push(digest);
        }
        self.drop_abandoned(&mut collected)?;
        Ok(collected)
    }

    /// The digests of all leases that hold; the others are removed.
    fn leased(&self) -> Result<Vec<Digest>> {
        // Releases are not awaited: an empty batch waits for those handed in before.
        self.shared.store.commit(Batch::new()).wait()?;
        let now = Timestamp::now();
        let mut digests = Vec::new();
        for (name, lease) in self.shared.leases.list()? {
            if lease.expires < now {
                self.shared.leases.delete(&name).detach();
            } else {
                digests.extend(lease.digests);
            }
        }
        Ok(digests)
    }

    fn drop_abandoned(&self, collected: &mut Collected) -> Result<()> {
        let directory = self.shared.root.join("ingest");
        for entry in std::fs::read_dir(&directory).map_err(|e| Error::io(&directory, e))? {
            let entry = entry.map_err(|e| Error::io(&directory, e))?;
            let name = entry.file_name().to_string_lossy().into_owned();
            if self.shared.active.lock().contains(&name) {
                continue;
            }
            let Ok(meta) = entry.metadata() else { continue };
            // Unnamed ones cannot be resumed.
            if name.starts_with("new-") || is_old(&meta) {
                collected.bytes += meta.len();
                std::fs::remove_file(entry.path()).map_err(|e| Error::io(&entry.path(), e))?;
            }
        }
        Ok(())
    }
}

fn is_old(meta: &Metadata) -> bool {
    let age = meta
        .modified()
        .ok()
        .and_then(|modified| SystemTime::now().duration_since(modified).ok());
    age.is_some_and(|age| age > PARTIAL_LIFETIME)
}
