//! What a group may use.

/// A value for one block device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DeviceValue {
    /// Device.
    pub major: u32,
    /// Device.
    pub minor: u32,
    /// The value.
    pub value: u64,
}

/// Limits in version 1's units; `None` (or an empty list) leaves a setting as it is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Limits {
    /// Bytes; -1: unlimited.
    pub memory: Option<i64>,
    /// Memory and swap together, bytes; -1: unlimited.
    pub memory_swap: Option<i64>,
    /// Bytes; -1: none.
    pub memory_reservation: Option<i64>,
    /// 0..=100; version 1 only.
    pub memory_swappiness: Option<u64>,
    /// Bytes of buffers of TCP sockets; version 1 only.
    pub kernel_memory_tcp: Option<i64>,
    /// Version 1 only.
    pub oom_kill_disable: Option<bool>,
    /// 2..=262144.
    pub cpu_shares: Option<u64>,
    /// Microseconds a period; -1: unlimited.
    pub cpu_quota: Option<i64>,
    /// Microseconds.
    pub cpu_period: Option<u64>,
    /// Microseconds; version 1 only.
    pub cpu_realtime_runtime: Option<i64>,
    /// Microseconds; version 1 only.
    pub cpu_realtime_period: Option<u64>,
    /// `0-2,4`.
    pub cpuset_cpus: Option<String>,
    /// As `cpuset_cpus`.
    pub cpuset_mems: Option<String>,
    /// Processes and threads; 0 or less: unlimited.
    pub pids: Option<i64>,
    /// 10..=1000.
    pub blkio_weight: Option<u16>,
    /// 10..=1000 by device.
    pub blkio_weight_device: Vec<DeviceValue>,
    /// Bytes a second.
    pub read_bps: Vec<DeviceValue>,
    /// Bytes a second.
    pub write_bps: Vec<DeviceValue>,
    /// Operations a second.
    pub read_iops: Vec<DeviceValue>,
    /// Operations a second.
    pub write_iops: Vec<DeviceValue>,
}
