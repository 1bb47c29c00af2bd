//! The service and its public face; each method's work is in the module of its name.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::io::{Read, Write};
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use gantry_content::ContentStore;
use gantry_driver_api::MountPlan;
use gantry_driver_api::registry::{AuthReply, Credentials, SearchResult};
use gantry_driver_api::storage::Usage;
use gantry_driver_registry::DriverRegistry;
use gantry_model::{Digest, ImageId, Platform, Reference};
use gantry_store::{Store, Table};
use parking_lot::{Mutex, RwLock};

use crate::install::Sizes;
use crate::layers::{Pins, Temporary};
use crate::record::{Descriptor, ImageRecord, LayerRecord, ReferenceRecord};
use crate::settle::MountRoot;
use crate::turns::Turns;
use crate::{
    ContainerRoot, GraphDriver, HistoryEntry, Image, ImageEvent, ImageInspect, ImageSummary,
    ImageUse, ImportOptions, InspectQuery, ListQuery, LoadOptions, Loaded, ParentView, Progress,
    PullOptions, Pulled, PushOptions, RateLimit, RemoteImage, RemoveOptions, Removed, Result,
    Settings,
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
    /// Snapshots that operations have for a moment.
    pub(crate) temporary: Temporary,
    /// Layers that are there, of images that have no record yet.
    pub(crate) fresh: Mutex<HashMap<String, Sizes>>,
    /// Held from reading names to committing their change.
    pub(crate) naming: Mutex<()>,
    /// Whether layers are left that only containers needed, those of images removed by force.
    pub(crate) orphans: AtomicBool,
    /// Registries that have been found to speak plain HTTP.
    pub(crate) plain_http: Mutex<HashSet<String>>,
    /// What registries last told of their limits.
    pub(crate) limits: Mutex<BTreeMap<String, RateLimit>>,
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
                temporary: Temporary::default(),
                fresh: Mutex::default(),
                naming: Mutex::default(),
                orphans: AtomicBool::new(false),
                plain_http: Mutex::default(),
                limits: Mutex::default(),
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

    /// The registry that [`ImageService::search`] asks for `term`, to which its credentials go.
    #[must_use]
    pub fn search_domain(&self, term: &str) -> String {
        crate::search::domain(term)
    }

    /// Checks credentials against the registry `domain` (`docker.io`, `127.0.0.1:5000`).
    ///
    /// # Errors
    /// [`crate::Error::Driver`] with `Unauthenticated` when they are wrong.
    pub fn authenticate(&self, domain: &str, credentials: &Credentials) -> Result<AuthReply> {
        crate::pull::authenticate(&self.shared, domain, credentials)
    }

    /// What a registry holds under `reference`, without fetching the image; what it is for only with `platforms`, since that
    /// may take another request.
    ///
    /// # Errors
    /// [`crate::Error::Driver`] with the registry's words.
    pub fn remote(
        &self,
        reference: &Reference,
        credentials: &Credentials,
        platforms: bool,
    ) -> Result<RemoteImage> {
        crate::remote::inspect(&self.shared, reference, credentials, platforms)
    }

    /// The tags that a registry has of a repository.
    ///
    /// # Errors
    /// [`crate::Error::RepositoryUnknown`], [`crate::Error::AccessDenied`], [`crate::Error::Driver`].
    pub fn remote_tags(
        &self,
        repository: &Reference,
        credentials: &Credentials,
    ) -> Result<Vec<String>> {
        crate::pull::tags(&self.shared, repository, credentials, || false)
    }

    /// The manifests in a registry that refer to what `reference` names: signatures, attestations. They come as an OCI index.
    ///
    /// # Errors
    /// As [`ImageService::remote`].
    pub fn remote_referrers(
        &self,
        reference: &Reference,
        credentials: &Credentials,
    ) -> Result<Vec<u8>> {
        crate::remote::referrers(&self.shared, reference, credentials)
    }

    /// Deletes a manifest from a registry: by its digest, or the one that a tag names, with all its tags. Returns the digest.
    ///
    /// # Errors
    /// As [`ImageService::remote`].
    pub fn remote_delete(
        &self,
        reference: &Reference,
        credentials: &Credentials,
    ) -> Result<Digest> {
        crate::remote::delete(&self.shared, reference, credentials)
    }

    /// What registries last told of their limits, by name.
    #[must_use]
    pub fn rate_limits(&self) -> BTreeMap<String, RateLimit> {
        self.shared.limits.lock().clone()
    }

    /// Reads an archive of images: docker-archive (with `manifest.json`) or OCI layout, plain or compressed (gzip, bzip2,
    /// xz, zstd).
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

    /// Makes an image of one layer from a tar archive (plain or compressed).
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

    /// Whether [`ImageService::save`] would find what it is to write.
    ///
    /// # Errors
    /// [`crate::Error::NoSuchImage`], [`crate::Error::WrongPlatform`].
    pub fn check_save(&self, names: &[String], platforms: &[Platform]) -> Result<()> {
        crate::save::choose(&self.shared, names, platforms).map(drop)
    }

    /// Writes images as one archive that is a docker-archive and an OCI layout. A name with a tag or digest, or an
    /// identifier, names one image; a name alone all of its tags. With `platforms`, only the images for these.
    ///
    /// # Errors
    /// [`crate::Error::NoSuchImage`], [`crate::Error::WrongPlatform`], [`crate::Error::Io`].
    pub fn save(
        &self,
        names: &[String],
        platforms: &[Platform],
        output: &mut (dyn Write + Send),
    ) -> Result<()> {
        crate::save::save(&self.shared, names, platforms, output)
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

    /// These images, and those that were made of them here.
    ///
    /// # Errors
    /// [`crate::Error::Store`].
    pub fn descendants(&self, images: Vec<ImageId>) -> Result<HashSet<ImageId>> {
        self.shared.descendants(images)
    }

    /// As [`ImageService::find`]; where the name stands for an index, the image of it for `platform`.
    ///
    /// # Errors
    /// As [`ImageService::find`]; [`crate::Error::WrongPlatform`].
    pub fn find_for(&self, name: &str, platform: Option<&Platform>) -> Result<ImageId> {
        self.shared.find_for(name, platform)
    }

    /// As [`ImageService::find_for`], with the configuration that containers are made from.
    ///
    /// # Errors
    /// As [`ImageService::find_for`].
    pub fn get(&self, name: &str, platform: Option<&Platform>) -> Result<Image> {
        self.shared.get(name, platform)
    }

    /// All that is known of an image.
    ///
    /// # Errors
    /// As [`ImageService::find_for`].
    pub fn inspect(&self, name: &str, query: &InspectQuery) -> Result<ImageInspect> {
        self.shared.inspect(name, query)
    }

    /// How an image came to be, newest step first.
    ///
    /// # Errors
    /// As [`ImageService::find_for`].
    pub fn history(&self, name: &str, platform: Option<&Platform>) -> Result<Vec<HistoryEntry>> {
        self.shared.history(name, platform)
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
    pub fn remove(
        &self,
        name: &str,
        options: &RemoveOptions,
        uses: &[ImageUse],
    ) -> Result<Vec<Removed>> {
        crate::remove::remove(&self.shared, name, options, uses)
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

    /// A view of what a container was made on.
    ///
    /// # Errors
    /// As [`ImageService::container_mounts`].
    pub fn container_parent(&self, driver: &str, container: &str) -> Result<ParentView> {
        self.shared.container_parent(driver, container)
    }

    /// What inspect shows as a container's `GraphDriver`.
    ///
    /// # Errors
    /// As [`ImageService::container_mounts`].
    pub fn container_graph_driver(&self, driver: &str, container: &str) -> Result<GraphDriver> {
        self.shared.container_graph_driver(driver, container)
    }

    /// What a container takes on the disk: what it has written, or its whole tree.
    ///
    /// # Errors
    /// As [`ImageService::container_mounts`].
    pub fn container_usage(&self, driver: &str, container: &str) -> Result<Usage> {
        self.shared.container_usage(driver, container)
    }

    /// The images that another storage driver than the default holds, largest first.
    ///
    /// # Errors
    /// [`crate::Error::Store`].
    pub fn elsewhere(&self) -> Result<Vec<Image>> {
        self.shared.elsewhere()
    }

    /// Brings an image to the default storage driver, from the blobs that are kept. After a crash it is with the one driver or
    /// the other; layers that no container stands on any more are removed from the first. Does nothing when it is there.
    ///
    /// # Errors
    /// [`crate::Error::NoSuchImage`], [`crate::Error::Layer`], [`crate::Error::Driver`], [`crate::Error::Cancelled`].
    pub fn settle(&self, image: &ImageId, progress: &dyn Progress) -> Result<()> {
        self.shared.settle_with(image, progress).map(drop)
    }

    /// Brings what a container has written to the default storage driver: makes its root there, on its image, and like the
    /// tree `from`. It must not run. Returns the driver; the root with the old one stays until
    /// [`ImageService::remove_container`].
    ///
    /// # Errors
    /// As [`ImageService::settle`], and those of copying; then nothing is left of the new root.
    pub fn move_container(
        &self,
        container: &str,
        image: &ImageId,
        from: BorrowedFd<'_>,
        mount: &MountRoot<'_>,
    ) -> Result<String> {
        self.shared.move_container(container, image, from, mount)
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
