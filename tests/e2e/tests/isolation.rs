//! What keeps containers from each other and from the host, looked at from inside.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};

use gantry_e2e::{Done, Engine, Options};

/// Runs a script in a new container.
#[track_caller]
fn sh(engine: &Engine, options: &[&str], script: &str) -> Done {
    let mut line = vec!["run", "--rm", "--network", "none"];
    line.extend(options);
    line.extend(["busybox", "sh", "-c", script]);
    engine.docker(&line)
}

/// Creates and starts a container through the API, which knows more modes than the docker CLI lets through.
#[track_caller]
fn start(engine: &Engine, name: &str, host_config: &str) {
    let body =
        format!(r#"{{"Image":"busybox","Cmd":["sleep","600"],"HostConfig":{{{host_config}}}}}"#);
    let path = format!("/containers/create?name={name}");
    let (code, text) = engine.api("POST", &path, Some(&body));
    assert_eq!(code, 201, "{text}");
    let (code, text) = engine.api("POST", &format!("/containers/{name}/start"), None);
    assert_eq!(code, 204, "{text}");
}

/// Creating such a container is refused with this status and these words.
#[track_caller]
fn refused(engine: &Engine, host_config: &str, status: u16, words: &str) {
    let body = format!(r#"{{"Image":"busybox","Cmd":["true"],"HostConfig":{{{host_config}}}}}"#);
    let (code, text) = engine.api("POST", "/containers/create", Some(&body));
    assert!(code == status && text.contains(words), "{code} {text}");
}

/// First number outside and how many, of a running container's users.
#[track_caller]
fn range(engine: &Engine, name: &str) -> (u32, u32) {
    let map = engine
        .docker(&["exec", name, "cat", "/proc/self/uid_map"])
        .ok();
    let numbers: Vec<u32> = map.split_whitespace().map(|n| n.parse().unwrap()).collect();
    assert_eq!((numbers.len(), numbers[0]), (3, 0), "{map}");
    (numbers[1], numbers[2])
}

#[test]
fn ranges_of_their_own() {
    let mut engine = Engine::start();
    let secret = engine.dir().join("secret");
    fs::write(&secret, "of the host's root").unwrap();
    fs::set_permissions(&secret, fs::Permissions::from_mode(0o600)).unwrap();
    let binds = format!(
        r#""UsernsMode":"private","Binds":["data:/etc","{}:/secret"]"#,
        secret.display()
    );
    start(&engine, "first", &binds);
    start(&engine, "second", r#""UsernsMode":"auto:size=2000""#);
    let (a, b) = (range(&engine, "first"), range(&engine, "second"));
    assert_eq!((a.1, b.1), (65_536, 2000));
    assert!(a.0 + a.1 <= b.0 || b.0 + b.1 <= a.0, "{a:?} {b:?}");
    let script = "stat -c '%n %u' / /bin/busybox /etc/passwd /etc/hosts /dev/null /secret; cat /secret; \
                  echo made > /made && echo more >> /etc/passwd && echo x > /dev/null && echo wrote; \
                  ls /sys/class/net; grep -E 'Seccomp:|CapEff' /proc/self/status; mknod /x c 1 3; id -u";
    let seen = engine.docker(&["exec", "first", "sh", "-c", script]);
    for line in [
        "/ 0\n/bin/busybox 0\n/etc/passwd 0\n/etc/hosts 0\n/dev/null 0\n/secret 65534",
        "wrote\neth0\nlo\n",
        "CapEff:\t00000000a80425fb\nSeccomp:\t2",
    ] {
        assert!(seen.out.contains(line), "{line}: {seen:?}");
    }
    assert!(
        seen.err.contains("can't open '/secret': Permission denied"),
        "{seen:?}"
    );
    assert!(
        seen.err.contains("mknod: /x: Operation not permitted"),
        "{seen:?}"
    );
    // From outside: the process is nobody of the host's, its files are root's in the volume.
    let pid = engine
        .docker(&["inspect", "-f", "{{.State.Pid}}", "first"])
        .ok();
    let process = fs::metadata(format!("/proc/{pid}")).unwrap();
    assert_eq!(process.uid(), a.0);
    let volume = ["volume", "inspect", "-f", "{{.Mountpoint}}", "data"];
    let volume = engine.docker(&volume).ok();
    assert_eq!(fs::metadata(format!("{volume}/passwd")).unwrap().uid(), 0);

    // Containers that share namespaces share the numbers; one on the bridge reaches the other.
    start(
        &engine,
        "third",
        r#""UsernsMode":"private","NetworkMode":"container:first","PidMode":"container:first""#,
    );
    assert_eq!(range(&engine, "third"), a);
    let ps = engine.docker(&["exec", "third", "ps"]).ok();
    assert!(ps.matches("sleep 600").count() == 2, "{ps}");
    engine
        .docker(&[
            "exec", "-d", "first", "nc", "-l", "-p", "80", "-e", "echo", "heard",
        ])
        .ok();
    let address = "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}";
    let address = engine.docker(&["inspect", "-f", address, "first"]).ok();
    let call = format!("until nc {address} 80 </dev/null; do sleep 0.1; done");
    let heard = engine.docker(&["exec", "second", "timeout", "10", "sh", "-c", &call]);
    assert_eq!(heard.ok(), "heard");

    // A range is kept over restarts of daemon and container, and free again afterwards.
    engine.kill9();
    engine.boot();
    engine.docker(&["restart", "-t", "0", "second"]).ok();
    assert_eq!(range(&engine, "second"), b);
    engine.docker(&["rm", "-f", "second"]).ok();
    start(&engine, "fourth", r#""UsernsMode":"auto:size=2000""#);
    assert_eq!(range(&engine, "fourth"), b);

    let private = |more: &str| format!(r#""UsernsMode":"private",{more}"#);
    refused(
        &engine,
        &private(r#""Privileged":true"#),
        400,
        "privileged mode is incompatible with user namespaces",
    );
    refused(
        &engine,
        &private(r#""NetworkMode":"host""#),
        400,
        "cannot share the host's network namespace",
    );
    refused(
        &engine,
        &private(r#""PidMode":"host""#),
        400,
        "cannot share the host PID namespace",
    );
    refused(
        &engine,
        r#""UsernsMode":"keep-id""#,
        400,
        "invalid user namespace mode: keep-id",
    );
    engine.finish();
}

#[test]
fn everybody_remapped() {
    let engine = Engine::with(Options {
        args: vec!["--userns-remap".into(), "nobody".into()],
        files: vec![
            ("/etc/subuid", "nobody:700000:65536\n".into()),
            ("/etc/subgid", "nobody:800000:65536\n".into()),
        ],
        ..Options::default()
    });
    engine.import_busybox("busybox:latest");
    let info = engine.docker(&["info", "-f", "{{.SecurityOptions}}"]).ok();
    assert!(info.contains("name=userns"), "{info}");
    let dir = engine.dir().join("bound");
    fs::create_dir(&dir).unwrap();
    let bind = format!("{}:/bound", dir.display());
    let script = "cat /proc/self/uid_map /proc/self/gid_map; touch /vol/mine && stat -c %u /vol/mine; touch /bound/x; \
                  cat /proc/sys/net/ipv4/ip_unprivileged_port_start; id; sysctl -n net.ipv4.ip_forward; cat /proc/sys/kernel/domainname";
    let options = [
        "-v",
        "named:/vol",
        "-v",
        &bind,
        "-u",
        "www",
        "--group-add",
        "0",
        "--domainname",
        "example.org",
        "--sysctl",
        "net.ipv4.ip_forward=1",
        "--tmpfs",
        "/t",
        "--shm-size",
        "1m",
        "--ulimit",
        "core=5:5",
    ];
    let seen = sh(&engine, &options, script);
    assert!(seen.out.contains("0     700000      65536\n"), "{seen:?}");
    assert!(seen.out.contains("0     800000      65536\n"), "{seen:?}");
    assert!(
        seen.err.contains("touch: /bound/x: Permission denied"),
        "{seen:?}"
    );
    assert!(
        seen.out
            .contains("uid=33(www) gid=33(www) groups=0(root),33(www),44(extra)\n1\nexample.org"),
        "{seen:?}"
    );
    let own = sh(
        &engine,
        &["-v", "named:/vol"],
        "touch /vol/mine; stat -c %u /vol/mine; echo $$",
    );
    assert_eq!(own.ok(), "0\n1");
    let host = sh(
        &engine,
        &["--userns", "host", "-v", &bind],
        "cat /proc/self/uid_map; touch /bound/y",
    );
    assert!(host.ok().contains("4294967295"));
    sh(&engine, &["--privileged"], "true").fails(125, "privileged mode is incompatible with user namespaces.  You must run the container in the host namespace when running privileged mode");
    let script = "true";
    let line = ["run", "--rm", "--network", "host", "busybox", script];
    engine.docker(&line).fails(
        125,
        "cannot share the host's network namespace when user namespaces are enabled",
    );
    sh(&engine, &["--pid", "host"], "true").fails(
        125,
        "cannot share the host PID namespace when user namespaces are enabled",
    );
    sh(&engine, &["--runtime", "runc"], "true").fails(
        125,
        "user namespaces are not supported with the runtime runc",
    );
    engine.finish();
}

#[test]
fn namespaces_and_what_contradicts_them() {
    let engine = Engine::start();
    let ns = |kind: &str| {
        fs::read_link(format!("/proc/self/ns/{kind}"))
            .unwrap()
            .display()
            .to_string()
    };
    let link = |options: &[&str], kind: &str| {
        sh(&engine, options, &format!("readlink /proc/self/ns/{kind}")).ok()
    };
    assert_ne!(link(&["--cgroupns", "private"], "cgroup"), ns("cgroup"));
    assert_eq!(link(&["--cgroupns", "host"], "cgroup"), ns("cgroup"));
    assert_eq!(link(&["--uts", "host"], "uts"), ns("uts"));
    assert_eq!(link(&["--ipc", "host"], "ipc"), ns("ipc"));
    assert_eq!(link(&["--pid", "host"], "pid"), ns("pid"));
    let private = sh(
        &engine,
        &["--cgroupns", "private"],
        "cut -d: -f3 /proc/self/cgroup | sort -u",
    );
    assert_eq!(private.ok(), "/");
    let none = sh(
        &engine,
        &["--ipc", "none"],
        "ls -d /dev/shm; readlink /proc/self/ns/ipc",
    );
    assert!(
        none.err.contains("/dev/shm: No such file") && !none.out.contains(&ns("ipc")),
        "{none:?}"
    );

    let donor = [
        "run",
        "-d",
        "--name",
        "donor",
        "--ipc",
        "shareable",
        "busybox",
        "sleep",
        "600",
    ];
    engine.docker(&donor).ok();
    engine
        .docker(&["run", "-d", "--name", "alone", "busybox", "sleep", "600"])
        .ok();
    engine
        .docker(&["exec", "donor", "sh", "-c", "echo shared > /dev/shm/word"])
        .ok();
    let both = ["--ipc", "container:donor", "--pid", "container:donor"];
    assert_eq!(
        sh(
            &engine,
            &both,
            "cat /dev/shm/word; ps | grep -c '[s]leep 600'"
        )
        .ok(),
        "shared\n1"
    );
    sh(&engine, &["--ipc", "container:alone"], "true").fails(
        125,
        "non-shareable IPC (hint: use IpcMode:shareable for the donor container)",
    );
    engine.docker(&["kill", "alone"]).ok();
    sh(&engine, &["--pid", "container:alone"], "true")
        .fails(125, "cannot join PID namespace of a non running container");
    for (options, words) in [
        (r#""UTSMode":"x""#, "invalid UTS mode: x"),
        (r#""IpcMode":"x""#, "invalid IPC mode: x"),
        (r#""PidMode":"x""#, "invalid PID mode: x"),
        (r#""CgroupnsMode":"x""#, "invalid cgroup namespace mode: x"),
    ] {
        refused(&engine, options, 400, words);
    }
    let body = r#"{"Image":"busybox","Hostname":"h","HostConfig":{"UTSMode":"host"}}"#;
    let (code, text) = engine.api("POST", "/containers/create", Some(body));
    assert!(
        code == 400 && text.contains("conflicting options: hostname and the UTS mode"),
        "{text}"
    );

    // Settings of the host's are not touched.
    let msgmax = || fs::read_to_string("/proc/sys/kernel/msgmax").unwrap();
    let before = msgmax();
    let set = ["--sysctl", "kernel.msgmax=5000"];
    assert_eq!(
        sh(&engine, &set, "cat /proc/sys/kernel/msgmax").ok(),
        "5000"
    );
    let create = |host_config: &str| {
        let body =
            format!(r#"{{"Image":"busybox","Cmd":["true"],"HostConfig":{{{host_config}}}}}"#);
        let (code, text) = engine.api("POST", "/containers/create?name=bad", Some(&body));
        assert_eq!(code, 201, "{text}");
        let (_, text) = engine.api("POST", "/containers/bad/start", None);
        engine.docker(&["rm", "bad"]).ok();
        text
    };
    for (options, words) in [
        (
            r#""IpcMode":"host","Sysctls":{"kernel.msgmax":"5000"}"#,
            r#"sysctl \"kernel.msgmax\" is not allowed in the hosts ipc namespace"#,
        ),
        (
            r#""NetworkMode":"host","Sysctls":{"net.ipv4.ip_forward":"1"}"#,
            r#"sysctl \"net.ipv4.ip_forward\" not allowed in host network namespace"#,
        ),
        (
            r#""Sysctls":{"kernel.pid_max":"5000"}"#,
            r#"sysctl \"kernel.pid_max\" is not in a separate kernel namespace"#,
        ),
    ] {
        let text = create(options);
        assert!(text.contains(words), "{options}: {text}");
    }
    assert_eq!(msgmax(), before);
    engine.finish();
}

#[test]
fn devices() {
    let engine = Engine::start();
    // Devices of the host's kind, in a directory: it stands for all below it.
    let dir = engine.dir().join("nodes");
    fs::create_dir_all(dir.join("sub")).unwrap();
    for (node, minor) in [("five", "5"), ("sub/nine", "9")] {
        let path = dir.join(node).display().to_string();
        gantry_e2e::run("mknod", &["-m", "640", &path, "c", "1", minor]).ok();
    }
    let map = format!("{}:/dev/nodes", dir.display());
    let script = "find /dev/nodes -type c | sort; stat -c %a /dev/nodes/five; head -c 3 /dev/nodes/five | wc -c";
    assert_eq!(
        sh(&engine, &["--device", &map], script).ok(),
        "/dev/nodes/five\n/dev/nodes/sub/nine\n640\n3"
    );
    let script = "exec 3</dev/ctl && echo read; exec 4<>/dev/ctl";
    let control = sh(
        &engine,
        &["--device", "/dev/loop-control:/dev/ctl:rm"],
        script,
    );
    assert!(
        control.out == "read\n" && control.err.contains("Operation not permitted"),
        "{control:?}"
    );
    let fuse = sh(
        &engine,
        &["--device-cgroup-rule", "c 10:237 rm"],
        "mknod /tmp/k c 10 237 && exec 3</tmp/k && echo opened; exec 4<>/tmp/k",
    );
    assert!(
        fuse.out == "opened\n" && fuse.err.contains("Operation not permitted"),
        "{fuse:?}"
    );
    let without = sh(&engine, &[], "mknod /tmp/k c 10 237 && exec 3</tmp/k");
    assert!(
        without.code != 0 && without.err.contains("Operation not permitted"),
        "{without:?}"
    );
    // The docker CLI takes these words for a missing program.
    sh(&engine, &["--device", "/dev/no-such"], "true")
        .fails(127, "error gathering device information while adding custom device \"/dev/no-such\": no such file or directory");
    sh(&engine, &["--device", "/etc/passwd"], "true").fails(125, "not a device node");
    refused(
        &engine,
        r#""DeviceCgroupRules":["c 1:1 x"]"#,
        400,
        "invalid device cgroup rule format: 'c 1:1 x'",
    );

    let status = fs::read_to_string("/proc/self/status").unwrap();
    let bounding = status
        .lines()
        .find_map(|l| l.strip_prefix("CapBnd:\t"))
        .unwrap();
    let script = "grep -E 'CapEff|Seccomp:' /proc/self/status; grep -c ' /proc/keys ' /proc/self/mounts; \
                  grep -E ' /sys (sysfs) ' /proc/self/mounts | cut -d' ' -f4 | cut -d, -f1; \
                  mkdir /sys/fs/cgroup/pids/inner && rmdir /sys/fs/cgroup/pids/inner && echo writable; \
                  mount -t tmpfs x /mnt && ls /dev/loop-control; exec 3<>/dev/loop-control && echo open";
    let all = sh(
        &engine,
        &["--privileged"],
        &format!("mkdir -p /mnt; {script}"),
    );
    assert!(
        all.out.starts_with(&format!(
            "CapEff:\t{bounding}\nSeccomp:\t0\n0\nrw\nwritable\n"
        )),
        "{all:?}"
    );
    let only = sh(
        &engine,
        &[
            "--cap-drop",
            "ALL",
            "--cap-add",
            "NET_ADMIN",
            "--cap-add",
            "cap_chown",
        ],
        "grep CapEff /proc/self/status",
    );
    assert_eq!(only.ok(), "CapEff:\t0000000000001001");
    let everything = sh(
        &engine,
        &["--cap-add", "all"],
        "grep CapEff /proc/self/status",
    );
    assert_eq!(everything.ok(), format!("CapEff:\t{bounding}"));
    sh(&engine, &["--cap-add", "FLY"], "true").fails(125, "unknown capability: \"CAP_FLY\"");
    engine.finish();
}

#[test]
fn seccomp_profiles_and_privileges() {
    let engine = Engine::start();
    let write = |name: &str, text: &str| {
        let path = engine.dir().join(name);
        fs::write(&path, text).unwrap();
        format!("seccomp={}", path.display())
    };
    let profile = write(
        "profile.json",
        r#"{"defaultAction":"SCMP_ACT_ALLOW","archMap":[{"architecture":"SCMP_ARCH_X86_64","subArchitectures":["SCMP_ARCH_X86"]}],
            "syscalls":[
              {"names":["mkdir","mkdirat","no_such_call"],"action":"SCMP_ACT_ERRNO","errnoRet":28},
              {"names":["unlink","unlinkat"],"action":"SCMP_ACT_ERRNO","excludes":{"caps":["CAP_SYS_ADMIN"]}},
              {"names":["symlink","symlinkat"],"action":"SCMP_ACT_ERRNO","includes":{"caps":["CAP_NET_ADMIN"]}},
              {"names":["kill"],"action":"SCMP_ACT_ERRNO","args":[{"index":1,"value":10,"op":"SCMP_CMP_EQ"}]}]}"#,
    );
    let script = "mkdir /x; rm /etc/group; ln -s a /link && echo linked; kill -10 $$; kill -0 $$ && echo alive; grep NoNewPrivs /proc/self/status";
    let run = [
        "run",
        "-d",
        "--name",
        "filtered",
        "--security-opt",
        &profile,
        "busybox",
        "sleep",
        "600",
    ];
    engine.docker(&run).ok();
    let inside = |options: &[&str]| {
        let seen = sh(&engine, options, script);
        for words in [
            "mkdir: can't create directory '/x': No space left on device",
            "can't kill pid 1: Operation not permitted",
        ] {
            assert!(seen.err.contains(words), "{words}: {seen:?}");
        }
        seen
    };
    let seen = inside(&[
        "--security-opt",
        &profile,
        "--security-opt",
        "no-new-privileges=false",
    ]);
    assert!(
        seen.err
            .contains("rm: can't remove '/etc/group': Operation not permitted"),
        "{seen:?}"
    );
    assert_eq!(seen.out, "linked\nalive\nNoNewPrivs:\t0\n");
    let seen = inside(&[
        "--security-opt",
        &profile,
        "--cap-add",
        "SYS_ADMIN",
        "--cap-add",
        "NET_ADMIN",
        "--security-opt",
        "no-new-privileges",
    ]);
    assert!(
        !seen.err.contains("/etc/group") && !seen.out.contains("linked"),
        "{seen:?}"
    );
    assert!(seen.out.contains("NoNewPrivs:\t1"), "{seen:?}");
    // An exec is filtered as the container is.
    let exec = engine.docker(&["exec", "filtered", "mkdir", "/x"]);
    assert!(exec.err.contains("No space left on device"), "{exec:?}");
    let exec = ["exec", "--privileged", "filtered", "mkdir", "/x"];
    assert!(engine.docker(&exec).err.contains("No space left on device"));

    assert_eq!(
        sh(
            &engine,
            &["--security-opt", "seccomp=unconfined"],
            "grep Seccomp: /proc/self/status"
        )
        .ok(),
        "Seccomp:\t0"
    );
    let builtin = ["--privileged", "--security-opt", "seccomp=builtin"];
    assert_eq!(
        sh(&engine, &builtin, "grep Seccomp: /proc/self/status").ok(),
        "Seccomp:\t2"
    );
    let nothing = write("nothing.json", "{}");
    assert_eq!(
        sh(
            &engine,
            &["--security-opt", &nothing],
            "grep Seccomp: /proc/self/status"
        )
        .ok(),
        "Seccomp:\t0"
    );
    for (text, words) in [
        (
            r#"{"defaultAction":"SCMP_ACT_NOTHING"}"#,
            "SCMP_ACT_NOTHING",
        ),
        (
            r#"{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["read"],"action":"SCMP_ACT_NOTIFY"}]}"#,
            "SCMP_ACT_NOTIFY",
        ),
        (
            r#"{"defaultAction":"SCMP_ACT_ALLOW","listenerPath":"/x"}"#,
            "listenerPath",
        ),
        (r#"{"defaultAction":3}"#, "Decoding seccomp profile failed"),
    ] {
        let option = write("bad.json", text);
        sh(&engine, &["--security-opt", &option], "true").fails(125, words);
    }
    refused(
        &engine,
        r#""SecurityOpt":["wat"]"#,
        400,
        r#"invalid --security-opt 1: \"wat\""#,
    );
    refused(
        &engine,
        r#""SecurityOpt":["wat=1"]"#,
        400,
        r#"invalid --security-opt 2: \"wat=1\""#,
    );
    if !std::path::Path::new("/sys/kernel/security/apparmor/profiles").exists() {
        refused(
            &engine,
            r#""SecurityOpt":["apparmor=mine"]"#,
            400,
            "the kernel has no AppArmor",
        );
    }
    assert_eq!(
        sh(
            &engine,
            &[
                "--security-opt",
                "label=disable",
                "--security-opt",
                "apparmor=unconfined"
            ],
            "echo ok"
        )
        .ok(),
        "ok"
    );
    engine.finish();
}

#[test]
fn paths_limits_and_groups() {
    let engine = Engine::start();
    let read_only = [
        "--read-only",
        "--tmpfs",
        "/tmp:size=1m,mode=700",
        "-v",
        "keep:/keep",
    ];
    let script = "touch /x; touch /tmp/x /keep/x /dev/shm/x && echo ok; stat -c %a /tmp; echo y > /etc/hosts";
    let seen = sh(&engine, &read_only, script);
    assert_eq!(seen.out, "ok\n700\n", "{seen:?}");
    assert!(
        seen.err.contains("/x: Read-only file system")
            && seen.err.contains("/etc/hosts: Read-only"),
        "{seen:?}"
    );
    let masks =
        "grep -c ' /proc/keys ' /proc/self/mounts; grep -cE ' /proc/sys proc ro' /proc/self/mounts";
    assert_eq!(sh(&engine, &[], masks).ok(), "1\n1");
    assert_eq!(
        sh(
            &engine,
            &["--security-opt", "systempaths=unconfined"],
            masks
        )
        .out,
        "0\n0\n"
    );
    start(
        &engine,
        "own",
        r#""MaskedPaths":["/etc/group"],"ReadonlyPaths":["/var"]"#,
    );
    let seen = engine.docker(&[
        "exec",
        "own",
        "sh",
        "-c",
        "wc -c </etc/group; touch /var/x; grep -c proc/keys /proc/self/mounts",
    ]);
    assert!(
        seen.out == "0\n0\n" && seen.err.contains("Read-only"),
        "{seen:?}"
    );
    let cgroups =
        "mkdir /sys/fs/cgroup/pids/inner && rmdir /sys/fs/cgroup/pids/inner && echo writable";
    assert_eq!(
        sh(
            &engine,
            &[
                "--security-opt",
                "writable-cgroups=true",
                "--cgroupns",
                "private"
            ],
            cgroups
        )
        .ok(),
        "writable"
    );
    assert!(sh(&engine, &[], cgroups).err.contains("Read-only"));

    let limits = [
        "--ulimit",
        "nofile=123:456",
        "--ulimit",
        "core=0",
        "--group-add",
        "extra",
        "--group-add",
        "1234",
        "--oom-score-adj",
        "300",
    ];
    let script = "ulimit -Sn; ulimit -Hn; ulimit -c; id -G; cat /proc/self/oom_score_adj";
    assert_eq!(
        sh(&engine, &limits, script).ok(),
        "123\n456\n0\n0 44 1234\n300"
    );
    sh(&engine, &["--group-add", "none"], "true").fails(
        125,
        "unable to find group none: no matching entries in group file",
    );
    // More than this machine's root may give: as much as there is, and a word in the log.
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let effective = status
        .lines()
        .find_map(|l| l.strip_prefix("CapEff:\t"))
        .unwrap();
    let may_raise = u64::from_str_radix(effective, 16).unwrap() >> 24 & 1 == 1;
    let many = sh(
        &engine,
        &[
            "--ulimit",
            "memlock=1152921504606846976:1152921504606846976",
        ],
        "ulimit -Hl",
    );
    assert_eq!(many.code, 0, "{many:?}");
    if !may_raise && many.out.trim() != "1125899906842624" {
        assert!(engine.log().contains("memlock"), "{}", engine.log());
    }
    engine.finish();
}

#[test]
fn devices_by_name() {
    let dir = tempfile::tempdir().unwrap();
    let engine = Engine::with(Options {
        args: vec!["--cdi-spec-dir".into(), dir.path().display().to_string()],
        ..Options::default()
    });
    engine.import_busybox("busybox:latest");
    let seen_by_hook = engine.dir().join("hook");
    let hook = format!(
        "hooks:\n    - {{hookName: createContainer, path: /bin/sh, args: [sh, -c, 'cat > {}; touch $(dirname {})/ran']}}",
        seen_by_hook.display(),
        seen_by_hook.display()
    );
    let spec = format!(
        "cdiVersion: 0.6.0\nkind: vendor.com/thing\ndevices:\n- name: one\n  containerEdits:\n    env: [WHICH=one]\n    deviceNodes:\n    \
         - {{path: /dev/thing, hostPath: /dev/loop-control, permissions: rw}}\ncontainerEdits:\n  mounts:\n  \
         - {{hostPath: {0}, containerPath: /opt/thing, options: [ro]}}\n  additionalGids: [4242]\n  {hook}\n",
        dir.path().display()
    );
    fs::write(dir.path().join("vendor.yaml"), spec).unwrap();
    let info = engine.docker(&["info", "-f", "{{.CDISpecDirs}}"]).ok();
    assert_eq!(info, format!("[{}]", dir.path().display()));
    let (_, info) = engine.api("GET", "/v1.51/info", None);
    assert!(
        info.contains(r#""DiscoveredDevices":[{"Source":"cdi","ID":"vendor.com/thing=one"}]"#),
        "{info}"
    );
    let script = "echo $WHICH; ls -l /dev/thing | cut -c1; ls /opt/thing; id -G; exec 3<>/dev/thing && echo open";
    let seen = sh(&engine, &["--device", "vendor.com/thing=one"], script);
    assert_eq!(seen.out, "one\nc\nvendor.yaml\n0 4242\nopen\n", "{seen:?}");
    let state = fs::read_to_string(&seen_by_hook).unwrap();
    assert!(
        state.contains(r#""status":"creating""#) || state.contains("\"pid\""),
        "{state}"
    );
    sh(&engine, &["--device", "vendor.com/thing=two"], "true").fails(
        125,
        "CDI device injection failed: unresolvable CDI devices vendor.com/thing=two",
    );
    sh(&engine, &["--gpus", "all"], "true").fails(
        125,
        "could not select device driver \"\" with capabilities: [[gpu]]",
    );
    engine.finish();
}
