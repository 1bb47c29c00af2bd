//! Making, removing and finding networks.

use std::io;
use std::sync::Arc;

use gantry_driver_api::network::{NetworkRef, Scope};
use gantry_driver_api::{Call, Kind, Network as Driver};
use gantry_model::{NetworkId, Timestamp};
use gantry_sys::netlink::RouteSocket;
use ipnet::IpNet;

use crate::configs::check_configuration;
use crate::inner::{Inner, Network, spec_of};
use crate::ipam::{Chooser, check_held, default_pools};
use crate::{IpamConfig, IpamPool, NetworkCreate, NetworkError, NetworkRecord, Result};

const PREDEFINED: [&str; 3] = ["bridge", "host", "none"];

fn check_name(name: &str) -> Result<()> {
    if name.trim().is_empty() {
        return Err(NetworkError::invalid("invalid name: name is empty"));
    }
    let mut bytes = name.bytes();
    let first = bytes.next().is_some_and(|b| b.is_ascii_alphanumeric());
    if !first || !bytes.all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-')) {
        return Err(NetworkError::invalid(format!(
            "invalid name {name:?}: only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed"
        )));
    }
    Ok(())
}

/// The families (IPv4, IPv6) of which a subnet is to be chosen.
fn left_open(ipam: &IpamConfig, v4: bool, v6: bool) -> [bool; 2] {
    let given = |v6| {
        let mut subnets = ipam.pools.iter().filter_map(|pool| pool.subnet);
        subnets.any(|subnet| subnet.addr().is_ipv6() == v6)
    };
    let unsaid = ipam.pools.iter().any(|pool| pool.subnet.is_none());
    [unsaid || (v4 && !given(false)), v6 && !given(true)]
}

/// Where the host's routes of these families lead. With a thousand networks there are thousands.
fn host_routes(families: [bool; 2]) -> io::Result<Vec<IpNet>> {
    let mut routes = Vec::new();
    for (v6, wanted) in [false, true].into_iter().zip(families) {
        if wanted {
            let found = RouteSocket::open()?.routes_of(v6)?.into_iter();
            routes.extend(found.map(|route| route.to));
        }
    }
    Ok(routes)
}

impl Inner {
    /// Fills in the subnets that a network leaves open.
    pub(crate) fn complete(&self, ipam: &mut IpamConfig, v4: bool, v6: bool) -> Result<()> {
        let mut routes = host_routes(left_open(ipam, v4, v6))
            .map_err(|e| NetworkError::io("reading the host's routes", &e))?;
        let mut taken = Vec::new();
        for network in self.networks.read().values() {
            let record = &network.record;
            let subnets = record.ipam.pools.iter().filter_map(|pool| pool.subnet);
            match record.scope {
                Scope::Local if record.config_only => {}
                Scope::Local => taken.extend(subnets),
                // What other hosts wish for must not keep this one from what it has.
                Scope::Global => routes.extend(subnets),
            }
        }
        let defaults;
        let pools = if self.config.pools.is_empty() {
            defaults = default_pools();
            &defaults
        } else {
            &self.config.pools
        };
        let chooser = Chooser {
            pools,
            taken: &taken,
            routes: &routes,
            seed: &self.config.tag,
        };
        chooser.complete(ipam, v4, v6)
    }

    pub(crate) fn create(self: &Arc<Self>, wanted: NetworkCreate) -> Result<NetworkRecord> {
        check_name(&wanted.name)?;
        if PREDEFINED.contains(&wanted.name.as_str()) || wanted.name == "default" {
            return Err(NetworkError::forbidden(format!(
                "operation is not permitted on predefined {} network ",
                wanted.name
            )));
        }
        check_configuration(&wanted)?;
        if wanted.config_only {
            return self.create_configuration(wanted);
        }
        let wanted = self.configured(wanted)?;
        let name = match wanted.driver.as_str() {
            "" | "default" => self.registry.default_name(Kind::Network),
            name => name.to_owned(),
        };
        let driver = self.driver(&name)?;
        let info = driver.info(&Call::default(), ())?;
        if info.singleton {
            return Err(NetworkError::forbidden(format!(
                "only one instance of \"{name}\" network is allowed"
            )));
        }
        let mut record = NetworkRecord {
            id: NetworkId::generate(),
            name: wanted.name,
            created: Timestamp::now(),
            driver: name,
            scope: info.scope,
            enable_ipv4: wanted.enable_ipv4.unwrap_or(true),
            enable_ipv6: wanted.enable_ipv6,
            internal: wanted.internal,
            attachable: wanted.attachable,
            ipam: wanted.ipam,
            options: wanted.options,
            labels: wanted.labels,
            predefined: false,
            config_only: false,
            config_from: wanted.config_from,
        };
        if let Some(defaults) = self.config.default_options.get(&record.driver) {
            for (key, value) in defaults {
                record
                    .options
                    .entry(key.clone())
                    .or_insert_with(|| value.clone());
            }
        }
        self.check_ipam(&record)?;
        let network = match info.scope {
            Scope::Local => self.create_here(&*driver, record, info.addressed)?,
            Scope::Global => self.create_everywhere(&*driver, record)?,
        };
        Ok(network.record.clone())
    }

    pub(crate) fn check_free(&self, name: &str) -> Result<()> {
        match self.networks.read().values().any(|n| n.record.name == name) {
            true => Err(NetworkError::conflict(format!(
                "network with name {name} already exists"
            ))),
            false => Ok(()),
        }
    }

    /// Makes a network that this host alone knows.
    fn create_here(
        &self,
        driver: &dyn Driver,
        mut record: NetworkRecord,
        addressed: bool,
    ) -> Result<Arc<Network>> {
        let _changing = self.changing.lock();
        self.check_free(&record.name)?;
        let wished: Vec<_> = record.ipam.pools.iter().filter_map(|p| p.gateway).collect();
        let _choosing = crate::open::choosing()?;
        if addressed && record.ipam.driver != "null" {
            let (v4, v6) = (record.enable_ipv4, record.enable_ipv6);
            self.complete(&mut record.ipam, v4, v6)?;
        }
        for pool in &record.ipam.pools {
            // One that was not wished for may turn out to be needed by nobody.
            let gateway = pool.gateway.filter(|ip| wished.contains(ip));
            check_held(&IpamPool {
                gateway,
                ..pool.clone()
            })?;
        }
        driver.validate(&Call::new("create network"), spec_of(&record))?;
        let mut network = Network::new(record);
        let no_gateway = self.ensure(&network).inspect_err(|_| self.undo(&network))?;
        for pool in &mut network.record.ipam.pools {
            pool.gateway = pool
                .gateway
                .filter(|ip| !no_gateway[usize::from(ip.is_ipv6())] || wished.contains(ip));
        }
        let held = network.record.ipam.pools.iter().try_for_each(check_held);
        held.inspect_err(|_| self.undo(&network))?;
        let network = Arc::new(network);
        self.add_new(&network)?;
        Ok(network)
    }

    /// Makes a network that hosts share. Others are not kept waiting for the store.
    fn create_everywhere(
        self: &Arc<Self>,
        driver: &dyn Driver,
        record: NetworkRecord,
    ) -> Result<Arc<Network>> {
        self.check_free(&record.name)?;
        driver.validate(&Call::new("create network"), spec_of(&record))?;
        let record = self.share(driver, record)?;
        let _changing = self.changing.lock();
        // It may have come back by way of the store.
        let come = self.networks.write().remove(&record.id);
        let free = self.check_free(&record.name);
        let network = come.unwrap_or_else(|| Arc::new(Network::new(record)));
        let added = free.and_then(|()| self.add_new(&network));
        if let Err(error) = added {
            if let Err(error) = self.records.remove(network.record.id.as_str()) {
                tracing::warn!(network = network.record.name, %error, "undoing a network's creation");
            }
            self.forget(&network.record);
            self.take_back(driver, &network.record);
            return Err(error);
        }
        Ok(network)
    }

    fn check_ipam(&self, record: &NetworkRecord) -> Result<()> {
        if !matches!(record.ipam.driver.as_str(), "" | "default" | "null") {
            return Err(NetworkError::invalid(format!(
                "could not find an IPAM driver of name {:?}",
                record.ipam.driver
            )));
        }
        if !record.enable_ipv4 && !record.enable_ipv6 {
            return Err(NetworkError::invalid("IPv4 or IPv6 must be enabled"));
        }
        Ok(())
    }

    /// Has the driver make a network and writes it down, or leaves nothing of it.
    fn add_new(&self, network: &Arc<Network>) -> Result<()> {
        let record = &network.record;
        let made = self
            .ensure(network)
            .and_then(|_| self.records.put(record.id.as_str(), record));
        if let Err(error) = made {
            self.undo(network);
            return Err(error);
        }
        self.keep_network(network);
        Ok(())
    }

    /// Knows a network from now on.
    pub(crate) fn keep_network(&self, network: &Arc<Network>) {
        let record = &network.record;
        if record.enable_ipv6 {
            self.forward_ipv6();
        }
        self.ipam.add(&record.id, &record.ipam);
        self.networks
            .write()
            .insert(record.id.clone(), Arc::clone(network));
    }

    fn undo(&self, network: &Network) {
        let record = &network.record;
        let reference = NetworkRef {
            id: record.id.to_string(),
        };
        let deleted = self
            .driver(&record.driver)
            .and_then(|d| Ok(d.delete_network(&Call::new("create network"), reference)?));
        if let Err(error) = deleted {
            tracing::warn!(network = record.name, %error, "undoing a network's creation");
        }
        if let Err(error) = self.firewall.remove_network(&record.id) {
            tracing::warn!(network = record.name, %error, "undoing a network's rules");
        }
    }

    pub(crate) fn remove(&self, name: &str) -> Result<NetworkRecord> {
        let network = self.find(name)?;
        self.remove_found(&network)?;
        Ok(network.record.clone())
    }

    fn remove_found(&self, network: &Arc<Network>) -> Result<()> {
        let record = &network.record;
        if record.predefined {
            return Err(NetworkError::forbidden(format!(
                "{} is a pre-defined network and cannot be removed",
                record.name
            )));
        }
        // Nobody else is kept waiting for a store.
        let _changing = (record.scope == Scope::Local).then(|| self.changing.lock());
        self.check_unused(record)?;
        network.close(|| self.active(&record.id))?;
        self.drop_network(network, true)
            .inspect_err(|_| network.reopen())
    }

    /// Removes a closed network: what the driver has of it here, with `everywhere` from other hosts, and from what is
    /// known.
    pub(crate) fn drop_network(&self, network: &Network, everywhere: bool) -> Result<()> {
        let record = &network.record;
        let reference = NetworkRef {
            id: record.id.to_string(),
        };
        if record.config_only {
            self.records.remove(record.id.as_str())?;
            self.forget(record);
            return Ok(());
        }
        let driver = self.driver(&record.driver)?;
        driver.delete_network(&Call::new("remove network"), reference)?;
        let is_shared = everywhere && record.scope == Scope::Global;
        if is_shared && !self.unshare(&*driver, record)? {
            return Err(network.in_use(&self.active_elsewhere(&record.id)));
        }
        self.records.remove(record.id.as_str())?;
        self.forget(record);
        Ok(())
    }

    /// Knows a network no more.
    fn forget(&self, record: &NetworkRecord) {
        self.networks.write().remove(&record.id);
        self.ipam.remove(&record.id);
        // The rules of a bridge that is gone match nothing; the next change of any network writes them out.
        if let Err(error) = self.firewall.remove_network(&record.id) {
            tracing::warn!(network = record.name, %error, "removing a network's rules");
        }
    }

    pub(crate) fn prune(&self, select: impl Fn(&NetworkRecord) -> bool) -> Vec<NetworkRecord> {
        let mut all: Vec<_> = self.networks.read().values().cloned().collect();
        all.retain(|n| !n.record.predefined && !n.record.config_only && select(&n.record));
        all.retain(|n| match self.remove_found(n) {
            Ok(()) => true,
            Err(error) => {
                tracing::debug!(network = n.record.name, %error, "not pruned");
                false
            }
        });
        all.iter().map(|n| n.record.clone()).collect()
    }

    /// Takes everything off the host that the next start makes again: rules, and links without containers.
    pub(crate) fn withdraw(&self) {
        let _changing = self.changing.lock();
        let mut networks: Vec<_> = self.networks.read().values().cloned().collect();
        networks.retain(|n| !n.record.config_only);
        networks.retain(|n| n.record.scope == Scope::Local || *n.made.lock());
        for network in networks {
            let record = &network.record;
            let reference = NetworkRef {
                id: record.id.to_string(),
            };
            let deleted = self
                .driver(&record.driver)
                .and_then(|d| Ok(d.delete_network(&Call::new("shutdown"), reference)?));
            if let Err(error) = deleted {
                tracing::debug!(network = record.name, %error, "not withdrawn");
            }
            *network.made.lock() = false;
        }
        if let Err(error) = self.firewall.remove() {
            tracing::warn!(%error, "withdrawing firewall rules");
        }
    }

    pub(crate) fn list(&self) -> Vec<NetworkRecord> {
        let mut list: Vec<_> = self
            .networks
            .read()
            .values()
            .map(|n| n.record.clone())
            .collect();
        list.sort_by(|a, b| a.name.cmp(&b.name));
        list
    }

    /// A record for a network that is there from the beginning.
    pub(crate) fn predefined(&self, name: &str, driver: &str) -> NetworkRecord {
        NetworkRecord {
            id: NetworkId::generate(),
            name: name.to_owned(),
            created: Timestamp::now(),
            driver: driver.to_owned(),
            scope: Scope::Local,
            enable_ipv4: true,
            enable_ipv6: false,
            internal: false,
            attachable: false,
            ipam: IpamConfig::default(),
            options: Default::default(),
            labels: Default::default(),
            predefined: true,
            config_only: false,
            config_from: String::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::IpamPool;

    #[test]
    fn routes_are_of_interest_where_a_subnet_is_chosen() {
        let open = |subnets: &[Option<&str>], v4, v6| {
            let pool = |subnet: &Option<&str>| IpamPool {
                subnet: subnet.map(|s| s.parse().unwrap()),
                ..IpamPool::default()
            };
            let ipam = IpamConfig {
                pools: subnets.iter().map(pool).collect(),
                ..IpamConfig::default()
            };
            left_open(&ipam, v4, v6)
        };
        assert_eq!(open(&[], true, false), [true, false]);
        assert_eq!(open(&[], true, true), [true, true]);
        assert_eq!(open(&[], false, true), [false, true]);
        assert_eq!(open(&[Some("10.1.0.0/16")], true, false), [false, false]);
        assert_eq!(open(&[Some("10.1.0.0/16")], true, true), [false, true]);
        assert_eq!(open(&[Some("fd01::/64")], true, true), [true, false]);
        // A pool that says nothing is IPv4's.
        assert_eq!(open(&[None, Some("fd01::/64")], false, true), [true, false]);
    }
}
