//! The driver contracts: what Gantry's core asks of a storage, network, volume or registry driver.
//!
//! A driver is a synchronous implementation of one of the traits here. Core reaches it through the same trait,
//! whether the driver runs in the daemon's process or in a child: [`contract`] generates, from one declaration, the
//! trait, the dispatcher that a plugin's side runs ([`storage::dispatch`] and its siblings), and the client that
//! core's side holds ([`Remote`]).
//!
//! Rules for every method of every kind:
//! - Calls for one object are serial, for different objects concurrent.
//! - Mutations are idempotent under the identifier that core chose; removing what is absent succeeds.
//! - Requests and replies are MessagePack maps: fields may be added, never renamed or retyped; unknown fields are
//!   ignored, missing ones take their default.
//! - Errors are of the closed set [`ErrorCode`].
//!
//! This crate has no I/O and knows no driver.

mod call;
mod contract;
pub mod driver;
mod error;
pub mod mount;
pub mod network;
pub mod registry;
pub mod storage;
pub mod volume;

pub use call::Call;
pub use contract::{Invoke, Remote, decode, encode};
pub use driver::{Driver, DriverConfig, Health, Reconcile};
pub use error::{DriverError, DriverResult, ErrorCode};
pub use mount::{Mount, MountPlan};
pub use network::Network;
pub use registry::Registry;
pub use storage::Storage;
pub use volume::Volume;

use serde::{Deserialize, Serialize};

/// The protocol spoken by this version, and the oldest one that it still understands.
pub const PROTOCOL: u32 = 1;
/// See [`PROTOCOL`].
pub const PROTOCOL_MIN: u32 = 1;

/// What a driver drives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// Image layers and container root file systems.
    Storage,
    /// Links between containers and the world.
    Network,
    /// Data that outlives containers.
    Volume,
    /// Where images are fetched from and stored to.
    Registry,
}

impl Kind {
    /// Every kind, in a fixed order.
    pub const ALL: [Self; 4] = [Self::Storage, Self::Network, Self::Volume, Self::Registry];

    /// The word used in file names, configuration and the API.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Storage => "storage",
            Self::Network => "network",
            Self::Volume => "volume",
            Self::Registry => "registry",
        }
    }
}

impl std::fmt::Display for Kind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What a plugin file says of itself, readable without running any of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// What it drives.
    pub kind: Kind,
    /// Its name, unique within the kind (`overlayfs`, `bridge`).
    pub name: String,
    /// Its version, for people.
    pub version: String,
    /// Oldest protocol version it speaks.
    pub protocol_min: u32,
    /// Newest protocol version it speaks.
    pub protocol_max: u32,
    /// Optional facets it implements, by method name.
    #[serde(default)]
    pub capabilities: Vec<String>,
    /// JSON Schema of its options; `null` when it takes none.
    #[serde(default)]
    pub options: serde_json::Value,
}
