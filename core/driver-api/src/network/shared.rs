//! Networks that hosts share through a store of their driver's.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::EndpointSpec;

/// A part of a network's addresses.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct SharedPool {
    /// The subnet; none: the driver's choice.
    #[serde(default)]
    pub subnet: Option<IpNet>,
    /// The part of it that endpoints get addresses from; none: all of it.
    #[serde(default)]
    pub range: Option<IpNet>,
    /// The gateway; none: the driver's choice.
    #[serde(default)]
    pub gateway: Option<IpAddr>,
    /// Addresses that nobody gets, by the user's names for them.
    #[serde(default)]
    pub reserved: BTreeMap<String, IpAddr>,
}

/// A network, as every host knows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SharedNetwork {
    /// 64 hex digits, chosen by the host that makes it.
    pub id: String,
    /// The user's name for it, unique among all hosts.
    pub name: String,
    /// When it was made (RFC 3339).
    pub created: String,
    /// No way out of the hosts.
    #[serde(default)]
    pub internal: bool,
    /// `--attachable`.
    #[serde(default)]
    pub attachable: bool,
    /// Endpoints get an IPv4 address.
    pub enable_ipv4: bool,
    /// Endpoints get an IPv6 address.
    #[serde(default)]
    pub enable_ipv6: bool,
    /// Wished pools; in replies the pools, each with its subnet.
    #[serde(default)]
    pub pools: Vec<SharedPool>,
    /// Driver options.
    #[serde(default)]
    pub options: BTreeMap<String, String>,
    /// Labels.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
}

/// Asks for what is other than at a revision.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Watch {
    /// The revision of the last answer, opaque; 0 is answered at once.
    #[serde(default)]
    pub since: u64,
}

/// All networks of the store.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct SharedNetworks {
    /// Of this answer; not 0.
    pub revision: u64,
    /// The networks.
    pub networks: Vec<SharedNetwork>,
}

/// An endpoint that is to get addresses.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SharedEndpoint {
    /// The endpoint; `addresses` are the wished ones, one a family at most.
    pub endpoint: EndpointSpec,
    /// What others on the network may call it, also on other hosts.
    #[serde(default)]
    pub names: Vec<String>,
}

/// An endpoint on another host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    /// The network's ID.
    pub network: String,
    /// The endpoint's ID.
    pub endpoint: String,
    /// What it may be called on the network; the first is told by reverse look-ups.
    #[serde(default)]
    pub names: Vec<String>,
    /// Its addresses.
    #[serde(default)]
    pub addresses: Vec<IpAddr>,
    /// Its host's name for itself, for people.
    #[serde(default)]
    pub host: String,
    /// Its host's address, for people.
    #[serde(default)]
    pub host_address: Option<IpAddr>,
}

/// All endpoints on other hosts.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Members {
    /// Of this answer; not 0.
    pub revision: u64,
    /// The endpoints.
    pub members: Vec<Member>,
}
