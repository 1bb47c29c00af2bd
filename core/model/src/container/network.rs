//! How a container is attached to networks and which ports it publishes.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::null_as_default;

/// One address of the host that a port is published on.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct PortBinding {
    /// Address; empty means all.
    #[serde(rename = "HostIp")]
    pub host_ip: String,
    /// Port or range `from-to`; empty or `0` lets the engine choose.
    pub host_port: String,
}

/// The networks a container is created with.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct NetworkingConfig {
    /// Network name or identifier to what is wanted there; a missing value means all defaults.
    #[serde(deserialize_with = "null_as_default")]
    pub endpoints_config: BTreeMap<String, Option<EndpointSettings>>,
}

/// One attachment to a network: first what is wanted, then what was given.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct EndpointSettings {
    /// Fixed addresses.
    #[serde(rename = "IPAMConfig")]
    pub ipam_config: Option<EndpointIpamConfig>,
    /// `container:alias` links on this network.
    pub links: Option<Vec<String>>,
    /// Further names of the container on this network.
    pub aliases: Option<Vec<String>>,
    /// Hardware address: wanted, then given.
    pub mac_address: String,
    /// Options for the network's driver.
    pub driver_opts: Option<BTreeMap<String, String>>,
    /// The network with the highest priority is the default route.
    pub gw_priority: i64,
    /// The network's identifier.
    #[serde(rename = "NetworkID")]
    pub network_id: String,
    /// This attachment's identifier.
    #[serde(rename = "EndpointID")]
    pub endpoint_id: String,
    /// IPv4 gateway.
    pub gateway: String,
    /// IPv4 address.
    #[serde(rename = "IPAddress")]
    pub ip_address: String,
    /// Length of the IPv4 network prefix.
    #[serde(rename = "IPPrefixLen")]
    pub ip_prefix_len: i64,
    /// IPv6 gateway.
    #[serde(rename = "IPv6Gateway")]
    pub ipv6_gateway: String,
    /// IPv6 address.
    #[serde(rename = "GlobalIPv6Address")]
    pub global_ipv6_address: String,
    /// Length of the IPv6 network prefix.
    #[serde(rename = "GlobalIPv6PrefixLen")]
    pub global_ipv6_prefix_len: i64,
    /// Every name the container answers to on this network.
    #[serde(rename = "DNSNames")]
    pub dns_names: Option<Vec<String>>,
}

/// Fixed addresses of an attachment.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct EndpointIpamConfig {
    /// IPv4 address, from a subnet the user gave.
    #[serde(rename = "IPv4Address", skip_serializing_if = "String::is_empty")]
    pub ipv4_address: String,
    /// IPv6 address, from a subnet the user gave.
    #[serde(rename = "IPv6Address", skip_serializing_if = "String::is_empty")]
    pub ipv6_address: String,
    /// Link-local addresses.
    #[serde(rename = "LinkLocalIPs", skip_serializing_if = "Option::is_none")]
    pub link_local_ips: Option<Vec<String>>,
}
