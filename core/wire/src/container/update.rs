//! Changing a container.

use gantry_model::container::{HostConfig, Mount, PortMap};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;

/// Body of `POST /containers/{id}/update`: the resources of a host configuration and its restart policy; what is zero or
/// absent stays as it is. `Ports` and `Mounts` are Gantry's own.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct UpdateRequest {
    /// Resources and restart policy.
    #[serde(flatten)]
    pub host_config: HostConfig,
    /// Ports to publish and to take back.
    #[serde(rename = "Ports", skip_serializing_if = "PortsUpdate::is_empty")]
    pub ports: PortsUpdate,
    /// Mounts to add and to remove.
    #[serde(rename = "Mounts", skip_serializing_if = "MountsUpdate::is_empty")]
    pub mounts: MountsUpdate,
}

/// Changes to the published ports of a container.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct PortsUpdate {
    /// `port/protocol` to host addresses, as in `HostConfig.PortBindings`.
    pub add: PortMap,
    /// `port/protocol` in the container.
    pub remove: Vec<String>,
}

impl PortsUpdate {
    /// Whether it changes nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.add.is_empty() && self.remove.is_empty()
    }
}

/// Changes to the mounts of a container.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct MountsUpdate {
    /// As in `HostConfig.Mounts`.
    pub add: Vec<Mount>,
    /// Paths in the container.
    pub remove: Vec<String>,
}

impl MountsUpdate {
    /// Whether it changes nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.add.is_empty() && self.remove.is_empty()
    }
}

impl<'de> Deserialize<'de> for UpdateRequest {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        /// The members that are not a host configuration's, or mean something else there.
        #[derive(Default, Deserialize)]
        #[serde(rename_all = "PascalCase", default)]
        struct Own {
            ports: Option<PortsUpdate>,
            mounts: Option<MountsUpdate>,
        }
        let mut whole = Value::deserialize(deserializer)?;
        let own: Own = crate::lenient::from_value(whole.clone()).map_err(super::create::inner)?;
        if let Value::Object(members) = &mut whole {
            members.retain(|name, _| !name.eq_ignore_ascii_case("mounts"));
        }
        Ok(Self {
            host_config: crate::lenient::from_value(whole).map_err(super::create::inner)?,
            ports: own.ports.unwrap_or_default(),
            mounts: own.mounts.unwrap_or_default(),
        })
    }
}

/// Reply of `POST /containers/{id}/update`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct UpdateReply {
    /// What was ignored or adjusted; `null` when there is nothing to say.
    pub warnings: Option<Vec<String>>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dockers_body_and_the_two_members_of_our_own() {
        let request: UpdateRequest = crate::lenient::from_slice(
            br#"{"memory": 1e8, "RestartPolicy": {"Name": "always"}, "BlkioDeviceReadBps": null,
                 "Ports": {"Add": {"80/tcp": [{"HostPort": "8080"}]}, "Remove": ["81/tcp"]},
                 "mounts": {"Remove": ["/data"]}}"#,
        )
        .unwrap();
        assert_eq!(request.host_config.memory, 100_000_000);
        assert_eq!(request.host_config.restart_policy.name, "always");
        assert_eq!(request.host_config.mounts, None);
        assert_eq!(request.ports.remove, ["81/tcp"]);
        assert!(request.ports.add.contains_key("80/tcp"));
        assert_eq!(request.mounts.remove, ["/data"]);
        let plain: UpdateRequest = crate::lenient::from_slice(br#"{"Ports": null}"#).unwrap();
        assert_eq!(plain, UpdateRequest::default());
    }
}
