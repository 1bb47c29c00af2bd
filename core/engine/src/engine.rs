//! The engine: what it is made from, and what its use cases share.

use std::path::PathBuf;
use std::sync::Arc;

use arc_swap::ArcSwap;
use gantry_driver_registry::DriverRegistry;
use gantry_image::ImageService;
use gantry_model::ContainerId;
use gantry_network::NetworkService;
use gantry_runtime::Runtime;
use gantry_store::Store;
use gantry_volume::Volumes;

use crate::config::EngineConfig;
use crate::container::Container;
use crate::container::index::Index;
use crate::container::persist::Records;
use crate::container::record::Record;
use crate::events::{Attributes, Events};
use crate::{EngineError, Result};

/// The services that the engine puts together.
pub struct Services {
    /// Durable state.
    pub store: Store,
    /// Drivers.
    pub drivers: Arc<DriverRegistry>,
    /// Images.
    pub images: ImageService,
    /// Networks; opened, not yet restored.
    pub networks: NetworkService,
    /// Volumes.
    pub volumes: Arc<Volumes>,
    /// Processes.
    pub runtime: Arc<Runtime>,
}

/// The engine. Clones are one engine.
#[derive(Clone)]
pub struct Engine(Arc<Inner>);

/// What all clones share. Its parts are the crate's own.
pub struct Inner {
    pub(crate) config: ArcSwap<EngineConfig>,
    pub(crate) services: Services,
    pub(crate) records: Records,
    pub(crate) containers: Index,
    pub(crate) events: Arc<Events>,
    pub(crate) execs: crate::exec::Execs,
    pub(crate) forwards: crate::logs::Forwards,
    pub(crate) stats: crate::stats::Sampler,
    pub(crate) userns: crate::userns::Pending,
}

impl std::ops::Deref for Engine {
    type Target = Inner;
    fn deref(&self) -> &Inner {
        &self.0
    }
}

impl Engine {
    /// Opens the engine on its services, and recovers: see the crate's documentation.
    ///
    /// # Errors
    /// State that cannot be read. What is wrong with a single container is logged, not returned.
    pub async fn open(config: EngineConfig, services: Services) -> Result<Self> {
        let records = Records::open(
            &services.store,
            config.exec_root.join("state"),
            config.boot_id.clone(),
        )?;
        let events = Events::open(&services.store, &config.exec_root.join("events"))?;
        let engine = Self(Arc::new(Inner {
            config: ArcSwap::from_pointee(config),
            services,
            records,
            containers: Index::default(),
            events,
            execs: crate::exec::Execs::default(),
            forwards: crate::logs::Forwards::default(),
            stats: crate::stats::Sampler::default(),
            userns: crate::userns::Pending::default(),
        }));
        engine.tell_of_shared_networks();
        engine.recover().await?;
        Ok(engine)
    }

    /// Takes over a changed configuration. Roots and boot are those of the start, whatever it says.
    pub fn reload(&self, mut config: EngineConfig, attributes: Attributes) {
        let old = self.config.load();
        config.data_root.clone_from(&old.data_root);
        config.exec_root.clone_from(&old.exec_root);
        config.boot_id.clone_from(&old.boot_id);
        config.engine_id.clone_from(&old.engine_id);
        let id = config.engine_id.clone();
        self.config.store(Arc::new(config));
        self.events.tell("daemon", "reload", &id, attributes);
    }
}

impl Inner {
    /// A container's own directory.
    pub(crate) fn container_dir(&self, id: &ContainerId) -> PathBuf {
        self.config
            .load()
            .data_root
            .join("containers")
            .join(id.as_str())
    }

    /// Where parts of volumes that the engine keeps are mounted for a container, until its run ends.
    pub(crate) fn volume_parts(&self, id: &ContainerId) -> PathBuf {
        let config = self.config.load();
        config.exec_root.join("parts").join(id.as_str())
    }

    /// Where volumes that are file systems of their own are mounted for a container.
    pub(crate) fn volume_mounts(&self, id: &ContainerId) -> PathBuf {
        self.config
            .load()
            .exec_root
            .join("volumes")
            .join(id.as_str())
    }

    /// A container's log file.
    pub(crate) fn log_path(&self, id: &ContainerId) -> PathBuf {
        self.container_dir(id).join(format!("{id}-json.log"))
    }

    /// Tells that something happened to a container, with its image, name and labels.
    pub(crate) fn tell(&self, record: &Record, action: &str) {
        self.tell_with(record, action, Attributes::new());
    }

    /// As [`Self::tell`], with more attributes.
    pub(crate) fn tell_with(&self, record: &Record, action: &str, more: Attributes) {
        let mut attributes = record.config.labels.clone();
        attributes.insert("image".into(), record.config.image.clone());
        attributes.insert("name".into(), record.name.clone());
        attributes.extend(more);
        self.events
            .tell("container", action, record.id.as_str(), attributes);
    }

    /// The container that a client means.
    pub(crate) fn find(&self, what: &str) -> Result<Arc<Container>> {
        self.containers.find(what)
    }
}

/// Runs blocking work off the event loop.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|error| EngineError::internal(error.to_string()))
}
