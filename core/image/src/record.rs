//! What is kept in the store: images, layers and names.

use std::collections::{BTreeMap, HashSet};

use gantry_model::{Digest, ImageId, Reference, Timestamp};
use serde::{Deserialize, Serialize};

use crate::service::Shared;
use crate::{Error, ImageEvent, Result};

/// Table `images`, by identifier.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct ImageRecord {
    /// The storage driver that holds the layers.
    pub(crate) driver: String,
    pub(crate) created: Option<Timestamp>,
    /// Bytes of all layers, unpacked.
    pub(crate) size: u64,
    /// Chain IDs, bottom first.
    pub(crate) chain: Vec<Digest>,
    #[serde(default)]
    pub(crate) labels: BTreeMap<String, String>,
    #[serde(default)]
    pub(crate) parent: Option<ImageId>,
    /// When it last got a name here.
    #[serde(default)]
    pub(crate) last_tagged: Timestamp,
    /// The manifest that it came with, verbatim in the content store.
    #[serde(default)]
    pub(crate) manifest: Option<Digest>,
    /// Everything in the content store that belongs to it, the configuration included.
    pub(crate) blobs: Vec<Digest>,
}

/// Table `layers`, by `driver/chain-id`. The snapshot's name is the chain ID.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct LayerRecord {
    pub(crate) diff_id: Digest,
    /// The layer as it came.
    pub(crate) blob: Descriptor,
    /// Bytes, unpacked.
    pub(crate) size: u64,
    /// Bytes of the uncompressed archive.
    pub(crate) plain_size: u64,
}

/// Table `references`, by full reference.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct ReferenceRecord {
    pub(crate) image: ImageId,
    /// Digest of the manifest or index that the name stood for where it came from.
    #[serde(default)]
    pub(crate) target: Option<Digest>,
}

/// A blob with its type and length.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Descriptor {
    pub(crate) media_type: String,
    pub(crate) digest: Digest,
    pub(crate) size: u64,
}

pub(crate) fn layer_key(driver: &str, chain: &Digest) -> String {
    format!("{driver}/{chain}")
}

impl Shared {
    pub(crate) fn image(&self, id: &ImageId) -> Result<ImageRecord> {
        self.images
            .get(id.as_str())?
            .ok_or_else(|| Error::NoSuchImage(id.to_string()))
    }

    /// All names of an image, tags before digests, each sorted.
    pub(crate) fn names_of(&self, id: &ImageId) -> Result<Vec<Reference>> {
        let mut names: Vec<Reference> = self
            .references
            .list()?
            .into_iter()
            .filter(|(_, record)| record.image == *id)
            .filter_map(|(name, _)| Reference::parse(&name).ok())
            .collect();
        names.sort_by_key(|name| (name.digest().is_some(), name.to_string()));
        Ok(names)
    }

    /// Everything in the content store that images need.
    pub(crate) fn wanted_blobs(&self) -> Result<HashSet<Digest>> {
        let mut wanted = HashSet::new();
        self.images.for_each("", |id, record| {
            wanted.extend(id.parse::<Digest>().ok());
            wanted.extend(record.blobs);
            true
        })?;
        // Layers outlive their image while a container stands on them.
        self.layers.for_each("", |_, record| {
            wanted.insert(record.blob.digest);
            true
        })?;
        Ok(wanted)
    }

    /// The event in the engine's form, with its time.
    pub(crate) fn event(&self, event: &ImageEvent) -> (Timestamp, serde_json::Value) {
        (event.time, (self.encode_event)(event))
    }

    pub(crate) fn image_event(
        &self,
        action: &'static str,
        id: impl Into<String>,
        name: impl Into<String>,
        labels: BTreeMap<String, String>,
    ) -> (Timestamp, serde_json::Value) {
        self.event(&ImageEvent {
            action,
            id: id.into(),
            name: name.into(),
            labels,
            time: Timestamp::now(),
        })
    }
}
