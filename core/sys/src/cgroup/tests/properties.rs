//! Every limit of Docker's, and the file it is written to on version 2. The table of the container's properties names
//! these tests.

use super::*;

/// Applies limits to a group whose files are empty; returns what each file says afterwards.
fn written(limits: &Limits) -> Vec<(String, String)> {
    const FILES: [&str; 10] = [
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
    ];
    let fake = Fake::new(V2_ROOT, "0::/\n");
    for name in FILES {
        fake.put(&format!("c/{name}"), "");
    }
    fake.group("c").apply(limits).unwrap();
    let all = fs::read_dir(fake.root().join("c")).unwrap().flatten();
    let mut all: Vec<_> = all
        .map(|file| {
            let name = file.file_name().to_string_lossy().into_owned();
            let text = fs::read_to_string(file.path()).unwrap();
            (name, text)
        })
        .filter(|(_, text)| !text.is_empty())
        .collect();
    all.sort();
    all
}

fn check(limits: Limits, want: &[(&str, &str)]) {
    let got = written(&limits);
    let got: Vec<_> = got.iter().map(|(n, t)| (n.as_str(), t.as_str())).collect();
    assert_eq!(got, want, "{limits:?}");
}

#[test]
fn v2_memory() {
    let memory = || Limits {
        memory: Some(100 << 20),
        ..Limits::default()
    };
    check(memory(), &[("memory.max", "104857600")]);
    let both = Limits {
        memory_swap: Some(150 << 20),
        ..memory()
    };
    check(
        both,
        &[("memory.max", "104857600"), ("memory.swap.max", "52428800")],
    );
    let unlimited = Limits {
        memory_swap: Some(-1),
        ..memory()
    };
    check(
        unlimited,
        &[("memory.max", "104857600"), ("memory.swap.max", "max")],
    );
    let reservation = Limits {
        memory_reservation: Some(50 << 20),
        ..Limits::default()
    };
    check(reservation, &[("memory.low", "52428800")]);
}

#[test]
fn v2_cpu() {
    let limits = Limits::default;
    let shares = Limits {
        cpu_shares: Some(512),
        ..limits()
    };
    check(shares, &[("cpu.weight", "59")]);
    let quota = Limits {
        cpu_quota: Some(25_000),
        cpu_period: Some(50_000),
        ..limits()
    };
    check(quota, &[("cpu.max", "25000 50000")]);
    let period = Limits {
        cpu_period: Some(50_000),
        ..limits()
    };
    check(period, &[("cpu.max", "max 50000")]);
    let places = Limits {
        cpuset_cpus: Some("0-1".into()),
        cpuset_mems: Some("0".into()),
        ..limits()
    };
    check(places, &[("cpuset.cpus", "0-1"), ("cpuset.mems", "0")]);
}

#[test]
fn v2_pids() {
    for (limit, want) in [(77, "77"), (0, "max"), (-1, "max")] {
        let pids = Limits {
            pids: Some(limit),
            ..Limits::default()
        };
        check(pids, &[("pids.max", want)]);
    }
}

#[test]
fn v2_block_io() {
    let device = |value| {
        vec![DeviceValue {
            major: 8,
            minor: 16,
            value,
        }]
    };
    let limits = Limits::default;
    let weight = Limits {
        blkio_weight: Some(500),
        ..limits()
    };
    check(weight, &[("io.weight", "4950")]);
    let weights = Limits {
        blkio_weight_device: device(1000),
        ..limits()
    };
    check(weights, &[("io.weight", "8:16 10000")]);
    let throttles = [
        (
            "rbps",
            Limits {
                read_bps: device(1024),
                ..limits()
            },
        ),
        (
            "wbps",
            Limits {
                write_bps: device(1024),
                ..limits()
            },
        ),
        (
            "riops",
            Limits {
                read_iops: device(1024),
                ..limits()
            },
        ),
        (
            "wiops",
            Limits {
                write_iops: device(1024),
                ..limits()
            },
        ),
    ];
    for (key, limits) in throttles {
        check(limits, &[("io.max", &format!("8:16 {key}=1024"))]);
    }
}

#[test]
fn v2_does_not_know_what_only_v1_has() {
    let limits = Limits {
        memory_swappiness: Some(10),
        kernel_memory_tcp: Some(16 << 20),
        oom_kill_disable: Some(true),
        cpu_realtime_period: Some(500_000),
        cpu_realtime_runtime: Some(50_000),
        ..Limits::default()
    };
    check(limits, &[]);
}
