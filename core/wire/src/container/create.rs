//! Creating a container.

use gantry_model::container::{ContainerConfig, HostConfig, NetworkingConfig};
use serde::{Deserialize, Deserializer, Serialize, de};
use serde_json::Value;

/// Body of `POST /containers/create`: the container's configuration with two more members among its own.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct ContainerCreateRequest {
    /// What runs.
    #[serde(flatten)]
    pub config: ContainerConfig,
    /// Isolation, resources, ports, mounts.
    #[serde(rename = "HostConfig")]
    pub host_config: HostConfig,
    /// Networks.
    #[serde(rename = "NetworkingConfig")]
    pub networking_config: NetworkingConfig,
}

impl<'de> Deserialize<'de> for ContainerCreateRequest {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        /// The members that are not the configuration's.
        #[derive(Default, Deserialize)]
        #[serde(rename_all = "PascalCase", default)]
        struct CreateRequest {
            host_config: HostConfig,
            networking_config: NetworkingConfig,
        }
        // serde's own `flatten` hides the field names, which case-insensitive matching needs.
        let (config, rest) = match Value::deserialize(deserializer)? {
            Value::Object(all) => {
                let own = ["HostConfig", "NetworkingConfig"];
                let is_own = |key: &str| own.iter().any(|own| key.eq_ignore_ascii_case(own));
                let (rest, config) = all.into_iter().partition(|(key, _)| is_own(key));
                (Value::Object(config), Value::Object(rest))
            }
            other => (other, Value::Null),
        };
        let config = crate::lenient::from_value(config).map_err(inner)?;
        let rest: CreateRequest = crate::lenient::from_value(rest).map_err(inner)?;
        Ok(Self {
            config,
            host_config: rest.host_config,
            networking_config: rest.networking_config,
        })
    }
}

/// An error of a nested reader, without the words that the outer one adds again.
pub(super) fn inner<E: de::Error>(error: crate::lenient::Error) -> E {
    match error {
        crate::lenient::Error::Type(mismatch) => E::custom(mismatch),
        crate::lenient::Error::Other(message) => E::custom(message),
        other => E::custom(other),
    }
}

/// Reply of `POST /containers/create`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct ContainerCreateReply {
    /// Identifier of the new container.
    pub id: String,
    /// What was ignored or adjusted; never `null`.
    pub warnings: Vec<String>,
}
#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_create_request_is_one_object_read_without_case() {
        let request: ContainerCreateRequest = crate::lenient::from_slice(
            br#"{"image": "busybox", "Cmd": "date", "hostConfig": {"Memory": 1e9, "NetworkMode": "none"},
                 "NetworkingConfig": {"EndpointsConfig": {"net": null}}}"#,
        )
        .unwrap();
        assert_eq!(request.config.image, "busybox");
        assert_eq!(request.host_config.memory, 1_000_000_000);
        assert_eq!(request.networking_config.endpoints_config["net"], None);
        let shown = serde_json::to_value(&request).unwrap();
        assert_eq!(shown["Cmd"], serde_json::json!(["date"]));
        assert_eq!(shown["HostConfig"]["NetworkMode"], "none");
        let again: ContainerCreateRequest = crate::lenient::from_value(shown).unwrap();
        assert_eq!(again, request);
    }

    #[test]
    fn its_errors_name_the_field() {
        let error = crate::lenient::from_slice::<ContainerCreateRequest>(
            br#"{"HostConfig": {"Memory": "1g"}}"#,
        )
        .unwrap_err();
        assert_eq!(
            error.to_string(),
            "invalid JSON: json: cannot unmarshal string into Go struct field HostConfig.HostConfig.Memory of type int64"
        );
    }
}
