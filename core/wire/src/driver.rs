//! Drivers: `GET /gantry/drivers`, which Docker does not have.

use serde::{Deserialize, Serialize};

/// One driver that is loaded, or a plugin file that could not be.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct DriverStatus {
    /// `storage`, `network`, `volume`, `registry` or `ipam`.
    pub kind: String,
    /// Name by which objects are made with it.
    pub name: String,
    /// Version of the plugin.
    pub version: String,
    /// Version of the plugin protocol in use.
    pub protocol: u32,
    /// Whether it can be used.
    pub state: DriverState,
    /// Why it cannot, or does worse than it should.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub reason: String,
    /// `in-process` or `process`.
    pub isolation: String,
    /// How often this driver was loaded since the daemon's start.
    pub generation: u64,
    /// New objects of its kind get it when they do not name one.
    pub default: bool,
    /// Optional parts of the contract it implements.
    pub capabilities: Vec<String>,
    /// File it was loaded from.
    pub path: String,
}

/// Whether a driver can be used.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DriverState {
    /// Yes.
    Ready,
    /// Yes, with a reason to worry.
    Degraded,
    /// No: it panicked, crashed or broke the contract.
    Faulted,
    /// No: the file was not loaded.
    #[default]
    Refused,
}
