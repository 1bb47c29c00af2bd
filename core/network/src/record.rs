//! A network as it is asked for, kept and shown.

use std::collections::BTreeMap;
use std::net::IpAddr;

use gantry_driver_api::network::{Scope, SharedNetwork, SharedPool};
use gantry_model::{NetworkId, Timestamp};
use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::{NetworkError, Result};

/// One address pool of a network.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct IpamPool {
    /// The subnet; none: one from the default pools.
    #[serde(default)]
    pub subnet: Option<IpNet>,
    /// The part of it that addresses are handed out from.
    #[serde(default)]
    pub ip_range: Option<IpNet>,
    /// The gateway's address; none: the first of the subnet.
    #[serde(default)]
    pub gateway: Option<IpAddr>,
    /// Addresses never handed out, by host name.
    #[serde(default)]
    pub aux_addresses: BTreeMap<String, IpAddr>,
    /// The engine chose the subnet.
    #[serde(default)]
    pub chosen: bool,
}

/// How a network's addresses are managed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct IpamConfig {
    /// `default` or `null`.
    pub driver: String,
    /// Options of the IPAM driver, kept and shown.
    #[serde(default)]
    pub options: BTreeMap<String, String>,
    /// Its pools.
    #[serde(default)]
    pub pools: Vec<IpamPool>,
}

impl Default for IpamConfig {
    fn default() -> Self {
        Self {
            driver: "default".into(),
            options: BTreeMap::new(),
            pools: Vec::new(),
        }
    }
}

/// A network that is asked for.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct NetworkCreate {
    /// Its name.
    pub name: String,
    /// Driver; empty: the default.
    pub driver: String,
    /// No way out of the host.
    pub internal: bool,
    /// Kept and shown: containers may be attached to any network.
    pub attachable: bool,
    /// Addresses.
    pub ipam: IpamConfig,
    /// Driver options.
    pub options: BTreeMap<String, String>,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// IPv4 addresses; none: yes.
    pub enable_ipv4: Option<bool>,
    /// IPv6 addresses.
    pub enable_ipv6: bool,
    /// Scope; empty: the driver's.
    pub scope: String,
    /// Nothing but a configuration for other networks.
    pub config_only: bool,
    /// The network that addresses, options and labels are taken from; empty: none.
    pub config_from: String,
}

/// A network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetworkRecord {
    /// Identifier.
    pub id: NetworkId,
    /// Name, unique in the engine.
    pub name: String,
    /// When it was made.
    pub created: Timestamp,
    /// Its driver, recorded for ever.
    pub driver: String,
    /// Reach.
    pub scope: Scope,
    /// Whether members get IPv4 addresses.
    pub enable_ipv4: bool,
    /// Whether members get IPv6 addresses.
    pub enable_ipv6: bool,
    /// No way out of the host.
    pub internal: bool,
    /// Kept and shown.
    pub attachable: bool,
    /// Addresses, with subnet and gateway chosen.
    pub ipam: IpamConfig,
    /// Driver options.
    pub options: BTreeMap<String, String>,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// `bridge`, `host` or `none`: cannot be removed.
    #[serde(default)]
    pub predefined: bool,
    /// A configuration for other networks, which nothing can be attached to.
    #[serde(default)]
    pub config_only: bool,
    /// The network that its configuration was copied from; empty: it is its own.
    #[serde(default)]
    pub config_from: String,
}

impl NetworkRecord {
    /// Whether it is the default network, on which there are no names.
    #[must_use]
    pub fn is_default_bridge(&self) -> bool {
        self.predefined && self.name == "bridge"
    }

    /// What other hosts are told.
    pub(crate) fn to_shared(&self) -> SharedNetwork {
        let pool = |pool: &IpamPool| SharedPool {
            subnet: pool.subnet,
            range: pool.ip_range,
            gateway: pool.gateway,
            reserved: pool.aux_addresses.clone(),
        };
        SharedNetwork {
            id: self.id.to_string(),
            name: self.name.clone(),
            created: self.created.to_string(),
            internal: self.internal,
            attachable: self.attachable,
            enable_ipv4: self.enable_ipv4,
            enable_ipv6: self.enable_ipv6,
            pools: self.ipam.pools.iter().map(pool).collect(),
            options: self.options.clone(),
            labels: self.labels.clone(),
        }
    }

    /// The record with what was left open to the driver.
    pub(crate) fn completed(mut self, shared: SharedNetwork) -> Result<Self> {
        self.ipam.pools = pools(&self.driver, shared.pools)?;
        self.options = shared.options;
        Ok(self)
    }

    /// A network that another host may have made.
    pub(crate) fn of_shared(driver: &str, shared: SharedNetwork) -> Result<Self> {
        let wrong = |what: &str| {
            NetworkError::internal(format!(
                "driver {driver}: network {} has a wrong {what}",
                shared.id
            ))
        };
        Ok(Self {
            id: shared.id.parse().map_err(|_| wrong("identifier"))?,
            created: shared.created.parse().map_err(|_| wrong("time"))?,
            name: shared.name,
            driver: driver.to_owned(),
            scope: Scope::Global,
            enable_ipv4: shared.enable_ipv4,
            enable_ipv6: shared.enable_ipv6,
            internal: shared.internal,
            attachable: shared.attachable,
            ipam: IpamConfig {
                pools: pools(driver, shared.pools)?,
                ..IpamConfig::default()
            },
            options: shared.options,
            labels: shared.labels,
            predefined: false,
            config_only: false,
            config_from: String::new(),
        })
    }
}

/// Pools of a driver's choice, or confirmed by it: what the user wished is not told apart on other hosts.
fn pools(driver: &str, shared: Vec<SharedPool>) -> Result<Vec<IpamPool>> {
    let pool = |pool: SharedPool| match pool.subnet {
        Some(subnet) => Ok(IpamPool {
            subnet: Some(subnet),
            ip_range: pool.range,
            gateway: pool.gateway,
            aux_addresses: pool.reserved,
            chosen: false,
        }),
        None => Err(NetworkError::internal(format!(
            "driver {driver} chose no subnet"
        ))),
    };
    shared.into_iter().map(pool).collect()
}

/// A host that has members of a network.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Peer {
    /// Its name for itself.
    pub name: String,
    /// Its address, if its driver tells.
    pub address: Option<IpAddr>,
}
