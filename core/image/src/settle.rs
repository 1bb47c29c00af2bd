//! Bringing images and containers from one storage driver to the default one.
//!
//! Each object is moved by one record: what is made before it is written is swept away after a crash, as what no record
//! tells of, and what is left after it with the old driver likewise. So there is nothing to undo, and the move of many objects
//! goes on where it was when it is asked for again.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use gantry_driver_api::storage::{Prepare, SnapshotKey};
use gantry_driver_api::{Call, Kind, MountPlan};
use gantry_model::{Digest, ImageId};

use crate::install::Install;
use crate::load::Local;
use crate::mirror;
use crate::record::{Descriptor, ImageRecord, layer_key};
use crate::service::Shared;
use crate::{Error, Image, Progress, Result, Silent};

/// Mounts a root to be written to.
pub type MountRoot<'a> = dyn Fn(&MountPlan) -> io::Result<OwnedFd> + 'a;

impl Shared {
    pub(crate) fn elsewhere(&self) -> Result<Vec<Image>> {
        let default = self.drivers.default_name(Kind::Storage);
        let mut found = Vec::new();
        for (id, record) in self.images.list()? {
            if record.driver != default {
                found.push((record.size, self.get(&id, None)?));
            }
        }
        found.sort_by_key(|(size, _)| std::cmp::Reverse(*size));
        Ok(found.into_iter().map(|(_, image)| image).collect())
    }

    /// The record of an image that is with the default driver from now on, so that what is made of it is. Where that driver is
    /// not available, the image stays where it is.
    pub(crate) fn settle(&self, id: &ImageId) -> Result<ImageRecord> {
        let record = self.image(id)?;
        let default = self.drivers.default_name(Kind::Storage);
        if record.driver == default || self.drivers.storage(&default).is_err() {
            return Ok(record);
        }
        self.settle_with(id, &Silent)
    }

    pub(crate) fn settle_with(&self, id: &ImageId, progress: &dyn Progress) -> Result<ImageRecord> {
        let default = self.drivers.default_name(Kind::Storage);
        let record = self.image(id)?;
        if record.driver == default {
            return Ok(record);
        }
        let _turn = self.pulls.lock(id.as_str(), || progress.cancelled())?;
        // Another may have moved it meanwhile.
        let record = self.image(id)?;
        if record.driver != default {
            self.unpack_with(id, &record, default, progress)?;
            self.collect_layers()?;
        }
        self.image(id)
    }

    fn unpack_with(
        &self,
        id: &ImageId,
        record: &ImageRecord,
        driver: String,
        progress: &dyn Progress,
    ) -> Result<()> {
        let hold = self.hold();
        for digest in record.blobs.iter().chain([id]) {
            // What is missing shows when it is needed.
            let _ = self.content.claim(digest);
        }
        let install = Install {
            shared: self,
            id: id.clone(),
            config: self.config(id)?,
            layers: self.descriptors(record)?,
            manifest: None,
            blobs: Vec::new(),
            parent: None,
            workers: std::thread::available_parallelism().map_or(2, usize::from),
            source: &Local {
                progress,
                quiet: false,
            },
        };
        install.run_with(driver, &[], Vec::new())?;
        hold.settle();
        Ok(())
    }

    /// The blobs of an image's layers.
    pub(crate) fn descriptors(&self, record: &ImageRecord) -> Result<Vec<Descriptor>> {
        let blob = |chain: &Digest| {
            let layer = self.layers.get(&layer_key(&record.driver, chain))?;
            layer
                .map(|layer| layer.blob)
                .ok_or_else(|| Error::Layer(format!("layer {chain} is missing")))
        };
        record.chain.iter().map(blob).collect()
    }

    pub(crate) fn move_container(
        &self,
        container: &str,
        image: &ImageId,
        from: BorrowedFd<'_>,
        mount: &MountRoot<'_>,
    ) -> Result<String> {
        let record = self.settle_with(image, &Silent)?;
        let storage = self.drivers.storage(&record.driver)?;
        let request = Prepare {
            key: container.into(),
            parent: record.chain.last().map(ToString::to_string),
            size: None,
        };
        let plan = storage.prepare(&Call::new("migrate"), request)?;
        let copied = mount(&plan).and_then(|root| {
            mirror::mirror(from, root.as_fd())?;
            Ok(rustix::fs::syncfs(&root)?)
        });
        if let Err(error) = copied {
            let key = SnapshotKey {
                key: container.into(),
            };
            storage.remove(&Call::new("migrate"), key)?;
            return Err(Error::io("copying the container's files", error));
        }
        Ok(record.driver)
    }
}
