//! Kind and name to driver, with generations, health and live swap.
//!
//! Core asks the [`DriverRegistry`] for a driver by kind and name and gets the contract's trait object. That object
//! is a *handle*: it may be kept for ever, and each call goes to the newest generation of the driver. What a handle
//! leads to is a [`Backend`], anything that carries encoded calls: a library in this process, a child process, or
//! (in tests) a Rust value wrapped by [`Local`].
//!
//! Invariants:
//! - A swap replaces a pointer. Calls that began before it finish on the generation they began on.
//! - A driver that could not be loaded is known with its reason, and listed; asking for it is an error that says so.
//! - A call without a deadline gets one here, so that a driver that hangs fails its calls instead of holding them.
//!   Those of the engine's own build are excepted while they run in its process.
//! - Names are unique within a kind; aliases are resolved here and nowhere else.
//!
//! It loads nothing itself, reads no file and knows no driver.

mod backend;
mod error;
mod patience;
mod registry;
mod slot;
mod status;
#[cfg(test)]
mod tests;

pub use backend::{Backend, Local};
pub use error::RegistryError;
pub use registry::{DriverRegistry, Origin};
pub use slot::Retired;
pub use status::{DriverState, DriverStatus, Isolation};
