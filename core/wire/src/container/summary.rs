//! Containers in a list.

use std::collections::BTreeMap;

use gantry_model::container::EndpointSettings;
use serde::{Deserialize, Serialize};

use super::MountPoint;
use crate::image::Descriptor;

/// One element of the reply of `GET /containers/json`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct ContainerSummary {
    /// Identifier.
    pub id: String,
    /// Names with a leading slash.
    pub names: Vec<String>,
    /// Image as the client named it, or its identifier when that name is gone.
    pub image: String,
    /// Identifier of the image.
    #[serde(rename = "ImageID")]
    pub image_id: String,
    /// Executable and arguments in one line.
    pub command: String,
    /// When it was created, seconds since the epoch.
    pub created: i64,
    /// Exposed and published ports.
    pub ports: Vec<Port>,
    /// Bytes of the writable layer, where asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub size_rw: Option<i64>,
    /// Bytes of all layers, where asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub size_root_fs: Option<i64>,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// See [`ContainerState::status`].
    pub state: String,
    /// For people: `Up 3 minutes (healthy)`, `Exited (0) 2 hours ago`.
    pub status: String,
    /// An extract.
    pub host_config: SummaryHostConfig,
    /// An extract.
    pub network_settings: SummaryNetworkSettings,
    /// Mounts in force.
    pub mounts: Vec<MountPoint>,
    /// Descriptor of the image's manifest.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image_manifest_descriptor: Option<Descriptor>,
}

/// The extract of a host configuration that lists show.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct SummaryHostConfig {
    /// Network mode as asked for.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub network_mode: String,
    /// OCI annotations.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
}

/// The extract of network settings that lists show.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct SummaryNetworkSettings {
    /// Attachments by the network's name.
    pub networks: BTreeMap<String, EndpointSettings>,
}

/// One port of a container.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Port {
    /// Host address it is published on.
    #[serde(rename = "IP", skip_serializing_if = "String::is_empty")]
    pub ip: String,
    /// Port in the container.
    pub private_port: u16,
    /// Port on the host; zero when it is not published.
    #[serde(skip_serializing_if = "is_zero_port")]
    pub public_port: u16,
    /// `tcp`, `udp` or `sctp`.
    #[serde(rename = "Type")]
    pub kind: String,
}

fn is_zero_port(port: &u16) -> bool {
    *port == 0
}
