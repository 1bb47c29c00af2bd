//! Every limit as it reaches the files of version 1, and device rules of both versions where no kernel takes them.

use super::*;

const LINES: &str = "5:pids:/\n4:blkio:/\n3:devices:/\n2:cpuset:/\n1:cpu,cpuacct:/\n0:memory:/\n";

/// Hierarchies of version 1 whose group `c` has these files.
fn fake(files: &[&str]) -> (Fake, Group) {
    let roots = [
        "memory",
        "cpu,cpuacct",
        "cpuset",
        "blkio",
        "pids",
        "devices",
    ];
    let roots: Vec<String> = roots.iter().map(|r| format!("{r}/cgroup.procs")).collect();
    let roots: Vec<(&str, &str)> = roots.iter().map(|r| (r.as_str(), "")).collect();
    let fake = Fake::new(&roots, LINES);
    for file in files {
        let controller = file.split('.').next().unwrap();
        let hierarchy = match controller {
            "cpu" => "cpu,cpuacct",
            other => other,
        };
        fake.put(&format!("{hierarchy}/c/{file}"), "");
    }
    let group = fake.group("c");
    (fake, group)
}

#[test]
fn every_limit_has_its_file() {
    let device = |value| {
        vec![DeviceValue {
            major: 8,
            minor: 16,
            value,
        }]
    };
    let limits = Limits {
        memory: Some(100 << 20),
        memory_swap: Some(200 << 20),
        memory_reservation: Some(50 << 20),
        memory_swappiness: Some(30),
        kernel_memory_tcp: Some(4096),
        oom_kill_disable: Some(true),
        cpu_shares: Some(512),
        cpu_quota: Some(25_000),
        cpu_period: Some(50_000),
        cpu_realtime_runtime: Some(1000),
        cpu_realtime_period: Some(10_000),
        cpuset_cpus: Some("0-1".into()),
        cpuset_mems: Some("0".into()),
        pids: Some(7),
        blkio_weight: Some(300),
        blkio_weight_device: device(400),
        read_bps: device(1),
        write_bps: device(2),
        read_iops: device(3),
        write_iops: device(4),
    };
    let want = [
        ("memory.limit_in_bytes", "104857600"),
        ("memory.memsw.limit_in_bytes", "209715200"),
        ("memory.soft_limit_in_bytes", "52428800"),
        ("memory.swappiness", "30"),
        ("memory.kmem.tcp.limit_in_bytes", "4096"),
        ("memory.oom_control", "1"),
        ("cpu.shares", "512"),
        ("cpu.cfs_quota_us", "25000"),
        ("cpu.cfs_period_us", "50000"),
        ("cpu.rt_runtime_us", "1000"),
        ("cpu.rt_period_us", "10000"),
        ("cpuset.cpus", "0-1"),
        ("cpuset.mems", "0"),
        ("pids.max", "7"),
        ("blkio.weight", "300"),
        ("blkio.weight_device", "8:16 400"),
        ("blkio.throttle.read_bps_device", "8:16 1"),
        ("blkio.throttle.write_bps_device", "8:16 2"),
        ("blkio.throttle.read_iops_device", "8:16 3"),
        ("blkio.throttle.write_iops_device", "8:16 4"),
    ];
    let names: Vec<&str> = want.iter().map(|(name, _)| *name).collect();
    let (fake, group) = fake(&names);
    group.apply(&limits).unwrap();
    for (name, value) in want {
        let hierarchy = match name.split('.').next().unwrap() {
            "cpu" => "cpu,cpuacct",
            other => other,
        };
        assert_eq!(fake.text(&format!("{hierarchy}/c/{name}")), value, "{name}");
    }
}

#[test]
fn no_limit_and_the_weights_of_another_scheduler() {
    let (fake, group) = fake(&["pids.max", "blkio.bfq.weight", "memory.limit_in_bytes"]);
    let limits = Limits {
        pids: Some(0),
        blkio_weight: Some(10),
        memory: Some(-1),
        memory_swap: Some(-1),
        ..Limits::default()
    };
    group.apply(&limits).unwrap();
    assert_eq!(fake.text("pids/c/pids.max"), "max");
    assert_eq!(fake.text("blkio/c/blkio.bfq.weight"), "10");
    assert_eq!(fake.text("memory/c/memory.limit_in_bytes"), "-1");
}

#[test]
fn a_limit_without_its_controller_is_an_error() {
    let fake = Fake::new(&[("pids/cgroup.procs", "")], "1:pids:/\n");
    fake.put("pids/c/pids.max", "");
    let limits = Limits {
        memory: Some(1 << 20),
        ..Limits::default()
    };
    let error = fake.group("c").apply(&limits).unwrap_err();
    assert!(error.to_string().contains("memory"), "{error}");
}

#[test]
fn device_rules_are_written_or_refused() {
    let rules = [
        DeviceRule::everything(false),
        DeviceRule::parse("c 1:3 rwm", true).unwrap(),
        DeviceRule::parse("b 8:* r", true).unwrap(),
    ];
    let (fake, group) = fake(&["devices.allow", "devices.deny"]);
    group.set_devices(&rules).unwrap();
    // Each file shows what was written to it last.
    assert!(fake.text("devices/c/devices.deny").starts_with('a'));
    assert!(fake.text("devices/c/devices.allow").contains("b 8:* r"));

    // A directory that takes no program must not pass for a group whose rules are in force.
    let fake = Fake::new(V2_ROOT, "0::/\n");
    let group = fake.group("c");
    group.create().unwrap();
    assert!(group.set_devices(&rules).is_err());
}
