//! What a container uses: replies of `GET /containers/{id}/stats`.

use std::collections::BTreeMap;

use gantry_model::Timestamp;
use serde::{Deserialize, Serialize};

use crate::spec::EmptyObject;

/// One sample.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ContainerStats {
    /// Name with a leading slash.
    pub name: String,
    /// Identifier.
    pub id: String,
    /// `linux`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub os_type: String,
    /// When it was taken; never: zero.
    pub read: Timestamp,
    /// When the one before was taken, where there is one.
    pub preread: Timestamp,
    /// Processes.
    pub pids_stats: PidsStats,
    /// Block I/O.
    pub blkio_stats: BlkioStats,
    /// Windows only.
    pub num_procs: u32,
    /// Windows only.
    pub storage_stats: EmptyObject,
    /// Processor time.
    pub cpu_stats: CpuStats,
    /// Processor time in the sample before.
    pub precpu_stats: CpuStats,
    /// Memory.
    pub memory_stats: MemoryStats,
    /// Traffic by interface; absent without a network of its own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub networks: Option<BTreeMap<String, NetworkStats>>,
}

fn is_zero(value: &u64) -> bool {
    *value == 0
}

/// Processes of a container.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct PidsStats {
    /// Now.
    #[serde(skip_serializing_if = "is_zero")]
    pub current: u64,
    /// At most; on version 2 of control groups all ones for no limit, on version 1 absent then.
    #[serde(skip_serializing_if = "is_zero")]
    pub limit: u64,
}

/// Block I/O; `null` is what the kernel does not count.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct BlkioStats {
    /// Bytes.
    pub io_service_bytes_recursive: Option<Vec<BlkioEntry>>,
    /// Operations.
    pub io_serviced_recursive: Option<Vec<BlkioEntry>>,
    /// See the kernel's documentation of the blkio controller.
    pub io_queue_recursive: Option<Vec<BlkioEntry>>,
    /// As above.
    pub io_service_time_recursive: Option<Vec<BlkioEntry>>,
    /// As above.
    pub io_wait_time_recursive: Option<Vec<BlkioEntry>>,
    /// As above.
    pub io_merged_recursive: Option<Vec<BlkioEntry>>,
    /// As above.
    pub io_time_recursive: Option<Vec<BlkioEntry>>,
    /// As above.
    pub sectors_recursive: Option<Vec<BlkioEntry>>,
}

/// A counter of a device.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct BlkioEntry {
    /// Device.
    pub major: u64,
    /// Device.
    pub minor: u64,
    /// What is counted.
    pub op: String,
    /// The counter.
    pub value: u64,
}

/// Processor time.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct CpuStats {
    /// The container's.
    pub cpu_usage: CpuUsage,
    /// The host's, in nanoseconds.
    #[serde(skip_serializing_if = "is_zero")]
    pub system_cpu_usage: u64,
    /// CPUs of the host.
    #[serde(skip_serializing_if = "is_zero")]
    pub online_cpus: u64,
    /// How its limit was met.
    pub throttling_data: ThrottlingData,
}

/// Processor time of a container, in nanoseconds.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct CpuUsage {
    /// All.
    pub total_usage: u64,
    /// By CPU (version 1 of control groups).
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub percpu_usage: Vec<u64>,
    /// In the kernel.
    pub usage_in_kernelmode: u64,
    /// In programs.
    pub usage_in_usermode: u64,
}

/// Periods of the CPU limit.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ThrottlingData {
    /// Elapsed.
    pub periods: u64,
    /// In which the limit was met.
    pub throttled_periods: u64,
    /// Nanoseconds stopped.
    pub throttled_time: u64,
}

/// Memory, in bytes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct MemoryStats {
    /// Now, caches included.
    #[serde(skip_serializing_if = "is_zero")]
    pub usage: u64,
    /// Highest so far (version 1 of control groups).
    #[serde(skip_serializing_if = "is_zero")]
    pub max_usage: u64,
    /// The kernel's `memory.stat`.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub stats: BTreeMap<String, u64>,
    /// How often the limit was met.
    #[serde(skip_serializing_if = "is_zero")]
    pub failcnt: u64,
    /// At most; the host's memory where there is no limit.
    #[serde(skip_serializing_if = "is_zero")]
    pub limit: u64,
}

/// Counters of an interface.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct NetworkStats {
    /// Bytes received.
    pub rx_bytes: u64,
    /// Packets received.
    pub rx_packets: u64,
    /// Errors while receiving.
    pub rx_errors: u64,
    /// Received and dropped.
    pub rx_dropped: u64,
    /// Bytes sent.
    pub tx_bytes: u64,
    /// Packets sent.
    pub tx_packets: u64,
    /// Errors while sending.
    pub tx_errors: u64,
    /// Dropped instead of sent.
    pub tx_dropped: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_container_that_does_not_run() {
        let empty = ContainerStats {
            name: "/c".into(),
            id: "1".into(),
            ..ContainerStats::default()
        };
        // As dockerd 20.10 prints it, but for the order.
        let dockerd = r#"{"read":"0001-01-01T00:00:00Z","preread":"0001-01-01T00:00:00Z","pids_stats":{},"blkio_stats":{"io_service_bytes_recursive":null,"io_serviced_recursive":null,"io_queue_recursive":null,"io_service_time_recursive":null,"io_wait_time_recursive":null,"io_merged_recursive":null,"io_time_recursive":null,"sectors_recursive":null},"num_procs":0,"storage_stats":{},"cpu_stats":{"cpu_usage":{"total_usage":0,"usage_in_kernelmode":0,"usage_in_usermode":0},"throttling_data":{"periods":0,"throttled_periods":0,"throttled_time":0}},"precpu_stats":{"cpu_usage":{"total_usage":0,"usage_in_kernelmode":0,"usage_in_usermode":0},"throttling_data":{"periods":0,"throttled_periods":0,"throttled_time":0}},"memory_stats":{},"name":"/c","id":"1"}"#;
        let want: serde_json::Value = serde_json::from_str(dockerd).unwrap();
        assert_eq!(serde_json::to_value(&empty).unwrap(), want);
    }
}
