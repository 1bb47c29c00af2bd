//! The plugin under test, in an engine's surroundings.

use std::fs::{self, File};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use gantry_driver_api::{Call, Driver, Invoke, Kind, Manifest, Network, Registry, Storage, Volume};
use gantry_driver_registry::{DriverRegistry, DriverStatus, RegistryError};
use gantry_plugin_host::{
    DriversConfig, Loader, LoaderConfig, PluginDir, PluginError, manifest, trusted_owners,
};
use serde_json::json;
use tempfile::TempDir;

use crate::Run;

/// Why there is nothing to test.
#[derive(Debug)]
pub enum SubjectError {
    /// The file is no plugin.
    Plugin(PluginError),
    /// It could not be loaded.
    Unavailable(RegistryError),
    /// The surroundings could not be made.
    Io(std::io::Error),
}

impl std::fmt::Display for SubjectError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Plugin(error) => error.fmt(f),
            Self::Unavailable(error) => error.fmt(f),
            Self::Io(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for SubjectError {}

impl From<std::io::Error> for SubjectError {
    fn from(error: std::io::Error) -> Self {
        Self::Io(error)
    }
}

/// A loaded plugin with directories of its own, which go when it does.
pub struct Subject {
    manifest: Manifest,
    registry: Arc<DriverRegistry>,
    loader: Loader,
    drivers: DriversConfig,
    /// Removed when the subject is dropped.
    _home: TempDir,
}

impl Subject {
    /// Loads a copy of the plugin, whatever its name.
    ///
    /// # Errors
    /// When the file is no plugin or the driver does not start.
    pub fn load(run: &Run) -> Result<Self, SubjectError> {
        let manifest = read_manifest(&run.plugin)?;
        let home = tempfile::Builder::new()
            .prefix("gantry-verify-")
            .tempdir()?;
        let plugins = home.path().join("plugins");
        fs::create_dir(&plugins)?;
        let file = format!(
            "libgantry_{}_{}.so",
            manifest.kind,
            manifest.name.replace('-', "_")
        );
        fs::copy(&run.plugin, plugins.join(file))?;
        let mut settings = serde_json::Map::new();
        settings.insert(
            manifest.name.clone(),
            json!({"isolation": run.isolation.as_str(), "options": run.options}),
        );
        let drivers = json!({manifest.kind.as_str(): settings});
        let drivers = DriversConfig::parse(&drivers)
            .map_err(|e| SubjectError::Io(std::io::Error::other(e.to_string())))?;
        let loader = Loader::new(LoaderConfig {
            plugin_dirs: vec![PluginDir {
                path: plugins,
                shipped: true,
            }],
            driver_host: run.driver_host.clone(),
            data_root: home.path().join("data"),
            exec_root: home.path().join("exec"),
            tag: format!("{:08x}", std::process::id()),
            owners: trusted_owners(),
        });
        let subject = Self {
            manifest,
            registry: Arc::new(DriverRegistry::new()),
            loader,
            drivers,
            _home: home,
        };
        subject
            .loader
            .load_all(&subject.drivers, &subject.registry, &|_, _, then| {
                then(None)
            });
        subject
            .registry
            .driver(subject.kind(), subject.name())
            .map_err(SubjectError::Unavailable)?;
        Ok(subject)
    }

    /// Ends the driver and starts it again on the same directories, as an engine that is restarted does.
    ///
    /// # Errors
    /// When it does not come back.
    pub fn restart(&self) -> Result<(), RegistryError> {
        self.registry.shutdown(Duration::from_secs(10));
        self.loader
            .load_all(&self.drivers, &self.registry, &|_, _, then| then(None));
        self.driver().map(drop)
    }

    /// What it drives.
    #[must_use]
    pub fn kind(&self) -> Kind {
        self.manifest.kind
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.manifest.name
    }

    /// Its manifest.
    #[must_use]
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// The registry that holds it.
    #[must_use]
    pub fn registry_of_drivers(&self) -> &Arc<DriverRegistry> {
        &self.registry
    }

    /// What `driver ls` says of it.
    ///
    /// # Errors
    /// When it is not there.
    pub fn status(&self) -> Result<DriverStatus, RegistryError> {
        self.registry.status(self.kind(), self.name())
    }

    /// The driver's base trait.
    ///
    /// # Errors
    /// When it is not there.
    pub fn driver(&self) -> Result<Arc<dyn Driver>, RegistryError> {
        self.registry.driver(self.kind(), self.name())
    }

    /// The driver, for calls encoded by hand.
    ///
    /// # Errors
    /// When it is not there.
    pub fn invoker(&self) -> Result<Arc<dyn Invoke>, RegistryError> {
        self.registry.invoker(self.kind(), self.name())
    }

    /// As a storage driver.
    ///
    /// # Errors
    /// When it is none or not there.
    pub fn storage(&self) -> Result<Arc<dyn Storage>, RegistryError> {
        self.registry.storage(self.name())
    }

    /// As a network driver.
    ///
    /// # Errors
    /// When it is none or not there.
    pub fn network(&self) -> Result<Arc<dyn Network>, RegistryError> {
        self.registry.network(self.name())
    }

    /// As a volume driver.
    ///
    /// # Errors
    /// When it is none or not there.
    pub fn volume(&self) -> Result<Arc<dyn Volume>, RegistryError> {
        self.registry.volume(self.name())
    }

    /// As a registry driver.
    ///
    /// # Errors
    /// When it is none or not there.
    pub fn registry(&self) -> Result<Arc<dyn Registry>, RegistryError> {
        self.registry.registry(self.name())
    }
}

/// What the plugin at `path` drives.
pub(crate) fn kind(path: &Path) -> Result<Kind, SubjectError> {
    Ok(read_manifest(path)?.kind)
}

fn read_manifest(path: &Path) -> Result<Manifest, SubjectError> {
    let (manifest, _) = manifest::read(path, &File::open(path)?).map_err(SubjectError::Plugin)?;
    Ok(manifest)
}

/// The calls of the suite: no driver may take longer.
pub(crate) fn call() -> Call<'static> {
    Call::new("verify").with_timeout(Duration::from_secs(60))
}
