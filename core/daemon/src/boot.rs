//! The order of a start: lock, store, drivers, runtime, services, recovery, sockets.

use std::sync::Arc;

use anyhow::{Context, anyhow};
use gantry_api::Listener;
use gantry_content::ContentStore;
use gantry_driver_api::{Kind, Reconcile};
use gantry_driver_registry::DriverRegistry;
use gantry_engine::{Engine, Services};
use gantry_image::ImageService;
use gantry_network::NetworkService;
use gantry_plugin_host::{DriversConfig, Loader, LoaderConfig, trusted_owners};
use gantry_runtime::{Runtime, RuntimeConfig};
use gantry_store::Store;
use gantry_sys::host::HostFacts;
use gantry_volume::Volumes;

use crate::config::Config;
use crate::flags::Flags;
use crate::lock::Lock;
use crate::paths::{self, Place};
use crate::pidfile::PidFile;
use crate::{listen, translate};

/// A daemon at work.
pub(crate) struct Daemon {
    pub(crate) engine: Engine,
    pub(crate) drivers: Arc<DriverRegistry>,
    pub(crate) images: ImageService,
    networks: NetworkService,
    pub(crate) runtime: Arc<Runtime>,
    pub(crate) place: Place,
    loader: Loader,
}

impl Daemon {
    /// Loads plugins that are new or have changed.
    pub(crate) fn load_plugins(&self, drivers: &DriversConfig) {
        let objects = |kind: Kind, name: &str, then: Then<'_>| match kind {
            Kind::Network => self.networks.with_objects(name, |live| then(Some(live))),
            // What these have is on disk, where they find it; and what is being made is known to nobody else.
            Kind::Storage | Kind::Volume | Kind::Registry => then(None),
        };
        tokio::task::block_in_place(|| {
            self.loader.load_all(drivers, &self.drivers, &objects);
            self.networks.follow_drivers();
        });
    }
}

type Then<'a> = &'a mut dyn FnMut(Option<Reconcile>);

/// What a start brings about.
pub(crate) struct Booted {
    pub(crate) daemon: Daemon,
    pub(crate) listeners: Vec<Listener>,
    /// Lock and pid file, held until the end.
    pub(crate) guards: (Option<PidFile>, Lock),
}

/// Drivers reconcile when the services that know their objects are open, not when they are loaded.
fn no_objects(_: Kind, _: &str, then: Then<'_>) {
    then(None);
}

/// Brings the daemon up to the point where it only has to answer.
pub(crate) async fn boot(flags: &Flags, config: &Config) -> anyhow::Result<Booted> {
    let place = Place::prepare(&config.data_root, &config.exec_root)?;
    let lock = Lock::take(&place.data_root)?;
    let pidfile = match config.pidfile.as_os_str().is_empty() {
        true => None,
        false => Some(PidFile::write(&config.pidfile)?),
    };
    let engine_config = translate::engine(config, &place)?;
    let host = HostFacts::probe("/proc".as_ref(), "/sys".as_ref()).context("look at the host")?;
    let network_config = translate::network(config, &place, &host)?;
    let store = Store::open(&place.data_root.join("state.redb"))?;

    let drivers = Arc::new(DriverRegistry::new());
    let loader = load_drivers(flags, config, &place, &drivers)?;
    let runtime = runtime(config, &place, host).await?;
    let images = open_images(config, &place, &store, &drivers)?;
    let networks = NetworkService::open(network_config, drivers.clone()).await?;
    let volumes = Volumes::open(&store, drivers.clone())?;
    let services = Services {
        store,
        drivers: drivers.clone(),
        images: images.clone(),
        networks: networks.clone(),
        volumes,
        runtime: runtime.clone(),
    };
    let engine = Engine::open(engine_config, services)
        .await
        .context("recover containers")?;
    let listeners = listen::open(config)?;
    Ok(Booted {
        daemon: Daemon {
            engine,
            drivers,
            images,
            networks,
            runtime,
            place,
            loader,
        },
        listeners,
        guards: (pidfile, lock),
    })
}

fn helper(name: &str) -> anyhow::Result<std::path::PathBuf> {
    paths::helper(name).ok_or_else(|| {
        anyhow!("{name} not found: it belongs beside gantryd or in /usr/libexec/gantry")
    })
}

/// Opens blobs and images.
pub(crate) fn open_images(
    config: &Config,
    place: &Place,
    store: &Store,
    drivers: &Arc<DriverRegistry>,
) -> anyhow::Result<ImageService> {
    let content = ContentStore::open(&place.data_root.join("content"), store)?;
    Ok(ImageService::open(
        translate::images(config)?,
        store,
        content,
        drivers.clone(),
        Arc::new(gantry_engine::encode_image_event),
    )?)
}

/// Loads the plugins that are there.
pub(crate) fn load_drivers(
    flags: &Flags,
    config: &Config,
    place: &Place,
    drivers: &DriverRegistry,
) -> anyhow::Result<Loader> {
    let wanted = translate::drivers(config)?;
    let loader = loader(flags, place)?;
    tokio::task::block_in_place(|| loader.load_all(&wanted, drivers, &no_objects));
    Ok(loader)
}

fn loader(flags: &Flags, place: &Place) -> anyhow::Result<Loader> {
    Ok(Loader::new(LoaderConfig {
        plugin_dirs: paths::plugin_dirs(flags.plugin_dir.as_deref()),
        driver_host: helper("gantry-driver-host")?,
        data_root: place.data_root.clone(),
        exec_root: place.exec_root.clone(),
        tag: place.tag.clone(),
        owners: trusted_owners(),
    }))
}

async fn runtime(config: &Config, place: &Place, host: HostFacts) -> anyhow::Result<Arc<Runtime>> {
    let cgroup_parent = match config.cgroup_parent.as_str() {
        "" => format!("gantry-{}", place.tag),
        parent => parent.trim_matches('/').to_owned(),
    };
    let runtime = Runtime::new(RuntimeConfig {
        zygote: helper("gantry-monitor")?,
        exec_root: place.exec_root.clone(),
        cgroup_parent,
        runtimes: translate::runtimes(config)?,
        host,
    });
    Ok(runtime.await?)
}
