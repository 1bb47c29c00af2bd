//! From a plugin directory to registered drivers.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use gantry_driver_api::{Kind, Manifest, Reconcile};
use gantry_driver_registry::{Backend, DriverRegistry, Isolation, Origin};
use parking_lot::Mutex;

use crate::candidate::{Checked, Found, Looked, discover};
use crate::on_demand::OnDemand;
use crate::start::{Starter, reconcile};
use crate::{DriverSettings, DriversConfig, PluginError};

/// How long the calls of a generation that was replaced may take to end.
const DRAIN: Duration = Duration::from_secs(60);

/// The drivers that come with the engine. They run in its process unless told otherwise, and are missed when they are
/// not there; nothing else is made of their names.
const SHIPPED: [(Kind, &str); 12] = [
    (Kind::Storage, "overlayfs"),
    (Kind::Storage, "native"),
    (Kind::Network, "bridge"),
    (Kind::Network, "macvlan"),
    (Kind::Network, "ipvlan"),
    (Kind::Network, "overlay"),
    (Kind::Network, "cni"),
    (Kind::Network, "host"),
    (Kind::Network, "none"),
    (Kind::Volume, "local"),
    (Kind::Registry, "hub"),
    (Kind::Registry, "oci-dir"),
];

/// A directory with plugins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PluginDir {
    /// Where.
    pub path: PathBuf,
    /// Whether the engine's own plugins are there. Only those run in process unless told otherwise.
    pub shipped: bool,
}

/// What a loader needs to know of its engine.
#[derive(Debug, Clone)]
pub struct LoaderConfig {
    /// Where to look. A name in an earlier directory hides the same one in a later.
    pub plugin_dirs: Vec<PluginDir>,
    /// The program that hosts isolated plugins.
    pub driver_host: PathBuf,
    /// Drivers get `<data_root>/<kind>/<name>` for what must survive a reboot.
    pub data_root: PathBuf,
    /// Drivers get `<exec_root>/<kind>/<name>` for what need not. Copies of plugins are in `<exec_root>/plugins`, or
    /// in `<data_root>/plugins` where the former is mounted `noexec`.
    pub exec_root: PathBuf,
    /// Eight hex digits derived from the data-root.
    pub tag: String,
    /// Users beside root whose files are trusted; see [`trusted_owners`].
    pub owners: Vec<u32>,
}

/// Whose plugins an engine trusts beside root's: its own user's, and those of the owner of its executable, who could
/// replace the engine itself.
#[must_use]
pub fn trusted_owners() -> Vec<u32> {
    let executable = fs::metadata("/proc/self/exe").map(|m| m.uid());
    let mut owners = vec![rustix::process::geteuid().as_raw()];
    owners.extend(executable);
    owners.dedup();
    owners
}

/// Calls back once with a driver's objects, or with none to have it not reconcile. While it does, none is made or removed.
pub type WithObjects<'a> = &'a dyn Fn(Kind, &str, &mut dyn FnMut(Option<Reconcile>));

/// Loads plugins and remembers from what, so that loading again swaps in only what has changed.
pub struct Loader {
    starter: Arc<Starter>,
    loaded: Mutex<BTreeMap<Key, Loaded>>,
}

type Key = (Kind, String);

struct Loaded {
    settings: DriverSettings,
    mapped: Mapped,
}

/// The copy that is mapped.
enum Mapped {
    Now(PathBuf),
    /// None until the first call.
    Later(Arc<OnDemand>, Arc<Looked>),
}

impl Mapped {
    fn path(&self) -> Option<&Path> {
        match self {
            Self::Now(path) => Some(path),
            Self::Later(driver, _) => driver.staged(),
        }
    }
}

impl Loader {
    /// A loader that has loaded nothing yet.
    #[must_use]
    pub fn new(config: LoaderConfig) -> Self {
        Self {
            starter: Arc::new(Starter::new(config)),
            loaded: Mutex::default(),
        }
    }

    /// Loads every plugin there is and registers it, or the reason why it cannot be had. When called again (a reload),
    /// only plugins whose file, settings or health changed are loaded; each becomes the next generation of its driver,
    /// after it has reconciled with what `objects` says, and the old one is drained on a thread of its own. At the first
    /// load there are none: the daemon reconciles when it knows its objects.
    pub fn load_all(
        &self,
        drivers: &DriversConfig,
        registry: &DriverRegistry,
        objects: WithObjects<'_>,
    ) {
        for kind in Kind::ALL {
            if let Some(default) = drivers.kind(kind).default {
                registry.set_default(kind, &default);
            }
        }
        // They were checked when the configuration was read.
        registry.set_routes(drivers.routes().unwrap_or_default());
        let mut found = BTreeSet::new();
        for dir in &self.starter.config.plugin_dirs {
            for plugin in discover(&dir.path) {
                if found.insert((plugin.kind, plugin.name.clone())) {
                    self.load(&plugin, dir, drivers, registry, objects);
                }
            }
        }
        self.name_the_missing(drivers, registry, &found);
        let loaded = self.loaded.lock();
        self.starter.prune(|| {
            let used = loaded.values().filter_map(|l| l.mapped.path());
            used.map(Path::to_owned).collect()
        });
    }

    /// Drivers that came with the engine or that the configuration speaks of, and that no directory holds.
    fn name_the_missing(
        &self,
        drivers: &DriversConfig,
        registry: &DriverRegistry,
        found: &BTreeSet<(Kind, String)>,
    ) {
        let mut wanted: BTreeSet<_> = SHIPPED.map(|(kind, name)| (kind, name.to_owned())).into();
        for kind in Kind::ALL {
            let settings = drivers.kind(kind);
            let names = settings
                .default
                .into_iter()
                .chain(settings.drivers.into_keys());
            wanted.extend(names.map(|name| (kind, name)));
        }
        let dirs = self.starter.config.plugin_dirs.iter();
        let dirs: Vec<_> = dirs.map(|d| d.path.display().to_string()).collect();
        for (kind, name) in wanted {
            let file = name.replace('-', "_");
            if !found.contains(&(kind, file.clone())) {
                let reason = format!(
                    "there is no libgantry_{kind}_{file}.so in {}",
                    dirs.join(", ")
                );
                let isolation = drivers.driver(kind, &name).isolation;
                registry.unavailable(kind, &name, origin_of(None, None, isolation), reason);
            }
        }
    }

    fn load(
        &self,
        plugin: &Found,
        dir: &PluginDir,
        drivers: &DriversConfig,
        registry: &DriverRegistry,
        objects: WithObjects<'_>,
    ) {
        let looked = plugin.look(&dir.path, &self.starter.config.owners);
        let name = match &looked {
            Ok(looked) => looked.manifest.name.clone(),
            Err(_) => plugin.name.clone(),
        };
        let mut settings = drivers.driver(plugin.kind, &name);
        let plain = settings == DriverSettings::default();
        let shipped = dir.shipped && SHIPPED.contains(&(plugin.kind, name.as_str()));
        let isolation = settings.isolation.unwrap_or(match shipped {
            true => Isolation::None,
            false => Isolation::Process,
        });
        settings.isolation = Some(isolation);
        let key = (plugin.kind, name);
        let manifest = looked.as_ref().ok().map(|l| l.manifest.clone());
        let origin = origin_of(Some(&plugin.path), manifest, Some(isolation));
        let result = looked.and_then(|looked| {
            if shipped && plain && self.may_wait(&key, registry) {
                return Ok(self.put_off(plugin, looked, &key, settings));
            }
            let checked = looked.copy(&self.starter.stage_dir()?)?;
            if self.is_current(&key, &checked, &settings, registry) {
                return Ok(None);
            }
            let backend = self
                .starter
                .start(&checked, &settings, isolation, shipped)?;
            let mapped = Mapped::Now(checked.staged);
            Ok(Some((backend, Loaded { settings, mapped })))
        });
        match result {
            Ok(None) => {}
            Ok(Some((backend, loaded))) => {
                let mut new = Some((backend, loaded));
                objects(key.0, &key.1, &mut |live| {
                    if let Some((backend, loaded)) = new.take() {
                        self.put_in_service(&key, (backend, loaded), live, &origin, registry);
                    }
                });
            }
            Err(error) => registry.unavailable(key.0, &key.1, origin, error.to_string()),
        }
    }

    fn put_in_service(
        &self,
        key: &Key,
        (backend, loaded): (Arc<dyn Backend>, Loaded),
        live: Option<Reconcile>,
        origin: &Origin,
        registry: &DriverRegistry,
    ) {
        if let Some(Err(error)) = live.map(|live| reconcile(&backend, live, DRAIN)) {
            let reason = PluginError::Create(error).to_string();
            return registry.unavailable(key.0, &key.1, origin.clone(), reason);
        }
        self.loaded.lock().insert(key.clone(), loaded);
        if let Some(old) = registry.register(key.0, &key.1, origin.clone(), backend) {
            std::thread::spawn(move || old.finish(DRAIN));
        }
    }

    /// Whether a driver of the engine's own need not be loaded before it is called: it has no data, and is no default of
    /// which one would want to know at once that it does not work.
    fn may_wait(&self, (kind, name): &Key, registry: &DriverRegistry) -> bool {
        let is_default = *kind != Kind::Registry && registry.default_name(*kind) == *name;
        let waits = match self.loaded.lock().get(&(*kind, name.clone())) {
            None => self.starter.has_no_data(*kind, name),
            Some(loaded) => match &loaded.mapped {
                Mapped::Now(_) => false,
                Mapped::Later(driver, _) => driver.is_idle(),
            },
        };
        waits && !is_default
    }

    /// Has a driver be loaded when it is called; none if that is so already.
    fn put_off(
        &self,
        plugin: &Found,
        looked: Looked,
        key: &Key,
        settings: DriverSettings,
    ) -> Option<(Arc<dyn Backend>, Loaded)> {
        if let Some(Mapped::Later(_, before)) = self.loaded.lock().get(key).map(|l| &l.mapped)
            && before.is_same(&looked)
        {
            return None;
        }
        let looked = Arc::new(looked);
        let (starter, path, wished) = (
            self.starter.clone(),
            plugin.path.clone(),
            (settings.clone(), looked.clone()),
        );
        let driver = Arc::new(OnDemand::new(key.clone(), move || {
            starter.start_late(&path, &wished.1, &wished.0)
        }));
        let mapped = Mapped::Later(driver.clone(), looked);
        Some((driver, Loaded { settings, mapped }))
    }

    fn is_current(
        &self,
        key: &Key,
        checked: &Checked,
        settings: &DriverSettings,
        registry: &DriverRegistry,
    ) -> bool {
        let healthy = registry
            .status(key.0, &key.1)
            .is_ok_and(|status| status.reason.is_empty());
        healthy
            && self.loaded.lock().get(key).is_some_and(|loaded| {
                loaded.settings == *settings && loaded.mapped.path() == Some(&checked.staged)
            })
    }
}

fn origin_of(
    path: Option<&Path>,
    manifest: Option<Manifest>,
    isolation: Option<Isolation>,
) -> Origin {
    let (version, capabilities) =
        manifest.map_or_else(Default::default, |m| (m.version, m.capabilities));
    Origin {
        version,
        source: path.map(Path::to_owned),
        isolation: isolation.unwrap_or(Isolation::Process),
        capabilities,
    }
}
