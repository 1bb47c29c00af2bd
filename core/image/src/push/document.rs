//! The manifest to push: the one that the image came with, or one made of the layers that are here.

use std::collections::BTreeSet;
use std::io::Read;

use flate2::Compression as Level;
use flate2::write::GzEncoder;
use gantry_content::Hasher;
use gantry_model::{Digest, ImageId, Platform, Reference};
use serde_json::json;

use super::index::{self, Origin};
use crate::chunks::CHUNK;
use crate::config::{ImageConfig, MAX_CONFIG};
use crate::inflate::{Compression, inflate};
use crate::manifest::{
    self, DOCKER_CONFIG, DOCKER_LAYER_GZIP, DOCKER_MANIFEST, MAX_MANIFEST, OCI_CONFIG,
    OCI_LAYER_ZSTD, OCI_MANIFEST,
};
use crate::record::{Descriptor, ImageRecord};
use crate::service::Shared;
use crate::tree;
use crate::{Error, Result};

/// What is pushed.
pub(super) struct Document {
    pub(super) bytes: Vec<u8>,
    pub(super) media_type: String,
    pub(super) digest: Digest,
    pub(super) config: Descriptor,
    /// Bottom first.
    pub(super) layers: Vec<Layer>,
    /// Whether it was made here, for this push.
    pub(super) made: bool,
    /// The manifests that an index names; they go first.
    pub(super) parts: Vec<Part>,
    /// The index that it was taken from, when not all of that is here.
    pub(super) instead_of: Option<serde_json::Value>,
}

/// A manifest of an index.
pub(super) struct Part {
    pub(super) digest: Digest,
    pub(super) media_type: String,
    pub(super) bytes: Vec<u8>,
}

/// One layer.
pub(super) struct Layer {
    pub(super) blob: Descriptor,
    diff_id: Digest,
}

impl Layer {
    /// A blob that progress calls by `diff_id`.
    pub(super) fn new(blob: Descriptor, diff_id: Digest) -> Self {
        Self { blob, diff_id }
    }

    /// What it is called in progress.
    pub(super) fn id(&self) -> &str {
        self.diff_id.short()
    }
}

impl Document {
    /// Each layer once.
    pub(super) fn unique_layers(&self) -> impl Iterator<Item = &Layer> {
        let mut seen = BTreeSet::new();
        self.layers
            .iter()
            .filter(move |layer| seen.insert(layer.blob.digest.clone()))
    }
}

/// What to push of an image.
pub(super) fn of(
    shared: &Shared,
    platform: Option<&Platform>,
    name: &Reference,
) -> Result<Document> {
    let id = &shared.find_for(&name.familiar(), platform)?;
    let mut instead_of = None;
    if platform.is_none() {
        match index::origin(shared, name, id)? {
            Origin::Whole(document) => return Ok(document),
            Origin::Part(index) => instead_of = Some(index),
            Origin::Image => {}
        }
    }
    let record = shared.image(id)?;
    let bytes = shared.content.read(id, MAX_CONFIG)?;
    let config = ImageConfig::parse(&bytes)?;
    if let Some(document) = as_it_came(shared, &record, &config)? {
        return Ok(Document {
            instead_of,
            ..document
        });
    }
    let mut layers = Vec::new();
    let blobs = shared.descriptors(&record)?.into_iter();
    for (blob, diff_id) in blobs.zip(&config.rootfs.diff_ids) {
        layers.push(Layer {
            blob: compressed(shared, blob, diff_id)?,
            diff_id: diff_id.clone(),
        });
    }
    Ok(made_of(id, bytes.len() as u64, layers))
}

/// The manifest of a pulled image, when everything that it names is here.
fn as_it_came(
    shared: &Shared,
    record: &ImageRecord,
    config: &ImageConfig,
) -> Result<Option<Document>> {
    let Some(digest) = record
        .manifest
        .clone()
        .filter(|digest| shared.content.contains(digest))
    else {
        return Ok(None);
    };
    let bytes = shared.content.read(&digest, MAX_MANIFEST)?;
    let document = manifest::parse(&bytes, "")?;
    let media_type = tree::describe(&digest, &bytes, &document).media_type;
    let manifest::Document::Manifest(found) = document else {
        return Ok(None);
    };
    let whole = found.layers.len() == config.rootfs.diff_ids.len()
        && found
            .layers
            .iter()
            .all(|layer| shared.content.contains(&layer.digest));
    if !whole {
        return Ok(None);
    }
    Ok(Some(Document {
        media_type,
        digest,
        bytes,
        config: found.config,
        layers: found
            .layers
            .into_iter()
            .zip(&config.rootfs.diff_ids)
            .map(|(blob, diff_id)| Layer {
                blob,
                diff_id: diff_id.clone(),
            })
            .collect(),
        made: false,
        parts: Vec::new(),
        instead_of: None,
    }))
}

/// A manifest in Docker's own format, which every registry takes; OCI's where a layer is compressed with zstd.
fn made_of(id: &ImageId, config_size: u64, mut layers: Vec<Layer>) -> Document {
    let oci = layers
        .iter()
        .any(|layer| layer.blob.media_type == OCI_LAYER_ZSTD);
    let (media_type, config_type) = match oci {
        true => (OCI_MANIFEST, OCI_CONFIG),
        false => (DOCKER_MANIFEST, DOCKER_CONFIG),
    };
    for layer in &mut layers {
        if !oci {
            layer.blob.media_type = DOCKER_LAYER_GZIP.into();
        }
    }
    let config = Descriptor {
        media_type: config_type.into(),
        digest: id.clone(),
        size: config_size,
    };
    let blobs: Vec<&Descriptor> = layers.iter().map(|layer| &layer.blob).collect();
    let bytes =
        json!({"schemaVersion": 2, "mediaType": media_type, "config": config, "layers": blobs})
            .to_string()
            .into_bytes();
    let mut hasher = Hasher::sha256();
    hasher.update(&bytes);
    Document {
        bytes,
        media_type: media_type.into(),
        digest: hasher.finish(),
        config,
        layers,
        made: true,
        parts: Vec::new(),
        instead_of: None,
    }
}

/// The layer as registries hold it. A plain one is compressed, once: its result is remembered, and kept while an image
/// was pushed with it.
fn compressed(shared: &Shared, blob: Descriptor, diff_id: &Digest) -> Result<Descriptor> {
    let file = shared.content.open_blob(&blob.digest)?;
    let io = |error| Error::io("compressing a layer", error);
    let (mut plain, compression) = inflate(file).map_err(io)?;
    let media_type = match compression {
        Compression::Zstd => OCI_LAYER_ZSTD,
        _ => manifest::OCI_LAYER_GZIP,
    };
    // There are no media types for the other compressions.
    if matches!(compression, Compression::Gzip | Compression::Zstd) {
        return Ok(Descriptor {
            media_type: media_type.into(),
            ..blob
        });
    }
    let _turn = shared.unpacks.lock(&format!("gzip/{diff_id}"), || false)?;
    if let Some(known) = shared.compressed.get(diff_id.as_str())?
        && shared.content.claim(&known.digest)
    {
        return Ok(known);
    }
    let mut ingest = shared.content.begin_unnamed()?;
    let mut encoder = GzEncoder::new(Vec::with_capacity(2 * CHUNK), Level::default());
    let mut buffer = vec![0; CHUNK];
    let mut size = 0;
    loop {
        let count = plain.read(&mut buffer).map_err(io)?;
        std::io::Write::write_all(&mut encoder, &buffer[..count]).map_err(io)?;
        if count == 0 {
            encoder.try_finish().map_err(io)?;
        }
        size += encoder.get_ref().len() as u64;
        ingest.write(encoder.get_ref())?;
        encoder.get_mut().clear();
        if count == 0 {
            break;
        }
    }
    let known = Descriptor {
        media_type: media_type.into(),
        digest: ingest.finish()?,
        size,
    };
    shared.compressed.put(diff_id.as_str(), &known)?.detach();
    Ok(known)
}
