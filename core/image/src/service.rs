//! The service and its public face; each method's work is in the module of its name.

use std::io::{Read, Write};
use std::path::PathBuf;
use std::sync::Arc;

use gantry_content::ContentStore;
use gantry_driver_api::MountPlan;
use gantry_driver_api::registry::{AuthReply, Credentials};
use gantry_driver_api::storage::Usage;
use gantry_driver_registry::DriverRegistry;
use gantry_model::{ImageId, Reference};
use gantry_store::Store;

use crate::{
    ContainerRoot, GraphDriver, HistoryEntry, Image, ImageEvent, ImageInspect, ImageSummary,
    ImageUse, ImportOptions, ListQuery, LoadOptions, Loaded, Progress, PullOptions, Pulled,
    Removed, Result, Settings,
};

/// Turns an event into the engine's stored form; it is committed with the change it tells of.
pub type EventEncoder = Arc<dyn Fn(&ImageEvent) -> serde_json::Value + Send + Sync>;

/// The image service of one data-root. Cheap to clone.
#[derive(Clone)]
pub struct ImageService {
    pub(crate) shared: Arc<Shared>,
}

pub(crate) struct Shared {
    pub(crate) settings: Settings,
    pub(crate) store: Store,
    pub(crate) content: ContentStore,
    pub(crate) drivers: Arc<DriverRegistry>,
    pub(crate) encode_event: EventEncoder,
}

impl std::fmt::Debug for ImageService {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ImageService").finish_non_exhaustive()
    }
}

#[allow(unused_variables)]
impl ImageService {
    /// Opens the service. Records are in `store`, blobs in `content`; new images go to the default storage driver.
    ///
    /// # Errors
    /// [`crate::Error::Store`].
    pub fn open(
        settings: Settings,
        store: &Store,
        content: ContentStore,
        drivers: Arc<DriverRegistry>,
        encode_event: EventEncoder,
    ) -> Result<Self> {
        Ok(Self {
            shared: Arc::new(Shared {
                settings,
                store: store.clone(),
                content,
                drivers,
                encode_event,
            }),
        })
    }

    /// Fetches an image and unpacks it. `:latest` is meant where `reference` has neither tag nor digest. Layers that are
    /// here already are not fetched; what an earlier, failed pull has fetched is used.
    ///
    /// # Errors
    /// [`crate::Error::ManifestUnknown`], [`crate::Error::AccessDenied`], [`crate::Error::NoPlatform`],
    /// [`crate::Error::Malformed`], [`crate::Error::Driver`], [`crate::Error::Cancelled`].
    pub fn pull(
        &self,
        reference: &Reference,
        options: &PullOptions,
        progress: &dyn Progress,
    ) -> Result<Pulled> {
        unimplemented!()
    }

    /// Checks credentials against the registry `domain` (`docker.io`, `127.0.0.1:5000`).
    ///
    /// # Errors
    /// [`crate::Error::Driver`] with `Unauthenticated` when they are wrong.
    pub fn authenticate(&self, domain: &str, credentials: Credentials) -> Result<AuthReply> {
        unimplemented!()
    }

    /// Reads an archive of images: docker-archive (with `manifest.json`) or OCI layout, plain, gzip or zstd.
    ///
    /// # Errors
    /// [`crate::Error::Malformed`]; nothing of a broken archive is kept.
    pub fn load(
        &self,
        input: &mut (dyn Read + Send),
        options: &LoadOptions,
        progress: &dyn Progress,
    ) -> Result<Vec<Loaded>> {
        unimplemented!()
    }

    /// Makes an image of one layer from a tar archive (plain, gzip or zstd).
    ///
    /// # Errors
    /// [`crate::Error::Invalid`] for bad changes, [`crate::Error::Malformed`] for a bad archive.
    pub fn import(
        &self,
        input: &mut (dyn Read + Send),
        options: &ImportOptions,
        progress: &dyn Progress,
    ) -> Result<ImageId> {
        unimplemented!()
    }

    /// Writes images as one archive that is a docker-archive and an OCI layout. A name with a tag or digest, or an
    /// identifier, names one image; a name alone all of its tags.
    ///
    /// # Errors
    /// [`crate::Error::NoSuchImage`], [`crate::Error::Io`].
    pub fn save(&self, names: &[String], output: &mut (dyn Write + Send)) -> Result<()> {
        unimplemented!()
    }

    /// Lists images, newest first.
    ///
    /// # Errors
    /// [`crate::Error::Invalid`] for unknown filters or values.
    pub fn list(&self, query: &ListQuery) -> Result<Vec<ImageSummary>> {
        unimplemented!()
    }

    /// The image that a name, identifier, short identifier or digest reference means.
    ///
    /// # Errors
    /// [`crate::Error::NoSuchImage`] (also when a short identifier is ambiguous), [`crate::Error::Reference`].
    pub fn find(&self, name: &str) -> Result<ImageId> {
        unimplemented!()
    }

    /// As [`ImageService::find`], with the configuration that containers are made from.
    ///
    /// # Errors
    /// As [`ImageService::find`].
    pub fn get(&self, name: &str) -> Result<Image> {
        unimplemented!()
    }

    /// All that is known of an image.
    ///
    /// # Errors
    /// As [`ImageService::find`].
    pub fn inspect(&self, name: &str) -> Result<ImageInspect> {
        unimplemented!()
    }

    /// How an image came to be, newest step first.
    ///
    /// # Errors
    /// As [`ImageService::find`].
    pub fn history(&self, name: &str) -> Result<Vec<HistoryEntry>> {
        unimplemented!()
    }

    /// Gives the image `source` the name `target` (`:latest` where it has no tag), taking it from another image if
    /// need be.
    ///
    /// # Errors
    /// As [`ImageService::find`]; [`crate::Error::Invalid`] for a target with a digest.
    pub fn tag(&self, source: &str, target: &Reference) -> Result<()> {
        unimplemented!()
    }

    /// Removes a name, and the image with its last name, as Docker does. `uses` are all containers.
    ///
    /// # Errors
    /// [`crate::Error::Conflict`]; as [`ImageService::find`].
    pub fn remove(&self, name: &str, force: bool, uses: &[ImageUse]) -> Result<Vec<Removed>> {
        unimplemented!()
    }

    /// Makes a container's writable root file system on top of an image, with a quota of `size` bytes if given.
    /// Idempotent for one container and image.
    ///
    /// # Errors
    /// [`crate::Error::NoSuchImage`], [`crate::Error::Driver`].
    pub fn prepare_container(
        &self,
        container: &str,
        image: &ImageId,
        size: Option<u64>,
    ) -> Result<ContainerRoot> {
        unimplemented!()
    }

    /// What to mount for a container made before.
    ///
    /// # Errors
    /// [`crate::Error::Driver`], with `NotFound` when it is gone.
    pub fn container_mounts(&self, driver: &str, container: &str) -> Result<MountPlan> {
        unimplemented!()
    }

    /// The directory of a container's own changes, where the driver has such a thing.
    ///
    /// # Errors
    /// As [`ImageService::container_mounts`].
    pub fn container_upper(&self, driver: &str, container: &str) -> Result<Option<PathBuf>> {
        unimplemented!()
    }

    /// What inspect shows as a container's `GraphDriver`.
    ///
    /// # Errors
    /// As [`ImageService::container_mounts`].
    pub fn container_graph_driver(&self, driver: &str, container: &str) -> Result<GraphDriver> {
        unimplemented!()
    }

    /// What a container has written.
    ///
    /// # Errors
    /// As [`ImageService::container_mounts`].
    pub fn container_usage(&self, driver: &str, container: &str) -> Result<Usage> {
        unimplemented!()
    }

    /// Bytes of all layers of an image, unpacked.
    ///
    /// # Errors
    /// [`crate::Error::NoSuchImage`].
    pub fn size(&self, image: &ImageId) -> Result<u64> {
        unimplemented!()
    }

    /// Removes a container's root file system; an absent one is no error.
    ///
    /// # Errors
    /// [`crate::Error::Driver`].
    pub fn remove_container(&self, driver: &str, container: &str) -> Result<()> {
        unimplemented!()
    }

    /// Once at start, before anything else: tells every storage driver which snapshots are wanted (those of images and
    /// of `containers`, pairs of driver and identifier), and removes what crashes left behind.
    ///
    /// # Errors
    /// [`crate::Error::Driver`]; drivers that are missing are skipped.
    pub fn reconcile(&self, containers: &[(String, String)]) -> Result<()> {
        unimplemented!()
    }
}
