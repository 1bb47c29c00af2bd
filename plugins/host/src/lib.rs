//! Loads plugins, in the engine's process or in a child process of their own, and registers them.
//!
//! A plugin is a file `libgantry_<kind>_<name>.so` in a plugin directory. Before any of it is mapped its owner, mode
//! and manifest are checked ([`manifest`]); then a copy of the engine's own is made ([`stage`]), so that replacing the
//! file under a live engine is safe; then it is loaded ([`Loader`]). The same file serves both isolations. Drivers of the
//! engine's own that nothing was said of and that have no data are copied and loaded when they are first called.
//!
//! Invariants:
//! - A plugin that cannot be loaded is registered with its reason; nothing here stops the daemon.
//! - A plugin's panic or death costs that plugin's calls, never the process: `Panicked` for the calls in flight.
//! - An isolated plugin cannot outlive the engine, and comes back after a crash as a new generation.
//!
//! It does not decide when drivers reconcile, and does not retry calls.

mod candidate;
mod child;
mod config;
mod connection;
mod error;
mod inprocess;
mod isolated;
mod load;
pub mod manifest;
mod on_demand;
mod serve;
pub mod stage;
mod start;
mod wire;
mod workers;

pub use config::{ConfigError, DriverSettings, DriversConfig, KindConfig};
pub use error::PluginError;
pub use load::{Loader, LoaderConfig, PluginDir, WithObjects, trusted_owners};
pub use serve::serve;
