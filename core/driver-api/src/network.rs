//! Network drivers: how a container's namespace is linked to others and to the world.
//!
//! The driver makes links, *born inside* the sandbox whose namespace it is handed. Core applies addresses and routes
//! from the returned plan, allocates addresses, leases ports, and turns intents into firewall rules.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::contract::contract;

mod shared;

pub use shared::{
    Member, Members, SharedEndpoint, SharedNetwork, SharedNetworks, SharedPool, Watch,
};

/// Where the network's objects are visible.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Scope {
    /// This machine.
    Local,
    /// Every machine that shares the driver's store. The driver chooses pools and addresses, and has the methods
    /// [`Network::share`], [`Network::unshare`], [`Network::shared`], [`Network::allocate`] and [`Network::members`].
    Global,
}

/// What a driver's networks are like.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetworkInfo {
    /// Reach.
    pub scope: Scope,
    /// Whether sandboxes get a namespace of their own (false: the host's).
    pub own_namespace: bool,
    /// Whether core must allocate pools and addresses for it. Otherwise addresses of endpoints are the user's wishes.
    pub addressed: bool,
    /// Whether at most one network of this driver may exist (host, none).
    pub singleton: bool,
}

/// A network, as core knows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetworkSpec {
    /// 64 hex digits.
    pub id: String,
    /// The user's name for it.
    pub name: String,
    /// Subnets with their gateways.
    #[serde(default)]
    pub subnets: Vec<Subnet>,
    /// No way out of the host.
    #[serde(default)]
    pub internal: bool,
    /// Driver options, keys in full (`com.docker.network.bridge.name`).
    #[serde(default)]
    pub options: BTreeMap<String, String>,
}

/// A subnet and the gateway's address in it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Subnet {
    /// The subnet.
    pub net: IpNet,
    /// The gateway: for a bridge, the bridge's own address. None when the network has no gateway.
    #[serde(default)]
    pub gateway: Option<IpAddr>,
}

/// Names a network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetworkRef {
    /// 64 hex digits.
    pub id: String,
}

/// One attachment of a sandbox to a network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EndpointSpec {
    /// The network.
    pub network: String,
    /// 64 hex digits.
    pub id: String,
    /// Addresses with their prefix lengths, allocated by core; only wishes, each alone, where it allocates none.
    #[serde(default)]
    pub addresses: Vec<IpNet>,
    /// The wanted MAC, or none for the driver's choice.
    #[serde(default)]
    pub mac: Option<String>,
    /// The wanted link name inside the sandbox (`eth0`).
    #[serde(default)]
    pub link: String,
    /// Endpoint options.
    #[serde(default)]
    pub options: BTreeMap<String, String>,
}

/// Names an endpoint.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EndpointRef {
    /// The network.
    pub network: String,
    /// The endpoint.
    pub id: String,
}

/// What core must do after the driver's part of creating a network.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct NetworkPlan {
    /// Firewall rules that belong to the network.
    #[serde(default)]
    pub firewall: Vec<FirewallIntent>,
    /// The network needs no gateway of IPv4: core gives back the address that it chose for one.
    #[serde(default)]
    pub no_gateway_ipv4: bool,
    /// The same of IPv6.
    #[serde(default)]
    pub no_gateway_ipv6: bool,
}

/// What core must do inside the sandbox after the driver made the link there.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct JoinPlan {
    /// The link's name inside the sandbox; empty when there is none (host, none).
    #[serde(default)]
    pub link: String,
    /// Its MAC address, `02:42:ac:11:00:02`.
    #[serde(default)]
    pub mac: String,
    /// Addresses to put on it.
    #[serde(default)]
    pub addresses: Vec<IpNet>,
    /// Default gateways, one a family at most.
    #[serde(default)]
    pub gateways: Vec<IpAddr>,
    /// Further routes.
    #[serde(default)]
    pub routes: Vec<Route>,
    /// MTU to set, 0 for the link's own.
    #[serde(default)]
    pub mtu: u32,
    /// The link's other end, a port of one of this host's bridges; empty when it has none. Without it the sandbox cannot
    /// be kept from sending under other addresses, and not have an egress list.
    #[serde(default)]
    pub outer: String,
    /// The driver has set the link up with all of the above, default routes included: core takes note of it and changes
    /// nothing but which of several networks has the default route. `leave` then gets the namespace whenever it exists.
    #[serde(default)]
    pub configured: bool,
    /// Published ports are reached at the container's own IPv4 address: no port of the host is taken for them.
    #[serde(default)]
    pub routed_ipv4: bool,
    /// The same of IPv6.
    #[serde(default)]
    pub routed_ipv6: bool,
}

/// A route inside a sandbox.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Route {
    /// Destination.
    pub to: IpNet,
    /// Next hop; none for directly connected.
    #[serde(default)]
    pub via: Option<IpAddr>,
}

/// Transport protocol of a published port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// SCTP.
    Sctp,
}

impl Protocol {
    /// The word that the API uses.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::Sctp => "sctp",
        }
    }
}

/// A host port that core leased for a container.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct PortLease {
    /// Transport.
    pub protocol: Protocol,
    /// Host side; an unspecified address means every local one.
    pub host: SocketAddr,
    /// Container port.
    pub container_port: u16,
}

/// Publish ports of an endpoint (the whole set; what is not in it is withdrawn).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SetExternal {
    /// The endpoint.
    pub endpoint: EndpointSpec,
    /// Its leases.
    pub ports: Vec<PortLease>,
}

/// What a driver wants of the firewall; only core writes rules.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FirewallIntent {
    /// A bridge whose members may reach out (unless internal) and are kept apart from other bridges.
    Bridge {
        /// The bridge link on the host.
        link: String,
        /// Its subnets.
        subnets: Vec<IpNet>,
        /// Source-NAT traffic that leaves by another link.
        masquerade: bool,
        /// Nothing in or out.
        internal: bool,
        /// Members may talk to each other.
        icc: bool,
        /// Further ways in and out.
        #[serde(default)]
        ways: BridgeWays,
    },
    /// A published port.
    Publish {
        /// Transport.
        protocol: Protocol,
        /// Host side.
        host: SocketAddr,
        /// Container side.
        target: SocketAddr,
        /// The link on the host behind which the target is.
        link: String,
    },
    /// A port of a container that may be reached at the container's own address, where its bridge's
    /// [`GatewayMode::Routed`] or [`BridgeWays::trusted`] says so.
    Direct {
        /// Transport.
        protocol: Protocol,
        /// Container side.
        target: SocketAddr,
    },
}

/// Who reaches the members of a bridge at their own addresses, from other links than the bridge, and how they reach out.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default, Serialize, Deserialize,
)]
#[serde(rename_all = "kebab-case")]
pub enum GatewayMode {
    /// Nobody; published ports are translated, and so are sources on the way out.
    #[default]
    Nat,
    /// Everybody, every port; otherwise as [`Self::Nat`].
    NatUnprotected,
    /// Everybody, ports that are [`FirewallIntent::Direct`] and ICMP. Nothing is translated.
    Routed,
    /// Nobody, and the bridge has no address for them to go to.
    Isolated,
}

/// Ways of a bridge beyond the usual.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct BridgeWays {
    /// Gateway mode of IPv4.
    pub ipv4: GatewayMode,
    /// Gateway mode of IPv6.
    pub ipv6: GatewayMode,
    /// What sources are translated to on the way out, one address a family at most; without one, to the address of the
    /// link that a packet leaves by.
    pub sources: Vec<IpAddr>,
    /// Links on the host from which ports that are [`FirewallIntent::Direct`] are reached.
    pub trusted: Vec<String>,
}

impl BridgeWays {
    /// The mode of a family.
    #[must_use]
    pub fn mode(&self, v6: bool) -> GatewayMode {
        if v6 { self.ipv6 } else { self.ipv4 }
    }
}

contract! {
    /// A way of linking sandboxes.
    ///
    /// Order for one endpoint: `create_endpoint`, `join`, `set_external`*, `leave`, `delete_endpoint`. The sandbox's
    /// namespace may vanish before `leave` (the kernel then removes the links); that is no error. Somebody may also keep
    /// it: an `outer` end is gone soon after `leave` in any case, and the link with it.
    pub trait Network: Driver {
        /// What this driver's networks are like. Constant.
        required fn info(()) -> NetworkInfo;
        /// Checks a network's options before anything is made; `InvalidArgument` with Docker's wording.
        required fn validate(NetworkSpec) -> ();
        /// Makes the network, or finds it made; also called for each network after a reboot.
        required fn create_network(NetworkSpec) -> NetworkPlan;
        /// Removes it.
        required fn delete_network(NetworkRef) -> ();
        /// Reserves what an endpoint needs.
        required fn create_endpoint(EndpointSpec) -> ();
        /// Gives it back.
        required fn delete_endpoint(EndpointRef) -> ();
        /// Makes the link, its inner end born in the namespace of descriptor 0.
        required fn join(EndpointSpec) -> JoinPlan;
        /// Takes the link away. Descriptor 0 is the namespace if that is to stay, or if it exists and the plan named no
        /// `outer` end or was `configured`. Without it, the namespace is about to end and take the link along.
        required fn leave(EndpointRef) -> ();
        /// Says what the firewall must do for these ports.
        required fn set_external(SetExternal) -> Vec<FirewallIntent>;
        /// Tells every host of a new network, before `create_network` is called here; the reply has the pools that were
        /// left open. `AlreadyExists` when another network has the name. Repeated under its ID, it answers the same.
        optional fn share(SharedNetwork) -> SharedNetwork;
        /// Takes a network back, after `delete_network` here. `FailedPrecondition` while any host has an endpoint on it.
        optional fn unshare(NetworkRef) -> ();
        /// All shared networks, once they are other than at the given revision or the call's time is up.
        optional fn shared(Watch) -> SharedNetworks;
        /// The addresses of an endpoint, before `create_endpoint`; nobody else has them until `delete_endpoint`, or until
        /// this host is taken for lost. Wished ones are given or refused (`Conflict`). Idempotent by endpoint.
        optional fn allocate(SharedEndpoint) -> Vec<IpNet>;
        /// The endpoints on *other* hosts, once they are other than at the given revision or the call's time is up.
        optional fn members(Watch) -> Members;
    }
}
