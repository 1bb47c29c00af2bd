//! Volumes: the index of all of them, who uses which, and filling a new one from an image.
//!
//! A volume's data is its driver's affair; this crate knows names, labels and users. Invariants:
//! - Every volume that a driver holds on this engine's behalf is in the index: the record is written before the driver
//!   makes anything, and deleted after the driver removed everything.
//! - A volume with users is never removed. Users are containers that exist, running or not; they are not stored but
//!   said again by the engine at every start ([`Volumes::acquire`]).
//! - Calls into a driver for one volume are serial, for different volumes concurrent.
//! - An anonymous volume names its container until that container is removed without its volumes, so that what a crash
//!   left of a container that never came to be can be told from what a user kept ([`Volumes::sweep`]).
//!
//! It performs no mounts and knows nothing of containers but their identifiers.

mod check;
mod copy;
mod error;
mod service;
mod types;
mod users;

pub use check::VolumeFlaw;
pub use copy::{copy_up, is_empty};
pub use error::VolumeError;
pub use service::Volumes;
pub use types::{CreateVolume, Volume, VolumeRecord};
