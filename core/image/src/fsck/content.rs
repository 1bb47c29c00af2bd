//! Blobs, downloads and leases.

use std::io::Read;

use gantry_content::Hasher;
use gantry_model::{Digest, ImageId};

use super::{Check, Flaw, once};
use crate::chunks::CHUNK;
use crate::{Error, Result};

impl Check<'_> {
    /// Reads every blob. One that is damaged is removed: then it is known to be missing, and can be fetched.
    pub(super) fn damaged_blobs(&mut self) -> Result<()> {
        let content = &self.shared.content;
        for digest in content.list()? {
            let detail = match hash(content.open_blob(&digest), &digest) {
                Ok(found) if found == digest => continue,
                Ok(found) => format!(
                    "its {} bytes have the digest {found}",
                    content.size(&digest).unwrap_or(0)
                ),
                // Removed meanwhile.
                Err(Error::Content(gantry_content::Error::NotFound(_))) => continue,
                Err(error) => error.to_string(),
            };
            self.found(Flaw::BlobDamaged, digest.as_str(), detail, || {
                Ok(content.delete(&digest)?)
            });
        }
        Ok(())
    }

    /// Blobs, downloads and leases that nobody wants.
    pub(super) fn garbage(&mut self) -> Result<()> {
        self.stale_leases()?;
        let shared = self.shared;
        let content = &shared.content;
        let mut collected = false;
        for digest in content.garbage(|| shared.wanted_blobs())? {
            let detail = format!("{} bytes", content.size(&digest).unwrap_or(0));
            self.found(Flaw::BlobUnreferenced, digest.as_str(), detail, || {
                once(&mut collected, || shared.collect_blobs())
            });
        }
        for path in content.abandoned()? {
            let detail = format!("{} bytes", path.metadata().map_or(0, |meta| meta.len()));
            self.found(
                Flaw::DownloadAbandoned,
                path.display().to_string(),
                detail,
                || once(&mut collected, || shared.collect_blobs()),
            );
        }
        Ok(())
    }

    /// Leases of pulls that came to their end, but for letting go.
    fn stale_leases(&mut self) -> Result<()> {
        let shared = self.shared;
        for lease in shared.content.leases() {
            let id = lease
                .name
                .strip_prefix("pull/")
                .and_then(|id| id.parse::<ImageId>().ok());
            let Some(id) = id.filter(|_| !lease.held) else {
                continue;
            };
            let Some(record) = shared.images.get(id.as_str())? else {
                continue;
            };
            if shared.is_whole(&id, &record)? {
                let detail = "the image is here";
                self.found(Flaw::LeaseStale, lease.name.as_str(), detail, || {
                    shared.content.end_lease(&lease.name);
                    Ok(())
                });
            }
        }
        Ok(())
    }
}

fn hash(file: gantry_content::Result<std::fs::File>, digest: &Digest) -> Result<Digest> {
    let mut file = file?;
    let mut hasher = Hasher::for_digest(digest);
    let mut buffer = vec![0; CHUNK];
    loop {
        let count = file
            .read(&mut buffer)
            .map_err(|error| Error::io("reading a blob", error))?;
        if count == 0 {
            return Ok(hasher.finish());
        }
        hasher.update(&buffer[..count]);
    }
}
