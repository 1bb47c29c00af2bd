//! The body of `POST /containers/create`.

use serde::Serialize;
use serde_json::{Map, Value};

use super::devices::{DeviceMapping, DeviceRequest, Throttle, Weight};
use super::limits::{RestartPolicy, Ulimit};
use super::mounts::Mount;

/// What `create` sends. Members at their zero value are left out: the API reads both alike.
#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct CreateBody {
    #[serde(flatten)]
    pub(crate) config: Config,
    pub(crate) host_config: HostConfig,
    pub(super) networking_config: NetworkingConfig,
}

#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct NetworkingConfig {
    pub(super) endpoints_config: Map<String, Value>,
}

fn unset<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// The container's own, image-like configuration.
#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct Config {
    #[serde(skip_serializing_if = "unset")]
    pub(super) hostname: String,
    #[serde(skip_serializing_if = "unset")]
    pub(super) domainname: String,
    #[serde(skip_serializing_if = "unset")]
    pub(super) user: String,
    pub(crate) attach_stdin: bool,
    pub(crate) attach_stdout: bool,
    pub(crate) attach_stderr: bool,
    #[serde(skip_serializing_if = "unset")]
    pub(super) exposed_ports: Map<String, Value>,
    pub(crate) tty: bool,
    pub(super) open_stdin: bool,
    pub(crate) stdin_once: bool,
    #[serde(skip_serializing_if = "unset")]
    pub(crate) env: Vec<String>,
    #[serde(skip_serializing_if = "unset")]
    pub(super) cmd: Vec<String>,
    #[serde(skip_serializing_if = "unset")]
    pub(super) healthcheck: Option<Health>,
    pub(crate) image: String,
    #[serde(skip_serializing_if = "unset")]
    pub(super) volumes: Map<String, Value>,
    #[serde(skip_serializing_if = "unset")]
    pub(super) working_dir: String,
    #[serde(skip_serializing_if = "unset")]
    pub(super) entrypoint: Option<Vec<String>>,
    #[serde(skip_serializing_if = "unset")]
    pub(super) labels: Map<String, Value>,
    #[serde(skip_serializing_if = "unset")]
    pub(super) stop_signal: String,
    #[serde(skip_serializing_if = "unset")]
    pub(super) stop_timeout: Option<i64>,
}

#[derive(Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Health {
    #[serde(skip_serializing_if = "unset")]
    pub(super) test: Vec<String>,
    #[serde(skip_serializing_if = "unset")]
    pub(super) interval: i64,
    #[serde(skip_serializing_if = "unset")]
    pub(super) timeout: i64,
    #[serde(skip_serializing_if = "unset")]
    pub(super) start_period: i64,
    #[serde(skip_serializing_if = "unset")]
    pub(super) start_interval: i64,
    #[serde(skip_serializing_if = "unset")]
    pub(super) retries: i64,
}

/// What the host is to do for the container.
#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct HostConfig {
    #[serde(skip_serializing_if = "unset")]
    pub(crate) binds: Vec<String>,
    #[serde(rename = "ContainerIDFile", skip_serializing_if = "unset")]
    pub(super) container_id_file: String,
    pub(super) log_config: LogConfig,
    pub(super) network_mode: String,
    #[serde(skip_serializing_if = "unset")]
    pub(super) port_bindings: Map<String, Value>,
    pub(super) restart_policy: Option<RestartPolicy>,
    pub(crate) auto_remove: bool,
    #[serde(skip_serializing_if = "unset")]
    pub(super) volume_driver: String,
    #[serde(skip_serializing_if = "unset")]
    pub(super) volumes_from: Vec<String>,
    #[serde(skip_serializing_if = "unset")]
    pub(crate) console_size: Option<[u16; 2]>,
    #[serde(skip_serializing_if = "unset")]
    pub(super) annotations: Map<String, Value>,
    #[serde(skip_serializing_if = "unset")]
    pub(super) cap_add: Vec<String>,
    #[serde(skip_serializing_if = "unset")]
    pub(super) cap_drop: Vec<String>,
    #[serde(skip_serializing_if = "unset")]
    pub(super) cgroupns_mode: String,
    pub(super) dns: Vec<String>,
    pub(super) dns_options: Vec<String>,
    pub(super) dns_search: Vec<String>,
    #[serde(skip_serializing_if = "unset")]
    pub(super) extra_hosts: Vec<String>,
    #[serde(skip_serializing_if = "unset")]
    pub(super) group_add: Vec<String>,
    #[serde(skip_serializing_if = "unset")]
    pub(super) ipc_mode: String,
    #[serde(skip_serializing_if = "unset")]
    pub(super) links: Vec<String>,
    #[serde(skip_serializing_if = "unset")]
    pub(super) oom_score_adj: i64,
    #[serde(skip_serializing_if = "unset")]
    pub(super) pid_mode: String,
    #[serde(skip_serializing_if = "unset")]
    pub(super) privileged: bool,
    #[serde(skip_serializing_if = "unset")]
    pub(super) publish_all_ports: bool,
    #[serde(skip_serializing_if = "unset")]
    pub(super) readonly_rootfs: bool,
    #[serde(skip_serializing_if = "unset")]
    pub(super) security_opt: Vec<String>,
    #[serde(skip_serializing_if = "unset")]
    pub(super) storage_opt: Map<String, Value>,
    #[serde(skip_serializing_if = "unset")]
    pub(super) tmpfs: Map<String, Value>,
    #[serde(rename = "UTSMode", skip_serializing_if = "unset")]
    pub(super) uts_mode: String,
    #[serde(skip_serializing_if = "unset")]
    pub(super) userns_mode: String,
    #[serde(skip_serializing_if = "unset")]
    pub(super) shm_size: i64,
    #[serde(skip_serializing_if = "unset")]
    pub(super) sysctls: Map<String, Value>,
    #[serde(skip_serializing_if = "unset")]
    pub(super) runtime: String,
    #[serde(skip_serializing_if = "unset")]
    pub(super) isolation: String,
    #[serde(skip_serializing_if = "unset")]
    pub(crate) mounts: Vec<Mount>,
    /// Empty means no masked paths, absent the daemon's own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) masked_paths: Option<[String; 0]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) readonly_paths: Option<[String; 0]>,
    #[serde(skip_serializing_if = "unset")]
    pub(super) init: Option<bool>,
    #[serde(flatten)]
    pub(super) resources: Resources,
}

#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct LogConfig {
    pub(super) r#type: String,
    pub(super) config: Map<String, Value>,
}

#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Resources {
    #[serde(skip_serializing_if = "unset")]
    pub(super) cpu_shares: i64,
    #[serde(skip_serializing_if = "unset")]
    pub(super) memory: i64,
    #[serde(skip_serializing_if = "unset")]
    pub(super) nano_cpus: i64,
    #[serde(skip_serializing_if = "unset")]
    pub(super) cgroup_parent: String,
    #[serde(skip_serializing_if = "unset")]
    pub(super) blkio_weight: u16,
    #[serde(skip_serializing_if = "unset")]
    pub(super) blkio_weight_device: Vec<Weight>,
    #[serde(skip_serializing_if = "unset")]
    pub(super) blkio_device_read_bps: Vec<Throttle>,
    #[serde(skip_serializing_if = "unset")]
    pub(super) blkio_device_write_bps: Vec<Throttle>,
    #[serde(rename = "BlkioDeviceReadIOps", skip_serializing_if = "unset")]
    pub(super) blkio_device_read_iops: Vec<Throttle>,
    #[serde(rename = "BlkioDeviceWriteIOps", skip_serializing_if = "unset")]
    pub(super) blkio_device_write_iops: Vec<Throttle>,
    #[serde(skip_serializing_if = "unset")]
    pub(super) cpu_period: i64,
    #[serde(skip_serializing_if = "unset")]
    pub(super) cpu_quota: i64,
    #[serde(skip_serializing_if = "unset")]
    pub(super) cpu_realtime_period: i64,
    #[serde(skip_serializing_if = "unset")]
    pub(super) cpu_realtime_runtime: i64,
    #[serde(skip_serializing_if = "unset")]
    pub(super) cpuset_cpus: String,
    #[serde(skip_serializing_if = "unset")]
    pub(super) cpuset_mems: String,
    #[serde(skip_serializing_if = "unset")]
    pub(super) devices: Vec<DeviceMapping>,
    #[serde(skip_serializing_if = "unset")]
    pub(super) device_cgroup_rules: Vec<String>,
    #[serde(skip_serializing_if = "unset")]
    pub(super) device_requests: Vec<DeviceRequest>,
    #[serde(skip_serializing_if = "unset")]
    pub(super) memory_reservation: i64,
    #[serde(skip_serializing_if = "unset")]
    pub(super) memory_swap: i64,
    #[serde(skip_serializing_if = "unset")]
    pub(super) memory_swappiness: Option<i64>,
    #[serde(skip_serializing_if = "unset")]
    pub(super) oom_kill_disable: bool,
    #[serde(skip_serializing_if = "unset")]
    pub(super) pids_limit: i64,
    #[serde(skip_serializing_if = "unset")]
    pub(super) ulimits: Vec<Ulimit>,
}
