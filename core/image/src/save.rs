//! Save: images as one archive that is a docker-archive and an OCI layout at once, as Docker writes since version 25.
//!
//! What came from a registry or an archive is written as it came, byte for byte: index, manifests, what is attested of the
//! images, compressed layers. An image that has no manifest gets one. The documents stand before what they name.

mod choose;
mod writer;

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;

use gantry_model::{Digest, ImageId, Platform, Reference};
use serde_json::{Value, json};

use crate::config::ImageConfig;
use crate::inflate::Compression;
use crate::manifest::{OCI_CONFIG, OCI_INDEX, OCI_LAYER_TAR, OCI_MANIFEST};
use crate::record::{Descriptor, ImageRecord};
use crate::service::Shared;
use crate::tree::{Node, Tree};
use crate::{Error, Result};
use choose::Chosen;
pub(crate) use choose::choose;
use writer::Writer;

/// What the archive says of its contents.
#[derive(Default)]
struct Documents {
    /// Entries of `index.json`.
    index: Vec<Value>,
    /// Entries of `manifest.json`.
    archive: Vec<Value>,
    /// The oldest form: repository, tag, layer.
    repositories: BTreeMap<String, BTreeMap<String, String>>,
    /// Blobs of the content store, with their lengths.
    blobs: Vec<(Digest, u64)>,
    /// Manifests that are made for the archive.
    made: Vec<(Digest, Vec<u8>)>,
    seen: BTreeSet<Digest>,
}

/// What stands for an image in `index.json`.
struct Exported {
    descriptor: Value,
    /// Of the image itself, as the archive holds them.
    layers: Vec<Digest>,
}

pub(crate) fn save(
    shared: &Shared,
    names: &[String],
    platforms: &[Platform],
    output: &mut (dyn Write + Send),
) -> Result<()> {
    let chosen = choose(shared, names, platforms)?;
    // What is being written stays, whatever happens to its image.
    let hold = shared.hold();
    let mut documents = Documents::default();
    let mut batch = gantry_store::Batch::new();
    for image in &chosen {
        documents.image(shared, image, !platforms.is_empty())?;
        let labels = shared.image(&image.id)?.labels;
        let id = image.id.to_string();
        let (time, event) = shared.image_event("save", id.clone(), id, labels);
        batch.event(time, event);
    }
    let mut writer = Writer::new(output);
    writer.documents(&documents)?;
    for (digest, bytes) in &documents.made {
        writer.bytes(&blob_path(digest), bytes)?;
    }
    for (digest, size) in &documents.blobs {
        writer.blob(digest, *size, shared.content.open_blob(digest)?)?;
    }
    writer.finish()?;
    shared.store.commit(batch).wait()?;
    hold.settle();
    Ok(())
}

fn blob_path(digest: &Digest) -> String {
    format!("blobs/{}/{}", digest.algorithm(), digest.hex())
}

impl Documents {
    fn image(&mut self, shared: &Shared, image: &Chosen, one_platform: bool) -> Result<()> {
        let config = shared.config(&image.id)?;
        let mut layers = None;
        let mut targets = Vec::new();
        for tag in &image.tags {
            let target = shared.lookup(tag)?.and_then(|record| record.target);
            targets.push((Some(tag), target));
        }
        if targets.is_empty() {
            targets.push((None, None));
        }
        for (tag, target) in targets {
            let exported = match shared.tree_of(target.as_ref(), &image.id)? {
                Some(tree) => self.came(shared, &tree, &image.id, one_platform),
                None => None,
            };
            let exported = match exported {
                Some(exported) => exported,
                None => self.made(shared, &image.id, &config)?,
            };
            let mut entry = exported.descriptor;
            let layers = layers.get_or_insert(exported.layers);
            if let Some(tag) = tag {
                let name = tag.tag().unwrap_or_default();
                entry["annotations"]["io.containerd.image.name"] = json!(tag.to_string());
                entry["annotations"]["org.opencontainers.image.ref.name"] = json!(name);
                let top = config.rootfs.diff_ids.last().or(layers.last());
                let top = top.unwrap_or(&image.id).hex().to_owned();
                let tags = self.repositories.entry(tag.familiar_name()).or_default();
                tags.insert(name.to_owned(), top);
            }
            self.index.push(entry);
        }
        let tags: Vec<String> = image.tags.iter().map(Reference::familiar).collect();
        let layers = layers.unwrap_or_default();
        self.archive.push(json!({
            "Config": blob_path(&image.id),
            "RepoTags": (!tags.is_empty()).then_some(tags),
            "Layers": layers.iter().map(blob_path).collect::<Vec<_>>(),
        }));
        Ok(())
    }

    /// A document that an image came as: all of it that is here, or the image alone, with what is attested of it left out.
    fn came(
        &mut self,
        shared: &Shared,
        tree: &Tree,
        id: &ImageId,
        alone: bool,
    ) -> Option<Exported> {
        let image = tree.node_of(id)?;
        let layers = &image.manifest.as_ref()?.layers;
        if !alone {
            self.blob(shared, &tree.descriptor.digest, tree.descriptor.size);
        }
        let wanted = |node: &&Node| match alone {
            true => std::ptr::eq(*node, image),
            false => node.available,
        };
        for (digest, size) in tree.nodes.iter().filter(wanted).flat_map(Node::blobs) {
            self.blob(shared, digest, size);
        }
        Some(Exported {
            descriptor: match alone {
                true => image.described.clone(),
                false => json!(tree.descriptor),
            },
            layers: layers.iter().map(|layer| layer.digest.clone()).collect(),
        })
    }

    /// An image without a manifest: one is made of the layers that are here.
    fn made(&mut self, shared: &Shared, id: &ImageId, config: &ImageConfig) -> Result<Exported> {
        let record = shared.image(id)?;
        let layers = layers(shared, &record)?;
        let length = shared.content.size(id).unwrap_or(0);
        self.blob(shared, id, length);
        for layer in &layers {
            self.blob(shared, &layer.digest, layer.size);
        }
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": OCI_MANIFEST,
            "config": {"mediaType": OCI_CONFIG, "digest": id, "size": length},
            "layers": layers,
        })
        .to_string()
        .into_bytes();
        let mut hasher = gantry_content::Hasher::sha256();
        hasher.update(&manifest);
        let digest = hasher.finish();
        let descriptor = json!({
            "mediaType": OCI_MANIFEST,
            "digest": digest,
            "size": manifest.len(),
            "platform": config.platform(),
        });
        if self.seen.insert(digest.clone()) {
            self.made.push((digest, manifest));
        }
        Ok(Exported {
            descriptor,
            layers: layers.into_iter().map(|layer| layer.digest).collect(),
        })
    }

    fn blob(&mut self, shared: &Shared, digest: &Digest, size: u64) {
        if shared.content.claim(digest) && self.seen.insert(digest.clone()) {
            let size = shared.content.size(digest).unwrap_or(size);
            self.blobs.push((digest.clone(), size));
        }
    }

    fn index(&self) -> Value {
        json!({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": self.index})
    }
}

/// The layers of an image as they lie here, with types that tell how they are compressed.
fn layers(shared: &Shared, record: &ImageRecord) -> Result<Vec<Descriptor>> {
    let layer = |blob: Descriptor| {
        let mut start = Vec::new();
        let file = shared.content.open_blob(&blob.digest)?;
        std::io::Read::read_to_end(&mut std::io::Read::take(file, 8), &mut start)
            .map_err(|error| Error::io("reading a layer", error))?;
        let media_type = Compression::of(&start).media_type();
        Ok(Descriptor {
            media_type: media_type.unwrap_or(OCI_LAYER_TAR).into(),
            ..blob
        })
    };
    let blobs = shared.descriptors(record)?;
    blobs.into_iter().map(layer).collect()
}
