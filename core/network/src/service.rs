//! The service that the engine holds.

use std::sync::Arc;

use gantry_driver_registry::DriverRegistry;
use gantry_model::{ContainerId, NetworkId};

use crate::{
    EndpointConfig, EndpointInfo, LiveSandbox, Member, NetworkConfig, NetworkCreate, NetworkError,
    NetworkRecord, PortBinding, PortRequest, Result, Sandbox, SandboxSpec,
};

/// Networks, sandboxes and ports of one engine. Clones share state; every method may be called concurrently, calls for
/// one container or one network take turns.
#[derive(Clone)]
pub struct NetworkService {
    registry: Arc<DriverRegistry>,
}

fn unavailable<T>() -> Result<T> {
    Err(NetworkError::internal("networks are not available"))
}

impl NetworkService {
    /// Opens the records, makes the default networks whose drivers are there, and writes the firewall's base. Nothing
    /// of a live container is touched: call [`Self::restore`] next, before any other change.
    ///
    /// # Errors
    /// When the records cannot be read or written, or the flags contradict each other. A driver that is missing or
    /// fails is logged; what needs it is refused later.
    pub async fn open(config: NetworkConfig, registry: Arc<DriverRegistry>) -> Result<Self> {
        let _ = config;
        Ok(Self { registry })
    }

    /// Takes over the sandboxes of containers that outlived the daemon; everything kept of other containers is
    /// removed: links, leases, addresses, names. Live containers are not disturbed.
    ///
    /// # Errors
    /// Only when the state files cannot be read; what cannot be taken over is logged and left.
    pub async fn restore(&self, live: Vec<LiveSandbox>) -> Result<()> {
        let _ = live;
        unavailable()
    }

    /// Makes a network.
    ///
    /// # Errors
    /// Docker's, `network with name x already exists` (409) among them.
    pub async fn create(&self, wanted: NetworkCreate) -> Result<NetworkRecord> {
        let _ = (wanted, &self.registry);
        unavailable()
    }

    /// Removes the network of this name, ID or unique prefix; returns what it was.
    ///
    /// # Errors
    /// `network x not found`, `... has active endpoints` (403), `... is a pre-defined network and cannot be removed`.
    pub async fn remove(&self, name: &str) -> Result<NetworkRecord> {
        let _ = name;
        unavailable()
    }

    /// The network of this name, ID or unique prefix of an ID (in this order).
    ///
    /// # Errors
    /// `network x not found`; `network x is ambiguous (2 matches found based on ID prefix)`.
    pub fn get(&self, name: &str) -> Result<NetworkRecord> {
        Err(NetworkError::no_network(name))
    }

    /// Every network, by name.
    #[must_use]
    pub fn list(&self) -> Vec<NetworkRecord> {
        Vec::new()
    }

    /// Removes every network without endpoints that is not predefined and that `select` is true for.
    ///
    /// # Errors
    /// None at present; networks that cannot be removed are left.
    pub async fn prune(
        &self,
        select: impl Fn(&NetworkRecord) -> bool + Send + 'static,
    ) -> Result<Vec<NetworkRecord>> {
        drop(select);
        unavailable()
    }

    /// The containers with a sandbox attached to a network.
    #[must_use]
    pub fn members(&self, network: &NetworkId) -> Vec<Member> {
        let _ = network;
        Vec::new()
    }

    /// Makes a container's sandbox and writes its files. An earlier one of the container is released first.
    ///
    /// # Errors
    /// When the mode's network or the other container's sandbox is not there, or files cannot be written.
    pub async fn sandbox(&self, spec: SandboxSpec) -> Result<Sandbox> {
        let _ = spec;
        unavailable()
    }

    /// Attaches a container's sandbox to a network (name, ID or prefix). Before or while the container runs.
    ///
    /// # Errors
    /// Docker's: unknown network, no sandbox, address taken or outside the pools, already attached (403).
    pub async fn connect(
        &self,
        container: &ContainerId,
        network: &str,
        config: EndpointConfig,
    ) -> Result<EndpointInfo> {
        let _ = (container, network, config);
        unavailable()
    }

    /// Checks a wish for an attachment without making it (for `create`).
    ///
    /// # Errors
    /// As [`Self::connect`] would.
    pub fn check(&self, network: &str, config: &EndpointConfig) -> Result<NetworkRecord> {
        let _ = config;
        self.get(network)
    }

    /// Detaches it. Ports published through the attachment move to the next one, or are withdrawn.
    ///
    /// # Errors
    /// `container x is not connected to network y`.
    pub async fn disconnect(&self, container: &ContainerId, network: &str) -> Result<()> {
        let _ = (container, network);
        unavailable()
    }

    /// Publishes ports of a container, all or none, through the attachment that has its default route. Call after
    /// the last [`Self::connect`] of a start. Replaces what was published before.
    ///
    /// # Errors
    /// Docker's for busy ports; a container without a network of its own publishes nothing and gets no error.
    pub async fn publish(
        &self,
        container: &ContainerId,
        ports: Vec<PortRequest>,
    ) -> Result<Vec<PortBinding>> {
        let _ = (container, ports);
        unavailable()
    }

    /// What a container's sandbox is attached to, in order of its links; empty without sandbox.
    #[must_use]
    pub fn endpoints(&self, container: &ContainerId) -> Vec<EndpointInfo> {
        let _ = container;
        Vec::new()
    }

    /// What it has published.
    #[must_use]
    pub fn ports(&self, container: &ContainerId) -> Vec<PortBinding> {
        let _ = container;
        Vec::new()
    }

    /// Tells the name service of a container's new name.
    ///
    /// # Errors
    /// When netd does not answer.
    pub async fn rename(&self, container: &ContainerId, name: &str) -> Result<()> {
        let _ = (container, name);
        unavailable()
    }

    /// Gives back all that a container's sandbox holds. Idempotent; to be called when the container has ended, or its
    /// start failed. The generated files stay.
    ///
    /// # Errors
    /// None at present: what cannot be removed now is removed by the next [`Self::restore`].
    pub async fn release(&self, container: &ContainerId) -> Result<()> {
        let _ = container;
        unavailable()
    }

    /// Notices for `info`: drivers of default networks that are missing, rules that could not be written.
    #[must_use]
    pub fn warnings(&self) -> Vec<String> {
        Vec::new()
    }

    /// Ends the service; sandboxes stay. With `stop_netd`, the name service ends as well (no container is left).
    pub async fn shutdown(&self, stop_netd: bool) {
        let _ = stop_netd;
    }
}
