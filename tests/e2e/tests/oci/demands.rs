//! What the runtime specification demands with MUST and the other files do not look at, by the names that OCI's validation
//! suite has for its demands.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use crate::bundle::Bundle;

/// Creates with a changed configuration; it must be refused with `wording` and leave nothing.
fn refused(b: &mut Bundle, good: &Value, change: impl FnOnce(&mut Value), wording: &str) {
    b.config = good.clone();
    change(&mut b.config);
    let (code, said) = b.detached("create @x");
    assert!(code == 1 && said.contains(wording), "{wording}: {said}");
    b.oci("state @x").fails(1, "does not exist");
    b.config = good.clone();
}

/// `ExtensibilityIgnoreUnknownProp`, `AnnotationsKeyIgnoreUnknown`, `ProcConsoleSizeIgnore`, `LinuxProcOomScoreAdjNotSet`,
/// capabilities that cannot be mapped (a warning since version 1.1).
#[test]
fn what_is_unknown_or_without_meaning_is_passed_over() {
    let mut b = Bundle::new("cat /proc/self/oom_score_adj; grep CapBnd /proc/self/status");
    b.config["unknown"] = json!({"a": 1});
    b.config["linux"]["unknown"] = json!([]);
    b.config["annotations"] = json!({"org.example.unknown": ""});
    b.config["process"]["consoleSize"] = json!({"height": 10, "width": 10});
    b.config["process"]["capabilities"] = json!({"bounding": ["CAP_KILL", "CAP_FROM_THE_FUTURE"]});
    let own = fs::read_to_string("/proc/self/oom_score_adj").expect("proc");
    let done = b.run("x");
    assert_eq!(
        done.out,
        format!("{own}CapBnd:\t0000000000000020\n"),
        "{}",
        done.err
    );
    let warned = r#"unknown capability "CAP_FROM_THE_FUTURE" is ignored"#;
    assert!(done.err.contains(warned), "{}", done.err);
    let bundle = b.dir.path().display().to_string();
    let log = b.path("log").display().to_string();
    b.oci(&format!("--log {log} run --bundle {bundle} @y")).ok();
    assert!(
        b.log().iter().any(|line| line.contains("level=warning")),
        "{:?}",
        b.log()
    );
    b.finish();
}

/// `ValidValues`, `SpecVersionInSemVer`, `AnnotationsValueString`, `ProcCwdAbs`, `NSErrorOnDup`, `NSPathAbs`,
/// `PosixProcRlimitsErrorOnDup`, `PosixProcRlimitsTypeGenError`, `PosixHooksPathAbs`, `PosixHooksTimeoutPositive`,
/// `SeccSyscallsNamesRequired`, `RootPathExist`, `DevicesFileNotMatch`, `PropApplyFailNotCreate`.
#[test]
fn what_is_invalid_is_refused_and_leaves_nothing() {
    let mut b = Bundle::new("true");
    let good = b.config.clone();
    type Case = (&'static str, &'static str, Value, &'static str);
    let limit = json!({"type": "RLIMIT_NOFILE", "soft": 1, "hard": 1});
    let other = json!({"type": "RLIMIT_TEST", "soft": 1, "hard": 1});
    let hook = |hook: Value| json!({"createRuntime": [hook]});
    let twice = json!([{"type": "mount"}, {"type": "pid"}, {"type": "pid"}]);
    let rule = json!({"names": [], "action": "SCMP_ACT_ERRNO"});
    let cases: [Case; 13] = [
        ("", "ociVersion", json!("invalid"), "unsupported ociVersion"),
        ("", "annotations", json!({"a": 1}), "expected a string"),
        (
            "/process",
            "cwd",
            json!("tmp"),
            "Cwd must be an absolute path",
        ),
        (
            "/process",
            "rlimits",
            json!([limit, limit]),
            "duplicated rlimit",
        ),
        ("/process", "rlimits", json!([other]), "RLIMIT_TEST"),
        ("/linux", "namespaces", twice, "duplicated ns pid"),
        (
            "/linux",
            "namespaces",
            json!([{"type": "mount"}, {"type": "no"}]),
            "unknown variant `no`",
        ),
        (
            "/linux",
            "rootfsPropagation",
            json!("no"),
            "rootfsPropagation no",
        ),
        (
            "/linux",
            "seccomp",
            json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [rule]}),
            "without names",
        ),
        (
            "",
            "hooks",
            hook(json!({"path": "bin/true"})),
            "want an absolute path",
        ),
        (
            "",
            "hooks",
            hook(json!({"path": "/bin/true", "timeout": 0})),
            "invalid timeout",
        ),
        (
            "",
            "root",
            json!({"path": "config.json"}),
            "not a directory",
        ),
        ("", "root", json!(null), "root must be specified"),
    ];
    for (parent, key, value, wording) in cases {
        let change = |config: &mut Value| {
            config.pointer_mut(parent).expect("a place")[key] = value;
        };
        refused(&mut b, &good, change, wording);
    }
    // The file of the image is none of the device that is asked for; the device's own number is.
    let node = json!({"path": "/etc/passwd", "type": "c", "major": 1, "minor": 3});
    let device = |config: &mut Value| config["linux"]["devices"] = json!([node]);
    refused(
        &mut b,
        &good,
        device,
        "make device /etc/passwd: file exists",
    );
    fs::remove_file(b.path("config.json")).expect("it was written");
    let done = gantry_e2e::run(
        crate::bundle::program(),
        &b.words(&format!("create --bundle {} @x", b.dir.path().display())),
    );
    done.fails(1, "config.json not found");
    b.finish();
}

/// `DefaultDevices`, `DefaultRuntimeLinuxSymlinks`, `DevicesAvailable`, `DevicesApplyInOrder`, `MountsInOrder`,
/// `MaskedPathsAbs` of a directory.
#[test]
fn devices_links_and_mounts_are_there_in_their_order() {
    let mut b = Bundle::new(
        "for d in null zero full random urandom tty; do test -c /dev/$d || echo no $d; done; \
         for l in fd stdin stdout stderr ptmx; do readlink /dev/$l; done; \
         stat -c '%F %t %T %a' /dev/one /dev/two /dev/three; \
         grep ' /o' /proc/mounts | cut -d' ' -f1,2; ls /masked; cat /dev/random1 | head -c 0 && echo read",
    );
    fs::create_dir(b.path("rootfs/masked")).expect("it is ours");
    fs::write(b.path("rootfs/masked/file"), "x").expect("it is ours");
    b.config["linux"]["maskedPaths"] = json!(["/masked"]);
    b.config["linux"]["devices"] = json!([
        {"path": "/dev/one", "type": "c", "major": 10, "minor": 229, "fileMode": 0o600},
        {"path": "/dev/two", "type": "b", "major": 8, "minor": 666, "fileMode": 0o640},
        {"path": "/dev/three", "type": "p", "fileMode": 0o644},
        {"path": "/dev/random1", "type": "u", "major": 1, "minor": 8},
        // What is there already and the same is no error.
        {"path": "/dev/one", "type": "c", "major": 10, "minor": 229},
    ]);
    let mounts = b.config["mounts"].as_array_mut().expect("a list");
    let tmpfs =
        |at: &str, source: &str| json!({"destination": at, "type": "tmpfs", "source": source});
    mounts.extend([
        tmpfs("/o", "first"),
        tmpfs("/o", "second"),
        tmpfs("/o/below", "third"),
    ]);
    let done = b.run("x");
    let want = "/proc/self/fd\n/proc/self/fd/0\n/proc/self/fd/1\n/proc/self/fd/2\npts/ptmx\n\
                character special file a e5 600\nblock special file 8 29a 640\nfifo 0 0 644\n\
                first /o\nsecond /o\nthird /o/below\nread\n";
    assert_eq!(done.out, want, "{}", done.err);
    b.finish();
}

/// `KillNonCreateRunHaveNoEffect`, `StartNotCreatedHaveNoEffect`, `DeleteNonStopHaveNoEffect`, `KillSignalImplement`.
#[test]
fn what_is_refused_has_no_effect() {
    let mut b = Bundle::new(
        "trap 'echo got >> /ran; exit 9' USR1; echo ran >> /ran; while :; do sleep 0.05; done",
    );
    let ran = |b: &Bundle| fs::read_to_string(b.path("rootfs/ran")).unwrap_or_default();
    b.create("x");
    assert_eq!(ran(&b), "");
    b.oci("delete @x").fails(1, "not stopped");
    assert_eq!(b.status("x"), "created");
    b.oci("start @x").ok();
    gantry_e2e::eventually("its file", 30, || (ran(&b) == "ran\n").then_some(()));
    let running = b.state("x");
    b.oci("start @x").fails(1, "already running");
    b.oci("delete @x").fails(1, "not stopped");
    assert_eq!(b.state("x"), running);
    b.oci("kill @x SIGUSR1").ok();
    b.await_status("x", "stopped");
    let stopped = b.state("x");
    b.oci("kill @x KILL").fails(1, "not running");
    b.oci("start @x").fails(1, "has stopped");
    assert_eq!(b.state("x"), stopped);
    assert_eq!(ran(&b), "ran\ngot\n");
    b.oci("delete @x").ok();
    // A name that is taken changes nothing of whose it is.
    b.config["process"]["args"] = json!(["sleep", "1000"]);
    b.create("y");
    let created = b.state("y");
    let (code, said) = b.detached("create @y");
    assert!(code == 1 && said.contains("already exists"), "{said}");
    assert_eq!(b.state("y"), created);
    b.oci("delete --force @y").ok();
    b.finish();
}

/// `CgroupsAbsPathRelToMount`, `CgroupsPathAttach`, `DeleteResImplement`, `DeleteOnlyCreatedRes`.
#[test]
fn cgroups_are_where_the_bundle_says_and_only_those_are_removed() {
    let mut b = Bundle::new("sleep 1000");
    let name = b.id("group");
    let (own, hierarchy) = match Path::new("/sys/fs/cgroup/pids").exists() {
        true => ("/sys/fs/cgroup/pids", "pids"),
        false => ("/sys/fs/cgroup", ""),
    };
    for path in [format!("/{name}/inner"), format!("{name}/inner")] {
        b.config["linux"]["cgroupsPath"] = path.as_str().into();
        b.create("x");
        let pid = b.pid("x");
        let groups = fs::read_to_string(format!("/proc/{pid}/cgroup")).expect("proc");
        let mine = groups
            .lines()
            .find(|l| l.split(':').nth(1) == Some(hierarchy));
        let mine = mine
            .expect("a cgroup")
            .rsplit(':')
            .next()
            .unwrap_or_default();
        assert_eq!(mine, format!("/{name}/inner"), "{path}: {groups}");
        // Beside it, and not its own.
        let foreign = Path::new(own).join(&name).join("foreign");
        fs::create_dir(&foreign).expect("a cgroup");
        b.oci("delete --force @x").ok();
        assert!(!Path::new(own).join(&name).join("inner").exists());
        fs::remove_dir(&foreign).expect("it is still there");
        for group in b.cgroups() {
            fs::remove_dir(&group).expect("nothing is in it");
        }
    }
    b.finish();
}
