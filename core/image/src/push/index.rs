//! An image that came in an index is pushed with it, when all of it is here.

use gantry_model::{ImageId, Reference};
use serde_json::{Value, json};

use super::document::{Document, Layer, Part};
use crate::Result;
use crate::manifest::MAX_MANIFEST;
use crate::record::Descriptor;
use crate::service::Shared;
use crate::tree::Tree;

/// What a name stands for.
pub(super) enum Origin {
    /// An index that is here whole, to be pushed as it is.
    Whole(Document),
    /// An index of which only some is here; its descriptor.
    Part(Value),
    /// The image alone.
    Image,
}

pub(super) fn origin(shared: &Shared, name: &Reference, id: &ImageId) -> Result<Origin> {
    let target = shared.lookup(name)?.and_then(|record| record.target);
    let tree = match target {
        Some(target) => shared.tree(&target)?,
        None => None,
    };
    let Some(tree) = tree.filter(|tree| tree.is_index) else {
        return Ok(Origin::Image);
    };
    let own = tree.node_of(id).and_then(|node| node.manifest.as_ref());
    let Some(config) = own.map(|manifest| manifest.config.clone()) else {
        return Ok(Origin::Image);
    };
    if !tree.nodes.iter().all(|node| node.available) {
        return Ok(Origin::Part(json!(tree.descriptor)));
    }
    whole(shared, tree, id, config).map(Origin::Whole)
}

fn whole(shared: &Shared, tree: Tree, id: &ImageId, config: Descriptor) -> Result<Document> {
    let diff_ids = shared.config(id)?.rootfs.diff_ids;
    let mut parts = Vec::new();
    let mut layers = Vec::new();
    for node in &tree.nodes {
        let Some(manifest) = &node.manifest else {
            continue;
        };
        let digest = node.entry.digest.clone();
        parts.push(Part {
            bytes: shared.content.read(&digest, MAX_MANIFEST)?,
            media_type: node.entry.media_type.clone(),
            digest,
        });
        let own = node.image() == Some(id);
        // What is not the image itself is known by its blobs.
        let shown = |at: usize, blob: &Descriptor| match diff_ids.get(at).filter(|_| own) {
            Some(diff_id) => diff_id.clone(),
            None => blob.digest.clone(),
        };
        let blobs = manifest.layers.iter().enumerate();
        layers.extend(blobs.map(|(at, blob)| Layer::new(blob.clone(), shown(at, blob))));
        if !own {
            let digest = manifest.config.digest.clone();
            layers.push(Layer::new(manifest.config.clone(), digest));
        }
    }
    Ok(Document {
        bytes: tree.bytes,
        media_type: tree.descriptor.media_type,
        digest: tree.descriptor.digest,
        config,
        layers,
        made: false,
        parts,
        instead_of: None,
    })
}
