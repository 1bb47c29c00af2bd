//! The service and its public face; each method's work is in the module of its name.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::io::{Read, Write};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use gantry_content::ContentStore;
use gantry_driver_api::MountPlan;
use gantry_driver_api::registry::{AuthReply, Credentials, SearchResult};
use gantry_driver_api::storage::Usage;
use gantry_driver_registry::DriverRegistry;
use gantry_model::{ImageId, Reference};
use gantry_store::{Store, Table};
use parking_lot::{Mutex, RwLock};

use crate::install::Sizes;
use crate::layers::Pins;
use crate::record::{Descriptor, ImageRecord, LayerRecord, ReferenceRecord};
use crate::turns::Turns;
use crate::{
    ContainerRoot, GraphDriver, HistoryEntry, Image, ImageEvent, ImageInspect, ImageSummary,
    ImageUse, ImportOptions, ListQuery, LoadOptions, Loaded, Progress, PullOptions, Pulled,
    PushOptions, Removed, Result, Settings,
};

/// Turns an event into the engine's stored form; it is committed with the change it tells of.
pub type EventEncoder = Arc<dyn Fn(&ImageEvent) -> serde_json::Value + Send + Sync>;

/// The image service of one data-root. Cheap to clone.
#[derive(Clone)]
pub struct ImageService {
    pub(crate) shared: Arc<Shared>,
}

pub(crate) struct Shared {
    settings: RwLock<Arc<Settings>>,
    pub(crate) store: Store,
    pub(crate) content: ContentStore,
    pub(crate) drivers: Arc<DriverRegistry>,
    pub(crate) encode_event: EventEncoder,
    pub(crate) images: Table<ImageRecord>,
    pub(crate) layers: Table<LayerRecord>,
    pub(crate) references: Table<ReferenceRecord>,
    /// Layers of images that are on their way.
    pub(crate) pins: Pins,
    /// One installation of an image at a time: the second finds what the first has made.
    pub(crate) pulls: Turns,
    /// One unpacking of a layer at a time, by [`crate::record::layer_key`].
    pub(crate) unpacks: Turns,
    /// Layers that were compressed for a push, by diff ID.
    pub(crate) compressed: Table<Descriptor>,
    /// Layers that are there, of images that have no record yet.
    pub(crate) fresh: Mutex<HashMap<String, Sizes>>,
    /// Held from reading names to committing their change.
    pub(crate) naming: Mutex<()>,
    /// Whether layers are left that only containers needed, those of images removed by force.
    pub(crate) orphans: AtomicBool,
    /// Registries that have been found to speak plain HTTP.
    pub(crate) plain_http: Mutex<HashSet<String>>,
}

impl std::fmt::Debug for ImageService {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ImageService").finish_non_exhaustive()
    }
}

impl Shared {
    /// The settings in force.
    pub(crate) fn settings(&self) -> Arc<Settings> {
        self.settings.read().clone()
    }
}

impl ImageService {
    /// Takes over other settings; what is under way goes on with a mixture of old and new.
    pub fn reconfigure(&self, settings: Settings) {
        *self.shared.settings.write() = Arc::new(settings);
    }

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
                settings: RwLock::new(Arc::new(settings)),
                store: store.clone(),
                content,
                drivers,
                encode_event,
                images: store.table("images"),
                layers: store.table("layers"),
                references: store.table("references"),
                pins: Pins::default(),
                pulls: Turns::default(),
                unpacks: Turns::default(),
                compressed: store.table("compressed"),
                fresh: Mutex::default(),
                naming: Mutex::default(),
                orphans: AtomicBool::new(false),
                plain_http: Mutex::default(),
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
        crate::pull::pull(&self.shared, reference, options, progress)
    }

    /// Pulls all tags of a repository (`docker pull --all-tags`); the first failure ends it.
    ///
    /// # Errors
    /// As [`ImageService::pull`].
    pub fn pull_all(
        &self,
        repository: &Reference,
        options: &PullOptions,
        progress: &dyn Progress,
    ) -> Result<Vec<Pulled>> {
        crate::pull::pull_all(&self.shared, repository, options, progress)
    }

    /// Sends an image to a registry under its name, or, where `reference` has no tag, every tag of that name.
    ///
    /// # Errors
    /// [`crate::Error::NotHere`], [`crate::Error::Driver`], [`crate::Error::Cancelled`].
    pub fn push(
        &self,
        reference: &Reference,
        options: &PushOptions,
        progress: &dyn Progress,
    ) -> Result<()> {
        crate::push::push(&self.shared, reference, options, progress)
    }

    /// Looks for repositories: in Docker Hub's index, or that of the registry that `term` begins with (`host/term`).
    ///
    /// # Errors
    /// [`crate::Error::Invalid`] for filters and limits that are none, [`crate::Error::Driver`].
    pub fn search(
        &self,
        term: &str,
        limit: Option<i64>,
        filters: &BTreeMap<String, Vec<String>>,
        credentials: &Credentials,
    ) -> Result<Vec<SearchResult>> {
        crate::search::search(&self.shared, term, limit, filters, credentials)
    }

    /// Checks credentials against the registry `domain` (`docker.io`, `127.0.0.1:5000`).
    ///
    /// # Errors
    /// [`crate::Error::Driver`] with `Unauthenticated` when they are wrong.
    pub fn authenticate(&self, domain: &str, credentials: &Credentials) -> Result<AuthReply> {
        crate::pull::authenticate(&self.shared, domain, credentials)
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
        crate::load::load(&self.shared, input, options, progress)
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
        crate::import::import(&self.shared, input, options, progress)
    }

    /// Makes an image of what a container has changed on top of its own.
    ///
    /// # Errors
    /// [`crate::Error::NoSuchImage`] when the container's image is gone, [`crate::Error::Io`].
    pub fn commit(&self, options: crate::CommitOptions<'_>) -> Result<ImageId> {
        self.shared.commit(options)
    }

    /// Writes images as one archive that is a docker-archive and an OCI layout. A name with a tag or digest, or an
    /// identifier, names one image; a name alone all of its tags.
    ///
    /// # Errors
    /// [`crate::Error::NoSuchImage`], [`crate::Error::Io`].
    pub fn save(&self, names: &[String], output: &mut (dyn Write + Send)) -> Result<()> {
        crate::save::save(&self.shared, names, output)
    }

    /// Lists images, newest first.
    ///
    /// # Errors
    /// [`crate::Error::Invalid`] for unknown filters or values.
    pub fn list(&self, query: &ListQuery) -> Result<Vec<ImageSummary>> {
        self.shared.list(query)
    }

    /// The image that a name, identifier, short identifier or digest reference means.
    ///
    /// # Errors
    /// [`crate::Error::NoSuchImage`] (also when a short identifier is ambiguous), [`crate::Error::Reference`].
    pub fn find(&self, name: &str) -> Result<ImageId> {
        self.shared.find(name)
    }

    /// As [`ImageService::find`], with the configuration that containers are made from.
    ///
    /// # Errors
    /// As [`ImageService::find`].
    pub fn get(&self, name: &str) -> Result<Image> {
        self.shared.get(name)
    }

    /// All that is known of an image.
    ///
    /// # Errors
    /// As [`ImageService::find`].
    pub fn inspect(&self, name: &str) -> Result<ImageInspect> {
        self.shared.inspect(name)
    }

    /// How an image came to be, newest step first.
    ///
    /// # Errors
    /// As [`ImageService::find`].
    pub fn history(&self, name: &str) -> Result<Vec<HistoryEntry>> {
        self.shared.history(name)
    }

    /// Gives the image `source` the name `target` (`:latest` where it has no tag), taking it from another image if
    /// need be.
    ///
    /// # Errors
    /// As [`ImageService::find`]; [`crate::Error::Invalid`] for a target with a digest.
    pub fn tag(&self, source: &str, target: &Reference) -> Result<()> {
        crate::remove::tag(&self.shared, source, target)
    }

    /// Removes a name, and the image with its last name, as Docker does. `uses` are all containers.
    ///
    /// # Errors
    /// [`crate::Error::Conflict`]; as [`ImageService::find`].
    pub fn remove(&self, name: &str, force: bool, uses: &[ImageUse]) -> Result<Vec<Removed>> {
        crate::remove::remove(&self.shared, name, force, uses)
    }

    /// Removes images without a name, with `all` also those that no container uses. `query` narrows the choice. Returns
    /// what was removed and the bytes of layers freed.
    ///
    /// # Errors
    /// As [`ImageService::list`] and [`ImageService::remove`].
    pub fn prune(
        &self,
        all: bool,
        query: &ListQuery,
        uses: &[ImageUse],
    ) -> Result<(Vec<Removed>, u64)> {
        crate::remove::prune(&self.shared, all, query, uses)
    }

    /// Bytes of all layers, unpacked: `LayersSize` of `system df`.
    ///
    /// # Errors
    /// [`crate::Error::Store`].
    pub fn layers_size(&self) -> Result<u64> {
        self.shared.unpacked_bytes()
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
        self.shared.prepare_container(container, image, size)
    }

    /// Makes a read-only view of an image, for a container that mounts it. It is measured, mounted and removed as the root
    /// of a container is, and [`ImageService::reconcile`] must be told of it. Idempotent for one key and image.
    ///
    /// # Errors
    /// As [`ImageService::prepare_container`].
    pub fn prepare_view(&self, key: &str, image: &ImageId) -> Result<ContainerRoot> {
        self.shared.prepare_view(key, image)
    }

    /// What to mount for a container or a view made before.
    ///
    /// # Errors
    /// [`crate::Error::Driver`], with `NotFound` when it is gone.
    pub fn container_mounts(&self, driver: &str, container: &str) -> Result<MountPlan> {
        self.shared.container_mounts(driver, container)
    }

    /// The directory of a container's own changes, where the driver has such a thing.
    ///
    /// # Errors
    /// As [`ImageService::container_mounts`].
    pub fn container_upper(&self, driver: &str, container: &str) -> Result<Option<PathBuf>> {
        self.shared.container_upper(driver, container)
    }

    /// What inspect shows as a container's `GraphDriver`.
    ///
    /// # Errors
    /// As [`ImageService::container_mounts`].
    pub fn container_graph_driver(&self, driver: &str, container: &str) -> Result<GraphDriver> {
        self.shared.container_graph_driver(driver, container)
    }

    /// What a container has written.
    ///
    /// # Errors
    /// As [`ImageService::container_mounts`].
    pub fn container_usage(&self, driver: &str, container: &str) -> Result<Usage> {
        self.shared.container_usage(driver, container)
    }

    /// Bytes of all layers of an image, unpacked.
    ///
    /// # Errors
    /// [`crate::Error::NoSuchImage`].
    pub fn size(&self, image: &ImageId) -> Result<u64> {
        Ok(self.shared.image(image)?.size)
    }

    /// Removes a container's root file system; an absent one is no error.
    ///
    /// # Errors
    /// [`crate::Error::Driver`].
    pub fn remove_container(&self, driver: &str, container: &str) -> Result<()> {
        self.shared.remove_container(driver, container)
    }

    /// Once at start, before anything else: tells every storage driver which snapshots are wanted (those of images and
    /// of `containers`, pairs of driver and identifier), and removes what crashes left behind.
    ///
    /// # Errors
    /// [`crate::Error::Driver`]; drivers that are missing are skipped.
    pub fn reconcile(&self, containers: &[(String, String)]) -> Result<()> {
        self.shared.reconcile(containers)
    }
}
