//! Against directories that look like `/sys/fs/cgroup`.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use gantry_sys::cgroup::Cgroups;
use serde_json::{Value, json};

use super::*;

/// A group `g` with these files, and what is sampled of it on a host with 8000 bytes of memory.
fn sampled(files: &[(&str, &str)], own: &str) -> Value {
    let dir = tempfile::tempdir().unwrap();
    let (root, proc) = (dir.path().join("cgroup"), dir.path().join("proc"));
    fs::create_dir_all(proc.join("self")).unwrap();
    fs::write(proc.join("self/cgroup"), own).unwrap();
    for (path, text) in files {
        let path = root.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    let cgroups = Arc::new(Cgroups::detect(&root, &proc).unwrap());
    let subject = Subject {
        name: "/c".into(),
        id: "1".into(),
        group: Group::new(cgroups, Path::new("g")),
        network: None,
    };
    let host = Host { cpu: 77, cpus: 2 };
    serde_json::to_value(take(&subject, &host, 8000)).unwrap()
}

#[test]
fn version_1() {
    let stat = "cache 10\nrss 20\nshmem 5\ninactive_file 4\nhierarchical_memory_limit 4096\ntotal_cache 30\n\
        total_inactive_file 7\ntotal_shmem 3\n";
    let bytes = "254:0 Read 32768\n254:0 Write 8192\n254:0 Total 40960\nTotal 40960\n";
    let stats = sampled(
        &[
            ("cpu/cgroup.procs", ""),
            (
                "cpu/g/cpu.stat",
                "nr_periods 5\nnr_throttled 2\nthrottled_time 900\n",
            ),
            ("cpuacct/cgroup.procs", ""),
            ("cpuacct/g/cpuacct.stat", "user 3\nsystem 1\n"),
            ("cpuacct/g/cpuacct.usage_percpu", "26163069 776330 \n"),
            ("memory/cgroup.procs", ""),
            ("memory/g/memory.usage_in_bytes", "397312\n"),
            ("memory/g/memory.max_usage_in_bytes", "4128768\n"),
            ("memory/g/memory.limit_in_bytes", "9223372036854771712\n"),
            ("memory/g/memory.failcnt", "0\n"),
            ("memory/g/memory.stat", stat),
            ("pids/cgroup.procs", ""),
            ("pids/g/pids.current", "3\n"),
            ("pids/g/pids.max", "max\n"),
            ("blkio/cgroup.procs", ""),
            ("blkio/g/blkio.throttle.io_service_bytes_recursive", bytes),
            (
                "blkio/g/blkio.throttle.io_serviced_recursive",
                "254:0 Read 4\nTotal 4\n",
            ),
        ],
        "5:cpu:/\n4:cpuacct:/\n3:memory:/\n2:pids:/\n1:blkio:/\n",
    );
    let entry = |op: &str, value| json!({"major": 254, "minor": 0, "op": op, "value": value});
    assert_eq!(
        stats["blkio_stats"],
        json!({
            "io_service_bytes_recursive": [entry("Read", 32768), entry("Write", 8192), entry("Total", 40960)],
            "io_serviced_recursive": [entry("Read", 4)],
            "io_queue_recursive": [], "io_service_time_recursive": [], "io_wait_time_recursive": [],
            "io_merged_recursive": [], "io_time_recursive": [], "sectors_recursive": [],
        })
    );
    assert_eq!(
        stats["cpu_stats"],
        json!({
            "cpu_usage": {"total_usage": 26_939_399, "percpu_usage": [26_163_069, 776_330],
                "usage_in_kernelmode": 10_000_000, "usage_in_usermode": 30_000_000},
            "system_cpu_usage": 77, "online_cpus": 2,
            "throttling_data": {"periods": 5, "throttled_periods": 2, "throttled_time": 900},
        })
    );
    assert_eq!(
        stats["memory_stats"],
        json!({
            "usage": 397_312, "max_usage": 4_128_768, "limit": 8000,
            "stats": {"cache": 10, "rss": 20, "inactive_file": 4, "hierarchical_memory_limit": 4096,
                "total_cache": 30, "total_inactive_file": 7},
        })
    );
    assert_eq!(stats["pids_stats"], json!({"current": 3}));
    assert_eq!(stats["preread"], "0001-01-01T00:00:00Z");
    assert_eq!(stats.get("networks"), None);
}

#[test]
fn version_2() {
    let cpu = "usage_usec 3000\nuser_usec 2000\nsystem_usec 1000\nnr_periods 1\nnr_throttled 1\nthrottled_usec 4\n";
    let stats = sampled(
        &[
            ("cgroup.controllers", "cpu io memory pids\n"),
            ("g/cgroup.procs", "1\n"),
            ("g/cpu.stat", cpu),
            ("g/memory.current", "500\n"),
            ("g/memory.peak", "900\n"),
            ("g/memory.max", "1000\n"),
            (
                "g/memory.events",
                "low 0\nhigh 0\nmax 7\noom 2\noom_kill 1\n",
            ),
            (
                "g/memory.stat",
                "anon 1\nfile 2\npercpu 3\ninactive_file 4\n",
            ),
            ("g/pids.current", "3\n"),
            ("g/pids.max", "max\n"),
            (
                "g/io.stat",
                "8:0 rbytes=1 wbytes=2 rios=3 wios=4 dbytes=0 dios=0\n",
            ),
        ],
        "0::/\n",
    );
    let entry = |op: &str, value| json!({"major": 8, "minor": 0, "op": op, "value": value});
    let blkio = &stats["blkio_stats"];
    assert_eq!(
        blkio["io_service_bytes_recursive"],
        json!([entry("read", 1), entry("write", 2)])
    );
    assert_eq!(blkio["io_serviced_recursive"], Value::Null);
    let usage = &stats["cpu_stats"]["cpu_usage"];
    assert_eq!(
        *usage,
        json!({"total_usage": 3_000_000, "usage_in_kernelmode": 1_000_000, "usage_in_usermode": 2_000_000})
    );
    assert_eq!(
        stats["cpu_stats"]["throttling_data"]["throttled_time"],
        4000
    );
    assert_eq!(
        stats["memory_stats"],
        json!({"usage": 500, "limit": 1000, "failcnt": 2,
            "stats": {"anon": 1, "file": 2, "inactive_file": 4}})
    );
    assert_eq!(
        stats["pids_stats"],
        json!({"current": 3, "limit": u64::MAX})
    );
}

#[test]
fn interfaces_of_a_namespace() {
    let text = "Inter-|   Receive                                                |  Transmit\n\
         face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo colls carrier compressed\n\
            lo:     100       1    0    0    0     0          0         0      100       1    0    0    0     0       0          0\n\
          eth0: 5338 36 1 2 0 0 0 0 648 8 3 4 0 0 0 0\n";
    let found = interfaces(text);
    assert_eq!(found.len(), 1);
    let eth0 = &found["eth0"];
    assert_eq!(
        (
            eth0.rx_bytes,
            eth0.rx_packets,
            eth0.rx_errors,
            eth0.rx_dropped
        ),
        (5338, 36, 1, 2)
    );
    assert_eq!(
        (
            eth0.tx_bytes,
            eth0.tx_packets,
            eth0.tx_errors,
            eth0.tx_dropped
        ),
        (648, 8, 3, 4)
    );
    assert!(interfaces("eth0: 1 2 3\n").is_empty());
}
