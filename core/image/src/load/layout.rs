//! The OCI image layout. Source: OCI image specification, *Image Layout*.

use gantry_model::{Digest, Platform, Reference};
use serde::Deserialize;

use super::{Loader, Planned};
use crate::manifest::{self, IndexEntry};
use crate::tree::{Node, NodeKind, Tree};
use crate::{Error, Result};

/// containerd's annotation for a full name.
const FULL_NAME: &str = "io.containerd.image.name";
/// The specification's: a tag as a rule, a full name with some tools (skopeo, podman).
const REF_NAME: &str = "org.opencontainers.image.ref.name";

#[derive(Deserialize)]
struct Index {
    /// Docker writes `null` where no image has a name.
    #[serde(default)]
    manifests: Option<Vec<IndexEntry>>,
}

/// The name that an entry gives its image, if it gives a whole one.
fn name_of(entry: &IndexEntry) -> Option<Reference> {
    let full = entry.annotations.get(FULL_NAME);
    // A word alone is a tag of no repository.
    let other = entry.annotations.get(REF_NAME);
    let other = other.filter(|name| name.contains(['/', ':']));
    let name = full.or(other)?;
    Some(Reference::parse(name).ok()?.with_default_tag())
}

impl Loader<'_> {
    /// Adds the images of `index.json`.
    pub(super) fn layout(&self, planned: &mut Vec<Planned>) -> Result<()> {
        let index: Index = self.read("index.json")?;
        for entry in index.manifests.unwrap_or_default() {
            let missing = || {
                let digest = &entry.digest;
                Error::Malformed(format!(
                    "invalid archive: {digest} is no manifest, or missing"
                ))
            };
            let tree = self.shared.tree(&entry.digest)?.ok_or_else(missing)?;
            let Some(node) = self.chosen(&tree)? else {
                continue;
            };
            let image = self.planned(&tree, node)?;
            let known = planned.iter_mut().find(|known| known.id == image.id);
            let image = match known {
                Some(known) => {
                    known.more.extend(image.more);
                    known
                }
                None => {
                    planned.push(image);
                    let last = planned.len() - 1;
                    &mut planned[last]
                }
            };
            if let Some(name) = name_of(&entry)
                && !image.names.iter().any(|(there, _)| *there == name)
            {
                image.names.push((name, Some(entry.digest.clone())));
            }
        }
        Ok(())
    }

    /// The image to install: the host's or the wanted one; without a wish, the first where the host has none.
    fn chosen<'t>(&self, tree: &'t Tree) -> Result<Option<&'t Node>> {
        let images = tree
            .nodes
            .iter()
            .filter(|node| node.kind == NodeKind::Image);
        let images: Vec<&Node> = images.collect();
        let available = images.iter().filter(|node| node.available);
        let available: Vec<&Node> = available.copied().collect();
        if !tree.is_index {
            let Some(node) = available.first() else {
                return Err(incomplete(tree, &images));
            };
            let config = self.config(node.image().unwrap_or(&node.entry.digest))?;
            return Ok(self.wanted(&config.platform()).then_some(*node));
        }
        let host = Platform::host();
        let wishes = match &self.options.platforms[..] {
            [] => std::slice::from_ref(&host),
            wishes => wishes,
        };
        let entries: Vec<&IndexEntry> = available.iter().map(|node| &node.entry).collect();
        for wanted in wishes {
            if let Ok(entry) = manifest::choose_of(entries.clone(), wanted) {
                let found = available
                    .iter()
                    .find(|node| node.entry.digest == entry.digest);
                return Ok(found.copied());
            }
        }
        if !self.options.platforms.is_empty() {
            return Ok(None);
        }
        match available.first() {
            Some(node) => Ok(Some(node)),
            None => Err(incomplete(tree, &images)),
        }
    }

    fn planned(&self, tree: &Tree, node: &Node) -> Result<Planned> {
        let manifest = self.blob(&node.entry.digest, manifest::MAX_MANIFEST)?;
        let manifest::Document::Manifest(manifest) =
            manifest::parse(&manifest, &node.entry.media_type)?
        else {
            return Err(Error::Malformed(
                "an index within an index is not supported".into(),
            ));
        };
        let id = manifest.config.digest;
        // With a platform named, only what belongs to its image.
        let all = self.options.platforms.is_empty();
        let kept = tree.nodes.iter().filter(|other| {
            let attests = NodeKind::Attestation(node.entry.digest.clone());
            other.available && (all || other.kind == attests)
        });
        let blobs = kept.flat_map(|other| other.blobs().map(|(digest, _)| digest.clone()));
        let mut more: Vec<Digest> = blobs.collect();
        more.push(tree.descriptor.digest.clone());
        Ok(Planned {
            config: self.config(&id)?,
            id,
            layers: manifest.layers,
            manifest: Some(node.entry.digest.clone()),
            more,
            names: Vec::new(),
        })
    }
}

/// Why an archive has no image that could be installed.
fn incomplete(tree: &Tree, images: &[&Node]) -> Error {
    let part = images.iter().flat_map(|node| node.blobs()).next();
    let digest = part.map_or(&tree.descriptor.digest, |(digest, _)| digest);
    Error::Malformed(format!("invalid archive: something of {digest} is missing"))
}
