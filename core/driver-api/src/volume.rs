//! Volume drivers: named directories that outlive containers.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::{MountPlan, contract::contract, storage::Usage};

/// Make a volume.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CreateVolume {
    /// `[a-zA-Z0-9][a-zA-Z0-9_.-]*`, checked by core.
    pub name: String,
    /// The driver's options, as the user gave them.
    #[serde(default)]
    pub options: BTreeMap<String, String>,
}

/// Names a volume.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VolumeName {
    /// The name.
    pub name: String,
}

/// Use or stop using a volume.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MountVolume {
    /// The name.
    pub name: String,
    /// Who uses it: a container's identifier. The same consumer may mount twice.
    pub consumer: String,
}

/// What is known of a volume.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VolumeInfo {
    /// The name.
    pub name: String,
    /// Where its data is (or will be, when mounted) on the host; shown to users.
    #[serde(default)]
    pub mountpoint: Option<PathBuf>,
    /// Name and value pairs shown by inspect.
    #[serde(default)]
    pub status: BTreeMap<String, String>,
}

contract! {
    /// A source of volumes. `NotFound` for absent names except in `remove` and `unmount`. Reference counts are core's:
    /// `remove` comes only when nobody uses the volume.
    pub trait Volume: Driver {
        /// Makes a volume; succeeds when it exists with the same options, `AlreadyExists` with others.
        required fn create(CreateVolume) -> VolumeInfo;
        /// Removes a volume and its data.
        required fn remove(VolumeName) -> ();
        /// Looks one up.
        required fn get(VolumeName) -> VolumeInfo;
        /// All of them.
        required fn list(()) -> Vec<VolumeInfo>;
        /// Makes the volume ready for a consumer; core binds the plan's tree into the container.
        required fn mount(MountVolume) -> MountPlan;
        /// The consumer is done.
        required fn unmount(MountVolume) -> ();
        /// What it occupies. May walk the tree.
        optional fn usage(VolumeName) -> Usage;
    }
}
