//! What the service's clones share.

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use std::sync::{Arc, OnceLock};

use gantry_driver_api::network::{NetworkInfo, NetworkSpec, Scope, Subnet};
use gantry_driver_api::{Call, DriverResult, ErrorCode, Network as Driver};
use gantry_driver_registry::DriverRegistry;
use gantry_model::{ContainerId, EndpointId, NetworkId};
use parking_lot::{Mutex, RwLock};

use crate::firewall::Firewall;
use crate::ipam::Ipam;
use crate::names::NameService;
use crate::notes::Notes;
use crate::place::{Place, Saved};
use crate::pool::NetnsPool;
use crate::ports::Ports;
use crate::rows::Rows;
use crate::shared::Shared;
use crate::store::Files;
use crate::{
    EndpointInfo, Member, NetworkConfig, NetworkError, NetworkRecord, PortBinding, Result,
    SandboxMode,
};

/// A network and its endpoints.
#[derive(Debug)]
pub(crate) struct Network {
    pub(crate) record: NetworkRecord,
    pub(crate) info: OnceLock<NetworkInfo>,
    /// Whether the driver has made it since the daemon started.
    pub(crate) made: Mutex<bool>,
    /// Endpoints that hold the network; none once it is being removed.
    pub(crate) holders: Mutex<Option<HashSet<EndpointId>>>,
}

impl Network {
    pub(crate) fn new(record: NetworkRecord) -> Self {
        Self {
            record,
            info: OnceLock::new(),
            made: Mutex::new(false),
            holders: Mutex::new(Some(HashSet::new())),
        }
    }

    /// What the driver is told.
    pub(crate) fn spec(&self) -> NetworkSpec {
        spec_of(&self.record)
    }

    /// Lets no endpoint in any more, unless there are some; `by` says which.
    pub(crate) fn close(&self, by: impl FnOnce() -> String) -> Result<()> {
        {
            let mut holders = self.holders.lock();
            match holders.as_ref() {
                None => return Err(NetworkError::no_network(&self.record.name)),
                Some(held) if !held.is_empty() => {}
                Some(_) => {
                    *holders = None;
                    return Ok(());
                }
            }
        }
        Err(self.in_use(&by()))
    }

    /// Lets endpoints in again; the driver may have removed its part.
    pub(crate) fn reopen(&self) {
        *self.holders.lock() = Some(HashSet::new());
        *self.made.lock() = false;
    }

    pub(crate) fn in_use(&self, by: &str) -> NetworkError {
        let (name, id) = (&self.record.name, &self.record.id);
        let mut text =
            format!("error while removing network: network {name} id {id} has active endpoints");
        if !by.is_empty() {
            text += &format!(" ({by})");
        }
        NetworkError::forbidden(text)
    }
}

/// Asks a driver about a network. One that does not know it, as a new generation does not after a crash or a reload, is
/// told of it and asked again.
pub(crate) fn knowing<T>(
    driver: &dyn Driver,
    network: &Network,
    ask: impl Fn() -> DriverResult<T>,
) -> DriverResult<T> {
    match ask() {
        Err(error) if error.code == ErrorCode::NotFound => {
            driver.create_network(&Call::new("connect"), network.spec())?;
            ask()
        }
        asked => asked,
    }
}

pub(crate) fn spec_of(record: &NetworkRecord) -> NetworkSpec {
    let subnets = record.ipam.pools.iter().filter_map(|pool| {
        Some(Subnet {
            net: pool.subnet?,
            gateway: pool.gateway,
        })
    });
    NetworkSpec {
        id: record.id.to_string(),
        name: record.name.clone(),
        subnets: subnets.collect(),
        internal: record.internal,
        options: record.options.clone(),
    }
}

/// What is shown of a sandbox without waiting for it.
#[derive(Debug, Clone, Default)]
pub(crate) struct View {
    pub(crate) name: String,
    pub(crate) endpoints: Vec<EndpointInfo>,
    pub(crate) ports: Rows<PortBinding>,
    /// Links on the default network.
    pub(crate) links: Vec<crate::Link>,
}

/// A sandbox in the list of sandboxes.
#[derive(Debug, Clone)]
pub(crate) struct Slot {
    pub(crate) mode: SandboxMode,
    pub(crate) place: Arc<Mutex<Place>>,
}

pub(crate) struct Inner {
    pub(crate) config: NetworkConfig,
    pub(crate) registry: Arc<DriverRegistry>,
    pub(crate) records: Files,
    pub(crate) saved: Notes,
    pub(crate) networks: RwLock<HashMap<NetworkId, Arc<Network>>>,
    /// Held while the set of networks changes.
    pub(crate) changing: Mutex<()>,
    pub(crate) sandboxes: Mutex<HashMap<ContainerId, Slot>>,
    pub(crate) views: RwLock<HashMap<ContainerId, View>>,
    pub(crate) ipam: Ipam,
    pub(crate) ports: Ports,
    pub(crate) firewall: Arc<Firewall>,
    /// Whether the kernel leads to netd what it is to relay.
    pub(crate) relays: bool,
    pub(crate) pool: NetnsPool,
    pub(crate) names: Arc<NameService>,
    pub(crate) shared: Shared,
    pub(crate) warnings: Mutex<Vec<String>>,
}

impl Inner {
    /// The driver of this name. Docker calls the one of `none` networks `null`.
    pub(crate) fn driver(&self, name: &str) -> Result<Arc<dyn Driver>> {
        let name = if name == "null" { "none" } else { name };
        Ok(self.registry.network(name)?)
    }

    pub(crate) fn warn(&self, text: String) {
        tracing::warn!("{text}");
        self.warnings.lock().push(text);
    }

    /// The network of this ID, name or unique prefix of an ID. A name is this host's first.
    pub(crate) fn find(&self, name: &str) -> Result<Arc<Network>> {
        let networks = self.networks.read();
        let exact = networks
            .values()
            .find(|n| n.record.id.as_str() == name)
            .or_else(|| {
                let named = networks.values().filter(|n| n.record.name == name);
                named.min_by_key(|n| (n.record.scope != Scope::Local, n.record.created))
            });
        if let Some(network) = exact {
            return Ok(Arc::clone(network));
        }
        let mut prefixed = networks
            .values()
            .filter(|n| !name.is_empty() && n.record.id.as_str().starts_with(name));
        match (prefixed.next(), prefixed.count()) {
            (None, _) => Err(NetworkError::no_network(name)),
            (Some(network), 0) => Ok(Arc::clone(network)),
            (Some(_), more) => Err(NetworkError::invalid(format!(
                "network {name} is ambiguous ({} matches found based on ID prefix)",
                more + 1
            ))),
        }
    }

    /// What the network's driver is like.
    pub(crate) fn info(&self, network: &Network) -> Result<NetworkInfo> {
        if let Some(info) = network.info.get() {
            return Ok(info.clone());
        }
        let mut info = self
            .driver(&network.record.driver)?
            .info(&Call::default(), ())?;
        // Where hosts share networks, the driver has the addresses.
        info.addressed &= info.scope == Scope::Local;
        Ok(network.info.get_or_init(|| info).clone())
    }

    /// Has the driver make (or find) the network, once after each start of the daemon.
    /// Answers which families (IPv4, IPv6) it needs no gateway of, when it was made now.
    pub(crate) fn ensure(&self, network: &Network) -> Result<[bool; 2]> {
        let mut made = network.made.lock();
        if *made {
            return Ok([false; 2]);
        }
        let record = &network.record;
        let driver = self.driver(&record.driver)?;
        let plan = driver.create_network(&Call::new("create network"), network.spec())?;
        self.firewall
            .set_networks([(record.id.clone(), plan.firewall)])
            .map_err(|e| NetworkError::io("writing firewall rules", &e))?;
        *made = true;
        Ok([plan.no_gateway_ipv4, plan.no_gateway_ipv6])
    }

    pub(crate) fn place(&self, container: &ContainerId) -> Result<Arc<Mutex<Place>>> {
        let slot = self.sandboxes.lock().get(container).cloned();
        slot.map(|slot| slot.place).ok_or_else(|| {
            NetworkError::conflict(format!("container {container} has no network sandbox"))
        })
    }

    /// Whether another container lives in this one's namespace.
    pub(crate) fn is_shared(&self, container: &ContainerId) -> bool {
        let mode = SandboxMode::Container(container.clone());
        self.sandboxes.lock().values().any(|slot| slot.mode == mode)
    }

    /// Shows a sandbox.
    pub(crate) fn show(&self, place: &Place) {
        let saved = &place.saved;
        let view = View {
            name: saved.spec.name.clone(),
            endpoints: saved.endpoints.iter().map(|e| e.info.clone()).collect(),
            ports: saved.bindings.clone(),
            links: saved.spec.links.clone(),
        };
        self.views
            .write()
            .insert(saved.spec.container.clone(), view);
    }

    /// Writes a sandbox down and shows it.
    pub(crate) fn publish_view(&self, place: &Place) -> Result<()> {
        self.show(place);
        self.saved
            .put(place.spec().container.as_str(), &place.saved)
    }

    pub(crate) fn members(&self, network: &NetworkId) -> Vec<Member> {
        let views = self.views.read();
        let mut members: Vec<Member> = views
            .iter()
            .flat_map(|(container, view)| {
                let of_network = view.endpoints.iter().filter(|e| e.network == *network);
                of_network.map(|endpoint| Member {
                    container: container.clone(),
                    name: view.name.clone(),
                    endpoint: endpoint.clone(),
                })
            })
            .collect();
        members.sort_by(|a, b| a.name.cmp(&b.name));
        members
    }

    /// Gives an endpoint's addresses and its hold on the network back.
    pub(crate) fn let_go(&self, endpoint: &EndpointInfo) {
        for address in [endpoint.ipv4, endpoint.ipv6].into_iter().flatten() {
            self.ipam.give_back(&endpoint.network, address);
        }
        if let Some(network) = self.networks.read().get(&endpoint.network)
            && let Some(holders) = network.holders.lock().as_mut()
        {
            holders.remove(&endpoint.endpoint);
        }
    }

    /// Addresses that `host-gateway` means.
    pub(crate) fn host_gateway(&self) -> Vec<IpAddr> {
        if !self.config.host_gateway.is_empty() {
            return self.config.host_gateway.clone();
        }
        let bridge = self.find("bridge").ok();
        let pools = bridge.iter().flat_map(|network| &network.record.ipam.pools);
        pools.filter_map(|pool| pool.gateway).collect()
    }

    pub(crate) fn empty_saved(&self, spec: crate::SandboxSpec) -> Saved {
        Saved {
            boot_id: self.config.boot_id.clone(),
            spec,
            endpoints: Vec::new(),
            under_way: None,
            requests: Rows::default(),
            bindings: Rows::default(),
            published: crate::publish::Published::default(),
            routes: crate::place::Routes::default(),
            resolv: String::new(),
            resolv_before: None,
        }
    }
}
