//! Everything about one container.

use std::collections::BTreeMap;

use gantry_model::Timestamp;
use gantry_model::container::{ContainerConfig, EndpointSettings, HostConfig, PortMap};
use serde::{Deserialize, Serialize};

use crate::image::{Descriptor, DriverData};

/// Reply of `GET /containers/{id}/json`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct ContainerInspect {
    /// Identifier.
    pub id: String,
    /// When it was created.
    pub created: Timestamp,
    /// Executable of the main process.
    pub path: String,
    /// Its arguments.
    pub args: Vec<String>,
    /// Whether it runs.
    pub state: ContainerState,
    /// Identifier (`sha256:...`) of the image.
    pub image: String,
    /// File on the host that is `/etc/resolv.conf` inside.
    pub resolv_conf_path: String,
    /// File on the host that is `/etc/hostname` inside.
    pub hostname_path: String,
    /// File on the host that is `/etc/hosts` inside.
    pub hosts_path: String,
    /// The log file.
    pub log_path: String,
    /// Name with a leading slash.
    pub name: String,
    /// How often the restart policy started it again.
    pub restart_count: i64,
    /// Storage driver.
    pub driver: String,
    /// Operating system.
    pub platform: String,
    /// SELinux label of mounts.
    pub mount_label: String,
    /// SELinux label of processes.
    pub process_label: String,
    /// AppArmor profile.
    pub app_armor_profile: String,
    /// Identifiers of running execs.
    #[serde(rename = "ExecIDs")]
    pub exec_ids: Option<Vec<String>>,
    /// Isolation, resources, ports, mounts as asked for.
    pub host_config: HostConfig,
    /// What the storage driver tells of the root file system.
    pub graph_driver: DriverData,
    /// Bytes of the writable layer, where asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub size_rw: Option<i64>,
    /// Bytes of all layers, where asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub size_root_fs: Option<i64>,
    /// Mounts in force.
    pub mounts: Vec<MountPoint>,
    /// What runs.
    pub config: ContainerConfig,
    /// Networks in force.
    pub network_settings: NetworkSettings,
    /// Descriptor of the image's manifest.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image_manifest_descriptor: Option<Descriptor>,
}

/// Whether a container runs.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct ContainerState {
    /// `created`, `running`, `paused`, `restarting`, `removing`, `exited` or `dead`.
    pub status: String,
    /// The main process lives (also when paused).
    pub running: bool,
    /// It is frozen.
    pub paused: bool,
    /// It waits to be started again.
    pub restarting: bool,
    /// The kernel killed it for want of memory.
    #[serde(rename = "OOMKilled")]
    pub oom_killed: bool,
    /// Its removal failed half-way.
    pub dead: bool,
    /// Process identifier on the host; zero when it does not run.
    pub pid: i64,
    /// Exit code of the last run.
    pub exit_code: i64,
    /// Why the last start failed.
    pub error: String,
    /// Start of the last run.
    pub started_at: Timestamp,
    /// End of the last run.
    pub finished_at: Timestamp,
    /// Health, where there is a check.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub health: Option<Health>,
}

/// What the health check found.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Health {
    /// `none`, `starting`, `healthy` or `unhealthy`.
    pub status: String,
    /// Failures in a row.
    pub failing_streak: i64,
    /// The last five checks, oldest first.
    pub log: Option<Vec<HealthcheckResult>>,
}

/// One health check.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct HealthcheckResult {
    /// When it began.
    pub start: Timestamp,
    /// When it ended.
    pub end: Timestamp,
    /// 0 healthy, 1 unhealthy, 2 reserved, others an error running it.
    pub exit_code: i64,
    /// The first bytes of its output.
    pub output: String,
}

/// A mount in force.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct MountPoint {
    /// `bind`, `volume`, `tmpfs` or `image`.
    #[serde(rename = "Type", skip_serializing_if = "String::is_empty")]
    pub kind: String,
    /// Name of a volume.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// Path on the host.
    pub source: String,
    /// Path in the container.
    pub destination: String,
    /// Driver of a volume.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub driver: String,
    /// Options as given, `ro`, `z`.
    pub mode: String,
    /// Whether it is writable.
    #[serde(rename = "RW")]
    pub rw: bool,
    /// Propagation of a bind.
    pub propagation: String,
}

/// Networks in force.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct NetworkSettings {
    /// Always empty; deprecated.
    pub bridge: String,
    /// Identifier of the network namespace.
    #[serde(rename = "SandboxID")]
    pub sandbox_id: String,
    /// Path of the network namespace.
    pub sandbox_key: String,
    /// Published ports; exposed ones that are not published with `null`.
    pub ports: PortMap,
    /// Always false; deprecated.
    pub hairpin_mode: bool,
    /// Always empty; deprecated.
    #[serde(rename = "LinkLocalIPv6Address")]
    pub link_local_ipv6_address: String,
    /// Always zero; deprecated.
    #[serde(rename = "LinkLocalIPv6PrefixLen")]
    pub link_local_ipv6_prefix_len: i64,
    /// Always `null`; deprecated.
    #[serde(rename = "SecondaryIPAddresses")]
    pub secondary_ip_addresses: Option<Vec<Address>>,
    /// Always `null`; deprecated.
    #[serde(rename = "SecondaryIPv6Addresses")]
    pub secondary_ipv6_addresses: Option<Vec<Address>>,
    /// Of the default bridge, as the next seven; see [`NetworkSettings::networks`] for all networks.
    #[serde(rename = "EndpointID")]
    pub endpoint_id: String,
    /// IPv4 gateway.
    pub gateway: String,
    /// IPv6 address.
    #[serde(rename = "GlobalIPv6Address")]
    pub global_ipv6_address: String,
    /// Length of the IPv6 network prefix.
    #[serde(rename = "GlobalIPv6PrefixLen")]
    pub global_ipv6_prefix_len: i64,
    /// IPv4 address.
    #[serde(rename = "IPAddress")]
    pub ip_address: String,
    /// Length of the IPv4 network prefix.
    #[serde(rename = "IPPrefixLen")]
    pub ip_prefix_len: i64,
    /// IPv6 gateway.
    #[serde(rename = "IPv6Gateway")]
    pub ipv6_gateway: String,
    /// Hardware address.
    pub mac_address: String,
    /// Attachments by the network's name.
    pub networks: BTreeMap<String, EndpointSettings>,
}

/// An address with the length of its network prefix.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Address {
    /// The address.
    pub addr: String,
    /// Length of the prefix.
    pub prefix_len: i64,
}
