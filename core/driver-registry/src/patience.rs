//! How long a call may take whose caller said nothing.
//!
//! A driver that hangs must not take the engine's objects with it. The limits are far beyond what a working driver
//! needs: they tell a hang from slowness, and nothing else.

use std::time::Duration;

use gantry_driver_api::Kind;

const MINUTE: Duration = Duration::from_secs(60);

/// The limit for a method; none for calls that take as long as there is data to move.
pub(crate) fn patience(kind: Kind, method: &str) -> Option<Duration> {
    match (kind, method) {
        (Kind::Registry, "fetch_blob") => None,
        // They walk or delete trees, or wait for the disk.
        (Kind::Storage, "commit" | "remove" | "usage" | "cleanup") => Some(60 * MINUTE),
        (Kind::Volume, "remove" | "usage") => Some(60 * MINUTE),
        (_, "reconcile" | "drain") => Some(60 * MINUTE),
        // Registries and file servers may be far away, and have limits of their own.
        (Kind::Registry, _) => Some(5 * MINUTE),
        (Kind::Volume, _) => Some(2 * MINUTE),
        (Kind::Storage | Kind::Network, _) => Some(MINUTE),
    }
}
