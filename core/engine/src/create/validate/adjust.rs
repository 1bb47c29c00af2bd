//! What this machine's kernel lacks is taken out of a request, with Docker's words of warning.

use gantry_model::container::HostConfig;
use gantry_sys::cgroup::{Cgroups, Mode};
use gantry_sys::host::HostFacts;

/// A limit, the control files that it needs, and how it is given up.
struct Limit {
    /// Controller of version 1, its files there and those of version 2; any one will do.
    needs: (
        &'static str,
        &'static [&'static str],
        &'static [&'static str],
    ),
    /// Whether it is asked for.
    asked: fn(&HostConfig) -> bool,
    /// Leaves it out.
    discard: fn(&mut HostConfig),
    words: &'static str,
}

const fn limit(
    needs: (
        &'static str,
        &'static [&'static str],
        &'static [&'static str],
    ),
    asked: fn(&HostConfig) -> bool,
    discard: fn(&mut HostConfig),
    words: &'static str,
) -> Limit {
    Limit {
        needs,
        asked,
        discard,
        words,
    }
}

fn given<T>(list: &Option<Vec<T>>) -> bool {
    list.as_ref().is_some_and(|list| !list.is_empty())
}

const NO_DEVICE_WEIGHT: &str = "Your kernel does not support Block I/O weight_device or the cgroup is not mounted. Weight-device discarded.";

const LIMITS: &[Limit] = &[
    limit(
        ("memory", &["memory.limit_in_bytes"], &["memory.max"]),
        |h| h.memory > 0,
        |h| (h.memory, h.memory_swap) = (0, -1),
        "Your kernel does not support memory limit capabilities or the cgroup is not mounted. Limitation discarded.",
    ),
    limit(
        (
            "memory",
            &["memory.memsw.limit_in_bytes"],
            &["memory.swap.max"],
        ),
        |h| h.memory > 0 && h.memory_swap != -1,
        |h| h.memory_swap = -1,
        "Your kernel does not support swap limit capabilities or the cgroup is not mounted. Memory limited without swap.",
    ),
    limit(
        ("memory", &["memory.swappiness"], &[]),
        |h| h.memory_swappiness.is_some_and(|s| s >= 0),
        |h| h.memory_swappiness = None,
        "Your kernel does not support memory swappiness capabilities or the cgroup is not mounted. Memory swappiness discarded.",
    ),
    limit(
        ("memory", &["memory.soft_limit_in_bytes"], &["memory.low"]),
        |h| h.memory_reservation > 0,
        |h| h.memory_reservation = 0,
        "Your kernel does not support memory soft limit capabilities or the cgroup is not mounted. Limitation discarded.",
    ),
    limit(
        ("memory", &["memory.kmem.tcp.limit_in_bytes"], &[]),
        |h| h.kernel_memory_tcp > 0,
        |h| h.kernel_memory_tcp = 0,
        "Your kernel does not support kernel memory TCP limit capabilities or the cgroup is not mounted. Limitation discarded.",
    ),
    limit(
        ("memory", &["memory.oom_control"], &[]),
        |h| h.oom_kill_disable == Some(true),
        |h| h.oom_kill_disable = None,
        "Your kernel does not support OomKillDisable. OomKillDisable discarded.",
    ),
    limit(
        ("pids", &["pids.max"], &["pids.max"]),
        |h| h.pids_limit.is_some_and(|limit| limit > 0),
        |h| h.pids_limit = None,
        "Your kernel does not support PIDs limit capabilities or the cgroup is not mounted. PIDs limit discarded.",
    ),
    limit(
        ("cpu", &["cpu.shares"], &["cpu.weight"]),
        |h| h.cpu_shares > 0,
        |h| h.cpu_shares = 0,
        "Your kernel does not support CPU shares or the cgroup is not mounted. Shares discarded.",
    ),
    limit(
        ("cpu", &["cpu.cfs_quota_us"], &["cpu.max"]),
        |h| h.cpu_period != 0 || h.cpu_quota != 0,
        |h| (h.cpu_period, h.cpu_quota) = (0, 0),
        "Your kernel does not support CPU CFS scheduler. CPU period/quota discarded.",
    ),
    limit(
        ("cpuset", &["cpuset.cpus"], &["cpuset.cpus"]),
        |h| !h.cpuset_cpus.is_empty() || !h.cpuset_mems.is_empty(),
        |h| {
            h.cpuset_cpus.clear();
            h.cpuset_mems.clear();
        },
        "Your kernel does not support cpuset or the cgroup is not mounted. CPUset discarded.",
    ),
    limit(
        (
            "blkio",
            &["blkio.weight", "blkio.bfq.weight"],
            &["io.weight", "io.bfq.weight"],
        ),
        |h| h.blkio_weight > 0,
        |h| h.blkio_weight = 0,
        "Your kernel does not support Block I/O weight or the cgroup is not mounted. Weight discarded.",
    ),
    limit(
        (
            "blkio",
            &["blkio.weight_device", "blkio.bfq.weight_device"],
            &["io.weight", "io.bfq.weight"],
        ),
        |h| given(&h.blkio_weight_device),
        |h| h.blkio_weight_device = Some(Vec::new()),
        NO_DEVICE_WEIGHT,
    ),
    limit(
        ("blkio", &["blkio.throttle.read_bps_device"], &["io.max"]),
        |h| given(&h.blkio_device_read_bps),
        |h| h.blkio_device_read_bps = Some(Vec::new()),
        "Your kernel does not support BPS Block I/O read limit or the cgroup is not mounted. Block I/O BPS read limit discarded.",
    ),
    limit(
        ("blkio", &["blkio.throttle.write_bps_device"], &["io.max"]),
        |h| given(&h.blkio_device_write_bps),
        |h| h.blkio_device_write_bps = Some(Vec::new()),
        "Your kernel does not support BPS Block I/O write limit or the cgroup is not mounted. Block I/O BPS write limit discarded.",
    ),
    limit(
        ("blkio", &["blkio.throttle.read_iops_device"], &["io.max"]),
        |h| given(&h.blkio_device_read_iops),
        |h| h.blkio_device_read_iops = Some(Vec::new()),
        "Your kernel does not support IOPS Block read limit or the cgroup is not mounted. Block I/O IOPS read limit discarded.",
    ),
    limit(
        ("blkio", &["blkio.throttle.write_iops_device"], &["io.max"]),
        |h| given(&h.blkio_device_write_iops),
        |h| h.blkio_device_write_iops = Some(Vec::new()),
        "Your kernel does not support IOPS Block write limit or the cgroup is not mounted. Block I/O IOPS write limit discarded.",
    ),
];

/// Leaves out what cannot be had; says what.
pub(crate) fn adjust(host: &mut HostConfig, facts: &HostFacts) -> Vec<String> {
    let mut warnings = Vec::new();
    for limit in LIMITS {
        if (limit.asked)(host) && !facts.cgroups.as_ref().is_some_and(|c| has(c, limit)) {
            (limit.discard)(host);
            warnings.push(limit.words.to_owned());
        }
    }
    if facts.cgroups.as_ref().is_some_and(only_bfq_weighs)
        && let Some(devices) = &mut host.blkio_weight_device
    {
        let before = devices.len();
        devices.retain(|device| !is_without_weights(&device.path));
        if devices.len() < before {
            warnings.push(NO_DEVICE_WEIGHT.into());
        }
    }
    if host.oom_kill_disable == Some(true) && host.memory == 0 {
        warnings.push(
            "OOM killer is disabled for the container, but no memory limit is set, this can result in the system running out of resources."
                .into(),
        );
    }
    if host.kernel_memory > 0 {
        warnings.push(
            "Specifying a kernel memory limit is deprecated and will be removed in a future release."
                .into(),
        );
    }
    if host.cpu_percent > 0 {
        host.cpu_percent = 0;
        warnings.push("linux does not support CPU percent. Percent discarded.".into());
    }
    warnings
}

/// Whether the weight of a device is the business of its scheduler alone.
fn only_bfq_weighs(cgroups: &Cgroups) -> bool {
    match cgroups.mode() {
        Mode::V2 => !cgroups.has_file("io", &["io.weight"]),
        Mode::V1 | Mode::Hybrid => !cgroups.has_file("blkio", &["blkio.weight_device"]),
    }
}

/// Whether a disk has another scheduler than the one that knows weights: the kernel refuses to set any then. What is no
/// disk is somebody else's error.
fn is_without_weights(path: &str) -> bool {
    let Ok(stat) = rustix::fs::stat(path) else {
        return false;
    };
    let (major, minor) = (
        rustix::fs::major(stat.st_rdev),
        rustix::fs::minor(stat.st_rdev),
    );
    let disk = format!("/sys/dev/block/{major}:{minor}");
    // A partition is scheduled by its disk.
    ["queue/scheduler", "../queue/scheduler"]
        .iter()
        .find_map(|file| std::fs::read_to_string(format!("{disk}/{file}")).ok())
        .is_some_and(|chosen| !chosen.contains("[bfq]"))
}

fn has(cgroups: &Cgroups, limit: &Limit) -> bool {
    let (controller, v1, v2) = limit.needs;
    match cgroups.mode() {
        Mode::V2 => cgroups.has_file(controller, v2),
        Mode::V1 | Mode::Hybrid => cgroups.has_file(controller, v1),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    /// A machine whose cgroup file system has these files.
    fn machine(files: &[&str], self_cgroup: &str) -> (tempfile::TempDir, HostFacts) {
        let dir = tempfile::tempdir().unwrap();
        let (root, proc) = (dir.path().join("cgroup"), dir.path().join("proc"));
        std::fs::create_dir_all(proc.join("self")).unwrap();
        std::fs::write(proc.join("self/cgroup"), self_cgroup).unwrap();
        for file in files {
            let path = root.join(file);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, "cpuset cpu io memory pids").unwrap();
        }
        let mut facts = HostFacts::probe(Path::new("/proc"), Path::new("/sys")).unwrap();
        facts.cgroups = Some(Cgroups::detect(&root, &proc).unwrap());
        (dir, facts)
    }

    fn everything() -> HostConfig {
        HostConfig {
            memory: 100 << 20,
            memory_swap: 200 << 20,
            memory_reservation: 50 << 20,
            memory_swappiness: Some(10),
            oom_kill_disable: Some(true),
            pids_limit: Some(5),
            cpu_shares: 512,
            cpu_quota: 50_000,
            cpuset_cpus: "0".into(),
            blkio_weight: 500,
            kernel_memory_tcp: 1 << 20,
            ..HostConfig::default()
        }
    }

    #[test]
    fn version_2_lacks_what_was_version_1s() {
        let (_dir, facts) = machine(
            &[
                "cgroup.controllers",
                "cgroup.procs",
                "system.slice/memory.max",
                "system.slice/memory.swap.max",
                "system.slice/memory.low",
                "system.slice/pids.max",
                "system.slice/cpu.weight",
                "system.slice/cpu.max",
                "system.slice/cpuset.cpus",
                "system.slice/io.weight",
            ],
            "0::/\n",
        );
        let mut host = everything();
        let warnings = adjust(&mut host, &facts);
        assert_eq!(warnings.len(), 3, "{warnings:#?}");
        assert_eq!(
            (host.memory_swappiness, host.oom_kill_disable),
            (None, None)
        );
        assert_eq!(host.kernel_memory_tcp, 0);
        assert_eq!(host.memory_swap, 200 << 20);
        assert_eq!(host.blkio_weight, 500);
    }

    #[test]
    fn version_1_without_swap_accounting_and_block_weights() {
        let (_dir, facts) = machine(
            &["memory/memory.limit_in_bytes", "memory/cgroup.procs"],
            "2:memory:/\n",
        );
        let mut host = HostConfig {
            memory: 100 << 20,
            blkio_weight: 500,
            cpu_percent: 10,
            ..HostConfig::default()
        };
        let warnings = adjust(&mut host, &facts);
        assert_eq!(warnings.len(), 3, "{warnings:#?}");
        assert!(warnings[0].ends_with("Memory limited without swap."));
        assert!(warnings[1].ends_with("Weight discarded."));
        assert!(warnings[2].ends_with("Percent discarded."));
        assert_eq!(
            (host.memory_swap, host.blkio_weight, host.cpu_percent),
            (-1, 0, 0)
        );
    }

    #[test]
    fn what_was_not_asked_for_is_not_missed() {
        let (_dir, facts) = machine(&["memory/cgroup.procs"], "2:memory:/\n");
        assert!(adjust(&mut HostConfig::default(), &facts).is_empty());
        assert!(adjust(&mut everything(), &facts).len() > 8);
    }
}
