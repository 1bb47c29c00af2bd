//! Gantry's extension of `POST /containers/{id}/update`: ports and mounts of a running container.

use gantry_model::container::{Mount, PortMap};
use serde::{Deserialize, Serialize};

/// Ports to publish and to withdraw.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct PortChanges {
    /// `port/protocol` to the host addresses to publish it on, besides those it is published on.
    #[serde(deserialize_with = "null_as_default")]
    pub add: PortMap,
    /// `port/protocol`: withdrawn from every host address. Done before `add`.
    #[serde(deserialize_with = "null_as_default")]
    pub remove: Vec<String>,
}

/// Mounts to make and to take away.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct MountChanges {
    /// New mounts, in the form of `HostConfig.Mounts`.
    #[serde(deserialize_with = "null_as_default")]
    pub add: Vec<Mount>,
    /// Paths in the container. Done before `add`.
    #[serde(deserialize_with = "null_as_default")]
    pub remove: Vec<String>,
}

fn null_as_default<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: serde::Deserializer<'de>,
    T: Default + Deserialize<'de>,
{
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}
