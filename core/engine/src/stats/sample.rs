//! One container's sample, in the API's form. What is told on which version of control groups is what dockerd tells.

use std::collections::BTreeMap;

use gantry_model::Timestamp;
use gantry_sys::cgroup::{self, Group};
use gantry_wire::ContainerStats;
use gantry_wire::stats::{
    BlkioEntry, BlkioStats, CpuStats, CpuUsage, MemoryStats, NetworkStats, PidsStats,
    ThrottlingData,
};

use super::host::Host;

/// The lines of `memory.stat` that are told on version 1; each also with `total_` before it.
const MEMORY_V1: [&str; 15] = [
    "active_anon",
    "active_file",
    "cache",
    "dirty",
    "inactive_anon",
    "inactive_file",
    "mapped_file",
    "pgfault",
    "pgmajfault",
    "pgpgin",
    "pgpgout",
    "rss",
    "rss_huge",
    "unevictable",
    "writeback",
];

/// Those that are told as they are.
const LIMITS_V1: [&str; 2] = ["hierarchical_memory_limit", "hierarchical_memsw_limit"];

/// The lines of `memory.stat` that are told on version 2.
const MEMORY_V2: [&str; 32] = [
    "active_anon",
    "active_file",
    "anon",
    "anon_thp",
    "file",
    "file_dirty",
    "file_mapped",
    "file_writeback",
    "inactive_anon",
    "inactive_file",
    "kernel_stack",
    "pgactivate",
    "pgdeactivate",
    "pgfault",
    "pglazyfree",
    "pglazyfreed",
    "pgmajfault",
    "pgrefill",
    "pgscan",
    "pgsteal",
    "shmem",
    "slab",
    "slab_reclaimable",
    "slab_unreclaimable",
    "sock",
    "thp_collapse_alloc",
    "thp_fault_alloc",
    "unevictable",
    "workingset_activate",
    "workingset_nodereclaim",
    "workingset_refault_anon",
    "workingset_refault_file",
];

/// What is sampled.
pub(super) struct Subject {
    pub(super) name: String,
    pub(super) id: String,
    pub(super) group: Group,
    /// A process in its network namespace, unless that is the host's.
    pub(super) network: Option<i32>,
}

/// Takes a sample. A container that ends meanwhile has zeros in it.
pub(super) fn take(subject: &Subject, host: &Host, memory_total: u64) -> ContainerStats {
    let used = subject.group.stats().unwrap_or_default();
    let v2 = subject.group.v2_dir().is_some();
    ContainerStats {
        name: subject.name.clone(),
        id: subject.id.clone(),
        os_type: "linux".into(),
        read: Timestamp::now(),
        pids_stats: PidsStats {
            current: used.pids.current,
            limit: used.pids.limit.unwrap_or(if v2 { u64::MAX } else { 0 }),
        },
        blkio_stats: blkio(used.blkio, v2),
        cpu_stats: cpu(used.cpu, host),
        memory_stats: memory(&used.memory, v2, memory_total),
        networks: subject.network.and_then(networks),
        ..ContainerStats::default()
    }
}

fn cpu(used: cgroup::CpuStats, host: &Host) -> CpuStats {
    CpuStats {
        cpu_usage: CpuUsage {
            total_usage: used.usage,
            percpu_usage: used.per_cpu,
            usage_in_kernelmode: used.kernel,
            usage_in_usermode: used.user,
        },
        system_cpu_usage: host.cpu,
        online_cpus: host.cpus,
        throttling_data: ThrottlingData {
            periods: used.periods,
            throttled_periods: used.throttled_periods,
            throttled_time: used.throttled_time,
        },
    }
}

fn memory(used: &cgroup::MemoryStats, v2: bool, total: u64) -> MemoryStats {
    let told = |name: &str| match v2 {
        true => MEMORY_V2.contains(&name),
        false => {
            let own = name.strip_prefix("total_").unwrap_or(name);
            MEMORY_V1.contains(&own) || LIMITS_V1.contains(&name)
        }
    };
    MemoryStats {
        usage: used.usage,
        max_usage: if v2 { 0 } else { used.max_usage },
        stats: used
            .stat
            .iter()
            .filter(|(name, _)| told(name))
            .cloned()
            .collect(),
        failcnt: used.failcnt,
        limit: used.limit.min(total),
    }
}

fn blkio(used: cgroup::BlkioStats, v2: bool) -> BlkioStats {
    let list = |entries: Vec<cgroup::BlkioEntry>| -> Vec<BlkioEntry> {
        let told = |entry: cgroup::BlkioEntry| BlkioEntry {
            major: entry.major,
            minor: entry.minor,
            op: entry.op,
            value: entry.value,
        };
        entries.into_iter().map(told).collect()
    };
    let bytes = list(used.service_bytes);
    if v2 {
        return BlkioStats {
            io_service_bytes_recursive: Some(bytes).filter(|bytes| !bytes.is_empty()),
            ..BlkioStats::default()
        };
    }
    let none = || Some(Vec::new());
    BlkioStats {
        io_service_bytes_recursive: Some(bytes),
        io_serviced_recursive: Some(list(used.serviced)),
        io_queue_recursive: none(),
        io_service_time_recursive: none(),
        io_wait_time_recursive: none(),
        io_merged_recursive: none(),
        io_time_recursive: none(),
        sectors_recursive: none(),
    }
}

/// The interfaces of a process's network namespace, as the kernel shows them to us in its directory: nothing is entered.
fn networks(pid: i32) -> Option<BTreeMap<String, NetworkStats>> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/net/dev")).ok()?;
    let networks = interfaces(&text);
    (!networks.is_empty()).then_some(networks)
}

/// Source: proc(5), `/proc/net/dev`.
fn interfaces(text: &str) -> BTreeMap<String, NetworkStats> {
    let one = |line: &str| {
        let (name, counters) = line.split_once(':')?;
        let name = name.trim();
        let counters: Vec<u64> = counters.split_whitespace().flat_map(str::parse).collect();
        let &[rx_bytes, rx_packets, rx_errors, rx_dropped, ..] = counters.as_slice() else {
            return None;
        };
        let &[tx_bytes, tx_packets, tx_errors, tx_dropped, ..] = counters.get(8..)? else {
            return None;
        };
        let stats = NetworkStats {
            rx_bytes,
            rx_packets,
            rx_errors,
            rx_dropped,
            tx_bytes,
            tx_packets,
            tx_errors,
            tx_dropped,
        };
        (name != "lo").then(|| (name.to_owned(), stats))
    };
    text.lines().filter_map(one).collect()
}

#[cfg(test)]
mod tests;
