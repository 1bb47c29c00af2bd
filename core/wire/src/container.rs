//! Containers: requests and replies around the specification in [`crate::spec`].

mod create;
mod inspect;
mod summary;
mod update;

use serde::{Deserialize, Serialize};

pub use create::{ContainerCreateReply, ContainerCreateRequest};
pub use inspect::{
    Address, ContainerInspect, ContainerState, Health, HealthcheckResult, MountPoint,
    NetworkSettings,
};
pub use summary::{ContainerSummary, Port, SummaryHostConfig, SummaryNetworkSettings};
pub use update::{MountsUpdate, PortsUpdate, UpdateReply, UpdateRequest};

/// Reply of `POST /containers/{id}/wait`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct WaitReply {
    /// Why waiting failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<WaitError>,
    /// Exit code.
    pub status_code: i64,
}

/// Why waiting failed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct WaitError {
    /// One line for people.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub message: String,
}

/// Reply of `GET /containers/{id}/top`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct TopReply {
    /// One row of cells a process.
    pub processes: Vec<Vec<String>>,
    /// Titles of the cells.
    pub titles: Vec<String>,
}

/// One element of the reply of `GET /containers/{id}/changes`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct FilesystemChange {
    /// Absolute path in the container.
    pub path: String,
    /// 0 modified, 1 added, 2 deleted.
    pub kind: u8,
}
