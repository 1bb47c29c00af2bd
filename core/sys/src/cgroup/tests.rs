//! Against fake roots (files in a directory), and against this machine's own hierarchies.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::sync::Arc;

use super::*;

mod properties;
mod v1;

/// A directory that looks like `/sys/fs/cgroup`, and one that looks like `/proc`.
struct Fake {
    dir: tempfile::TempDir,
}

impl Fake {
    fn new(files: &[(&str, &str)], self_cgroup: &str) -> Self {
        let fake = Self {
            dir: tempfile::tempdir().unwrap(),
        };
        fs::create_dir_all(fake.proc().join("self")).unwrap();
        fs::write(fake.proc().join("self/cgroup"), self_cgroup).unwrap();
        fs::create_dir(fake.root()).unwrap();
        for (path, text) in files {
            fake.put(path, text);
        }
        fake
    }
    fn proc(&self) -> PathBuf {
        self.dir.path().join("proc")
    }
    fn root(&self) -> PathBuf {
        self.dir.path().join("cgroup")
    }
    fn put(&self, path: &str, text: &str) {
        let path = self.root().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    fn text(&self, path: &str) -> String {
        fs::read_to_string(self.root().join(path)).unwrap()
    }
    fn detect(&self) -> Cgroups {
        Cgroups::detect(&self.root(), &self.proc()).unwrap()
    }
    fn group(&self, path: &str) -> Group {
        Group::new(Arc::new(self.detect()), Path::new(path))
    }
}

const V2_ROOT: &[(&str, &str)] = &[
    ("cgroup.controllers", "cpuset cpu io memory pids\n"),
    ("cgroup.subtree_control", "cpu\n"),
    ("cgroup.procs", ""),
];

#[test]
fn modes_are_told_apart() {
    assert_eq!(Fake::new(V2_ROOT, "0::/\n").detect().mode(), Mode::V2);
    let lines = "3:cpu,cpuacct:/\n2:memory:/\n1:name=systemd:/\n0::/\n";
    let v1: &[(&str, &str)] = &[
        ("cpu,cpuacct/cgroup.procs", ""),
        ("memory/cgroup.procs", ""),
        ("systemd/cgroup.procs", ""),
    ];
    let fake = Fake::new(v1, lines);
    let found = fake.detect();
    assert_eq!(found.mode(), Mode::V1);
    assert_eq!(found.mode().version(), "1");
    assert!(found.has("cpuacct") && found.has("cpu") && !found.has("pids"));
    assert_eq!(found.v1()["cpu"], found.v1()["cpuacct"]);
    assert_eq!(fake.group("a/b").v1_dirs().len(), 2);
    fake.put("unified/cgroup.procs", "");
    assert_eq!(fake.detect().mode(), Mode::Hybrid);
    // What another runtime has made where we make nothing is taken away all the same.
    let idle = ["systemd/p/c", "unified/p/c"].map(|path| fake.root().join(path));
    idle.iter().for_each(|dir| fs::create_dir_all(dir).unwrap());
    assert_eq!(
        fake.detect()
            .list(Path::new("p"))
            .into_iter()
            .collect::<Vec<_>>(),
        ["c"]
    );
    fake.group("p/c").remove().unwrap();
    assert!(idle.iter().all(|dir| !dir.exists()));
    let empty = Fake::new(&[], "");
    assert!(Cgroups::detect(&empty.root(), &empty.proc()).is_err());
}

#[test]
fn files_of_groups_are_found() {
    let fake = Fake::new(V2_ROOT, "0::/\n");
    assert!(!fake.detect().has_file("memory", &["memory.max"]));
    assert_eq!(fs::read_dir(fake.root()).unwrap().count(), V2_ROOT.len());
    fake.put("a.slice/cgroup.procs", "");
    fake.put("b.slice/memory.max", "");
    assert!(
        fake.detect()
            .has_file("memory", &["memory.other", "memory.max"])
    );
    assert!(!fake.detect().has_file("hugetlb", &["memory.max"]));
    if let Some(here) = here().filter(|here| here.mode() != Mode::V2 && here.has("pids")) {
        // It is in every group but the root.
        assert!(here.has_file("pids", &["pids.max"]));
        assert!(!here.has_file("pids", &["pids.none"]));
    }
}

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
fn a_group_in_use_here_is_updated_wholly_or_not_at_all() {
    let Some(own) = Own::new("update") else {
        eprintln!("no cgroups may be made here");
        return;
    };
    let Some(memory) = own.0.memory_dir().filter(|_| own.0.v2_dir().is_none()) else {
        return;
    };
    let number = |name: &str| -> i64 {
        let text = fs::read_to_string(memory.join(name)).unwrap();
        text.trim().parse().unwrap()
    };
    let both = |memory: i64, swap: i64| Limits {
        memory: Some(memory << 20),
        memory_swap: Some(swap << 20),
        ..Limits::default()
    };
    let read = || {
        (
            number("memory.limit_in_bytes") >> 20,
            number("memory.memsw.limit_in_bytes") >> 20,
        )
    };
    // Whatever the order of sizes, memory never exceeds memory and swap on the way.
    for (memory, swap) in [(10, 20), (30, 60), (10, 15), (12, 100), (50, 60), (8, 8)] {
        drop(own.0.update(&both(memory, swap)).unwrap());
        assert_eq!(read(), (memory, swap));
    }
    let refused = Limits {
        cpuset_cpus: Some("4000".into()),
        ..both(20, 40)
    };
    assert!(own.0.update(&refused).is_err());
    assert_eq!(read(), (8, 8));
}

#[test]
fn memory_that_runs_out_is_told() {
    let fake = Fake::new(V2_ROOT, "0::/\n");
    fake.put("g/c1/memory.events", "max 0\noom_kill 0\n");
    let (mut watch, news) = fake.group("g/c1").watch_oom().unwrap();
    assert!(!watch.happened(&news));
    fake.put("g/c1/memory.events", "max 7\noom_kill 0\n");
    assert!(!watch.happened(&news));
    fake.put("g/c1/memory.events", "max 8\noom_kill 1\n");
    assert!(watch.happened(&news));
    assert!(!watch.happened(&news));

    let Some(own) = Own::new("oom").filter(|own| own.0.v2_dir().is_none()) else {
        return;
    };
    let limit = Limits {
        memory: Some(8 << 20),
        memory_swap: Some(8 << 20),
        ..Limits::default()
    };
    own.0.apply(&limit).unwrap();
    let (mut watch, news) = own.0.watch_oom().unwrap();
    assert!(!watch.happened(&news));
    // It waits for its place in the group before it takes memory.
    let mut eater = Command::new("sh")
        .args(["-c", "read go; head -c 50000000 /dev/zero | tail -n 1"])
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::null())
        .spawn()
        .unwrap();
    join(&own.0, eater.id());
    drop(eater.stdin.take());
    eater.wait().unwrap();
    assert!(watch.happened(&news));
    assert!(own.0.oom_kills() > 0);
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

#[test]
fn device_rules_parse_and_print() {
    for text in ["c 10:200 rwm", "b *:* r", "c 5:* m"] {
        let rule = DeviceRule::parse(text, true).unwrap();
        assert_eq!(rule.to_string(), text);
    }
    assert_eq!(
        DeviceRule::parse("a *:* rwm", false).unwrap().to_string(),
        "a"
    );
    for bad in [
        "",
        "x 1:1 r",
        "c 1 r",
        "c 1:1",
        "c 1:1 q",
        "c 1:x r",
        "c 1:1 r r",
    ] {
        assert!(DeviceRule::parse(bad, true).is_none(), "{bad}");
    }
    let half = DeviceRule::parse("a 1:* r", true).unwrap();
    let lines: Vec<_> = devices::for_v1(&[half])
        .iter()
        .map(ToString::to_string)
        .collect();
    assert_eq!(lines, ["c 1:* r", "b 1:* r"]);
}

/// This machine's groups; `None` (and the test says so) where it may not make any.
fn here() -> Option<Arc<Cgroups>> {
    let found = Cgroups::detect(Path::new("/sys/fs/cgroup"), Path::new("/proc")).ok()?;
    Some(Arc::new(found))
}

/// A group with a name of its own, removed at the end.
struct Own(Group);

impl Own {
    fn new(name: &str) -> Option<Self> {
        let path = format!("gantry-test-{}-{name}/c", std::process::id());
        let group = Group::new(here()?, Path::new(&path));
        group.create().ok()?;
        Some(Self(group))
    }
}

impl Drop for Own {
    fn drop(&mut self) {
        let _ = self.0.kill_all();
        let _ = self.0.remove();
        for dir in self.0.v1_dirs().into_iter().chain(self.0.v2_dir()) {
            let _ = fs::remove_dir(dir.parent().unwrap());
        }
    }
}

fn join(group: &Group, pid: u32) {
    for dir in group.v1_dirs().into_iter().chain(group.v2_dir()) {
        fs::write(dir.join("cgroup.procs"), pid.to_string()).unwrap();
    }
}

fn sleeper() -> Child {
    Command::new("sleep").arg("1000").spawn().unwrap()
}

#[test]
fn a_real_group_limits_freezes_kills_and_goes() {
    let own = Own::new("life").expect("root with cgroups");
    let group = &own.0;
    group
        .apply(&Limits {
            memory: Some(64 << 20),
            memory_swap: Some(128 << 20),
            cpu_shares: Some(512),
            cpu_quota: Some(50_000),
            cpu_period: Some(100_000),
            pids: Some(20),
            ..Limits::default()
        })
        .unwrap();
    // Raising and lowering both work whatever the order.
    for mb in [256, 32] {
        group
            .apply(&Limits {
                memory: Some(mb << 20),
                memory_swap: Some(mb << 21),
                ..Limits::default()
            })
            .unwrap();
    }
    let mut child = sleeper();
    join(group, child.id());
    let pid = child.id().cast_signed();
    assert_eq!(group.pids().unwrap(), [pid]);
    let stats = group.stats().unwrap();
    assert_eq!(stats.memory.limit, 32 << 20);
    assert_eq!((stats.pids.current, stats.pids.limit), (1, Some(20)));
    assert!(!group.is_frozen().unwrap());
    group.freeze().unwrap();
    assert!(group.is_frozen().unwrap());
    group.thaw().unwrap();
    assert!(!group.is_frozen().unwrap());
    group.freeze().unwrap();
    group.kill_all().unwrap();
    use std::os::unix::process::ExitStatusExt;
    assert_eq!(child.wait().unwrap().signal(), Some(libc::SIGKILL));
    group.remove().unwrap();
    assert!(!group.exists());
    group.remove().unwrap();
    group.kill_all().unwrap();
}

#[test]
fn real_device_rules_refuse() {
    let own = Own::new("devices").expect("root with cgroups");
    own.0
        .set_devices(&[
            DeviceRule::everything(false),
            DeviceRule::parse("c 1:3 rwm", true).unwrap(),
            DeviceRule::parse("c 1:* m", true).unwrap(),
        ])
        .unwrap();
    assert_eq!(
        opens_inside(&own.0.v1_dirs(), own.0.v2_dir()),
        [true, false]
    );
}

/// Whether a process in those groups can open /dev/null and /dev/zero.
fn opens_inside(v1: &[PathBuf], v2: Option<PathBuf>) -> [bool; 2] {
    let dirs: Vec<PathBuf> = v1.iter().cloned().chain(v2).collect();
    ["/dev/null", "/dev/zero"].map(|device| {
        let mut script = String::new();
        for dir in &dirs {
            script += &format!("echo $$ >{}/cgroup.procs || exit 9; ", dir.display());
        }
        script += &format!("exec 3<{device}");
        let status = Command::new("sh").args(["-c", &script]).status().unwrap();
        assert_ne!(status.code(), Some(9), "joining {dirs:?}");
        status.success()
    })
}

#[test]
fn the_device_program_works_on_the_unified_hierarchy() {
    let Some(unified) = here().and_then(|c| c.unified().map(Path::to_owned)) else {
        panic!("no unified hierarchy is mounted");
    };
    let dir = unified.join(format!("gantry-test-{}-bpf", std::process::id()));
    fs::create_dir(&dir).unwrap();
    let rules = [
        DeviceRule::everything(false),
        DeviceRule::parse("c 1:* rw", true).unwrap(),
        DeviceRule::parse("c 1:5 r", false).unwrap(),
    ];
    devices::attach(fs::File::open(&dir).unwrap(), &rules).unwrap();
    let opens = opens_inside(&[], Some(dir.clone()));
    fs::remove_dir(&dir).unwrap();
    assert_eq!(opens, [true, false]);
}

/// Runs the device program for one access: (kind, access bits, major, minor).
fn interpret(program: &[devices::Insn], kind: u32, access: u32, major: u32, minor: u32) -> bool {
    use devices::op;
    let mut r = [0u32; 6];
    let mut pc = 0i32;
    loop {
        let i = program[usize::try_from(pc).unwrap()];
        let (dst, src) = (usize::from(i.regs & 15), usize::from(i.regs >> 4));
        let imm = i.imm.cast_unsigned();
        pc += 1;
        let jump = |yes: bool| if yes { i32::from(i.off) } else { 0 };
        match i.code {
            op::LDX_W => {
                r[dst] = [access << 16 | kind, major, minor][usize::try_from(i.off / 4).unwrap()]
            }
            op::MOV32_REG => r[dst] = r[src],
            op::MOV32_IMM => r[dst] = imm,
            op::AND32_IMM => r[dst] &= imm,
            op::RSH32_IMM => r[dst] >>= imm,
            op::JNE_IMM => pc += jump(r[dst] != imm),
            op::JEQ_IMM => pc += jump(r[dst] == imm),
            op::JNE_REG => pc += jump(r[dst] != r[src]),
            op::EXIT => return r[0] == 1,
            other => panic!("opcode {other:#x}"),
        }
    }
}

#[test]
fn the_last_device_rule_that_fits_decides() {
    let rule = |text: &str, allow| DeviceRule::parse(text, allow).unwrap();
    let rules = [
        rule("c 9:9 rwm", true), // without effect: everything is refused afterwards
        DeviceRule::everything(false),
        rule("c *:* m", true),
        rule("c 1:3 rwm", true),
        rule("c 136:* rw", true),
        rule("b 8:1 r", true),
        rule("c 136:7 w", false),
    ];
    let program = devices::program(&rules);
    let (block, char, mknod, read, write) = (1, 2, 1, 2, 4);
    let allowed = |kind, access, major, minor| interpret(&program, kind, access, major, minor);
    assert!(!allowed(char, read, 9, 9));
    assert!(allowed(char, mknod, 9, 9));
    assert!(allowed(char, read | write | mknod, 1, 3));
    assert!(!allowed(char, read, 1, 5));
    assert!(allowed(char, read | write, 136, 0));
    assert!(!allowed(char, read | write | mknod, 136, 0));
    assert!(allowed(char, read, 136, 7));
    assert!(!allowed(char, read | write, 136, 7));
    assert!(allowed(block, read, 8, 1));
    assert!(!allowed(block, write, 8, 1));
    assert!(!allowed(block, mknod, 8, 1));
}

#[test]
fn errors_name_the_file() {
    let fake = Fake::new(V2_ROOT, "0::/\n");
    let group = fake.group("x");
    group.create().unwrap();
    let limits = Limits {
        pids: Some(5),
        ..Limits::default()
    };
    let error = group.apply(&limits).unwrap_err();
    assert_eq!(error.errno(), libc::ENOENT);
    assert!(error.to_string().contains("pids.max"), "{error}");
    // Nothing is made by writing to it.
    assert!(!fake.root().join("x/pids.max").exists());
    assert!(
        fs::metadata(fake.root().join("x"))
            .unwrap()
            .permissions()
            .mode()
            & 0o755
            == 0o755
    );
}
