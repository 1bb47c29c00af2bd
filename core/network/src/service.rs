//! The service that the engine holds.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use gantry_driver_api::Reconcile;
use gantry_driver_registry::DriverRegistry;
use gantry_model::{ContainerId, NetworkId};

use crate::inner::Inner;
use crate::{
    EgressList, EndpointConfig, EndpointInfo, LiveSandbox, Member, NetworkConfig, NetworkCreate,
    NetworkError, NetworkRecord, Peer, PortBinding, PortRequest, Protocol, Result, Sandbox,
    SandboxSpec, SharedChange,
};

/// Networks, sandboxes and ports of one engine. Clones share state; every method may be called concurrently, calls for
/// one container or one network take turns. Methods that are `async` do their work on tokio's blocking threads, and do
/// it to the end even if the future is dropped.
#[derive(Clone)]
pub struct NetworkService {
    inner: Arc<Inner>,
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|e| NetworkError::internal(format!("a network task failed: {e}")))
}

impl NetworkService {
    async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Arc<Inner>) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let inner = Arc::clone(&self.inner);
        blocking(move || work(&inner)).await?
    }

    /// Opens the records, makes the default networks whose drivers are there, and writes the firewall's base. Nothing
    /// of a live container is touched: call [`Self::restore`] next, before any other change.
    ///
    /// # Errors
    /// When the records cannot be read or written, or the flags contradict each other. A driver that is missing or
    /// fails is logged; what needs it is refused later.
    pub async fn open(config: NetworkConfig, registry: Arc<DriverRegistry>) -> Result<Self> {
        let inner = blocking(move || Inner::open(config, registry)).await??;
        Ok(Self {
            inner: Arc::new(inner),
        })
    }

    /// Takes over the sandboxes of containers that outlived the daemon; everything kept of other containers is
    /// removed: links, leases, addresses, names. Live containers are not disturbed. From then on networks of other hosts
    /// come and go by themselves.
    ///
    /// # Errors
    /// Only when the state files cannot be read; what cannot be taken over is logged and left.
    pub async fn restore(&self, live: Vec<LiveSandbox>) -> Result<()> {
        self.run(move |inner| inner.restore(live)).await
    }

    /// Calls back with what a driver has here, to put another generation in its place: no network and no attachment is
    /// made or removed meanwhile. Blocks.
    pub fn with_objects(&self, driver: &str, then: impl FnOnce(Reconcile)) {
        self.inner.with_objects(driver, then);
    }

    /// Follows the networks of drivers that were loaded since and share them among hosts. Blocks.
    pub fn follow_drivers(&self) {
        self.inner.follow_all();
    }

    /// Has somebody told, from threads of this service, what other hosts do with the networks that they share with this
    /// one. Once, before [`Self::restore`].
    pub fn on_shared_change(
        &self,
        tell: impl Fn(SharedChange, &NetworkRecord) + Send + Sync + 'static,
    ) {
        self.inner.shared.listen(tell);
    }

    /// Makes a network; with a driver whose networks hosts share, on all of them.
    ///
    /// # Errors
    /// Docker's, `network with name x already exists` (409) among them.
    pub async fn create(&self, wanted: NetworkCreate) -> Result<NetworkRecord> {
        self.run(move |inner| inner.create(wanted)).await
    }

    /// Removes the network of this name, ID or unique prefix, from all hosts that share it; returns what it was.
    ///
    /// # Errors
    /// `network x not found`, `... has active endpoints` (403), `... is a pre-defined network and cannot be removed`.
    pub async fn remove(&self, name: &str) -> Result<NetworkRecord> {
        let name = name.to_owned();
        self.run(move |inner| inner.remove(&name)).await
    }

    /// The network of this ID, name or unique prefix of an ID (in this order).
    ///
    /// # Errors
    /// `network x not found`; `network x is ambiguous (2 matches found based on ID prefix)`.
    pub fn get(&self, name: &str) -> Result<NetworkRecord> {
        Ok(self.inner.find(name)?.record.clone())
    }

    /// Every network, by name.
    #[must_use]
    pub fn list(&self) -> Vec<NetworkRecord> {
        self.inner.list()
    }

    /// Removes every network without endpoints that is not predefined and that `select` is true for.
    ///
    /// # Errors
    /// None at present; networks that cannot be removed are left.
    pub async fn prune(
        &self,
        select: impl Fn(&NetworkRecord) -> bool + Send + 'static,
    ) -> Result<Vec<NetworkRecord>> {
        self.run(move |inner| Ok(inner.prune(select))).await
    }

    /// The containers with a sandbox attached to a network.
    #[must_use]
    pub fn members(&self, network: &NetworkId) -> Vec<Member> {
        self.inner.members(network)
    }

    /// The other hosts that have members of a network.
    #[must_use]
    pub fn peers(&self, network: &NetworkId) -> Vec<Peer> {
        self.inner.peers(network)
    }

    /// Makes a container's sandbox and writes its files. An earlier one of the container is released first.
    ///
    /// # Errors
    /// When the other container's sandbox is not there, or files cannot be written.
    pub async fn sandbox(&self, spec: SandboxSpec) -> Result<Sandbox> {
        self.run(move |inner| inner.sandbox(spec, None)).await
    }
    /// As [`Self::sandbox`], in a network namespace that the caller has made, of which nothing is set up yet.
    ///
    /// # Errors
    /// As [`Self::sandbox`].
    pub async fn sandbox_in(&self, spec: SandboxSpec, netns: OwnedFd) -> Result<Sandbox> {
        self.run(move |inner| inner.sandbox(spec, Some(netns)))
            .await
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
        let (container, network) = (container.clone(), network.to_owned());
        self.run(move |inner| inner.connect(&container, &network, config))
            .await
    }

    /// Checks a wish for an attachment without making it (for `create`).
    ///
    /// # Errors
    /// As [`Self::connect`] would.
    pub fn check(&self, network: &str, config: &EndpointConfig) -> Result<NetworkRecord> {
        let network = self.inner.find(network)?;
        self.inner.check(&network, config)?;
        Ok(network.record.clone())
    }

    /// Detaches it. Ports published through the attachment move to the next one, or are withdrawn.
    ///
    /// # Errors
    /// `container x is not connected to network y`.
    pub async fn disconnect(&self, container: &ContainerId, network: &str) -> Result<()> {
        let (container, network) = (container.clone(), network.to_owned());
        self.run(move |inner| inner.disconnect(&container, &network))
            .await
    }

    /// Publishes ports of a container, all or none, through the attachment that has its default route. Call after
    /// the last [`Self::connect`] of a start. Replaces what was published before.
    ///
    /// # Errors
    /// Docker's for busy ports; a container without a way out publishes nothing and gets no error.
    pub async fn publish(
        &self,
        container: &ContainerId,
        ports: Vec<PortRequest>,
    ) -> Result<Vec<PortBinding>> {
        let container = container.clone();
        self.run(move |inner| inner.publish(&container, ports))
            .await
    }

    /// Publishes further ports of a container and withdraws others (by transport and port inside), all or nothing. What
    /// stays published keeps its host port, and connections that are under way go on.
    ///
    /// # Errors
    /// Docker's for busy ports; no sandbox (409).
    pub async fn change_ports(
        &self,
        container: &ContainerId,
        add: Vec<PortRequest>,
        remove: Vec<(Protocol, u16)>,
    ) -> Result<Vec<PortBinding>> {
        let container = container.clone();
        self.run(move |inner| inner.change_ports(&container, &add, &remove))
            .await
    }

    /// Gives a container another egress list, or none. Connections that were let through go on.
    ///
    /// # Errors
    /// No sandbox (409), no place for a list; the one before stays.
    pub async fn change_egress(
        &self,
        container: &ContainerId,
        list: Option<EgressList>,
    ) -> Result<()> {
        let container = container.clone();
        self.run(move |inner| inner.change_egress(&container, list))
            .await
    }

    /// What a container's sandbox is attached to, in order of its links; empty without sandbox.
    #[must_use]
    pub fn endpoints(&self, container: &ContainerId) -> Vec<EndpointInfo> {
        self.attached(container).unwrap_or_default()
    }

    /// As [`Self::endpoints`]; none without sandbox.
    #[must_use]
    pub fn attached(&self, container: &ContainerId) -> Option<Vec<EndpointInfo>> {
        let views = self.inner.views.read();
        views.get(container).map(|v| v.endpoints.clone())
    }

    /// What it has published.
    #[must_use]
    pub fn ports(&self, container: &ContainerId) -> Vec<PortBinding> {
        let views = self.inner.views.read();
        views
            .get(container)
            .map(|v| v.ports.iter().collect())
            .unwrap_or_default()
    }

    /// Tells the name service of a container's new name.
    ///
    /// # Errors
    /// When netd does not answer.
    pub async fn rename(&self, container: &ContainerId, name: &str) -> Result<()> {
        let (container, name) = (container.clone(), name.to_owned());
        self.run(move |inner| inner.rename(&container, &name)).await
    }

    /// Takes what a container calls another out of its names and files. Without a sandbox there is nothing to do.
    ///
    /// # Errors
    /// When netd does not answer, or files cannot be written.
    pub async fn unlink(&self, container: &ContainerId, alias: &str) -> Result<()> {
        let (container, alias) = (container.clone(), alias.to_owned());
        self.run(move |inner| inner.unlink(&container, &alias))
            .await
    }

    /// Gives back all that a container's sandbox holds. Idempotent; to be called when the container has ended, or its
    /// start failed. The generated files stay.
    ///
    /// # Errors
    /// None at present: what cannot be removed now is removed by the next [`Self::restore`].
    pub async fn release(&self, container: &ContainerId) -> Result<()> {
        let container = container.clone();
        self.run(move |inner| {
            inner.release(&container);
            Ok(())
        })
        .await
    }

    /// Notices for `info`: drivers of default networks that are missing, rules that could not be written.
    #[must_use]
    pub fn warnings(&self) -> Vec<String> {
        let mut warnings = self.inner.warnings.lock().clone();
        warnings.extend(self.inner.firewall.legacy_warnings());
        warnings
    }

    /// Ends the service; sandboxes stay. `idle` (no container is left): the name service, the rules and the links end
    /// as well; the next start makes them again.
    pub async fn shutdown(&self, idle: bool) {
        let inner = Arc::clone(&self.inner);
        let closed = blocking(move || {
            inner.shared.close();
            inner.names.close(idle);
            if idle {
                inner.withdraw();
            }
        });
        if let Err(error) = closed.await {
            tracing::warn!(%error, "ending the network service");
        }
    }
}
