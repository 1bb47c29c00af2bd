//! What a name stands for where it came from: the manifest of one image, or an index of the images for several platforms
//! and of what is attested of them. Some of it is here, some is not: a pull brings one platform.

use gantry_model::{Digest, ImageId, Platform};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::manifest::{
    self, DOCKER_CONFIG, DOCKER_LIST, DOCKER_MANIFEST, Document, IndexEntry, MAX_MANIFEST,
    Manifest, OCI_INDEX, OCI_MANIFEST,
};
use crate::record::Descriptor;
use crate::service::Shared;
use crate::{Error, Result};

/// A document in the content store that a name stands for.
pub(crate) struct Tree {
    /// The document itself.
    pub(crate) descriptor: Descriptor,
    pub(crate) bytes: Vec<u8>,
    /// Whether it is an index.
    pub(crate) is_index: bool,
    /// The manifests in it, in its order; itself when it is none.
    pub(crate) nodes: Vec<Node>,
}

/// One manifest.
pub(crate) struct Node {
    /// How the index describes it, all members.
    pub(crate) described: Value,
    pub(crate) entry: IndexEntry,
    pub(crate) kind: NodeKind,
    /// What it says, when it is here.
    pub(crate) manifest: Option<Manifest>,
    /// Whether it and all that it names are here.
    pub(crate) available: bool,
}

/// What a manifest is the manifest of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NodeKind {
    /// An image that containers can be made from.
    Image,
    /// Statements on the image with this manifest.
    Attestation(Digest),
    /// Something else.
    Unknown,
}

impl Node {
    /// The image's identifier, when its manifest is here.
    pub(crate) fn image(&self) -> Option<&ImageId> {
        self.manifest.as_ref().map(|found| &found.config.digest)
    }

    /// Everything it consists of, as far as its manifest is here: itself, configuration, layers.
    pub(crate) fn blobs(&self) -> impl Iterator<Item = (&Digest, u64)> {
        let named = self.manifest.iter().flat_map(|found| {
            let parts = std::iter::once(&found.config).chain(&found.layers);
            parts.map(|blob| (&blob.digest, blob.size))
        });
        std::iter::once((&self.entry.digest, self.entry.size)).chain(named)
    }
}

impl Tree {
    /// The node of an image that is here whole.
    pub(crate) fn node_of(&self, image: &ImageId) -> Option<&Node> {
        self.nodes.iter().find(|node| {
            node.kind == NodeKind::Image && node.available && node.image() == Some(image)
        })
    }
}

#[derive(Deserialize)]
struct Described {
    #[serde(default)]
    manifests: Vec<Value>,
}

impl Shared {
    /// The descriptor of a document that is here.
    pub(crate) fn described(&self, digest: &Digest) -> Option<Descriptor> {
        let bytes = self.content.read(digest, MAX_MANIFEST).ok()?;
        let document = manifest::parse(&bytes, "").ok()?;
        Some(describe(digest, &bytes, &document))
    }

    /// The document `digest` and the manifests in it; `None` when it is not here, or nothing that can be read.
    pub(crate) fn tree(&self, digest: &Digest) -> Result<Option<Tree>> {
        let bytes = match self.content.read(digest, MAX_MANIFEST) {
            Ok(bytes) => bytes,
            Err(gantry_content::Error::NotFound(_)) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        let Ok(document) = manifest::parse(&bytes, "") else {
            return Ok(None);
        };
        let descriptor = describe(digest, &bytes, &document);
        let is_index = matches!(document, Document::Index(_));
        let described = match is_index {
            false => vec![json!(descriptor)],
            true => {
                let index: Described = serde_json::from_slice(&bytes)
                    .map_err(|error| Error::Malformed(format!("invalid image index: {error}")))?;
                index.manifests
            }
        };
        let nodes = described.into_iter().map(|entry| self.node(entry));
        Ok(Some(Tree {
            nodes: nodes.collect::<Result<_>>()?,
            descriptor,
            bytes,
            is_index,
        }))
    }

    fn node(&self, described: Value) -> Result<Node> {
        let entry: IndexEntry = serde_json::from_value(described.clone())
            .map_err(|error| Error::Malformed(format!("invalid image index: {error}")))?;
        let nested = matches!(entry.media_type.as_str(), DOCKER_LIST | OCI_INDEX);
        let manifest = match nested {
            true => None,
            false => self.manifest_here(&entry.digest),
        };
        let here = |blob: &Descriptor| self.content.contains(&blob.digest);
        let available = manifest
            .as_ref()
            .is_some_and(|found| here(&found.config) && found.layers.iter().all(here));
        let kind = match entry.attests() {
            Some(image) => NodeKind::Attestation(image),
            None if entry.is_image() => NodeKind::Image,
            None => NodeKind::Unknown,
        };
        Ok(Node {
            described,
            entry,
            kind,
            manifest,
            available,
        })
    }

    /// A manifest of any kind, attestations and artifacts too.
    pub(crate) fn manifest_here(&self, digest: &Digest) -> Option<Manifest> {
        let bytes = self.content.read(digest, MAX_MANIFEST).ok()?;
        serde_json::from_slice(&bytes).ok()
    }

    /// The platform that an image's configuration names.
    pub(crate) fn platform_of(&self, image: &ImageId) -> Result<Platform> {
        Ok(self.config(image)?.platform())
    }

    /// The document that an image came as under one of its names, or by itself.
    pub(crate) fn tree_of(&self, target: Option<&Digest>, image: &ImageId) -> Result<Option<Tree>> {
        let own = self.image(image)?.manifest;
        for digest in target.into_iter().chain(&own) {
            if let Some(tree) = self.tree(digest)?
                && tree.node_of(image).is_some()
            {
                return Ok(Some(tree));
            }
        }
        Ok(None)
    }
}

/// The descriptor of a document; a type that it does not name itself is told by its form.
pub(crate) fn describe(digest: &Digest, bytes: &[u8], document: &Document) -> Descriptor {
    let implied = match document {
        Document::Index(_) => OCI_INDEX,
        Document::Manifest(found) if found.config.media_type == DOCKER_CONFIG => DOCKER_MANIFEST,
        Document::Manifest(_) => OCI_MANIFEST,
    };
    Descriptor {
        media_type: manifest::media_type(bytes).unwrap_or_else(|| implied.into()),
        digest: digest.clone(),
        size: bytes.len() as u64,
    }
}
