//! Limits on version 2 as they are converted, changed and taken back.

use super::*;
use crate::cgroup::v2;

#[test]
fn v2_limits_are_converted() {
    let fake = Fake::new(V2_ROOT, "0::/\n");
    let group = fake.group("/gantry-x/../c1");
    assert_eq!(group.path(), Path::new("gantry-x/c1"));
    for name in [
        "memory.max",
        "memory.swap.max",
        "memory.low",
        "cpu.weight",
        "cpu.max",
        "cpuset.cpus",
        "cpuset.mems",
        "pids.max",
        "io.weight",
        "io.max",
    ] {
        fake.put(&format!("gantry-x/c1/{name}"), "");
    }
    group
        .apply(&Limits {
            memory: Some(100 << 20),
            memory_swap: Some(150 << 20),
            memory_reservation: Some(50 << 20),
            cpu_shares: Some(1024),
            cpu_quota: Some(50_000),
            cpuset_cpus: Some("0-1".into()),
            pids: Some(-1),
            blkio_weight: Some(500),
            read_bps: vec![DeviceValue {
                major: 8,
                minor: 0,
                value: 1024,
            }],
            ..Limits::default()
        })
        .unwrap();
    let text = |name: &str| fake.text(&format!("gantry-x/c1/{name}"));
    assert_eq!(text("memory.max"), (100 << 20).to_string());
    assert_eq!(text("memory.swap.max"), (50 << 20).to_string());
    assert_eq!(text("memory.low"), (50 << 20).to_string());
    assert_eq!(text("cpu.weight"), "100");
    assert_eq!(text("cpu.max"), "50000 100000");
    assert_eq!(text("cpuset.cpus"), "0-1");
    assert_eq!(text("pids.max"), "max");
    assert_eq!(text("io.weight"), "4950");
    assert_eq!(text("io.max"), "8:0 rbps=1024");
    let wrong = group.apply(&Limits {
        memory_swap: Some(1 << 20),
        ..Limits::default()
    });
    assert!(wrong.is_err());
}

fn sda(value: u64) -> Vec<DeviceValue> {
    vec![DeviceValue {
        major: 8,
        minor: 0,
        value,
    }]
}

#[test]
fn v2_updates_are_taken_back() {
    let before = [
        ("memory.max", "1048576"),
        ("memory.swap.max", "0"),
        ("cpu.max", "max 100000"),
        ("cpuset.cpus", ""),
        ("io.weight", "default 100\n8:0 20"),
        (
            "io.max",
            "7:0 rbps=5 wbps=max riops=max wiops=max\n8:0 rbps=9 wbps=max riops=max wiops=max",
        ),
    ];
    let fake = Fake::new(V2_ROOT, "0::/\n");
    // A write does not cut the file off, as it does not in the kernel.
    let says = |name: &str, want: &str| {
        let text = fake.text(&format!("g/c1/{name}"));
        assert!(text.starts_with(want), "{name}: {text}");
    };
    for (name, value) in before {
        fake.put(&format!("g/c1/{name}"), value);
    }
    let limits = Limits {
        memory: Some(2 << 20),
        memory_swap: Some(3 << 20),
        cpu_quota: Some(50_000),
        cpuset_cpus: Some("0".into()),
        blkio_weight_device: sda(0),
        read_bps: sda(0),
        ..Limits::default()
    };
    let restore = fake.group("g/c1").update(&limits).unwrap();
    says("memory.max", "2097152");
    says("io.weight", "8:0 default");
    says("io.max", "8:0 rbps=max");
    restore.put_back();
    says("memory.max", "1048576");
    says("memory.swap.max", "0");
    says("cpu.max", "max 100000");
    says("cpuset.cpus", "\n");
    says("io.weight", "8:0 20");
    says("io.max", "8:0 rbps=9 wbps=max riops=max wiops=max");

    // One that refuses (there is no such file) costs the others their effect.
    let refused = Limits {
        pids: Some(5),
        ..limits
    };
    let error = fake.group("g/c1").update(&refused).unwrap_err();
    assert!(error.path.ends_with("pids.max"), "{error}");
    says("memory.max", "1048576");
    says("cpu.max", "max 100000");
}

#[test]
fn weights_follow_runc() {
    let pairs = [
        (0, None),
        (1, Some(1)),
        (2, Some(1)),
        (1024, Some(100)),
        (262_144, Some(10_000)),
        (500_000, Some(10_000)),
    ];
    for (shares, weight) in pairs {
        assert_eq!(v2::cpu_weight(shares), weight, "{shares}");
    }
    assert_eq!(v2::io_weight(10), 1);
    assert_eq!(v2::io_weight(1000), 10_000);
}

#[test]
fn v2_hands_controllers_down_and_reads_statistics() {
    let fake = Fake::new(V2_ROOT, "0::/\n");
    let group = fake.group("gantry-x/c1");
    group.create().unwrap();
    group.create().unwrap();
    // A real kernel adds to the file; here the last write is seen.
    assert!(fake.text("cgroup.subtree_control").starts_with("+pids"));
    fake.put("gantry-x/c1/cgroup.procs", "7\n5\n");
    fake.put("gantry-x/c1/below/cgroup.procs", "9\n0\n");
    assert_eq!(group.pids().unwrap(), [5, 7, 9]);
    fake.put(
        "gantry-x/c1/cpu.stat",
        "usage_usec 5\nuser_usec 3\nsystem_usec 2\nnr_throttled 1\n",
    );
    fake.put("gantry-x/c1/memory.current", "4096\n");
    fake.put("gantry-x/c1/memory.max", "max\n");
    fake.put("gantry-x/c1/memory.events", "low 0\noom_kill 2\n");
    fake.put("gantry-x/c1/pids.max", "10\n");
    fake.put(
        "gantry-x/c1/io.stat",
        "8:0 rbytes=1 wbytes=2 rios=3 wios=4 dbytes=0\n",
    );
    let stats = group.stats().unwrap();
    assert_eq!(stats.cpu.usage, 5000);
    assert_eq!(stats.memory.limit, u64::MAX);
    assert_eq!(stats.memory.usage, 4096);
    assert_eq!(group.oom_kills(), 2);
    assert_eq!(stats.pids.limit, Some(10));
    assert_eq!(stats.blkio.serviced[1].value, 4);
    assert!(fake.group("gantry-x/none").stats().is_err());
}
