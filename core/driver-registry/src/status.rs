//! What is told of drivers, to `driver ls`, `info` and the log.

use std::path::PathBuf;

use gantry_driver_api::Kind;
use serde::{Deserialize, Serialize};

/// Where a driver's code runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Isolation {
    /// In the daemon's process (`none`).
    #[serde(alias = "in_process", alias = "in-process")]
    None,
    /// In a child process of its own.
    Process,
}

impl Isolation {
    /// The word used in the configuration.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Process => "process",
        }
    }
}

/// Whether a driver serves calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DriverState {
    /// It does.
    Ready,
    /// It will: its first call loads it.
    Idle,
    /// It panicked, or its process died and has not come back; calls fail until a new generation is there.
    Faulted,
    /// It was never loaded.
    Unavailable,
}

impl DriverState {
    /// Whether calls can be expected to be served.
    #[must_use]
    pub fn serves(self) -> bool {
        matches!(self, Self::Ready | Self::Idle)
    }
}

/// One line of `driver ls`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DriverStatus {
    /// What it drives.
    pub kind: Kind,
    /// Its name.
    pub name: String,
    /// Its version; empty when its manifest could not be read.
    pub version: String,
    /// The plugin file, where there is one.
    pub source: Option<PathBuf>,
    /// Where it runs, or would have run.
    pub isolation: Isolation,
    /// Whether it serves.
    pub state: DriverState,
    /// Why it does not; empty when it does.
    pub reason: String,
    /// Optional facets, by method name.
    pub capabilities: Vec<String>,
    /// Counts loads, swaps and restarts of its process from 1; 0 when it was never loaded.
    pub generation: u64,
    /// Whether new objects of this kind get it unless told otherwise.
    pub default: bool,
}
