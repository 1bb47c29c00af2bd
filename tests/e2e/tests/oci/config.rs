//! What a specification asks for is there, or is refused.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use crate::bundle::Bundle;

#[test]
fn the_process_is_what_the_bundle_says() {
    let mut b = Bundle::new(
        "id -u; id -g; id -G; umask; pwd; echo $A; ulimit -n; ulimit -Hn; hostname; \
         grep -E 'CapEff|CapAmb|NoNewPrivs|Seccomp:' /proc/self/status | cut -f2; \
         cat /proc/self/oom_score_adj; mkdir /tmp/no; echo mkdir $?; exit 42",
    );
    let process = &mut b.config["process"];
    process["user"] = json!({"uid": 33, "gid": 44, "additionalGids": [55, 66], "umask": 0o27});
    process["cwd"] = "/made/here".into();
    process["env"] = json!(["PATH=/bin", "A=b c"]);
    process["rlimits"] = json!([{"type": "RLIMIT_NOFILE", "soft": 100, "hard": 200}]);
    process["oomScoreAdj"] = 321.into();
    let caps = json!(["CAP_NET_RAW", "CAP_CHOWN"]);
    process["capabilities"] = json!({
        "bounding": caps, "effective": caps, "permitted": caps, "inheritable": caps, "ambient": caps
    });
    b.config["linux"]["seccomp"] = json!({
        "defaultAction": "SCMP_ACT_ALLOW",
        "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_AARCH64"],
        "syscalls": [{
            "names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 1
        }]
    });
    let done = b.run("x");
    let want = "33\n44\n44 55 66\n0027\n/made/here\nb c\n100\n200\ngantry\n0000000000002001\n\
                0000000000002001\n1\n2\n321\nmkdir 1\n";
    assert_eq!((done.out.as_str(), done.code), (want, 42), "{}", done.err);
    b.config["process"]["args"] = json!(["no-such"]);
    b.run("x")
        .fails(1, r#"exec: "no-such": executable file not found in $PATH"#);
    b.finish();
}

#[test]
fn mounts_devices_and_paths_are_what_the_bundle_says() {
    let mut b = Bundle::new(
        "cat /m1/f; touch /m1/x; ls /m2; touch /m2/x; stat -c '%a %u' /m3; ls /etc; \
         stat -c '%a %u %g %t %T' /dev/null1; cat /secret; echo x > /rofile; \
         cat /proc/sys/net/ipv4/ip_forward; grep -c ' / / ' /proc/self/mountinfo; \
         grep ' /shared ' /proc/self/mountinfo | grep -c shared:; touch /new",
    );
    fs::create_dir_all(b.path("source/below")).expect("it is ours");
    fs::write(b.path("source/f"), "from the bundle\n").expect("it is ours");
    for name in ["secret", "rofile"] {
        fs::write(b.path("rootfs").join(name), "s").expect("it is ours");
    }
    let mounts = b.config["mounts"].as_array_mut().expect("a list");
    mounts.extend([
        // Relative to the bundle.
        json!({"destination": "/m1", "type": "bind", "source": "source", "options": ["bind", "ro"]}),
        json!({"destination": "/m2", "type": "none", "source": "source", "options": ["rbind", "rro"]}),
        json!({"destination": "/m3", "type": "tmpfs", "source": "tmpfs",
            "options": ["mode=700", "uid=3", "size=1m"]}),
        json!({"destination": "/etc", "type": "tmpfs", "source": "tmpfs", "options": ["tmpcopyup"]}),
        json!({"destination": "/shared", "source": "source", "options": ["rbind", "shared"]}),
    ]);
    b.config["linux"]["devices"] = json!([{
        "path": "/dev/null1", "type": "c", "major": 1, "minor": 3, "fileMode": 0o640, "uid": 7,
        "gid": 8
    }]);
    b.config["linux"]["sysctl"] = json!({"net.ipv4.ip_forward": "1"});
    let linux = &mut b.config["linux"];
    linux["maskedPaths"] = json!(["/secret", "/no/such"]);
    linux["readonlyPaths"] = json!(["/rofile", "/no/such"]);
    b.config["root"]["readonly"] = true.into();
    let done = b.run("x");
    let want = "from the bundle\nbelow\nf\n700 3\ngroup\npasswd\n640 7 8 1 3\n1\n0\n1\n";
    assert_eq!(done.out, want, "{}", done.err);
    for refused in ["/m1/x", "/m2/x", "/rofile", "/new"] {
        let line = done.err.lines().find(|l| l.contains(refused));
        let line = line.unwrap_or_else(|| panic!("{refused}: {}", done.err));
        assert!(line.contains("Read-only file system"), "{line}");
    }
    b.finish();
}

#[test]
fn limits_and_update() {
    let mut b = Bundle::new("sleep 1000");
    b.config["linux"]["resources"]["memory"] = json!({"limit": 64 << 20});
    b.config["linux"]["resources"]["pids"] = json!({"limit": 50});
    b.config["linux"]["resources"]["devices"] = json!([
        {"allow": false, "access": "rwm"},
        {"allow": true, "type": "c", "major": 10, "minor": 200, "access": "rw"}
    ]);
    b.create("x");
    b.oci("start @x").ok();
    let pid = b.pid("x");
    let file = |v1: [&str; 2], v2: &str| {
        let groups = fs::read_to_string(format!("/proc/{pid}/cgroup")).expect("proc");
        let of = |controller: &str| {
            let line = groups
                .lines()
                .find(|l| l.split(':').nth(1) == Some(controller))?;
            line.split(':').nth(2).map(str::to_owned)
        };
        let path = match of(v1[0]) {
            Some(path) => format!("/sys/fs/cgroup/{}{path}/{}", v1[0], v1[1]),
            None => format!("/sys/fs/cgroup{}/{v2}", of("").expect("a cgroup")),
        };
        let text = fs::read_to_string(&path).unwrap_or_else(|e| panic!("{path}: {e}"));
        text.trim().to_owned()
    };
    let memory = || file(["memory", "memory.limit_in_bytes"], "memory.max");
    let pids = || file(["pids", "pids.max"], "pids.max");
    assert_eq!((memory(), pids()), ((64 << 20).to_string(), "50".into()));
    b.oci(&format!("update --memory {} @x", 80 << 20)).ok();
    fs::write(
        b.path("limits"),
        r#"{"pids":{"limit":77},"memory":{"limit":0}}"#,
    )
    .expect("ours");
    let limits = b.path("limits").display().to_string();
    b.oci(&format!("update --resources {limits} @x")).ok();
    assert_eq!((memory(), pids()), ((80 << 20).to_string(), "77".into()));
    let stats: Value = serde_json::from_str(&b.oci("events --stats @x").ok()).expect("JSON");
    assert_eq!(stats["data"]["pids"]["limit"], 77);
    assert_eq!(b.oci("ps --format json @x").ok(), format!("[{pid}]"));
    b.oci("delete --force @x").ok();
    b.config["linux"]["cgroupsPath"] = "a.slice:b:c".into();
    let (code, said) = b.detached("create @x");
    assert!(code == 1 && said.contains("cgroupfs"), "{said}");
    b.finish();
}

#[test]
fn namespaces_are_new_inherited_or_joined() {
    let mut b = Bundle::new("sleep 1000");
    let kinds = ["ipc", "mnt", "net", "pid", "uts", "cgroup"];
    let inode =
        |pid: &str, kind: &str| fs::read_link(format!("/proc/{pid}/ns/{kind}")).expect("ns");
    b.create("new");
    let first = b.pid("new").to_string();
    for kind in kinds {
        assert_ne!(inode(&first, kind), inode("self", kind), "{kind}");
    }
    let join =
        |word: &str, kind: &str| json!({"type": word, "path": format!("/proc/{first}/ns/{kind}")});
    b.config["linux"]["namespaces"] = json!([
        {"type": "mount"}, join("ipc", "ipc"), join("network", "net"), join("pid", "pid"),
        join("uts", "uts")
    ]);
    b.create("joins");
    let second = b.pid("joins").to_string();
    for kind in ["ipc", "net", "pid", "uts"] {
        assert_eq!(inode(&second, kind), inode(&first, kind), "{kind}");
    }
    assert_eq!(inode(&second, "cgroup"), inode("self", "cgroup"));
    b.config["linux"]["namespaces"] =
        json!([{"type": "mount"}, {"type": "uts"}, join("ipc", "net")]);
    let (code, said) = b.detached("create @bad");
    assert!(code == 1 && said.contains("invalid argument"), "{said}");
    // Where it is not alone in its PID namespace, all of it dies with the first process.
    b.oci("start @joins").ok();
    b.oci("delete --force @joins").ok();
    let maps = json!([{"containerID": 0, "hostID": 200_000, "size": 1000}]);
    b.config["linux"]["namespaces"] = json!([
        {"type": "mount"}, {"type": "uts"}, {"type": "user"}, {"type": "pid"}, {"type": "time"},
        // The message queues of the host's are not on every host.
        {"type": "ipc"}
    ]);
    b.config["linux"]["uidMappings"] = maps.clone();
    b.config["linux"]["gidMappings"] = maps;
    b.config["linux"]["timeOffsets"] = json!({"boottime": {"secs": 10_000_000}});
    b.config["process"]["args"] = json!(["sh", "-c", "id -u; cat /proc/self/uid_map /proc/uptime"]);
    let script = b.config["process"]["args"].take();
    b.config["process"]["args"] = json!(["sleep", "1000"]);
    b.create("execs");
    let uptime = b.oci("exec @execs cat /proc/uptime").ok();
    assert!(uptime.len() > "10000000.00 ".len(), "{uptime}");
    assert_eq!(b.oci("exec @execs id -u").ok(), "0");
    b.oci("delete --force @execs").ok();
    b.config["process"]["args"] = script;
    let out = b.run("users").ok();
    let words: Vec<&str> = out.split_whitespace().collect();
    assert_eq!(words[..4], ["0", "0", "200000", "1000"]);
    let uptime: f64 = words[4].parse().expect("a number");
    assert!(uptime > 10_000_000.0, "{uptime}");
    b.oci("delete --force @new").ok();
    b.finish();
}

#[test]
fn what_is_not_done_is_refused_before_anything_is_made() {
    let mut b = Bundle::new("true");
    let good = b.config.clone();
    let mut refused = |path: &str, value: Value, wording: &str| {
        b.config = good.clone();
        *b.config.pointer_mut(path).expect("a place") = value;
        let (code, said) = b.detached("create @x");
        assert!(code == 1 && said.contains(wording), "{path}: {said}");
        assert!(!b.path("state").join(b.id("x")).exists());
    };
    refused("/ociVersion", json!("2.0.0"), "unsupported ociVersion");
    refused("/process/args", json!([]), "args must not be empty");
    refused("/root/path", json!("nowhere"), "invalid rootfs");
    refused(
        "/linux/namespaces",
        json!([{"type": "pid"}]),
        "mount namespace",
    );
    let linux = &good["linux"];
    let with = |key: &str, value: Value| {
        let mut linux = linux.clone();
        linux[key] = value;
        linux
    };
    let rdt = with("intelRdt", json!({"closID": "x"}));
    refused("/linux", rdt, "linux.intelRdt is not supported");
    let host = with("sysctl", json!({"vm.swappiness": "1"}));
    refused("/linux", host, "not in a separate kernel namespace");
    let listener = json!({"defaultAction": "SCMP_ACT_ALLOW", "listenerPath": "/run/x"});
    refused("/linux", with("seccomp", listener), "listenerPath");
    let mut process = good["process"].clone();
    process["apparmorProfile"] = "x".into();
    if !Path::new("/sys/kernel/security/apparmor").exists() {
        refused("/process", process, "apparmor is disabled or not supported");
    }
    // One that fails later leaves nothing either.
    b.config = good.clone();
    let mounts = b.config["mounts"].as_array_mut().expect("a list");
    mounts.push(json!({"destination": "/x", "type": "nosuchfs", "source": "none"}));
    let (code, said) = b.detached("--log log --log-format json create @x");
    assert!(code == 1 && said.contains("no such device"), "{said}");
    let logged = b.log();
    let last: Value = serde_json::from_str(logged.last().expect("a line")).expect("JSON");
    assert_eq!(last["level"], "error");
    assert!(
        last["msg"].as_str().is_some_and(|m| m.contains("nosuchfs")),
        "{last}"
    );
    b.oci("--systemd-cgroup list").fails(1, "cgroupfs");
    assert!(b.oci("--version").ok().contains("spec: 1."));
    let features: Value = serde_json::from_str(&b.oci("features").ok()).expect("JSON");
    assert_eq!(features["linux"]["seccomp"]["enabled"], true);
    b.finish();
}
