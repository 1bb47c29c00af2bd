//! What a container is asked to be, in the Docker Engine API's JSON form.
//!
//! A specification is stored as the client sent it and shown again by inspect, so these types keep the difference
//! between a list that is absent (`None`, shown as `null`) and one that is empty, and print the fields that clients
//! index without asking, zero values included, in dockerd's order. Read foreign JSON with [`crate::lenient`], which
//! accepts what Go's decoder accepts. Source: Engine API v1.51, `ContainerConfig`.

mod host;
mod mount;
mod network;
mod ports;

use std::collections::BTreeMap;
use std::ops::Deref;

use serde::{Deserialize, Deserializer, Serialize, de};

pub use host::{
    DeviceMapping, DeviceRequest, Egress, HostConfig, LogConfig, RestartPolicy, ThrottleDevice,
    Ulimit, WeightDevice,
};
pub use mount::{
    BindOptions, DriverConfig, ImageOptions, Mount, TmpfsOptions, VolumeOptions, mount_type,
};
pub use network::{EndpointIpamConfig, EndpointSettings, NetworkingConfig, PortBinding};
pub use ports::{PortMap, PortSet, PortValue, Ports};

/// Go's `struct{}`: the value of the API's set-like maps, written `{}`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct EmptyObject {}

/// Go's `map[string]struct{}`.
pub type StringSet = BTreeMap<String, EmptyObject>;

/// A list of words that a client may also send as a single string (`"Cmd": "date"`). Always written as a list.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct StrSlice(pub Vec<String>);

impl Deref for StrSlice {
    type Target = [String];
    fn deref(&self) -> &[String] {
        &self.0
    }
}

impl From<Vec<String>> for StrSlice {
    fn from(words: Vec<String>) -> Self {
        Self(words)
    }
}

impl<'a> FromIterator<&'a str> for StrSlice {
    fn from_iter<I: IntoIterator<Item = &'a str>>(words: I) -> Self {
        Self(words.into_iter().map(str::to_owned).collect())
    }
}

impl<'de> Deserialize<'de> for StrSlice {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Words;
        impl<'de> de::Visitor<'de> for Words {
            type Value = StrSlice;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a string or a list of strings")
            }
            fn visit_str<E: de::Error>(self, word: &str) -> Result<StrSlice, E> {
                Ok(StrSlice(vec![word.to_owned()]))
            }
            fn visit_unit<E: de::Error>(self) -> Result<StrSlice, E> {
                Ok(StrSlice::default())
            }
            fn visit_seq<A: de::SeqAccess<'de>>(self, mut seq: A) -> Result<StrSlice, A::Error> {
                let mut words = Vec::new();
                while let Some(word) = seq.next_element()? {
                    words.push(word);
                }
                Ok(StrSlice(words))
            }
        }
        deserializer.deserialize_any(Words)
    }
}

/// The portable part of a container's specification: what runs, as whom, with which streams and variables.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct ContainerConfig {
    /// Host name in the container's UTS namespace; empty means the short identifier.
    pub hostname: String,
    /// NIS domain name, appended to the host name in `/etc/hosts`.
    pub domainname: String,
    /// `user|uid[:group|gid]`; empty means root.
    pub user: String,
    /// The creator's client attaches standard input.
    pub attach_stdin: bool,
    /// The creator's client attaches standard output.
    pub attach_stdout: bool,
    /// The creator's client attaches standard error.
    pub attach_stderr: bool,
    /// `port/protocol` the image listens on; only names, publishing is `HostConfig::port_bindings`.
    #[serde(skip_serializing_if = "PortSet::is_empty")]
    pub exposed_ports: PortSet,
    /// Give the process a terminal; output is then one raw stream.
    pub tty: bool,
    /// Keep standard input open without a client.
    pub open_stdin: bool,
    /// Close standard input after the first attached client leaves.
    pub stdin_once: bool,
    /// `NAME=value`; `NAME` alone removes an inherited variable.
    pub env: Option<Vec<String>>,
    /// Arguments of the entry point, or the command itself. `None` inherits the image's.
    pub cmd: Option<StrSlice>,
    /// Health check; `None` inherits the image's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub healthcheck: Option<HealthConfig>,
    /// The command is already escaped (Windows images only).
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub args_escaped: bool,
    /// Image as the client named it.
    pub image: String,
    /// Paths that become anonymous volumes.
    pub volumes: Option<StringSet>,
    /// Working directory, made when it is missing; empty means `/`.
    pub working_dir: String,
    /// Executable and first arguments. `None` inherits the image's, an empty list clears it.
    pub entrypoint: Option<StrSlice>,
    /// No network but loopback.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub network_disabled: bool,
    /// Hardware address for the one network of clients before 1.44.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub mac_address: String,
    /// Image build triggers, only echoed.
    pub on_build: Option<Vec<String>>,
    /// Labels, shown and filtered by.
    #[serde(deserialize_with = "null_as_default")]
    pub labels: BTreeMap<String, String>,
    /// Signal that `stop` sends; empty means `SIGTERM`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub stop_signal: String,
    /// Seconds that `stop` waits before `SIGKILL`; `None` means ten, negative for ever.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stop_timeout: Option<i64>,
    /// Shell of `RUN`, `CMD` and `CMD-SHELL` in shell form.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shell: Option<StrSlice>,
}

/// How a container's health is found out. Durations are nanoseconds; zero inherits.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct HealthConfig {
    /// `["NONE"]`, `["CMD", args...]` or `["CMD-SHELL", command]`; empty inherits.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub test: Vec<String>,
    /// Time between two checks.
    #[serde(skip_serializing_if = "is_zero")]
    pub interval: i64,
    /// Time after which a check counts as failed.
    #[serde(skip_serializing_if = "is_zero")]
    pub timeout: i64,
    /// Time from the start in which failures do not count.
    #[serde(skip_serializing_if = "is_zero")]
    pub start_period: i64,
    /// Time between two checks within the start period.
    #[serde(skip_serializing_if = "is_zero")]
    pub start_interval: i64,
    /// Consecutive failures that make a container unhealthy.
    #[serde(skip_serializing_if = "is_zero")]
    pub retries: i64,
}

/// Whether a number is Go's zero value, which `omitempty` leaves out.
pub(crate) fn is_zero(number: &i64) -> bool {
    *number == 0
}

/// Reads `null` as the type's default, as Go does for values that are not pointers.
pub(crate) fn null_as_default<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Default + Deserialize<'de>,
{
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zero_values_print_as_dockerd_prints_them() {
        let shown = serde_json::to_value(ContainerConfig::default()).unwrap();
        let want = serde_json::json!({
            "Hostname": "", "Domainname": "", "User": "", "AttachStdin": false, "AttachStdout": false,
            "AttachStderr": false, "Tty": false, "OpenStdin": false, "StdinOnce": false, "Env": null, "Cmd": null,
            "Image": "", "Volumes": null, "WorkingDir": "", "Entrypoint": null, "OnBuild": null, "Labels": {}
        });
        assert_eq!(shown, want);
    }

    #[test]
    fn a_command_may_be_one_string() {
        let config: ContainerConfig =
            crate::lenient::from_slice(br#"{"Cmd": "date", "Entrypoint": ["sh", "-c"]}"#).unwrap();
        assert_eq!(config.cmd, Some(StrSlice(vec!["date".into()])));
        assert_eq!(config.entrypoint.unwrap().len(), 2);
        let cleared: ContainerConfig =
            crate::lenient::from_slice(br#"{"Entrypoint": [], "Cmd": null}"#).unwrap();
        assert_eq!(
            (cleared.entrypoint, cleared.cmd),
            (Some(StrSlice::default()), None)
        );
    }

    #[test]
    fn what_was_sent_is_shown_again() {
        let sent = serde_json::json!({
            "Hostname": "h", "Domainname": "", "User": "1:2", "AttachStdin": false, "AttachStdout": true,
            "AttachStderr": true, "ExposedPorts": {"80/tcp": {}}, "Tty": false, "OpenStdin": false, "StdinOnce": false,
            "Env": ["A=b"], "Cmd": ["true"],
            "Healthcheck": {"Test": ["CMD", "true"], "Interval": 1_000_000_000}, "Image": "busybox",
            "Volumes": {"/data": {}}, "WorkingDir": "/", "Entrypoint": [], "OnBuild": null, "Labels": {"a": "b"},
            "StopSignal": "SIGINT", "StopTimeout": 3, "Shell": ["/bin/sh"]
        });
        let config: ContainerConfig = crate::lenient::from_value(sent.clone()).unwrap();
        assert_eq!(serde_json::to_value(config).unwrap(), sent);
    }
}
