//! Manifests that refer to another: signatures, attestations.

use gantry_plugin_sdk::DriverResult;
use gantry_plugin_sdk::registry::ManifestReply;
use serde_json::{Value, json};

use crate::digest::Digest;
use crate::index::{Entry, INDEX};
use crate::layout::Layout;
use crate::manifest;

/// The list of what names `digest` as its subject, as an index. Only what the layout lists itself is looked at: what is
/// put with a subject is listed.
pub(crate) fn of(layout: &Layout, digest: &str) -> DriverResult<ManifestReply> {
    let digest: Digest = digest.parse()?;
    let mut referrers: Vec<Value> = Vec::new();
    for entry in &layout.index()?.entries {
        let Some(found) = referrer(layout, entry, &digest)? else {
            continue;
        };
        if !referrers.contains(&found) {
            referrers.push(found);
        }
    }
    let document = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": referrers});
    let bytes = document.to_string().into_bytes();
    Ok(ManifestReply {
        media_type: INDEX.into(),
        digest: String::new(),
        size: bytes.len() as u64,
        bytes,
        rate_limit: Vec::new(),
    })
}

/// The descriptor of a manifest whose subject is `subject`. Source: OCI distribution specification, *Listing Referrers*.
fn referrer(layout: &Layout, entry: &Entry, subject: &Digest) -> DriverResult<Option<Value>> {
    let Some(digest) = entry.digest() else {
        return Ok(None);
    };
    let bytes = manifest::read(layout, &digest)?.unwrap_or_default();
    let Ok(document) = serde_json::from_slice::<Value>(&bytes) else {
        return Ok(None);
    };
    if document["subject"]["digest"].as_str() != Some(&subject.to_string()) {
        return Ok(None);
    }
    let mut descriptor = json!({
        "mediaType": entry.text("mediaType"), "digest": digest.to_string(), "size": bytes.len(),
    });
    let kind = [&document["artifactType"], &document["config"]["mediaType"]];
    if let Some(kind) = kind.into_iter().find(|kind| kind.is_string()) {
        descriptor["artifactType"] = kind.clone();
    }
    if document["annotations"].is_object() {
        descriptor["annotations"] = document["annotations"].clone();
    }
    Ok(Some(descriptor))
}
