//! The service's start: records and default networks.

use std::collections::{BTreeMap, HashSet};
use std::net::IpAddr;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use gantry_driver_api::Call;
use gantry_driver_api::network::Scope;
use gantry_driver_registry::DriverRegistry;
use gantry_model::NetworkId;
use gantry_sys::netlink::RouteSocket;
use ipnet::IpNet;
use parking_lot::{Mutex, RwLock};
use rustix::fs::FlockOperation;

use crate::firewall::{Firewall, Ways};
use crate::inner::{Inner, Network};
use crate::ipam::Ipam;
use crate::names::NameService;
use crate::notes::Notes;
use crate::place::Saved;
use crate::pool::NetnsPool;
use crate::ports::Ports;
use crate::relay::Relaying;
use crate::store::Files;
use crate::{IpamConfig, IpamPool, NetworkConfig, NetworkError, NetworkRecord, Result};

const BRIDGE_OPTIONS: &str = "com.docker.network.bridge.";

impl Inner {
    pub(crate) fn open(config: NetworkConfig, registry: Arc<DriverRegistry>) -> Result<Self> {
        let kept = config.data_root.join("network");
        let run = config.exec_root.join("network");
        let io = |doing: &'static str| move |e: std::io::Error| NetworkError::io(doing, &e);
        let shortcut = config.shortcut.as_deref();
        let ways = Ways::of(&config);
        let firewall = Firewall::open(&config.tag, config.firewall, ways, shortcut)
            .map_err(io("opening nftables"))?;
        let socket = run.join("netd.sock");
        let names = NameService::new(socket, config.netd.clone(), Arc::clone(&firewall))
            .map_err(io("making a pipe"))?;
        let told = Arc::downgrade(&names);
        firewall.when_closed(move || {
            if let Some(names) = told.upgrade() {
                names.open_again();
            }
        });
        let inner = Self {
            records: Files::open(kept.join("networks"))?,
            saved: Notes::open(run.join("sandboxes"))?,
            networks: RwLock::default(),
            changing: Mutex::default(),
            sandboxes: Mutex::default(),
            views: RwLock::default(),
            ipam: Ipam::default(),
            ports: Ports::of_engine(&config.tag),
            relays: firewall.can_lead(),
            firewall,
            pool: NetnsPool::new(config.prepared).map_err(io("starting a thread"))?,
            names,
            shared: Default::default(),
            warnings: Mutex::default(),
            registry,
            config,
        };
        {
            let _choosing = choosing()?;
            inner.load()?;
            inner.make_all()?;
            inner.firewall.complain_of_legacy();
            if inner.config.obey_input && inner.relaying() != Relaying::All {
                inner.warn("published-ports-obey-input: relays need gantry-netd; without, published ports are reached by containers alone".to_owned());
            }
        }
        Ok(inner)
    }

    fn load(&self) -> Result<()> {
        let mut records: Vec<NetworkRecord> = self
            .records
            .all()?
            .into_iter()
            .map(|(_, record)| record)
            .collect();
        let mut predefined = BTreeMap::new();
        records.retain(|record| {
            if record.predefined {
                predefined.insert(record.name.clone(), record.clone());
            }
            !record.predefined
        });
        for record in records {
            self.keep_network(&Arc::new(Network::new(record)));
        }
        for (name, driver) in [("host", "host"), ("none", "null")] {
            let record = predefined
                .remove(name)
                .unwrap_or_else(|| self.predefined(name, driver));
            self.keep_predefined(record)?;
        }
        if self.config.bridge.link.as_deref() != Some("none") {
            let record = self.default_bridge(predefined.remove("bridge"))?;
            self.keep_predefined(record)?;
        }
        if self.config.ip_forward {
            self.switch_on("/proc/sys/net/ipv4/ip_forward");
        }
        Ok(())
    }

    /// Lets IPv6 networks lead anywhere.
    pub(crate) fn forward_ipv6(&self) {
        if self.config.ip_forward {
            self.switch_on("/proc/sys/net/ipv6/conf/all/forwarding");
        }
    }

    fn keep_predefined(&self, record: NetworkRecord) -> Result<()> {
        let known = self
            .records
            .all::<NetworkRecord>()?
            .into_iter()
            .any(|(_, r)| r == record);
        if !known {
            self.records.put(record.id.as_str(), &record)?;
        }
        self.keep_network(&Arc::new(Network::new(record)));
        Ok(())
    }

    fn switch_on(&self, sysctl: &str) {
        let is_on = std::fs::read_to_string(sysctl).is_ok_and(|value| value.trim() == "1");
        if !is_on && let Err(error) = std::fs::write(sysctl, "1") {
            self.warn(format!("cannot switch on {sysctl}: {error}"));
        }
    }

    /// The default network as the flags want it, on the subnet that it had before if that is still free.
    fn default_bridge(&self, before: Option<NetworkRecord>) -> Result<NetworkRecord> {
        let flags = &self.config.bridge;
        let mut record = self.predefined("bridge", "bridge");
        if let Some(before) = &before {
            record.id = before.id.clone();
            record.created = before.created;
        }
        let link = match &flags.link {
            Some(link) => link.clone(),
            None if self.config.primary => "gantry0".to_owned(),
            None => format!("gantry-{}", self.config.tag),
        };
        record.enable_ipv6 = flags.ipv6;
        let mut pools = Vec::new();
        if let Some(bip) = flags.bip {
            pools.push(pool(IpNet::V4(bip)));
        } else {
            pools.extend(self.subnet_of(&link, before.as_ref())?.map(pool));
        }
        match (flags.ipv6, flags.bip6, flags.fixed_cidr_v6) {
            (true, Some(bip), _) => pools.push(pool(IpNet::V6(bip))),
            (true, None, Some(cidr)) => pools.push(IpamPool {
                subnet: Some(IpNet::V6(cidr)),
                ..IpamPool::default()
            }),
            _ => {}
        }
        record.ipam = IpamConfig {
            pools,
            ..IpamConfig::default()
        };
        self.complete(&mut record.ipam, true, flags.ipv6)?;
        for pool in &mut record.ipam.pools {
            let v6 = pool.subnet.is_some_and(|s| s.addr().is_ipv6());
            let (range, gateway) = if v6 {
                let range = flags.fixed_cidr_v6.map(IpNet::V6);
                (range, flags.default_gateway_v6.map(IpAddr::V6))
            } else {
                let range = flags.fixed_cidr.map(IpNet::V4);
                (range, flags.default_gateway.map(IpAddr::V4))
            };
            pool.ip_range = range.filter(|range| Some(*range) != pool.subnet);
            let name = format!("DefaultGatewayIPv{}", if v6 { 6 } else { 4 });
            pool.aux_addresses.extend(gateway.map(|ip| (name, ip)));
        }
        let mut option = |name: &str, value: String| {
            record
                .options
                .insert(format!("{BRIDGE_OPTIONS}{name}"), value);
        };
        option("default_bridge", "true".into());
        option("enable_icc", flags.icc.to_string());
        option("enable_ip_masquerade", flags.ip_masq.to_string());
        option(
            "host_binding_ipv4",
            flags.host_ip.map_or("0.0.0.0".into(), |ip| ip.to_string()),
        );
        option("name", link);
        let mtu = if self.config.mtu == 0 {
            1500
        } else {
            self.config.mtu
        };
        record
            .options
            .insert("com.docker.network.driver.mtu".into(), mtu.to_string());
        Ok(record)
    }

    /// The default network's address: the link's, if it is there; else the one before, unless somebody else's route
    /// leads there by now.
    fn subnet_of(&self, link: &str, before: Option<&NetworkRecord>) -> Result<Option<IpNet>> {
        let failed = |e| NetworkError::io("reading the host's addresses", &e);
        let mut socket = RouteSocket::open().map_err(failed)?;
        if let Some(found) = socket.link(link).map_err(failed)? {
            let addresses = socket.addresses().map_err(failed)?;
            let own = addresses
                .into_iter()
                .find(|(index, net)| *index == found.index && net.addr().is_ipv4());
            if let Some((_, net)) = own {
                return Ok(Some(net));
            }
        }
        let pools = before.into_iter().flat_map(|record| &record.ipam.pools);
        let kept = pools
            .filter_map(|pool| IpNet::new(pool.gateway?, pool.subnet?.prefix_len()).ok())
            .find(|net| net.addr().is_ipv4());
        let routes = socket.routes().map_err(failed)?;
        let overlaps = |net: &IpNet| {
            let led = |to: &IpNet| {
                to.prefix_len() > 0 && (to.contains(&net.network()) || net.contains(&to.network()))
            };
            routes.iter().any(|route| led(&route.to))
        };
        Ok(kept.filter(|net| !overlaps(net)))
    }

    /// Has the drivers make (or find) every network, and writes all rules in one change. Of those that hosts share,
    /// only what is in use here: others may never be.
    fn make_all(&self) -> Result<()> {
        let in_use = self.in_use();
        let mut plans = Vec::new();
        let mut networks: Vec<_> = self.networks.read().values().cloned().collect();
        networks.retain(|n| !n.record.config_only);
        networks.retain(|n| n.record.scope == Scope::Local || in_use.contains(&n.record.id));
        for network in networks {
            let record = &network.record;
            let made = self
                .driver(&record.driver)
                .and_then(|driver| Ok(driver.create_network(&Call::new("start"), network.spec())?));
            match made {
                Ok(plan) => {
                    plans.push((record.id.clone(), plan.firewall));
                    *network.made.lock() = true;
                }
                Err(error) => self.warn(format!("network {} cannot be used: {error}", record.name)),
            }
        }
        if let Err(error) = self.firewall.set_networks(plans) {
            self.warn(format!("cannot write firewall rules: {error}"));
        }
        Ok(())
    }

    /// The networks that sandboxes of an earlier daemon are on.
    fn in_use(&self) -> HashSet<NetworkId> {
        let saved = self.saved.all::<Saved>().into_iter();
        let this_boot = saved.filter(|(_, saved)| saved.boot_id == self.config.boot_id);
        let endpoints = this_boot.flat_map(|(_, saved)| saved.endpoints);
        endpoints.map(|endpoint| endpoint.info.network).collect()
    }
}

/// Held from the choice of a subnet until its route is there, so that engines on one host do not choose the same. It
/// is a lock on the host's network namespace itself: the scope is right, and no file is needed.
pub(crate) fn choosing() -> Result<OwnedFd> {
    let lock = || -> std::io::Result<OwnedFd> {
        let namespace = gantry_sys::netns::current()?;
        rustix::io::retry_on_intr(|| rustix::fs::flock(&namespace, FlockOperation::LockExclusive))?;
        Ok(namespace)
    };
    lock().map_err(|e| NetworkError::io("waiting for other engines to choose their subnets", &e))
}

/// The pool of a bridge's address.
fn pool(address: IpNet) -> IpamPool {
    IpamPool {
        subnet: Some(address.trunc()),
        gateway: Some(address.addr()),
        ..IpamPool::default()
    }
}
