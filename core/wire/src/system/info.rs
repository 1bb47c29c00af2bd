//! What the engine is and what it runs on.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Reply of `GET /info`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct SystemInfo {
    /// Identifier of this engine.
    #[serde(rename = "ID")]
    pub id: String,
    /// Containers in all.
    pub containers: i64,
    /// Those that run.
    pub containers_running: i64,
    /// Those that are paused.
    pub containers_paused: i64,
    /// The others.
    pub containers_stopped: i64,
    /// Images.
    pub images: i64,
    /// Storage driver.
    pub driver: String,
    /// What the storage driver tells of itself, label and value.
    pub driver_status: Vec<[String; 2]>,
    /// Drivers by kind.
    pub plugins: PluginsInfo,
    /// The kernel can limit memory.
    pub memory_limit: bool,
    /// The kernel can limit swap.
    pub swap_limit: bool,
    /// The kernel can limit TCP buffers.
    #[serde(rename = "KernelMemoryTCP", skip_serializing_if = "std::ops::Not::not")]
    pub kernel_memory_tcp: bool,
    /// The kernel has CFS periods.
    pub cpu_cfs_period: bool,
    /// The kernel has CFS quotas.
    pub cpu_cfs_quota: bool,
    /// The kernel has CPU shares.
    #[serde(rename = "CPUShares")]
    pub cpu_shares: bool,
    /// The kernel has cpusets.
    #[serde(rename = "CPUSet")]
    pub cpu_set: bool,
    /// The kernel can limit processes.
    pub pids_limit: bool,
    /// The kernel forwards IPv4.
    #[serde(rename = "IPv4Forwarding")]
    pub ipv4_forwarding: bool,
    /// The engine logs for debugging.
    pub debug: bool,
    /// Open descriptors.
    #[serde(rename = "NFd")]
    pub n_fd: i64,
    /// The kernel can leave out-of-memory killing off.
    pub oom_kill_disable: bool,
    /// Tasks.
    #[serde(rename = "NGoroutines")]
    pub n_goroutines: i64,
    /// The engine's clock, RFC 3339.
    pub system_time: String,
    /// Default log driver.
    pub logging_driver: String,
    /// `cgroupfs`, `systemd` or `none`.
    pub cgroup_driver: String,
    /// `1` or `2`.
    pub cgroup_version: String,
    /// Clients of the event stream.
    #[serde(rename = "NEventsListener")]
    pub n_events_listener: i64,
    /// Kernel release.
    pub kernel_version: String,
    /// For people, `Debian GNU/Linux 12 (bookworm)`.
    pub operating_system: String,
    /// Its version.
    #[serde(rename = "OSVersion")]
    pub os_version: String,
    /// `linux`.
    #[serde(rename = "OSType")]
    pub os_type: String,
    /// As `uname -m` says it.
    pub architecture: String,
    /// Default registry.
    pub index_server_address: String,
    /// Registries.
    pub registry_config: Option<RegistryServiceConfig>,
    /// CPUs.
    #[serde(rename = "NCPU")]
    pub n_cpu: i64,
    /// Bytes of memory.
    pub mem_total: i64,
    /// Always `null` (swarm).
    pub generic_resources: Option<Vec<serde_json::Value>>,
    /// Data root.
    pub docker_root_dir: String,
    /// Proxy for HTTP.
    pub http_proxy: String,
    /// Proxy for HTTPS.
    pub https_proxy: String,
    /// Hosts without a proxy.
    pub no_proxy: String,
    /// Host name.
    pub name: String,
    /// The engine's labels.
    pub labels: Vec<String>,
    /// Experimental features are on.
    pub experimental_build: bool,
    /// Version of the engine.
    pub server_version: String,
    /// Runtimes by name.
    pub runtimes: BTreeMap<String, Runtime>,
    /// The one that is used when none is named.
    pub default_runtime: String,
    /// Always inactive.
    pub swarm: SwarmInfo,
    /// Containers outlive the daemon.
    pub live_restore_enabled: bool,
    /// Empty on Linux.
    pub isolation: String,
    /// The init of `--init`.
    pub init_binary: String,
    /// Empty: there is none.
    pub containerd_commit: Commit,
    /// Empty unless runc is used.
    pub runc_commit: Commit,
    /// Of the init.
    pub init_commit: Commit,
    /// `name=seccomp,profile=builtin` and so on.
    pub security_options: Vec<String>,
    /// Licence of the product.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub product_license: String,
    /// Pools that networks' subnets come from.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub default_address_pools: Vec<AddressPool>,
    /// What the firewall rules are made with.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub firewall_backend: Option<FirewallInfo>,
    /// Directories of CDI specifications.
    #[serde(rename = "CDISpecDirs")]
    pub cdi_spec_dirs: Vec<String>,
    /// Devices that device drivers found.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub discovered_devices: Vec<DeviceInfo>,
    /// What works less than well here.
    pub warnings: Option<Vec<String>>,
}

/// Drivers by kind.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct PluginsInfo {
    /// Volume drivers.
    pub volume: Vec<String>,
    /// Network drivers.
    pub network: Vec<String>,
    /// Authorization plugins.
    pub authorization: Option<Vec<String>>,
    /// Log drivers.
    pub log: Vec<String>,
}

/// Registries.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct RegistryServiceConfig {
    /// Networks whose registries may be spoken to without TLS.
    #[serde(rename = "InsecureRegistryCIDRs")]
    pub insecure_registry_cidrs: Vec<String>,
    /// Registries with settings of their own.
    pub index_configs: BTreeMap<String, IndexInfo>,
    /// Mirrors of the default registry.
    pub mirrors: Vec<String>,
    /// What registries last told of their limits; not in Docker's API.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub rate_limits: BTreeMap<String, RateLimit>,
}

/// How many pulls a registry allows.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct RateLimit {
    /// In a window.
    pub limit: u64,
    /// Left of it.
    pub remaining: u64,
    /// Length of the window in seconds; 0: the registry does not say.
    pub window: u64,
    /// Whose limit it is: an address or an account.
    pub source: String,
    /// When it was told, RFC 3339.
    pub told: String,
}

/// Settings of one registry.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct IndexInfo {
    /// Host.
    pub name: String,
    /// Mirrors.
    pub mirrors: Vec<String>,
    /// Only with verified TLS.
    pub secure: bool,
    /// The default registry.
    pub official: bool,
}

/// A runtime.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Runtime {
    /// Executable.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub path: String,
    /// Arguments before the command.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub runtime_args: Vec<String>,
    /// What it tells of itself.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub status: BTreeMap<String, String>,
}

/// Swarm, of which this engine is never part.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct SwarmInfo {
    /// Empty.
    #[serde(rename = "NodeID")]
    pub node_id: String,
    /// Empty.
    pub node_addr: String,
    /// `inactive`.
    pub local_node_state: String,
    /// False.
    pub control_available: bool,
    /// Empty.
    pub error: String,
    /// `null`.
    pub remote_managers: Option<Vec<serde_json::Value>>,
}

impl Default for SwarmInfo {
    fn default() -> Self {
        Self {
            node_id: String::new(),
            node_addr: String::new(),
            local_node_state: "inactive".into(),
            control_available: false,
            error: String::new(),
            remote_managers: None,
        }
    }
}

/// The commit a part was built from.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Commit {
    /// The commit.
    #[serde(rename = "ID")]
    pub id: String,
}

/// A pool that networks' subnets come from.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct AddressPool {
    /// The pool, CIDR.
    pub base: String,
    /// Prefix length of the subnets.
    pub size: i64,
}

/// What the firewall rules are made with.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct FirewallInfo {
    /// `nftables`.
    pub driver: String,
    /// More, label and value.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub info: Vec<[String; 2]>,
}

/// A device that a device driver found.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct DeviceInfo {
    /// Driver, `cdi`.
    pub source: String,
    /// Name within the driver.
    #[serde(rename = "ID")]
    pub id: String,
}
