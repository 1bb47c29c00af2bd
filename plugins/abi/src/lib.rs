//! The frozen binary interface between host and plugin.
//!
//! A plugin exports one `abi_stable` root module, [`PluginModule`]: the manifest's bytes and three functions, create,
//! invoke, shutdown. Everything that may grow (requests, replies, configuration, faults) crosses as encoded bytes that
//! this crate does not look into, so the module itself never changes; `abi_stable` refuses a plugin whose module has
//! another layout before any of it is called.
//!
//! Both sides are here: [`host`] for the one who loads, [`plugin`] for the one who is loaded. They are safe to use; the
//! `unsafe` of the boundary stays in this crate and in the expansion of [`export_plugin!`].
//!
//! Invariants:
//! - No panic crosses: every entry of a plugin catches it, and the instance is *faulted* from then on.
//! - No allocation crosses: what one side makes, the same side frees. Replies are copied out by the receiver's own
//!   function ([`Sink`]).
//! - A library that was loaded is never unloaded.
#![allow(unsafe_code)]

pub mod host;
mod module;
pub mod plugin;

pub use module::{
    CallHeader, HostCallbacks, Level, PluginModule, PluginModuleRef, RawInstance, Sink, Status,
};

#[doc(hidden)]
pub use abi_stable;
