//! What is attested of an image comes with it where that makes its index whole, so that it can be pushed again as it is.

use gantry_model::Digest;

use super::fetch::Fetcher;
use super::resolve::Resolver;
use crate::Result;
use crate::manifest::{IndexEntry, MAX_MANIFEST, Manifest};
use crate::record::Descriptor;

/// Statements of more bytes stay where they are.
const MAX_BYTES: u64 = 64 << 20;

/// The blobs of the statements on the only image of an index; their manifests come into the content store and are added
/// to `documents`. Nothing where the index has more images: it could not be pushed anyway.
pub(super) fn find(
    resolver: &mut Resolver<'_>,
    entries: &[IndexEntry],
    image: &Digest,
    documents: &mut Vec<Digest>,
) -> Result<Vec<Descriptor>> {
    let attests = |entry: &&IndexEntry| entry.attests().as_ref() == Some(image);
    let statements: Vec<&IndexEntry> = entries.iter().filter(attests).collect();
    if statements.len() + 1 != entries.len() {
        return Ok(Vec::new());
    }
    let mut blobs = Vec::new();
    for entry in statements {
        if entry.size > MAX_MANIFEST {
            return Ok(Vec::new());
        }
        let (bytes, _) = resolver.document(entry)?;
        documents.push(entry.digest.clone());
        if let Ok(manifest) = serde_json::from_slice::<Manifest>(&bytes) {
            blobs.push(manifest.config);
            blobs.extend(manifest.layers);
        }
    }
    let total = blobs
        .iter()
        .map(|blob| blob.size)
        .fold(0, u64::saturating_add);
    Ok(if total <= MAX_BYTES {
        blobs
    } else {
        Vec::new()
    })
}

/// Fetches them. The image is as good without.
pub(super) fn fetch(fetcher: &Fetcher<'_>, blobs: &[Descriptor]) {
    for blob in blobs {
        if fetcher.shared.content.contains(&blob.digest) {
            continue;
        }
        if let Err(error) = fetcher.fetch(blob, None, None) {
            tracing::debug!(digest = %blob.digest, %error, "an attestation is left where it is");
            return;
        }
    }
}
