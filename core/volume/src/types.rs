//! Volumes as they are stored, wished for and shown.

use std::collections::BTreeMap;
use std::path::PathBuf;

use gantry_model::{ContainerId, Timestamp};
use serde::{Deserialize, Serialize};

/// What is stored of a volume.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VolumeRecord {
    /// Its name.
    pub name: String,
    /// Its driver.
    pub driver: String,
    /// The driver's options, as the user gave them.
    #[serde(default)]
    pub options: BTreeMap<String, String>,
    /// Labels.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// When it was made.
    pub created: Timestamp,
    /// Whether the name was drawn, not given.
    #[serde(default)]
    pub anonymous: bool,
    /// The container an anonymous volume was made for, while that one exists.
    #[serde(default)]
    pub owner: Option<ContainerId>,
}

/// A volume as it is shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Volume {
    /// What is stored.
    pub record: VolumeRecord,
    /// Where its data is on the host; `None` when the driver does not say or is away.
    pub mountpoint: Option<PathBuf>,
    /// The driver's own words about it.
    pub status: BTreeMap<String, String>,
    /// The containers that use it.
    pub users: Vec<ContainerId>,
}

/// A wish for a volume.
#[derive(Debug, Clone, Default)]
pub struct CreateVolume {
    /// `None`: anonymous.
    pub name: Option<String>,
    /// `None`: the default driver.
    pub driver: Option<String>,
    /// The driver's options.
    pub options: BTreeMap<String, String>,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// The container it is made for; only remembered for anonymous ones.
    pub owner: Option<ContainerId>,
    /// Whether to return before the index is on disk: for volumes that die with a container that dies with the boot.
    pub transient: bool,
}
