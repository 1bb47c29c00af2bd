//! What a plugin author depends on; nothing else is needed.
//!
//! A driver is a type that implements one of the contracts ([`Storage`], [`Network`], [`Volume`], [`Registry`]) and
//! [`Driver`], with a constructor `fn new(config: DriverConfig, log: Log) -> DriverResult<Self>`. One line makes it a
//! plugin:
//!
//! ```
//! use gantry_plugin_sdk::{network::*, *};
//!
//! struct Nothing;
//!
//! impl Nothing {
//!     fn new(_config: DriverConfig, _log: Log) -> DriverResult<Self> {
//!         Ok(Self)
//!     }
//! }
//!
//! impl Driver for Nothing {}
//!
//! impl Network for Nothing {
//!     fn info(&self, _: &Call<'_>, (): ()) -> DriverResult<NetworkInfo> {
//!         Ok(NetworkInfo { scope: Scope::Local, own_namespace: true, addressed: false, singleton: true })
//!     }
//!     // and so on, one method for each call of the contract
//!     # fn validate(&self, _: &Call<'_>, _: NetworkSpec) -> DriverResult<()> { Ok(()) }
//!     # fn create_network(&self, _: &Call<'_>, _: NetworkSpec) -> DriverResult<NetworkPlan> { Ok(NetworkPlan::default()) }
//!     # fn delete_network(&self, _: &Call<'_>, _: NetworkRef) -> DriverResult<()> { Ok(()) }
//!     # fn create_endpoint(&self, _: &Call<'_>, _: EndpointSpec) -> DriverResult<()> { Ok(()) }
//!     # fn delete_endpoint(&self, _: &Call<'_>, _: EndpointRef) -> DriverResult<()> { Ok(()) }
//!     # fn join(&self, _: &Call<'_>, _: EndpointSpec) -> DriverResult<JoinPlan> { Ok(JoinPlan::default()) }
//!     # fn leave(&self, _: &Call<'_>, _: EndpointRef) -> DriverResult<()> { Ok(()) }
//!     # fn set_external(&self, _: &Call<'_>, _: SetExternal) -> DriverResult<Vec<FirewallIntent>> { Ok(vec![]) }
//! }
//!
//! gantry_plugin_sdk::plugin! { kind: network, driver: Nothing, name: "nothing" }
//! ```
//!
//! Rules for authors: methods may be entered by several threads at once; a panic is caught, but the driver is not
//! entered again; no global state of the process may be changed (working directory, umask, signals, environment),
//! for the process may be the daemon; a driver that needs an async runtime owns it.
//!
//! It adds nothing to the contracts: they are those of `gantry-driver-api`, re-exported.

pub mod bridges;
mod glue;
pub mod lan;
pub mod links;
mod log;
pub mod notes;
pub mod snapshots;
pub mod tree;

pub use gantry_driver_api::*;
/// Turns a driver into a plugin; see the [crate's description](crate).
///
/// `kind` (storage, network, volume or registry), `driver` (a type) and `name` are needed; `capabilities` (a list of
/// the optional methods that the driver implements), `options` (the JSON Schema of its options, a literal) and
/// `protocol` (oldest and newest version it speaks, `[1, 1]`) are optional.
pub use gantry_plugin_sdk_macros::plugin;
/// Audited system calls: links, namespaces, mounts.
pub use gantry_sys as sys;
/// The type of the contracts' subnets and addresses with prefix lengths.
pub use ipnet;
pub use log::Log;
pub use serde_json;

#[doc(hidden)]
pub mod __private {
    pub use crate::glue::{Adapter, Exported, concat, length, number};
    pub use gantry_plugin_abi as abi;
}
