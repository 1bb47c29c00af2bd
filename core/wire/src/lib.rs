//! The Docker Engine API's requests and replies, and how they differ between its versions.
//!
//! The types are those of the newest version the engine advertises ([`ApiVersion::MAX`]); [`shape`] holds the one table
//! that turns them into what older versions said. Fields that clients index without asking (docker-py,
//! `docker inspect`) are always present, zero values and `null`s included, in dockerd's order; `Option<Vec<_>>` and
//! `Option<BTreeMap<..>>` are those that dockerd prints as `null` when they are not set.
//!
//! Read JSON that somebody else wrote with [`lenient`], which accepts what Go's decoder accepts. A container's own
//! specification lives in `gantry_model::container` and is exported here again as [`spec`].
//!
//! No I/O and no policy: validation of what a request means is the engine's.

pub mod container;
mod distribution;
pub mod driver;
pub mod event;
pub mod exec;
pub mod filters;
mod fsck;
pub mod image;
pub mod network;
pub mod path_stat;
pub mod progress;
pub mod shape;
pub mod stats;
pub mod system;
pub mod version;
pub mod volume;

use serde::{Deserialize, Serialize};

pub use gantry_model::container as spec;
pub use gantry_model::lenient;
pub use gantry_model::{Reference, ReferenceError};

pub use container::{
    ContainerCreateReply, ContainerCreateRequest, ContainerInspect, ContainerState,
    ContainerSummary, FilesystemChange, Health, HealthcheckResult, MountPoint, MountsUpdate,
    NetworkSettings, Port, PortsUpdate, SummaryHostConfig, SummaryNetworkSettings, TopReply,
    UpdateReply, UpdateRequest, WaitError, WaitReply,
};
pub use distribution::DistributionInspect;
pub use driver::{DriverState, DriverStatus};
pub use event::{EventActor, EventMessage};
pub use exec::{ExecCreateRequest, ExecInspect, ExecStartRequest, IdReply, ProcessConfig};
pub use filters::{FilterError, Filters};
pub use fsck::{FsckFinding, FsckReport, FsckUsage};
pub use image::{
    Descriptor, DriverData, HistoryItem, ImageConfig, ImageDeleteItem, ImageInspect, ImageMetadata,
    ImagePlatform, ImageSearchResult, ImageSummary, ManifestAttestation, ManifestImage,
    ManifestImageSize, ManifestSize, ManifestSummary, RootFs,
};
pub use network::{
    ConfigReference, Ipam, IpamConfig, Network, NetworkConnectRequest, NetworkContainer,
    NetworkCreateReply, NetworkCreateRequest, NetworkDisconnectRequest, PeerInfo,
};
pub use path_stat::PathStat;
pub use progress::{ErrorDetail, JsonMessage, ProgressDetail};
pub use stats::ContainerStats;
pub use system::{AuthConfig, AuthReply, RegistryAuth, SystemInfo, SystemVersion};
pub use version::ApiVersion;
pub use volume::{Volume, VolumeCreateRequest, VolumeListReply, VolumeUsage};

/// The body of every error.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ErrorReply {
    /// One line for people; clients match on some.
    pub message: String,
}

/// What a prune of any kind of object removed. Each kind has its own key on the wire, see [`PruneReply::to_json`].
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PruneReply<T = String> {
    /// Names, identifiers or items of what is gone.
    pub deleted: Vec<T>,
    /// Bytes that are free again.
    pub space_reclaimed: u64,
}

impl<T: Serialize> PruneReply<T> {
    /// The reply with the deleted objects under `key` (`ContainersDeleted`, `ImagesDeleted`, `NetworksDeleted`,
    /// `VolumesDeleted`); `null` when there are none, as dockerd writes it.
    pub fn to_json(&self, key: &str) -> serde_json::Value {
        let deleted = if self.deleted.is_empty() {
            serde_json::Value::Null
        } else {
            serde_json::json!(self.deleted)
        };
        let mut reply = serde_json::Map::new();
        reply.insert(key.to_owned(), deleted);
        if key != "NetworksDeleted" {
            reply.insert("SpaceReclaimed".to_owned(), self.space_reclaimed.into());
        }
        reply.into()
    }
}
