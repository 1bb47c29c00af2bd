//! The service and its public face, by what it is about; each method's work is in the module of its name.

mod archives;
mod containers;
mod images;
mod registry;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use gantry_content::ContentStore;
use gantry_driver_registry::DriverRegistry;
use gantry_store::{Store, Table};
use parking_lot::{Mutex, RwLock};

use crate::install::Sizes;
use crate::layers::{Pins, Temporary};
use crate::record::{Descriptor, ImageRecord, LayerRecord, ReferenceRecord};
use crate::turns::Turns;
use crate::{ImageEvent, RateLimit, Result, Settings};

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

    /// Once at start, before anything else: tells every storage driver which snapshots are wanted (those of images and
    /// of `containers`, pairs of driver and identifier), and removes what crashes left behind.
    ///
    /// # Errors
    /// [`crate::Error::Driver`]; drivers that are missing are skipped.
    pub fn reconcile(&self, containers: &[(String, String)]) -> Result<()> {
        self.shared.reconcile(containers)
    }
}
