//! A plugin directory and an engine's drivers around it.
#![allow(dead_code)]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use gantry_driver_api::{Call, Kind};
use gantry_driver_registry::{DriverRegistry, DriverStatus, Isolation};
use gantry_plugin_conformance::{driver_host, example};
use gantry_plugin_host::{DriversConfig, Loader, LoaderConfig, PluginDir, trusted_owners};
use serde_json::{Value, json};

pub(crate) const BOTH: [Isolation; 2] = [Isolation::None, Isolation::Process];

pub(crate) struct Engine {
    pub(crate) registry: Arc<DriverRegistry>,
    pub(crate) loader: Loader,
    pub(crate) home: tempfile::TempDir,
}

impl Engine {
    /// An engine whose plugin directory is empty.
    pub(crate) fn new() -> Self {
        let home = tempfile::tempdir().unwrap();
        fs::create_dir(home.path().join("plugins")).unwrap();
        let loader = Loader::new(LoaderConfig {
            plugin_dirs: vec![PluginDir {
                path: home.path().join("plugins"),
                shipped: true,
            }],
            driver_host: driver_host().expect("gantry-driver-host is built"),
            data_root: home.path().join("data"),
            exec_root: home.path().join("exec"),
            tag: "0badcafe".to_owned(),
            owners: trusted_owners(),
        });
        Self {
            registry: Arc::new(DriverRegistry::new()),
            loader,
            home,
        }
    }

    pub(crate) fn plugin(&self, name: &str) -> PathBuf {
        self.home.path().join("plugins").join(name)
    }

    /// Puts the plugin of an example into the directory under `name`.
    pub(crate) fn install(&self, built: &str, name: &str) -> &Self {
        fs::copy(mock(built), self.plugin(name)).unwrap();
        self
    }

    pub(crate) fn load(&self, drivers: &Value) {
        let drivers = DriversConfig::parse(drivers).unwrap();
        self.loader
            .load_all(&drivers, &self.registry, &|_, _, then| then(None));
    }

    /// Loads `network/mock` with these options.
    pub(crate) fn load_network(isolation: Isolation, options: &Value) -> Self {
        let engine = Self::new();
        engine.install("mock_network", "libgantry_network_mock.so");
        engine.load(
            &json!({"network": {"mock": {"isolation": isolation.as_str(), "options": options}}}),
        );
        engine
    }

    pub(crate) fn status(&self, kind: Kind, name: &str) -> DriverStatus {
        self.registry.status(kind, name).unwrap()
    }
}

pub(crate) fn mock(built: &str) -> PathBuf {
    example(built).expect("the mock plugins are built")
}

pub(crate) fn call() -> Call<'static> {
    Call::new("test").with_timeout(Duration::from_secs(30))
}

pub(crate) fn chmod(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}
