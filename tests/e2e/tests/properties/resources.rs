//! Limits, read from the container's control group (version 1; the table names the tests of version 2).

use std::fs;
use std::path::{Path, PathBuf};

use gantry_e2e::run;
use serde_json::json;

use crate::lab::{Lab, Seen, host};

const MB: i64 = 1 << 20;

/// Memory.
pub(crate) fn memory(lab: &Lab<'_>, seen: &Seen) {
    let container = lab.hold(&host(
        json!({"Memory": 64 * MB, "MemorySwap": 96 * MB, "MemoryReservation": 32 * MB,
        "MemorySwappiness": 10, "OomKillDisable": true, "KernelMemoryTCP": 16 * MB}),
    ));
    let limit = |file| container.limit("memory", file);
    let bytes = |n: i64| (n * MB).to_string();
    seen.eq(
        "HostConfig.Memory",
        limit("memory.limit_in_bytes"),
        bytes(64),
    );
    seen.eq(
        "HostConfig.MemorySwap",
        limit("memory.memsw.limit_in_bytes"),
        bytes(96),
    );
    seen.eq(
        "HostConfig.MemoryReservation",
        limit("memory.soft_limit_in_bytes"),
        bytes(32),
    );
    seen.eq(
        "HostConfig.MemorySwappiness",
        limit("memory.swappiness"),
        "10",
    );
    let control = limit("memory.oom_control");
    seen.holds(
        "HostConfig.OomKillDisable",
        control.contains("oom_kill_disable 1"),
        control,
    );
    seen.eq(
        "HostConfig.KernelMemoryTCP",
        limit("memory.kmem.tcp.limit_in_bytes"),
        bytes(16),
    );
    let double = lab.hold(&host(json!({"Memory": 64 * MB})));
    seen.eq(
        "HostConfig.MemorySwap",
        double.limit("memory", "memory.memsw.limit_in_bytes"),
        bytes(128),
    );
    // Kernels since 5.16 refuse to limit their own memory; dockerd has warned of it since 20.10.
    let obsolete = lab.hold(&host(json!({"KernelMemory": 32 * MB})));
    seen.holds(
        "HostConfig.KernelMemory",
        obsolete.warnings.len() == 1,
        format!("{:?}", obsolete.warnings),
    );
    for (field, config, words) in [
        (
            "Memory",
            json!({"Memory": MB}),
            "Minimum memory limit allowed is 6MB",
        ),
        (
            "MemorySwap",
            json!({"MemorySwap": 96 * MB}),
            "You should always set the Memory limit when using Memoryswap limit",
        ),
        (
            "MemorySwap",
            json!({"Memory": 64 * MB, "MemorySwap": 32 * MB}),
            "Minimum memoryswap limit should be larger than memory limit",
        ),
        (
            "MemoryReservation",
            json!({"MemoryReservation": MB}),
            "Minimum memory reservation allowed is 6MB",
        ),
        (
            "MemoryReservation",
            json!({"Memory": 32 * MB, "MemoryReservation": 64 * MB}),
            "Minimum memory limit can not be less than memory reservation limit",
        ),
        (
            "MemorySwappiness",
            json!({"MemorySwappiness": 101}),
            "Invalid value: 101, valid memory swappiness range is 0-100",
        ),
    ] {
        seen.refused(
            &format!("HostConfig.{field}"),
            lab.refusal(&host(config)),
            400,
            words,
        );
    }
}

/// CPU time and placement.
pub(crate) fn cpu(lab: &Lab<'_>, seen: &Seen) {
    let container = lab.hold(&host(json!({"CpuShares": 512, "CpuPeriod": 50_000, "CpuQuota": 25_000, "CpusetCpus": "0", "CpusetMems": "0"})));
    seen.eq(
        "HostConfig.CpuShares",
        container.limit("cpu", "cpu.shares"),
        "512",
    );
    seen.eq(
        "HostConfig.CpuPeriod",
        container.limit("cpu", "cpu.cfs_period_us"),
        "50000",
    );
    seen.eq(
        "HostConfig.CpuQuota",
        container.limit("cpu", "cpu.cfs_quota_us"),
        "25000",
    );
    seen.eq(
        "HostConfig.CpusetCpus",
        container.limit("cpuset", "cpuset.cpus"),
        "0",
    );
    let inside = container.exec("echo cpus=$(grep Cpus_allowed_list /proc/self/status | cut -f2)");
    seen.eq("HostConfig.CpusetCpus", inside.get("cpus"), "0");
    seen.eq(
        "HostConfig.CpusetMems",
        container.limit("cpuset", "cpuset.mems"),
        "0",
    );
    let half = lab.hold(&host(json!({"NanoCpus": 5e8})));
    let quota = (
        half.limit("cpu", "cpu.cfs_quota_us"),
        half.limit("cpu", "cpu.cfs_period_us"),
    );
    seen.eq(
        "HostConfig.NanoCpus",
        quota,
        ("50000".to_owned(), "100000".to_owned()),
    );
    for (field, config, words) in [
        (
            "NanoCpus",
            json!({"NanoCpus": 1e9, "CpuPeriod": 1000}),
            "Nano CPUs and CPU Period cannot both be set",
        ),
        (
            "NanoCpus",
            json!({"NanoCpus": 1e9, "CpuQuota": 1000}),
            "Nano CPUs and CPU Quota cannot both be set",
        ),
        (
            "NanoCpus",
            json!({"NanoCpus": 1e15}),
            "Range of CPUs is from 0.01 to ",
        ),
        (
            "CpuPeriod",
            json!({"CpuPeriod": 5}),
            "CPU cfs period can not be less than 1ms (i.e. 1000) or larger than 1s (i.e. 1000000)",
        ),
        (
            "CpuQuota",
            json!({"CpuQuota": 5}),
            "CPU cfs quota can not be less than 1ms (i.e. 1000)",
        ),
        (
            "CpusetCpus",
            json!({"CpusetCpus": "8000"}),
            "Requested CPUs are not available - requested 8000, available: ",
        ),
        (
            "CpusetCpus",
            json!({"CpusetCpus": "x"}),
            "Invalid value x for cpuset cpus",
        ),
        (
            "CpusetMems",
            json!({"CpusetMems": "900"}),
            "Requested memory nodes are not available - requested 900, available: ",
        ),
        (
            "CpusetMems",
            json!({"CpusetMems": "x"}),
            "Invalid value x for cpuset mems",
        ),
    ] {
        seen.refused(
            &format!("HostConfig.{field}"),
            lab.refusal(&host(config)),
            400,
            words,
        );
    }
    for (shares, words) in [
        (-1, "shares: invalid argument"),
        (1, "the minimum allowed cpu-shares is 2"),
        (300_000, "the maximum allowed cpu-shares is 262144"),
    ] {
        let reply = lab.refusal(&host(json!({"CpuShares": shares})));
        seen.refused("HostConfig.CpuShares", reply, 400, words);
    }
}

/// Realtime scheduling, which needs a parent that has some to give.
pub(crate) fn realtime(lab: &Lab<'_>, seen: &Seen) {
    let parent = Parent::new("cpu", "realtime");
    fs::write(parent.0.join("cpu.rt_runtime_us"), "200000").expect("the root has 950000");
    let container = lab.hold(&host(json!({"CpuRealtimePeriod": 500_000, "CpuRealtimeRuntime": 50_000, "CgroupParent": parent.name()})));
    seen.eq(
        "HostConfig.CpuRealtimePeriod",
        container.limit("cpu", "cpu.rt_period_us"),
        "500000",
    );
    seen.eq(
        "HostConfig.CpuRealtimeRuntime",
        container.limit("cpu", "cpu.rt_runtime_us"),
        "50000",
    );
    let more = lab.refusal(&host(
        json!({"CpuRealtimePeriod": 1000, "CpuRealtimeRuntime": 2000}),
    ));
    let words = "cpu real-time runtime cannot be higher than cpu real-time period";
    seen.refused("HostConfig.CpuRealtimeRuntime", more, 400, words);
}

/// Processes.
pub(crate) fn pids(lab: &Lab<'_>, seen: &Seen) {
    let few = lab.hold(&host(json!({"PidsLimit": 77})));
    seen.eq("HostConfig.PidsLimit", few.limit("pids", "pids.max"), "77");
    for none in [0, -1] {
        let many = lab.hold(&host(json!({"PidsLimit": none})));
        seen.eq(
            "HostConfig.PidsLimit",
            many.limit("pids", "pids.max"),
            "max",
        );
    }
}

/// Block devices: throttles, and weights under a scheduler that knows them.
pub(crate) fn block_io(lab: &Lab<'_>, seen: &Seen) {
    let disk = Disk::new(&lab.engine.dir().join("disk"));
    let (path, number) = (&disk.path, &disk.number);
    let throttle = |rate| json!([{"Path": path, "Rate": rate}]);
    let container = lab.hold(&host(json!({
        "BlkioDeviceReadBps": throttle(1_000_000), "BlkioDeviceWriteBps": throttle(2_000_000),
        "BlkioDeviceReadIOps": throttle(300), "BlkioDeviceWriteIOps": throttle(400),
        "BlkioWeight": 300, "BlkioWeightDevice": [{"Path": path, "Weight": 400}]
    })));
    for (field, file, rate) in [
        ("ReadBps", "read_bps_device", 1_000_000),
        ("WriteBps", "write_bps_device", 2_000_000),
        ("ReadIOps", "read_iops_device", 300),
        ("WriteIOps", "write_iops_device", 400),
    ] {
        let line = container.limit("blkio", &format!("blkio.throttle.{file}"));
        let want = format!("{number} {rate}");
        let property = format!("HostConfig.BlkioDevice{field}");
        for property in [&property, "ThrottleDevice.Path", "ThrottleDevice.Rate"] {
            seen.eq(property, line.as_str(), want.as_str());
        }
        let missing = json!([{"Path": "/dev/nope", "Rate": 5}]);
        let (status, said) = lab.refusal(&host(json!({format!("BlkioDevice{field}"): missing})));
        let good = status >= 400 && said.contains("/dev/nope: no such file or directory");
        seen.holds("ThrottleDevice.Path", good, said);
    }
    let weight = container.limit("blkio", "blkio.bfq.weight");
    seen.eq("HostConfig.BlkioWeight", weight, "300");
    let devices = container.limit("blkio", "blkio.bfq.weight_device");
    for property in [
        "HostConfig.BlkioWeightDevice",
        "WeightDevice.Path",
        "WeightDevice.Weight",
    ] {
        seen.holds(
            property,
            devices.contains(&format!("{number} 400")),
            &devices,
        );
    }
    disk.schedule("none");
    let weight = json!([{"Path": path, "Weight": 400}]);
    let discarded = lab.hold(&host(json!({"BlkioWeightDevice": weight})));
    let words = "Your kernel does not support Block I/O weight_device or the cgroup is not mounted. Weight-device discarded.";
    seen.eq(
        "HostConfig.BlkioWeightDevice",
        discarded.warnings.as_slice(),
        [words],
    );
    for (field, config) in [
        ("HostConfig.BlkioWeight", json!({"BlkioWeight": 5})),
        (
            "WeightDevice.Weight",
            json!({"BlkioWeightDevice": [{"Path": path, "Weight": 5}]}),
        ),
    ] {
        let words = "Range of blkio weight is from 10 to 1000";
        seen.refused(field, lab.refusal(&host(config)), 400, words);
    }
}

/// A disk in a file, with the one scheduler that knows weights.
struct Disk {
    path: String,
    number: String,
}

impl Disk {
    fn new(file: &Path) -> Self {
        let image = fs::File::create(file).expect("a temporary directory is writable");
        image.set_len(8 << 20).expect("there is room");
        let path = run("losetup", &["-f", "--show", &file.display().to_string()]).ok();
        let mut disk = Self {
            path,
            number: String::new(),
        };
        disk.schedule("bfq");
        let number = fs::read_to_string(disk.sys("dev")).expect("it is there");
        number.trim().clone_into(&mut disk.number);
        disk
    }
    fn sys(&self, file: &str) -> PathBuf {
        let name = self.path.trim_start_matches("/dev/");
        Path::new("/sys/block").join(name).join(file)
    }
    fn schedule(&self, scheduler: &str) {
        fs::write(self.sys("queue/scheduler"), scheduler).expect("the kernel has it");
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        run("losetup", &["-d", &self.path]);
    }
}

/// Where the group is made.
pub(crate) fn parent(lab: &Lab<'_>, seen: &Seen) {
    let name = format!("gantry-e2e-{}", lab.engine.tag());
    for (asked, want) in [
        (format!("/{name}/a"), format!("/{name}/a/")),
        (format!("{name}/b"), format!("/{name}/b/")),
        (format!("../../{name}"), format!("/{name}/")),
    ] {
        let container = lab.hold(&host(json!({"CgroupParent": asked})));
        for controller in ["memory", "pids", "devices"] {
            let path = container.cgroup(controller);
            seen.eq(
                "HostConfig.CgroupParent",
                path,
                format!("{want}{}", container.id),
            );
        }
    }
    for hierarchy in fs::read_dir("/sys/fs/cgroup")
        .expect("it is mounted")
        .flatten()
    {
        for sub in ["a", "b", ""] {
            // Hierarchies may be links to each other.
            let _ = fs::remove_dir(hierarchy.path().join(&name).join(sub));
        }
    }
}

/// A group that containers are made in.
struct Parent(std::path::PathBuf);

impl Parent {
    fn new(controller: &str, what: &str) -> Self {
        let path = Path::new("/sys/fs/cgroup")
            .join(controller)
            .join(format!("gantry-e2e-{}-{what}", std::process::id()));
        fs::create_dir(&path).expect("the hierarchy is writable");
        Self(path)
    }
    fn name(&self) -> String {
        format!(
            "/{}",
            self.0.file_name().expect("it has a name").to_string_lossy()
        )
    }
}

impl Drop for Parent {
    fn drop(&mut self) {
        let name = self.name();
        for hierarchy in fs::read_dir("/sys/fs/cgroup")
            .expect("it is mounted")
            .flatten()
        {
            let _ = fs::remove_dir(hierarchy.path().join(&name[1..]));
        }
    }
}
