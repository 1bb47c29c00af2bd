//! From a plugin directory to registered drivers.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, DirBuilder, File};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use gantry_driver_api::{
    Call, Driver, DriverConfig, DriverResult, Kind, Manifest, Reconcile, Remote,
};
use gantry_driver_registry::{Backend, DriverRegistry, Isolation, Origin};
use gantry_plugin_abi::host::Library;
use parking_lot::Mutex;
use serde_json::Value;

use crate::candidate::{Checked, Found, discover};
use crate::inprocess::InProcess;
use crate::isolated::Isolated;
use crate::{DriverSettings, DriversConfig, PluginError, stage};

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

/// Loads plugins and remembers from what, so that loading again swaps in only what has changed.
pub struct Loader {
    config: LoaderConfig,
    loaded: Mutex<BTreeMap<(Kind, String), Loaded>>,
    /// The copy of the program that hosts isolated plugins: one that is restarted later must speak this engine's
    /// format, even when the file was replaced meanwhile.
    driver_host: Mutex<Option<PathBuf>>,
}

#[derive(Clone, PartialEq)]
struct Loaded {
    staged: PathBuf,
    settings: DriverSettings,
}

impl Loader {
    /// A loader that has loaded nothing yet.
    #[must_use]
    pub fn new(config: LoaderConfig) -> Self {
        Self {
            config,
            loaded: Mutex::default(),
            driver_host: Mutex::default(),
        }
    }

    /// Loads every plugin there is and registers it, or the reason why it cannot be had. When called again (a reload),
    /// only plugins whose file, settings or health changed are loaded; each becomes the next generation of its driver,
    /// after it has reconciled with what `live` says of its objects, and the old one is drained on a thread of its own.
    /// At the first load `live` may answer none: the daemon reconciles when it knows its objects.
    pub fn load_all(
        &self,
        drivers: &DriversConfig,
        registry: &DriverRegistry,
        live: &dyn Fn(Kind, &str) -> Option<Reconcile>,
    ) {
        for kind in Kind::ALL {
            if let Some(default) = drivers.kind(kind).default {
                registry.set_default(kind, &default);
            }
        }
        // They were checked when the configuration was read.
        registry.set_routes(drivers.routes().unwrap_or_default());
        let mut found = BTreeSet::new();
        for dir in &self.config.plugin_dirs {
            for plugin in discover(&dir.path) {
                if found.insert((plugin.kind, plugin.name.clone())) {
                    self.load(&plugin, dir, drivers, registry, live);
                }
            }
        }
        self.name_the_missing(drivers, registry, &found);
        let loaded = self.loaded.lock();
        if let Ok(dir) = self.stage_dir() {
            let used = loaded.values().map(|l| l.staged.clone());
            let used: Vec<_> = used.chain(self.driver_host.lock().clone()).collect();
            stage::prune(&dir, &used);
        }
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
        let dirs = self.config.plugin_dirs.iter();
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
        live: &dyn Fn(Kind, &str) -> Option<Reconcile>,
    ) {
        let stage = self.stage_dir();
        let checked = stage.and_then(|stage| plugin.check(&dir.path, &self.config.owners, &stage));
        let name = match &checked {
            Ok(checked) => checked.manifest.name.clone(),
            Err(_) => plugin.name.clone(),
        };
        let mut settings = drivers.driver(plugin.kind, &name);
        let shipped = dir.shipped && SHIPPED.contains(&(plugin.kind, name.as_str()));
        let isolation = settings.isolation.unwrap_or(match shipped {
            true => Isolation::None,
            false => Isolation::Process,
        });
        settings.isolation = Some(isolation);
        let manifest = checked.as_ref().ok().map(|c| c.manifest.clone());
        let origin = origin_of(Some(&plugin.path), manifest, Some(isolation));
        let result = checked.and_then(|checked| {
            let loaded = Loaded {
                staged: checked.staged.clone(),
                settings: settings.clone(),
            };
            if self.is_current(plugin.kind, &name, &loaded, registry) {
                return Ok(None);
            }
            let backend = self.start(&checked, &settings, isolation, shipped)?;
            if let Some(live) = live(plugin.kind, &name) {
                reconcile(&backend, live).map_err(PluginError::Create)?;
            }
            Ok(Some((backend, loaded)))
        });
        match result {
            Ok(None) => {}
            Ok(Some((backend, loaded))) => {
                self.loaded
                    .lock()
                    .insert((plugin.kind, name.clone()), loaded);
                if let Some(old) = registry.register(plugin.kind, &name, origin, backend) {
                    std::thread::spawn(move || old.finish(DRAIN));
                }
            }
            Err(error) => registry.unavailable(plugin.kind, &name, origin, error.to_string()),
        }
    }

    fn is_current(&self, kind: Kind, name: &str, new: &Loaded, registry: &DriverRegistry) -> bool {
        let healthy = registry
            .status(kind, name)
            .is_ok_and(|status| status.reason.is_empty());
        healthy && self.loaded.lock().get(&(kind, name.to_owned())) == Some(new)
    }

    fn stage_dir(&self) -> Result<PathBuf, PluginError> {
        stage::directory(&[&self.config.exec_root, &self.config.data_root])
    }

    fn driver_host(&self) -> Result<PathBuf, PluginError> {
        let mut staged = self.driver_host.lock();
        if let Some(path) = &*staged {
            return Ok(path.clone());
        }
        let original = &self.config.driver_host;
        let file = File::open(original)
            .map_err(PluginError::io(format!("opening {}", original.display())))?;
        let path = stage::copy(&file, &self.stage_dir()?)?;
        *staged = Some(path.clone());
        Ok(path)
    }

    /// Maps the plugin and makes its driver.
    fn start(
        &self,
        checked: &Checked,
        settings: &DriverSettings,
        isolation: Isolation,
        shipped: bool,
    ) -> Result<Arc<dyn Backend>, PluginError> {
        let Manifest { kind, name, .. } = &checked.manifest;
        let options = match &settings.options {
            Value::Null => Value::Object(serde_json::Map::new()),
            options => options.clone(),
        };
        let config = DriverConfig {
            name: name.clone(),
            root: make_dir(&self.config.data_root, *kind, name)?,
            run: make_dir(&self.config.exec_root, *kind, name)?,
            tag: self.config.tag.clone(),
            options,
        };
        let (backend, manifest): (Arc<dyn Backend>, _) = match isolation {
            Isolation::None => {
                let library = Library::load(&checked.staged).map_err(|e| PluginError::Refused {
                    path: checked.staged.clone(),
                    why: e.to_string(),
                })?;
                let manifest = library.manifest().to_vec();
                (
                    Arc::new(InProcess::create(&library, *kind, &config, shipped)?),
                    manifest,
                )
            }
            Isolation::Process => {
                let host = self.driver_host()?;
                let (driver, manifest) =
                    Isolated::create(host, checked.staged.clone(), *kind, &config)?;
                (Arc::new(driver), manifest)
            }
        };
        if manifest != checked.bytes {
            return Err(PluginError::Refused {
                path: checked.staged.clone(),
                why: "exports another manifest than its file holds".to_owned(),
            });
        }
        Ok(backend)
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

/// A directory of the driver's own.
fn make_dir(root: &Path, kind: Kind, name: &str) -> Result<PathBuf, PluginError> {
    let dir = root.join(kind.as_str()).join(name);
    DirBuilder::new()
        .recursive(true)
        .mode(0o711)
        .create(&dir)
        .map_err(PluginError::io(format!("making {}", dir.display())))?;
    Ok(dir)
}

/// A backend that is not registered yet.
struct Unregistered<'a>(&'a Arc<dyn Backend>);

impl gantry_driver_api::Invoke for Unregistered<'_> {
    fn invoke(
        &self,
        method: &str,
        call: &Call<'_>,
        request: &[u8],
        reply: &mut Vec<u8>,
    ) -> DriverResult<()> {
        self.0.invoke(method, call, request, reply)
    }
}

fn reconcile(backend: &Arc<dyn Backend>, live: Reconcile) -> DriverResult<()> {
    Remote(Unregistered(backend)).reconcile(&Call::new("reload").with_timeout(DRAIN), live)
}
