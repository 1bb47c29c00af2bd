//! Networks of containers: sandboxes, addresses, port leases, name service and the firewall.
//!
//! [`NetworkService`] is what the engine holds. A *sandbox* is a container's network namespace with its generated
//! `hosts`, `resolv.conf` and `hostname` files; an *endpoint* is its attachment to one network. A driver makes the
//! links, born inside the sandbox; everything else is done here: addresses and routes from the driver's plan, the
//! built-in IPAM, leases of host ports, names handed to `gantry-netd`, and the nftables tables of the engine: one for all,
//! and two for sandboxes with egress lists.
//!
//! Invariants:
//! - A network is durable when [`NetworkService::create`] returns; sandboxes, endpoints and leases are stamped with the
//!   boot and survive the daemon, not a power cut.
//! - What a driver shares among hosts is the driver's to store. Here is a copy, so that its networks are known and its
//!   names are answered while the store is away.
//! - Everything made outside the two roots (links, nftables tables) carries the engine's tag.
//! - [`NetworkService::release`] and [`NetworkService::restore`] are idempotent: what they find gone is no error.
//! - No lock is held while a driver or another process is being waited for, but that of the one network or sandbox.
//!
//! It does not parse the API's JSON, make processes of containers, or know how a driver links things.

mod attach;
mod config;
mod configs;
mod egress;
mod endpoint;
mod error;
mod files;
mod firewall;
mod follow;
mod inner;
mod ipam;
mod join;
mod lifecycle;
mod links;
mod names;
mod networks;
mod notes;
mod open;
mod place;
mod pool;
mod ports;
mod publish;
mod reconcile;
mod record;
mod relay;
mod resolv;
mod restore;
mod rows;
mod sandbox;
mod service;
mod shared;
mod store;
mod wish;

pub use config::{AddressPool, BridgeDefaults, NetworkConfig};
pub use egress::EgressList;
pub use error::{ErrorKind, NetworkError, Result};
pub use record::{IpamConfig, IpamPool, NetworkCreate, NetworkRecord, Peer};
pub use sandbox::{
    EndpointConfig, EndpointInfo, Link, LiveSandbox, Member, PortBinding, PortRequest, Sandbox,
    SandboxFiles, SandboxMode, SandboxSpec,
};
pub use service::NetworkService;
pub use shared::SharedChange;
pub use wish::listed;

pub use gantry_driver_api::network::{Protocol, Scope};
