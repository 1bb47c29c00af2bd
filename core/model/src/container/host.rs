//! The part of a specification that depends on the host: isolation, resources, ports, mounts, restarts.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{Mount, PortMap, StrSlice, is_zero, null_as_default};

/// Isolation, resources, ports, mounts and restarts. Source: Engine API v1.51, `HostConfig` with `Resources` inline.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct HostConfig {
    /// `source:target[:options]`; a source without a slash is a named volume.
    pub binds: Option<Vec<String>>,
    /// File the client wrote the identifier to, only echoed.
    #[serde(rename = "ContainerIDFile")]
    pub container_id_file: String,
    /// Where output goes.
    pub log_config: LogConfig,
    /// `default`, `bridge`, `host`, `none`, `container:ID` or a network's name; empty means `default`.
    pub network_mode: String,
    /// `port/protocol` to host addresses.
    #[serde(deserialize_with = "null_as_default")]
    pub port_bindings: PortMap,
    /// What happens after an exit.
    pub restart_policy: RestartPolicy,
    /// Remove the container and its anonymous volumes after it ended.
    pub auto_remove: bool,
    /// Driver of named volumes that are made on the way.
    pub volume_driver: String,
    /// `container[:ro|rw]` whose mounts are used as well.
    pub volumes_from: Option<Vec<String>>,
    /// Terminal size at the start: height, width, in characters.
    pub console_size: [u32; 2],
    /// OCI annotations.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
    /// Capabilities added to the default set; `ALL` for every one the engine has.
    pub cap_add: Option<StrSlice>,
    /// Capabilities taken from the default set; `ALL` for every one.
    pub cap_drop: Option<StrSlice>,
    /// `private`, `host` or empty for the default.
    pub cgroupns_mode: String,
    /// Name servers.
    pub dns: Option<Vec<String>>,
    /// Resolver options.
    pub dns_options: Option<Vec<String>>,
    /// Search domains.
    pub dns_search: Option<Vec<String>>,
    /// `name:address` lines for `/etc/hosts`; the address may be `host-gateway`.
    pub extra_hosts: Option<Vec<String>>,
    /// Supplementary groups, names or numbers.
    pub group_add: Option<Vec<String>>,
    /// `none`, `private`, `shareable`, `host`, `container:ID` or empty for the default.
    pub ipc_mode: String,
    /// Cgroup to share (`container:ID`), only echoed.
    pub cgroup: String,
    /// `container:alias` links.
    pub links: Option<Vec<String>>,
    /// `/proc/self/oom_score_adj`, -1000 to 1000.
    pub oom_score_adj: i64,
    /// `host`, `container:ID` or empty for an own one.
    pub pid_mode: String,
    /// All capabilities and devices, no seccomp profile, nothing masked.
    pub privileged: bool,
    /// Publish every exposed port on a port of the engine's choice.
    pub publish_all_ports: bool,
    /// Mount the root file system read-only.
    pub readonly_rootfs: bool,
    /// `seccomp=`, `apparmor=`, `label=`, `no-new-privileges`.
    pub security_opt: Option<Vec<String>>,
    /// Options for the storage driver (`size`).
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub storage_opt: BTreeMap<String, String>,
    /// Path to mount options of a tmpfs.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub tmpfs: BTreeMap<String, String>,
    /// `host` or empty for an own one.
    #[serde(rename = "UTSMode")]
    pub uts_mode: String,
    /// `host` or empty for the engine's default.
    pub userns_mode: String,
    /// Bytes of `/dev/shm`; zero means the engine's default.
    pub shm_size: i64,
    /// Kernel parameters of the container's namespaces.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub sysctls: BTreeMap<String, String>,
    /// Name of the runtime; empty means the engine's default.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub runtime: String,
    /// Windows isolation; Linux knows `default` and empty.
    pub isolation: String,

    /// Relative CPU weight, 2 to 262144; zero means 1024.
    pub cpu_shares: i64,
    /// Memory limit in bytes; zero means none.
    pub memory: i64,
    /// CPUs in units of 10^-9; zero means no limit.
    pub nano_cpus: i64,
    /// Cgroup under which the container's is made.
    pub cgroup_parent: String,
    /// Relative block I/O weight, 10 to 1000.
    pub blkio_weight: u16,
    /// Weight per device.
    pub blkio_weight_device: Option<Vec<WeightDevice>>,
    /// Read limit per device in bytes a second.
    pub blkio_device_read_bps: Option<Vec<ThrottleDevice>>,
    /// Write limit per device in bytes a second.
    pub blkio_device_write_bps: Option<Vec<ThrottleDevice>>,
    /// Read limit per device in operations a second.
    #[serde(rename = "BlkioDeviceReadIOps")]
    pub blkio_device_read_iops: Option<Vec<ThrottleDevice>>,
    /// Write limit per device in operations a second.
    #[serde(rename = "BlkioDeviceWriteIOps")]
    pub blkio_device_write_iops: Option<Vec<ThrottleDevice>>,
    /// CFS period in microseconds.
    pub cpu_period: i64,
    /// CFS quota in microseconds a period.
    pub cpu_quota: i64,
    /// Realtime period in microseconds (cgroup v1).
    pub cpu_realtime_period: i64,
    /// Realtime run time in microseconds a period (cgroup v1).
    pub cpu_realtime_runtime: i64,
    /// CPUs to run on, `0-2,4`.
    pub cpuset_cpus: String,
    /// Memory nodes to use, `0-1`.
    pub cpuset_mems: String,
    /// Host devices in the container.
    pub devices: Option<Vec<DeviceMapping>>,
    /// Rules for the device cgroup, `c 10:200 rwm`.
    pub device_cgroup_rules: Option<Vec<String>>,
    /// Devices asked of a driver (`--gpus`).
    pub device_requests: Option<Vec<DeviceRequest>>,
    /// Kernel memory limit in bytes, obsolete.
    #[serde(skip_serializing_if = "is_zero")]
    pub kernel_memory: i64,
    /// Kernel TCP buffer limit in bytes (cgroup v1).
    #[serde(rename = "KernelMemoryTCP", skip_serializing_if = "is_zero")]
    pub kernel_memory_tcp: i64,
    /// Soft memory limit in bytes.
    pub memory_reservation: i64,
    /// Memory and swap together in bytes; -1 means unlimited swap, zero twice the memory.
    pub memory_swap: i64,
    /// 0 to 100 (cgroup v1); `None` leaves the default.
    pub memory_swappiness: Option<i64>,
    /// Do not kill when out of memory (cgroup v1).
    pub oom_kill_disable: Option<bool>,
    /// Process limit; 0 and -1 mean none, `None` leaves the default.
    pub pids_limit: Option<i64>,
    /// Resource limits of the process.
    pub ulimits: Option<Vec<Ulimit>>,
    /// Usable CPUs (Windows).
    pub cpu_count: i64,
    /// Usable percentage of CPUs (Windows).
    pub cpu_percent: i64,
    /// Maximum IOps of the system drive (Windows).
    #[serde(rename = "IOMaximumIOps")]
    pub io_maximum_iops: u64,
    /// Maximum bytes a second of the system drive (Windows).
    #[serde(rename = "IOMaximumBandwidth")]
    pub io_maximum_bandwidth: u64,

    /// Mounts in the long form.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mounts: Option<Vec<Mount>>,
    /// Paths hidden inside; `None` means the engine's default, an empty list none.
    pub masked_paths: Option<Vec<String>>,
    /// Paths read-only inside; `None` means the engine's default, an empty list none.
    pub readonly_paths: Option<Vec<String>>,
    /// Run an init as process 1; `None` means the engine's default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub init: Option<bool>,
    /// Containers that must run before this one starts: `name`, `name:started` or `name:healthy`. Gantry's own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub requires: Option<Vec<String>>,
    /// Where the container may go; `None`: anywhere. Gantry's own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub egress: Option<Egress>,
}

/// Where a container may go beyond its own networks.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Egress {
    /// Networks (`10.0.0.0/8`), addresses, host names and `*.example.org`; none of them: nowhere.
    pub allow: Option<Vec<String>>,
}

/// Log driver and its options.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct LogConfig {
    /// Driver; empty means the engine's default.
    #[serde(rename = "Type")]
    pub kind: String,
    /// Options of the driver.
    #[serde(deserialize_with = "null_as_default")]
    pub config: BTreeMap<String, String>,
}

/// What happens after a container ended.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct RestartPolicy {
    /// `no`, `always`, `unless-stopped` or `on-failure`; empty means `no`.
    pub name: String,
    /// Tries of `on-failure`; zero means no end.
    pub maximum_retry_count: i64,
    /// Whether bad health is an end, too. Gantry's own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unhealthy: Option<bool>,
}

/// Block I/O weight of one device.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct WeightDevice {
    /// Path of the device on the host.
    pub path: String,
    /// 10 to 1000.
    pub weight: u16,
}

/// Limit of one device.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct ThrottleDevice {
    /// Path of the device on the host.
    pub path: String,
    /// Bytes or operations a second.
    pub rate: u64,
}

/// A device of the host in the container.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct DeviceMapping {
    /// Path on the host; a directory stands for every device below it.
    pub path_on_host: String,
    /// Path in the container.
    pub path_in_container: String,
    /// Letters of `rwm`.
    pub cgroup_permissions: String,
}

/// Devices asked of a device driver.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct DeviceRequest {
    /// Name of the driver, `cdi` or `nvidia`; empty lets the capabilities choose.
    pub driver: String,
    /// How many; -1 means all.
    pub count: i64,
    /// Which ones.
    #[serde(rename = "DeviceIDs")]
    pub device_ids: Option<Vec<String>>,
    /// An "or" of "and"s of capabilities.
    pub capabilities: Option<Vec<Vec<String>>>,
    /// Options of the driver.
    #[serde(deserialize_with = "null_as_default")]
    pub options: BTreeMap<String, String>,
}

/// One resource limit.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Ulimit {
    /// Name without `RLIMIT_`, lower case.
    pub name: String,
    /// Upper limit of the soft one; -1 means unlimited.
    pub hard: i64,
    /// The limit in force; -1 means unlimited.
    pub soft: i64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zero_values_print_as_dockerd_prints_them() {
        let shown = serde_json::to_value(HostConfig::default()).unwrap();
        let shown = shown.as_object().unwrap();
        assert_eq!(shown["Binds"], serde_json::Value::Null);
        assert_eq!(shown["ConsoleSize"], serde_json::json!([0, 0]));
        assert_eq!(shown["PortBindings"], serde_json::json!({}));
        assert_eq!(
            shown["RestartPolicy"],
            serde_json::json!({"Name": "", "MaximumRetryCount": 0})
        );
        for key in ["Mounts", "Init", "Runtime", "Sysctls", "KernelMemoryTCP"] {
            assert!(!shown.contains_key(key), "{key}");
        }
        assert_eq!(shown.len(), 62);
    }

    #[test]
    fn numbers_and_names_are_read_as_go_reads_them() {
        let host: HostConfig = crate::lenient::from_slice(
            br#"{"memory": 1e9, "Isolation": "Default", "NANOCPUS": 500000000.0, "PortBindings": null,
                 "Dns": null, "unknown": [1], "Init": true, "BlkioDeviceReadIOps": [{"path": "/dev/x", "rate": 5}]}"#,
        )
        .unwrap();
        assert_eq!((host.memory, host.nano_cpus), (1_000_000_000, 500_000_000));
        assert_eq!(host.isolation, "Default");
        assert_eq!(host.init, Some(true));
        assert_eq!(host.blkio_device_read_iops.unwrap()[0].rate, 5);
    }
}
