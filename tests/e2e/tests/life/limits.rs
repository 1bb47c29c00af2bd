//! Limits that change while the container runs, and memory that runs out.

use std::path::PathBuf;

use gantry_e2e::{Engine, eventually};
use serde_json::{Value, json};

use crate::{inspect, run, state};

/// A container's directory in a hierarchy of version 1; `None` where the machine has version 2.
fn cgroup(engine: &Engine, name: &str, controller: &str) -> Option<PathBuf> {
    let pid = inspect(engine, "{{.State.Pid}}", name);
    let text = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
    let path = text.lines().find_map(|line| {
        let mut parts = line.splitn(3, ':').skip(1);
        let controllers = parts.next()?;
        controllers
            .split(',')
            .any(|c| c == controller)
            .then(|| parts.next().unwrap_or_default().to_owned())
    })?;
    Some(PathBuf::from(format!("/sys/fs/cgroup/{controller}{path}")))
}

fn update(engine: &Engine, name: &str, body: &Value) -> (u16, Value) {
    let path = format!("/containers/{name}/update");
    let (status, text) = engine.api("POST", &path, Some(&body.to_string()));
    (status, serde_json::from_str(&text).unwrap())
}

/// What a file of the container `limited` says.
fn number(engine: &Engine, controller: &str, file: &str) -> Option<String> {
    let dir = cgroup(engine, "limited", controller)?;
    let text = std::fs::read_to_string(dir.join(file)).unwrap();
    Some(text.trim().to_owned())
}

#[track_caller]
fn says(engine: &Engine, controller: &str, file: &str, value: &str) {
    assert_eq!(number(engine, controller, file).as_deref(), Some(value));
}

/// Its memory, and memory with swap, in mebibytes.
fn memory(engine: &Engine) -> Option<(u64, u64)> {
    let file = |name| number(engine, "memory", name)?.parse::<u64>().ok();
    Some((
        file("memory.limit_in_bytes")? >> 20,
        file("memory.memsw.limit_in_bytes")? >> 20,
    ))
}

#[test]
fn limits_change_while_the_container_runs() {
    let mut engine = Engine::start();
    run(
        &engine,
        &["--name", "limited", "-m", "64m", "--shm-size", "32m"],
        "head -c 20000000 /dev/zero > /dev/shm/x; touch /full; sleep 600",
    );
    // Up, swap first in the kernel's eyes; then down again.
    for (limit, both) in [("128m", "512m"), ("40m", "48m")] {
        let flags = ["update", "-m", limit, "--memory-swap", both, "limited"];
        engine.docker(&flags).ok();
    }
    let rest = [
        "update",
        "--cpus",
        "0.5",
        "--pids-limit",
        "50",
        "--cpuset-cpus",
        "0",
        "-c",
        "512",
        "limited",
    ];
    engine.docker(&rest).ok();
    if cgroup(&engine, "limited", "memory").is_some() {
        assert_eq!(memory(&engine), Some((40, 48)));
        says(&engine, "cpu", "cpu.cfs_quota_us", "50000");
        says(&engine, "cpu", "cpu.shares", "512");
        says(&engine, "pids", "pids.max", "50");
        says(&engine, "cpuset", "cpuset.cpus", "0");
        too_little_changes_nothing(&engine);
    }
    let pids = inspect(&engine, "{{.HostConfig.PidsLimit}}", "limited");
    assert_eq!(pids, "50");
    updates_are_checked(&engine);
    // The new limits are the container's own, also for its next run and the next daemon.
    engine.kill9();
    engine.boot();
    engine.docker(&["restart", "limited"]).ok();
    if cgroup(&engine, "limited", "memory").is_some() {
        assert_eq!(memory(&engine), Some((40, 48)));
    }
    policies_change(&engine);
    engine.finish();
}

/// What is in use cannot be taken away: nothing of the request happens.
fn too_little_changes_nothing(engine: &Engine) {
    eventually("the memory is used", 30, || {
        let full = ["exec", "limited", "test", "-e", "/full"];
        (engine.docker(&full).code == 0).then_some(())
    });
    let too_little = json!({"Memory": 6 << 20, "MemorySwap": 6 << 20, "PidsLimit": 60});
    let (status, answer) = update(engine, "limited", &too_little);
    assert_eq!(status, 500, "{answer}");
    let message = answer["message"].as_str().unwrap();
    assert!(message.starts_with("Cannot update container "), "{message}");
    assert!(
        message.contains("unable to set memory limit to 6291456"),
        "{message}"
    );
    assert_eq!(memory(engine), Some((40, 48)));
    says(engine, "pids", "pids.max", "50");
}

fn updates_are_checked(engine: &Engine) {
    for (body, status, words) in [
        (
            json!({"CpuQuota": 5000}),
            409,
            "as NanoCPUs has already been set",
        ),
        (
            json!({"Memory": 1 << 30}),
            409,
            "update the memoryswap at the same time",
        ),
        (
            json!({"Memory": 1000}),
            400,
            "Minimum memory limit allowed is 6MB",
        ),
        (
            json!({"RestartPolicy": {"Name": "x"}}),
            400,
            "invalid restart policy",
        ),
    ] {
        let (code, answer) = update(engine, "limited", &body);
        assert_eq!(code, status, "{answer}");
        assert!(
            answer["message"].as_str().unwrap().contains(words),
            "{answer}"
        );
    }
}

fn policies_change(engine: &Engine) {
    engine.docker(&["stop", "limited"]).ok();
    engine
        .docker(&["update", "--restart", "on-failure:4", "limited"])
        .ok();
    assert_eq!(
        inspect(engine, "{{json .HostConfig.RestartPolicy}}", "limited"),
        r#"{"Name":"on-failure","MaximumRetryCount":4}"#
    );
    engine
        .docker(&[
            "run", "-d", "--rm", "--name", "brief", "busybox", "sleep", "60",
        ])
        .ok();
    engine
        .docker(&["update", "--restart", "always", "brief"])
        .fails(
            1,
            "Restart policy cannot be updated because AutoRemove is enabled",
        );
}

#[test]
fn memory_that_runs_out_is_told_at_once() {
    let engine = Engine::start();
    run(&engine, &["--name", "tight", "-m", "16m"], "sleep 600");
    let eat = "head -c 50000000 /dev/zero | tail -n 1";
    engine.docker(&["exec", "tight", "sh", "-c", eat]);
    eventually("it is noted", 30, || {
        (inspect(&engine, "{{.State.OOMKilled}}", "tight") == "true").then_some(())
    });
    assert_eq!(state(&engine, "tight"), "running");
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let until = format!("{:.9}", now.unwrap().as_secs_f64());
    let events = [
        "events",
        "--since",
        "10m",
        "--until",
        &until,
        "--filter",
        "event=oom",
        "--format",
        "{{.Actor.Attributes.name}}",
    ];
    assert!(engine.docker(&events).ok().starts_with("tight"));
    engine.finish();
}
