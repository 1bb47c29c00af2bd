//! The life of a container through the unchanged docker CLI.

use std::io::{BufRead, BufReader};
use std::process::Stdio;
use std::time::Duration;

use gantry_e2e::{Engine, eventually};

#[test]
fn run_prints_and_returns_the_exit_code() {
    let engine = Engine::start();
    assert_eq!(
        engine
            .docker(&["run", "--rm", "--network", "none", "busybox", "echo", "hi"])
            .ok(),
        "hi"
    );
    let both = engine.docker(&[
        "run",
        "--rm",
        "busybox",
        "sh",
        "-c",
        "echo out; echo err >&2; exit 7",
    ]);
    assert_eq!(
        (both.code, both.out.as_str(), both.err.as_str()),
        (7, "out\n", "err\n")
    );
    let input = engine.docker_stdin(&["run", "-i", "--rm", "busybox", "cat"], b"through stdin\n");
    assert_eq!(input.ok(), "through stdin");
    engine
        .docker(&["run", "--rm", "busybox", "no-such-program"])
        .fails(127, "executable file not found");
    engine
        .docker(&["run", "--rm", "busybox", "/etc/passwd"])
        .fails(126, "permission denied");
    let killed = [
        "run",
        "--rm",
        "busybox",
        "sh",
        "-c",
        "sh -c 'kill -9 $$'; exit $?",
    ];
    assert_eq!(engine.docker(&killed).code, 137);
    assert_eq!(engine.docker(&["ps", "-aq"]).ok(), "");
    engine.finish();
}

#[test]
fn large_output_arrives_whole() {
    let engine = Engine::start();
    let script = "head -c 20000000 /dev/zero | tr '\\0' x; echo end";
    let out = engine
        .docker(&["run", "--rm", "busybox", "sh", "-c", script])
        .ok();
    assert_eq!(out.len(), 20_000_003);
    assert!(out.ends_with("xend"));
    engine.finish();
}

#[test]
fn terminal() {
    let engine = Engine::start();
    // util-linux's script gives the client a terminal of its own.
    let line = "docker run -it --rm busybox sh -c 'tty; stty size; test -t 0 && echo yes; exit 3'";
    let seen = engine.client("script", &["-qec", line, "/dev/null"]);
    assert_eq!(seen.code, 3, "{seen:?}");
    for word in ["/dev/pts/0", "yes"] {
        assert!(seen.out.contains(word), "{word}: {seen:?}");
    }
    engine
        .docker(&["run", "-d", "--name", "term", "busybox", "sleep", "60"])
        .ok();
    let seen = engine.client(
        "script",
        &[
            "-qec",
            "docker exec -it term sh -c 'test -t 1 && tty'",
            "/dev/null",
        ],
    );
    assert!(seen.code == 0 && seen.out.contains("/dev/pts/"), "{seen:?}");
    engine
        .docker(&["run", "-it", "--rm", "busybox", "true"])
        .fails(1, "not a TTY");
    engine.finish();
}

#[test]
fn detached_life_cycle() {
    let engine = Engine::start();
    let id = engine
        .docker(&[
            "run",
            "-d",
            "--name",
            "web",
            "-l",
            "tier=front",
            "busybox",
            "sleep",
            "600",
        ])
        .ok();
    assert_eq!(id.len(), 64);
    let ps = |filter: &str| {
        engine
            .docker(&["ps", "-a", "--no-trunc", "-q", "--filter", filter])
            .ok()
    };
    for filter in [
        "name=web",
        "label=tier=front",
        "status=running",
        "ancestor=busybox",
        "label=tier",
    ] {
        assert_eq!(ps(filter), id, "{filter}");
    }
    assert_eq!(ps("status=exited"), "");
    assert_eq!(
        engine
            .docker(&["inspect", "-f", "{{.State.Status}} {{.Name}}", "web"])
            .ok(),
        "running /web"
    );
    assert_eq!(engine.docker(&["exec", "web", "hostname"]).ok(), id[..12]);
    assert_eq!(
        engine.docker(&["exec", "web", "sh", "-c", "exit 5"]).code,
        5
    );
    // The error of an exec comes through the stream, as dockerd sends it.
    let missing = engine.docker(&["exec", "web", "no-such-program"]);
    assert_eq!(missing.code, 127, "{missing:?}");
    assert!(
        missing.out.contains("executable file not found"),
        "{missing:?}"
    );
    engine.docker(&["rename", "web", "shop"]).ok();

    engine.docker(&["stop", "-t", "1", "shop"]).ok();
    assert_eq!(
        engine
            .docker(&["inspect", "-f", "{{.State.ExitCode}}", "shop"])
            .ok(),
        "137"
    );
    assert_eq!(ps("status=exited"), id);
    engine.docker(&["start", "shop"]).ok();
    engine.docker(&["kill", "-s", "TERM", "shop"]).ok();
    engine.docker(&["restart", "-t", "0", "shop"]).ok();
    assert_eq!(
        engine
            .docker(&["inspect", "-f", "{{.State.Running}}", "shop"])
            .ok(),
        "true"
    );
    engine
        .docker(&["rm", "shop"])
        .fails(1, "container is running");
    engine.docker(&["rm", "-f", "shop"]).ok();
    assert_eq!(engine.docker(&["ps", "-aq"]).ok(), "");
    engine.finish();
}

#[test]
fn wait_and_exit_codes() {
    let engine = Engine::start();
    engine
        .docker(&[
            "run",
            "-d",
            "--name",
            "waits",
            "busybox",
            "sh",
            "-c",
            "trap 'exit 9' USR1; echo ready; while :; do sleep 0.1; done",
        ])
        .ok();
    eventually("the trap is set", 60, || {
        (engine.docker(&["logs", "waits"]).ok() == "ready").then_some(())
    });
    let waiter = engine
        .docker_command()
        .args(["wait", "waits"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    std::thread::sleep(Duration::from_millis(500));
    engine.docker(&["kill", "-s", "USR1", "waits"]).ok();
    let out = waiter.wait_with_output().unwrap();
    assert_eq!(String::from_utf8_lossy(&out.stdout).trim(), "9");
    assert_eq!(engine.docker(&["wait", "waits"]).ok(), "9");
    engine.finish();
}

#[test]
fn logs_follow_tail_and_time() {
    let engine = Engine::start();
    let script = "for i in 1 2 3; do echo line $i; echo e$i >&2; done; sleep 2; echo late";
    engine
        .docker(&["run", "-d", "--name", "logs", "busybox", "sh", "-c", script])
        .ok();
    let mut follow = engine
        .docker_command()
        .args(["logs", "-f", "logs"])
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let lines: Vec<String> = BufReader::new(follow.stdout.take().unwrap())
        .lines()
        .map(Result::unwrap)
        .collect();
    assert_eq!(lines, ["line 1", "line 2", "line 3", "late"]);
    assert!(follow.wait().unwrap().success());
    let done = engine.docker(&["logs", "logs"]);
    assert_eq!(
        (done.out.as_str(), done.err.as_str()),
        ("line 1\nline 2\nline 3\nlate\n", "e1\ne2\ne3\n")
    );
    assert_eq!(engine.docker(&["logs", "-n", "1", "logs"]).ok(), "late");
    let stamped = engine.docker(&["logs", "-t", "-n", "1", "logs"]).ok();
    let (time, text) = stamped.split_once(' ').unwrap();
    assert!(
        time.ends_with('Z') && time.len() >= 20 && text == "late",
        "{stamped}"
    );
    assert_eq!(
        engine.docker(&["logs", "--since", time, "logs"]).out,
        "late\n"
    );
    engine.finish();
}

#[test]
fn attach_sees_output_and_gives_input() {
    let engine = Engine::start();
    engine
        .docker(&[
            "run",
            "-d",
            "-i",
            "--name",
            "att",
            "busybox",
            "sh",
            "-c",
            "read x; echo got $x; exit 4",
        ])
        .ok();
    let attached = engine.docker_stdin(&["attach", "att"], b"word\n");
    assert_eq!((attached.code, attached.out.as_str()), (4, "got word\n"));
    engine.finish();
}

#[test]
fn isolation_defaults() {
    let engine = Engine::start();
    let sh = |script: &str| {
        engine
            .docker(&["run", "--rm", "busybox", "sh", "-c", script])
            .ok()
    };
    assert!(sh("cat /proc/self/status").contains("Seccomp:\t2"));
    assert!(sh("grep CapEff /proc/self/status").ends_with("00000000a80425fb"));
    assert_eq!(sh("echo $$"), "1");
    assert_eq!(
        sh("ls -A /proc/acpi /proc/scsi 2>/dev/null | grep -v : | wc -w"),
        "0"
    );
    assert_eq!(
        sh("(echo x > /proc/sys/kernel/hostname) 2>/dev/null; echo $?"),
        "1"
    );
    assert_eq!(sh("mount -t tmpfs x /tmp 2>/dev/null; echo $?"), "1");
    engine
        .docker(&["run", "-d", "--name", "sleeps", "busybox", "sleep", "60"])
        .ok();
    assert!(
        engine
            .docker(&["exec", "sleeps", "cat", "/proc/self/status"])
            .ok()
            .contains("Seccomp:\t2")
    );
    let grep = ["exec", "sleeps", "grep", "CapEff", "/proc/self/status"];
    assert!(engine.docker(&grep).ok().ends_with("00000000a80425fb"));
    let user = [
        "run",
        "--rm",
        "-u",
        "www",
        "-w",
        "/var/www",
        "-e",
        "A=b",
        "busybox",
        "sh",
        "-c",
        "id; pwd; echo $A",
    ];
    assert_eq!(
        engine.docker(&user).ok(),
        "uid=33(www) gid=33(www) groups=33(www),44(extra)\n/var/www\nb"
    );
    let read_only = [
        "run",
        "--rm",
        "--read-only",
        "--tmpfs",
        "/tmp",
        "busybox",
        "sh",
        "-c",
        "touch /x; touch /tmp/x && echo ok",
    ];
    assert_eq!(engine.docker(&read_only).ok(), "ok");
    engine.finish();
}

#[test]
fn limits_are_in_the_cgroup() {
    let engine = Engine::start();
    let limits = ["--memory", "64m", "--cpus", "0.5", "--pids-limit", "50"];
    let id = engine
        .docker(
            &[
                &["run", "-d", "--name", "limited"],
                &limits[..],
                &["busybox", "sleep", "60"],
            ]
            .concat(),
        )
        .ok();
    let read = |controller: &str, file: &str| {
        let root = format!("/sys/fs/cgroup/{controller}");
        let found = gantry_e2e::run("find", &[root.as_str(), "-name", id.as_str()]).ok();
        std::fs::read_to_string(format!(
            "{}/{file}",
            found.lines().next().unwrap_or_default()
        ))
        .unwrap()
        .trim()
        .to_owned()
    };
    assert_eq!(
        read("memory", "memory.limit_in_bytes"),
        (64 << 20).to_string()
    );
    assert_eq!(read("cpu", "cpu.cfs_quota_us"), "50000");
    assert_eq!(read("pids", "pids.max"), "50");
    let hog = [
        "run",
        "--name",
        "oom",
        "--memory",
        "16m",
        "busybox",
        "sh",
        "-c",
        "head -c 100m /dev/zero | tail",
    ];
    assert_ne!(engine.docker(&hog).code, 0);
    assert_eq!(
        engine
            .docker(&["inspect", "-f", "{{.State.OOMKilled}}", "oom"])
            .ok(),
        "true"
    );
    engine.finish();
}

#[test]
fn foreign_runtimes() {
    // Debian's crun refuses machines with an empty unified hierarchy beside v1; core/monitor tests it without one.
    let config = serde_json::json!({"runtimes": {"other": {"path": "/usr/sbin/runc"}}});
    let engine = Engine::with(gantry_e2e::Options {
        config: Some(config),
        ..Default::default()
    });
    engine.import_busybox("busybox:latest");
    let script = "echo hi; cat /proc/self/status; exit 3";
    let out = engine.docker(&[
        "run",
        "--rm",
        "--runtime",
        "other",
        "busybox",
        "sh",
        "-c",
        script,
    ]);
    assert_eq!(out.code, 3, "{out:?}");
    assert!(
        out.out.starts_with("hi\n") && out.out.contains("Seccomp:\t2"),
        "{out:?}"
    );
    engine
        .docker(&[
            "run",
            "-d",
            "--name",
            "reruns",
            "--runtime",
            "other",
            "busybox",
            "sleep",
            "60",
        ])
        .ok();
    assert_eq!(engine.docker(&["exec", "reruns", "echo", "in"]).ok(), "in");
    engine
        .docker(&["run", "--rm", "--runtime", "nope", "busybox", "true"])
        .fails(125, "nope");
    engine.finish();
}

#[test]
fn restart_policy_restarts() {
    let engine = Engine::start();
    engine
        .docker(&[
            "run",
            "-d",
            "--name",
            "reruns",
            "--restart",
            "on-failure:2",
            "busybox",
            "false",
        ])
        .ok();
    eventually("three starts and the end", 20, || {
        let seen = engine
            .docker(&[
                "inspect",
                "-f",
                "{{.RestartCount}} {{.State.Status}}",
                "reruns",
            ])
            .ok();
        (seen == "2 exited").then_some(())
    });
    engine.finish();
}
