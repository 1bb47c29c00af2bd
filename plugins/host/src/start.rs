//! From a plugin that was checked to a driver that runs.

use std::fs::{self, DirBuilder, File};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use gantry_driver_api::{
    Call, Driver, DriverConfig, DriverResult, Kind, Manifest, Reconcile, Remote,
};
use gantry_driver_registry::{Backend, Isolation};
use gantry_plugin_abi::host::Library;
use parking_lot::Mutex;
use serde_json::Value;

use crate::candidate::{Checked, Looked};
use crate::inprocess::InProcess;
use crate::isolated::Isolated;
use crate::on_demand::Started;
use crate::{DriverSettings, LoaderConfig, PluginError, stage};

/// Copies plugins and makes drivers of them.
pub(crate) struct Starter {
    pub(crate) config: LoaderConfig,
    /// The copy of the program that hosts isolated plugins: one that is restarted later must speak this engine's
    /// format, even when the file was replaced meanwhile.
    driver_host: Mutex<Option<PathBuf>>,
    /// Held while copies are removed, and by drivers that are loaded late until their copy is mapped.
    copies: Mutex<()>,
}

impl Starter {
    pub(crate) fn new(config: LoaderConfig) -> Self {
        Self {
            config,
            driver_host: Mutex::default(),
            copies: Mutex::default(),
        }
    }

    pub(crate) fn stage_dir(&self) -> Result<PathBuf, PluginError> {
        stage::directory(&[&self.config.exec_root, &self.config.data_root])
    }

    /// Removes the copies that are not in use.
    pub(crate) fn prune(&self, used: impl FnOnce() -> Vec<PathBuf>) {
        let _copies = self.copies.lock();
        if let Ok(dir) = self.stage_dir() {
            let mut used = used();
            used.extend(self.driver_host.lock().clone());
            stage::prune(&dir, &used);
        }
    }

    fn dirs(&self, kind: Kind, name: &str) -> [PathBuf; 2] {
        [&self.config.data_root, &self.config.exec_root]
            .map(|root| root.join(kind.as_str()).join(name))
    }

    /// Whether a driver's directories are missing or empty.
    pub(crate) fn has_no_data(&self, kind: Kind, name: &str) -> bool {
        let is_empty = |dir: &PathBuf| match fs::read_dir(dir) {
            Ok(mut entries) => entries.next().is_none(),
            Err(error) => error.kind() == std::io::ErrorKind::NotFound,
        };
        self.dirs(kind, name).iter().all(is_empty)
    }

    /// Copies and loads a driver in this process, long after its file was found. What was put in the file's place since is
    /// none of its business.
    pub(crate) fn start_late(
        &self,
        path: &Path,
        looked: &Looked,
        settings: &DriverSettings,
    ) -> Result<Started, PluginError> {
        let _copies = self.copies.lock();
        looked.check_unchanged(path)?;
        let checked = looked.copy(&self.stage_dir()?)?;
        let backend = self.start(&checked, settings, Isolation::None, true)?;
        Ok(Started {
            backend,
            staged: checked.staged,
        })
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
    pub(crate) fn start(
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
        let [root, run] = self.dirs(*kind, name);
        for dir in [&root, &run] {
            DirBuilder::new()
                .recursive(true)
                .mode(0o711)
                .create(dir)
                .map_err(PluginError::io(format!("making {}", dir.display())))?;
        }
        let config = DriverConfig {
            name: name.clone(),
            root,
            run,
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

/// Tells a driver, before it serves, what there is of its objects.
pub(crate) fn reconcile(
    backend: &Arc<dyn Backend>,
    live: Reconcile,
    within: Duration,
) -> DriverResult<()> {
    Remote(Unregistered(backend)).reconcile(&Call::new("reload").with_timeout(within), live)
}
