//! A network as it is asked for, kept and shown.

use std::collections::BTreeMap;
use std::net::IpAddr;

use gantry_driver_api::network::Scope;
use gantry_model::{NetworkId, Timestamp};
use ipnet::IpNet;
use serde::{Deserialize, Serialize};

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
    /// Kept and shown.
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
}

impl NetworkRecord {
    /// Whether it is the default network, on which there are no names.
    #[must_use]
    pub fn is_default_bridge(&self) -> bool {
        self.predefined && self.name == "bridge"
    }
}
