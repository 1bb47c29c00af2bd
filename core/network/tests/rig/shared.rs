//! Hosts that share the networks of a driver which makes no links.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use gantry_driver_registry::{DriverRegistry, Local};
use gantry_network::*;
use gantry_plugin_mock::MockNetwork;
use gantry_plugin_sdk::{DriverConfig, Log, serde_json};

use super::{Other, another_live, config, sandbox_spec};

/// The service of one of the hosts that share the store in `dir`.
pub(crate) fn host(dir: &Path, name: &str, netd: Option<&str>) -> Other {
    host_with(dir, name, netd, serde_json::json!({}), Vec::new())
}

/// The next daemon of a host, after a crash.
pub(crate) fn host_again(dir: &Path, name: &str, netd: Option<&str>, live: &[&Sandbox]) -> Other {
    let live = live.iter().map(|sandbox| LiveSandbox {
        container: sandbox.container.clone(),
        netns: sandbox.netns.as_ref().map(|fd| fd.try_clone().unwrap()),
    });
    host_with(dir, name, netd, serde_json::json!({}), live.collect())
}

/// The same, with a driver that fails as the script says, and containers that live.
pub(crate) fn host_with(
    dir: &Path,
    name: &str,
    netd: Option<&str>,
    fail: serde_json::Value,
    live: Vec<LiveSandbox>,
) -> Other {
    let change = |config: &mut NetworkConfig| {
        config.netd = netd.map(PathBuf::from);
        // Nothing is to be made on the one host that stands for all.
        config.bridge.link = Some("none".into());
    };
    host_of(dir, name, fail, live, change)
}

/// The same, with other flags.
pub(crate) fn host_of(
    dir: &Path,
    name: &str,
    fail: serde_json::Value,
    live: Vec<LiveSandbox>,
    change: impl FnOnce(&mut NetworkConfig),
) -> Other {
    let own = dir.join(name);
    std::fs::create_dir_all(&own).unwrap();
    let mut config = config(&own, &name.repeat(8));
    change(&mut config);
    let driver = DriverConfig {
        name: "mock".into(),
        root: own.clone(),
        run: own.clone(),
        tag: config.tag.clone(),
        options: serde_json::json!({"store": dir.join("store"), "host": name, "fail": fail}),
    };
    let registry = DriverRegistry::new();
    let driver = MockNetwork::new(driver, Log::none()).unwrap();
    registry.register_local("mock", Local::Network(Arc::new(driver)));
    another_live(config, Arc::new(registry), live)
}

impl Other {
    pub(crate) fn create(
        &self,
        name: &str,
        change: impl FnOnce(&mut NetworkCreate),
    ) -> Result<NetworkRecord> {
        let mut wanted = NetworkCreate {
            name: name.into(),
            driver: "mock".into(),
            ..NetworkCreate::default()
        };
        change(&mut wanted);
        self.block(self.service.create(wanted))
    }

    pub(crate) fn remove(&self, name: &str) -> Result<NetworkRecord> {
        self.block(self.service.remove(name))
    }

    pub(crate) fn sandbox(&self, dir: &Path, name: &str) -> Sandbox {
        let spec = sandbox_spec(dir, name);
        self.block(self.service.sandbox(spec)).unwrap()
    }

    pub(crate) fn join(
        &self,
        sandbox: &Sandbox,
        network: &str,
        config: EndpointConfig,
    ) -> Result<EndpointInfo> {
        let id = sandbox.container.clone();
        self.block(self.service.connect(&id, network, config))
    }

    /// A container on a network; its sandbox.
    pub(crate) fn run(
        &self,
        dir: &Path,
        name: &str,
        network: &str,
    ) -> (Sandbox, Result<EndpointInfo>) {
        let sandbox = self.sandbox(dir, name);
        let joined = self.join(&sandbox, network, EndpointConfig::default());
        (sandbox, joined)
    }

    pub(crate) fn end_container(&self, sandbox: Sandbox) {
        self.block(self.service.release(&sandbox.container))
            .unwrap();
    }
}
