//! Manifests and their names.

use gantry_plugin_sdk::registry::{ManifestReply, PutManifest, PutReply, Tags};
use gantry_plugin_sdk::{Call, DriverError, DriverResult, ErrorCode};
use serde_json::Value;

use crate::digest::Digest;
use crate::index::{Entry, Index};
use crate::layout::Layout;
use crate::{MAX_MANIFEST, blob, collect, unknown_manifest};

/// How deep indexes within indexes are followed.
pub(crate) const MAX_DEPTH: usize = 4;

/// Reads what a tag or digest names.
pub(crate) fn fetch(layout: &Layout, reference: &str) -> DriverResult<ManifestReply> {
    let index = layout.index()?;
    let entry = match reference.parse::<Digest>() {
        Ok(digest) => find(layout, &index, &digest, MAX_DEPTH)?,
        Err(_) => index.tagged(reference).cloned(),
    };
    let entry = entry.ok_or_else(unknown_manifest)?;
    let digest = entry.digest().ok_or_else(unknown_manifest)?;
    let bytes = read(layout, &digest)?.ok_or_else(unknown_manifest)?;
    Ok(ManifestReply {
        media_type: entry.text("mediaType").into(),
        digest: digest.to_string(),
        size: bytes.len() as u64,
        bytes,
        rate_limit: Vec::new(),
    })
}

/// The names that are tags; a layout's may be more.
pub(crate) fn tags(layout: &Layout) -> DriverResult<Tags> {
    let index = layout.index()?;
    let names = index.entries.iter().filter_map(Entry::name);
    let mut tags: Vec<String> = names.filter(|n| is_tag(n)).map(str::to_owned).collect();
    if tags.is_empty() && index.tagged("latest").is_some() {
        tags.push("latest".into());
    }
    tags.sort();
    tags.dedup();
    Ok(Tags { tags })
}

/// Stores a manifest under a tag or its digest.
pub(crate) fn put(
    layout: &Layout,
    request: PutManifest,
    call: &Call<'_>,
) -> DriverResult<PutReply> {
    if request.bytes.len() as u64 > MAX_MANIFEST {
        return Err(DriverError::invalid(
            "manifest invalid: the manifest is too large",
        ));
    }
    let named = request.reference.parse::<Digest>().ok();
    let digest = match &named {
        None if !is_tag(&request.reference) => {
            return Err(DriverError::invalid(format!(
                "manifest invalid: {:?} is no tag",
                request.reference
            )));
        }
        None => Digest::of(&request.bytes),
        Some(digest) => {
            let mut hasher = digest.hasher();
            hasher.update(&request.bytes);
            hasher.finish()
        }
    };
    if named.as_ref().is_some_and(|named| *named != digest) {
        return Err(DriverError::invalid(
            "digest invalid: provided digest did not match uploaded content",
        ));
    }
    let document: Value = serde_json::from_slice(&request.bytes)
        .map_err(|error| DriverError::invalid(format!("manifest invalid: {error}")))?;
    let _lock = layout.lock(call)?;
    for named in names(&document) {
        let there = named.parse().and_then(|d| blob::open(layout, &d));
        if let Err(error) = there {
            return Err(match error.code {
                ErrorCode::NotFound => DriverError::invalid(format!(
                    "manifest blob unknown: blob unknown to registry: {named}"
                )),
                _ => error,
            });
        }
    }
    layout.replace(&digest.path(), &request.bytes)?;
    let entry = Entry::new(&request.media_type, &digest, request.bytes.len());
    let mut index = layout.index()?;
    match named {
        Some(_) => index.add(entry),
        None => index.tag(entry, &request.reference),
    }
    layout.write_index(&index)?;
    Ok(PutReply {
        digest: digest.to_string(),
    })
}

/// Takes a tag away, or a manifest with all of its tags and, in time, with what only it names.
pub(crate) fn delete(layout: &Layout, reference: &str, call: &Call<'_>) -> DriverResult<()> {
    let _lock = layout.lock(call)?;
    let mut index = layout.index()?;
    let there = match reference.parse::<Digest>() {
        Ok(digest) => {
            let before = index.entries.len();
            index.entries.retain(|entry| !entry.is(&digest));
            index.entries.len() < before
        }
        Err(_) => index.untag(reference),
    };
    if !there {
        return Err(unknown_manifest());
    }
    layout.write_index(&index)?;
    collect::collect(layout, &index, std::time::SystemTime::now());
    Ok(())
}

/// The entry of a manifest, in the index or in an index that it names: of an image for several platforms other tools
/// list the whole only.
fn find(
    layout: &Layout,
    index: &Index,
    digest: &Digest,
    depth: usize,
) -> DriverResult<Option<Entry>> {
    if let Some(entry) = index.entries.iter().find(|entry| entry.is(digest)) {
        return Ok(Some(entry.clone()));
    }
    for entry in index.entries.iter().filter(|e| e.is_index() && depth > 0) {
        let Some(inner) = nested(layout, entry)? else {
            continue;
        };
        if let Some(found) = find(layout, &inner, digest, depth - 1)? {
            return Ok(Some(found));
        }
    }
    Ok(None)
}

/// The index that an entry stands for; `None` where its document is missing or none.
pub(crate) fn nested(layout: &Layout, entry: &Entry) -> DriverResult<Option<Index>> {
    let Some(digest) = entry.digest() else {
        return Ok(None);
    };
    let bytes = read(layout, &digest)?;
    Ok(bytes.and_then(|bytes| Index::parse(&bytes).ok()))
}

/// The bytes of a manifest's document; `None` where it is missing.
pub(crate) fn read(layout: &Layout, digest: &Digest) -> DriverResult<Option<Vec<u8>>> {
    let bytes = layout.read(&digest.path(), MAX_MANIFEST)?;
    if bytes
        .as_ref()
        .is_some_and(|bytes| bytes.len() as u64 > MAX_MANIFEST)
    {
        return Err(DriverError::invalid(format!(
            "manifest invalid: {digest} is too large for a manifest"
        )));
    }
    Ok(bytes)
}

/// The digests of what a manifest or index needs. What it is the subject of may be missing, and so may layers that are
/// to be fetched from elsewhere (`urls`).
pub(crate) fn names(document: &Value) -> Vec<&str> {
    let list = |member: &str| document[member].as_array().map_or(&[][..], Vec::as_slice);
    [&document["config"]]
        .into_iter()
        .chain(list("layers"))
        .chain(list("manifests"))
        .chain(list("blobs"))
        .filter(|descriptor| descriptor["urls"].as_array().is_none_or(Vec::is_empty))
        .filter_map(|descriptor| descriptor["digest"].as_str())
        .collect()
}

/// Source: OCI distribution specification, the grammar of `<reference>` as a tag.
fn is_tag(name: &str) -> bool {
    let word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    let bytes = name.as_bytes();
    (1..=128).contains(&bytes.len())
        && word(bytes[0])
        && bytes.iter().all(|b| word(*b) || b".-".contains(b))
}
