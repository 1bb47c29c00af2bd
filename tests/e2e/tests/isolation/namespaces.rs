//! The other namespaces, and settings that belong to them.

use std::fs;

use gantry_e2e::Engine;

use crate::{refused, sh};

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
