//! Images and their names.

use gantry_model::ImageId;

use super::{Check, Flaw};
use crate::layers::Layers;
use crate::record::{ImageRecord, layer_key};
use crate::service::Shared;
use crate::{Error, Result};

impl Shared {
    /// Whether an image has everything that it needs. Looks at names and directories only.
    pub(crate) fn is_whole(&self, id: &ImageId, record: &ImageRecord) -> Result<bool> {
        Ok(self.lacks(id, record, true)?.is_none())
    }

    /// The first thing that an image lacks; `snapshots` says whether those count, which can be made of the rest.
    fn lacks(&self, id: &ImageId, record: &ImageRecord, snapshots: bool) -> Result<Option<String>> {
        if !self.content.contains(id) {
            return Ok(Some("its configuration is missing".into()));
        }
        if let Some(manifest) = &record.manifest
            && !self.content.contains(manifest)
        {
            return Ok(Some(format!("its manifest {manifest} is missing")));
        }
        // A driver that is away has not lost anything.
        let layers = match self.drivers.storage(&record.driver) {
            Ok(_) if snapshots => Some(Layers::open(self, record.driver.clone())?),
            _ => None,
        };
        for chain in &record.chain {
            let Some(layer) = self.layers.get(&layer_key(&record.driver, chain))? else {
                return Ok(Some(format!("nothing is known of its layer {chain}")));
            };
            if !self.content.contains(&layer.blob.digest) {
                return Ok(Some(format!(
                    "the blob {} of a layer is missing",
                    layer.blob.digest
                )));
            }
            if let Some(layers) = &layers
                && !layers.contains(chain)?
            {
                return Ok(Some(format!(
                    "the snapshot of its layer {chain} is missing"
                )));
            }
        }
        Ok(None)
    }
}

impl Check<'_> {
    /// Names that stand for nothing.
    pub(super) fn dangling_names(&mut self) -> Result<()> {
        let shared = self.shared;
        let _guard = shared.naming.lock();
        for (name, record) in shared.references.list()? {
            if shared.images.contains(record.image.as_str())? {
                continue;
            }
            let detail = format!("there is no image {}", record.image);
            self.found(Flaw::NameDangling, name.as_str(), detail, || {
                shared.references.delete(&name).wait()?;
                Ok(())
            });
        }
        Ok(())
    }

    /// Images that only a pull can complete; no repair for those from here.
    pub(super) fn incomplete_images(&mut self) -> Result<()> {
        let shared = self.shared;
        for (id, record) in shared.images.list()? {
            let Ok(id) = id.parse::<ImageId>() else {
                continue;
            };
            let Some(lacks) = shared.lacks(&id, &record, self.options.repair)? else {
                continue;
            };
            let names = shared.names_of(&id)?;
            let (object, hint) = match names.first() {
                Some(name) => (
                    name.familiar(),
                    format!("pull {} to get it back", name.familiar()),
                ),
                None => (id.to_string(), "it has no name to pull it by".into()),
            };
            self.found(Flaw::ImageIncomplete, object, lacks, || {
                Err(Error::NotHere(hint))
            });
        }
        Ok(())
    }
}
