//! Images of the same index for other platforms.

use gantry_model::{Digest, ImageId, Platform, Reference};

use crate::install::Install;
use crate::load::Local;
use crate::manifest::{self, Manifest};
use crate::record::Descriptor;
use crate::service::Shared;
use crate::tree::{Node, NodeKind};
use crate::{Error, Result, Silent};

/// An image of an index, all of it in the content store.
pub(crate) struct Sibling {
    pub(crate) image: ImageId,
    manifest: Digest,
    layers: Vec<Descriptor>,
    blobs: Vec<Digest>,
}

impl Shared {
    /// What the index that `name` stands for offers for a platform beside the image `id`; with `installed`, only what is an
    /// image here already.
    pub(crate) fn sibling(
        &self,
        name: &str,
        id: &ImageId,
        wanted: &Platform,
        installed: bool,
    ) -> Result<Option<Sibling>> {
        let target = match Reference::parse(name) {
            Ok(reference) => self.lookup(&reference)?.and_then(|record| record.target),
            Err(_) => None,
        };
        let Some(tree) = self.tree_of(target.as_ref(), id)? else {
            return Ok(None);
        };
        for acceptable in manifest::acceptable(wanted) {
            for node in tree
                .nodes
                .iter()
                .filter(|node| node.kind == NodeKind::Image)
            {
                let Some(found) = node.manifest.as_ref().filter(|_| node.available) else {
                    continue;
                };
                let image = &found.config.digest;
                let here = !installed || self.images.contains(image.as_str())?;
                if here && self.suits(node, image, &acceptable)? {
                    return Ok(Some(sibling(node, found)));
                }
            }
        }
        Ok(None)
    }

    /// A configuration can be wrong about its platform where the index is right.
    fn suits(&self, node: &Node, image: &ImageId, platform: &Platform) -> Result<bool> {
        Ok(node.entry.platform().as_ref() == Some(platform)
            || self.platform_of(image)?.normalized() == *platform)
    }

    /// Makes an image of a sibling, without a name: that is another platform's.
    pub(crate) fn bring_out(&self, sibling: Sibling) -> Result<ImageId> {
        let hold = self.hold();
        let mut blobs = sibling.blobs.iter();
        if !blobs.all(|digest| self.content.claim(digest)) {
            return Err(Error::NoSuchImage(sibling.image.to_string()));
        }
        let id = sibling.image;
        let _turn = self.pulls.lock(id.as_str(), || false)?;
        let install = Install {
            shared: self,
            id: id.clone(),
            config: self.config(&id)?,
            layers: sibling.layers,
            manifest: Some(sibling.manifest),
            blobs: sibling.blobs,
            parent: None,
            workers: std::thread::available_parallelism().map_or(2, usize::from),
            source: &Local {
                progress: &Silent,
                quiet: true,
            },
        };
        install.run(&[], Vec::new())?;
        hold.settle();
        Ok(id)
    }
}

fn sibling(node: &Node, found: &Manifest) -> Sibling {
    Sibling {
        image: found.config.digest.clone(),
        manifest: node.entry.digest.clone(),
        layers: found.layers.clone(),
        blobs: node.blobs().map(|(digest, _)| digest.clone()).collect(),
    }
}
