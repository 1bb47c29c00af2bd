//! What keeps a container running, changes it while it runs and decides when it starts.

use std::path::PathBuf;

use gantry_e2e::{Engine, Options, eventually};
use serde_json::{Value, json};

fn inspect(engine: &Engine, format: &str, name: &str) -> String {
    engine.docker(&["inspect", "-f", format, name]).ok()
}

fn state(engine: &Engine, name: &str) -> String {
    inspect(engine, "{{.State.Status}}", name)
}

#[track_caller]
fn becomes(engine: &Engine, name: &str, wanted: &str) {
    eventually(&format!("{name} is {wanted}"), 20, || {
        (state(engine, name) == wanted).then_some(())
    });
}

/// Runs a detached container of busybox.
fn run(engine: &Engine, flags: &[&str], command: &str) -> String {
    let mut args = vec!["run", "-d", "--network", "none", "--stop-timeout", "0"];
    args.extend(flags);
    args.extend(["busybox", "sh", "-c", command]);
    engine.docker(&args).ok()
}

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

#[test]
fn limits_change_while_the_container_runs() {
    let mut engine = Engine::start();
    run(
        &engine,
        &["--name", "limited", "-m", "64m", "--shm-size", "32m"],
        "head -c 20000000 /dev/zero > /dev/shm/x; touch /full; sleep 600",
    );
    let number = |engine: &Engine, controller: &str, file: &str| {
        let dir = cgroup(engine, "limited", controller)?;
        let text = std::fs::read_to_string(dir.join(file)).unwrap();
        Some(text.trim().to_owned())
    };
    let memory = |engine: &Engine| {
        let file = |name| number(engine, "memory", name)?.parse::<u64>().ok();
        Some((
            file("memory.limit_in_bytes")? >> 20,
            file("memory.memsw.limit_in_bytes")? >> 20,
        ))
    };
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
        let says = |controller, file, value: &str| {
            assert_eq!(number(&engine, controller, file).as_deref(), Some(value));
        };
        says("cpu", "cpu.cfs_quota_us", "50000");
        says("cpu", "cpu.shares", "512");
        says("pids", "pids.max", "50");
        says("cpuset", "cpuset.cpus", "0");
        // What is in use cannot be taken away: nothing of the request happens.
        eventually("the memory is used", 10, || {
            (engine
                .docker(&["exec", "limited", "test", "-e", "/full"])
                .code
                == 0)
                .then_some(())
        });
        let too_little = json!({"Memory": 6 << 20, "MemorySwap": 6 << 20, "PidsLimit": 60});
        let (status, answer) = update(&engine, "limited", &too_little);
        assert_eq!(status, 500, "{answer}");
        let message = answer["message"].as_str().unwrap();
        assert!(message.starts_with("Cannot update container "), "{message}");
        assert!(
            message.contains("unable to set memory limit to 6291456"),
            "{message}"
        );
        assert_eq!(memory(&engine), Some((40, 48)));
        says("pids", "pids.max", "50");
    }
    assert_eq!(
        inspect(&engine, "{{.HostConfig.PidsLimit}}", "limited"),
        "50"
    );
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
        let (code, answer) = update(&engine, "limited", &body);
        assert_eq!(code, status, "{answer}");
        assert!(
            answer["message"].as_str().unwrap().contains(words),
            "{answer}"
        );
    }
    // The new limits are the container's own, also for its next run and the next daemon.
    engine.kill9();
    engine.boot();
    engine.docker(&["restart", "limited"]).ok();
    if cgroup(&engine, "limited", "memory").is_some() {
        assert_eq!(memory(&engine), Some((40, 48)));
    }
    engine.docker(&["stop", "limited"]).ok();
    engine
        .docker(&["update", "--restart", "on-failure:4", "limited"])
        .ok();
    assert_eq!(
        inspect(&engine, "{{json .HostConfig.RestartPolicy}}", "limited"),
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
    engine.finish();
}

#[test]
fn a_policy_goes_on_when_the_start_itself_fails() {
    let mut engine = Engine::start();
    let place = engine.dir().join("config");
    let place = place.to_str().unwrap();
    std::fs::create_dir(place).unwrap();
    let mount = format!("type=bind,src={place},dst=/config");
    run(
        &engine,
        &["--name", "needs", "--restart", "always", "--mount", &mount],
        "while test -e /config/stay; do sleep 0.1; done; exit 3",
    );
    run(
        &engine,
        &[
            "--name",
            "twice",
            "--restart",
            "on-failure:2",
            "--mount",
            &mount,
        ],
        "exit 4",
    );
    becomes(&engine, "twice", "exited");
    assert_eq!(inspect(&engine, "{{.RestartCount}}", "twice"), "2");
    becomes(&engine, "needs", "restarting");
    std::fs::remove_dir(place).unwrap();
    eventually("a start failed", 20, || {
        let error = inspect(&engine, "{{.State.Error}}", "needs");
        error
            .contains("bind source path does not exist")
            .then_some(())
    });
    becomes(&engine, "needs", "restarting");
    // The next daemon goes on where the last one was.
    let count = |engine: &Engine| -> u32 {
        inspect(engine, "{{.RestartCount}}", "needs")
            .parse()
            .unwrap()
    };
    let before = count(&engine);
    engine.kill9();
    engine.boot();
    assert!(count(&engine) >= before);
    assert_ne!(state(&engine, "needs"), "exited");
    std::fs::create_dir(place).unwrap();
    std::fs::write(format!("{place}/stay"), "").unwrap();
    becomes(&engine, "needs", "running");
    // A restart that waits is stopped without having started.
    std::fs::remove_dir_all(place).unwrap();
    becomes(&engine, "needs", "restarting");
    engine
        .docker(&["rm", "needs"])
        .fails(1, "stop the container before removing");
    engine
        .docker(&["pause", "needs"])
        .fails(1, "is restarting, wait until the container is running");
    engine.docker(&["stop", "needs"]).ok();
    assert_eq!(state(&engine, "needs"), "exited");
    engine
        .docker(&["start", "needs"])
        .fails(1, "bind source path does not exist");
    assert_eq!(state(&engine, "needs"), "exited");
    engine.finish();
}

#[test]
fn a_manual_stop_is_remembered() {
    let mut engine = Engine::start();
    for (name, policy) in [
        ("always", "always"),
        ("unless", "unless-stopped"),
        ("failing", "on-failure"),
    ] {
        run(&engine, &["--name", name, "--restart", policy], "sleep 600");
    }
    run(
        &engine,
        &["--name", "kept", "--restart", "unless-stopped"],
        "sleep 600",
    );
    run(&engine, &["--name", "brief", "--rm"], "sleep 600");
    engine.docker(&["stop", "always", "unless", "failing"]).ok();
    let pid = inspect(&engine, "{{.State.Pid}}", "brief");
    engine.kill9();
    // It ends while there is no daemon to remove it.
    gantry_e2e::run("kill", &["-9", &pid]).ok();
    engine.boot();
    becomes(&engine, "always", "running");
    assert_eq!(state(&engine, "unless"), "exited");
    assert_eq!(state(&engine, "failing"), "exited");
    assert_eq!(state(&engine, "kept"), "running");
    assert_eq!(inspect(&engine, "{{.RestartCount}}", "kept"), "0");
    assert!(
        !engine
            .docker(&["ps", "-a", "--format", "{{.Names}}"])
            .ok()
            .contains("brief")
    );
    // A restart is no stop.
    engine.docker(&["restart", "kept"]).ok();
    engine.docker(&["kill", "-s", "KILL", "always"]).ok();
    assert_eq!(state(&engine, "always"), "exited");
    engine.finish();
}

#[test]
fn waits_of_all_kinds() {
    let engine = Engine::start();
    let wait = |name: &str, condition: &str| {
        let path = format!("/containers/{name}/wait?condition={condition}");
        let (status, body) = engine.api("POST", &path, None);
        (
            status,
            serde_json::from_str::<Value>(&body).unwrap_or_default(),
        )
    };
    let create = [
        "create",
        "--name",
        "made",
        "--network",
        "none",
        "--rm",
        "busybox",
        "sh",
        "-c",
        "exit 7",
    ];
    engine.docker(&create).ok();
    assert_eq!(wait("made", "not-running"), (200, json!({"StatusCode": 0})));
    assert_eq!(wait("made", "whenever").0, 400);
    std::thread::scope(|scope| {
        let ends =
            ["next-exit", "removed"].map(|condition| scope.spawn(move || wait("made", condition)));
        let second = std::time::Duration::from_millis(300);
        std::thread::sleep(second);
        assert!(ends.iter().all(|end| !end.is_finished()));
        engine.docker(&["start", "made"]).ok();
        for end in ends {
            assert_eq!(end.join().unwrap(), (200, json!({"StatusCode": 7})));
        }
    });
    engine
        .docker(&[
            "run",
            "-d",
            "--name",
            "broken",
            "--network",
            "none",
            "busybox",
            "nosuch",
        ])
        .fails(127, "executable file not found");
    let (_, failed) = wait("broken", "");
    assert_eq!(failed["StatusCode"], 127);
    assert!(
        failed["Error"]["Message"]
            .as_str()
            .unwrap()
            .contains("not found"),
        "{failed}"
    );
    engine.finish();
}

#[test]
fn prunes_take_what_is_meant() {
    let engine = Engine::start();
    for (name, label) in [("one", "keep=no"), ("two", "keep=yes"), ("three", "x=y")] {
        run(
            &engine,
            &["--name", name, "-l", label],
            "head -c 1000000 /dev/zero > /file",
        );
        becomes(&engine, name, "exited");
    }
    run(&engine, &["--name", "busy", "-l", "keep=no"], "sleep 600");
    let left = || engine.docker(&["ps", "-a", "--format", "{{.Names}}"]).ok();
    let prune = |filter: &str| {
        engine
            .docker(&["container", "prune", "-f", "--filter", filter])
            .ok()
    };
    assert!(prune("until=1h").contains("Total reclaimed space: 0B"));
    let out = prune("label=keep=no");
    assert!(
        out.contains("Total reclaimed space: 1") && out.contains("MB"),
        "{out}"
    );
    assert_eq!(left(), "busy\nthree\ntwo");
    prune("label!=keep");
    assert_eq!(left(), "busy\ntwo");
    engine
        .docker(&["container", "prune", "-f", "--filter", "nonsense=1"])
        .fails(1, "nonsense");
    let all = engine.docker(&["system", "prune", "-f", "--volumes"]).ok();
    assert!(all.contains("Total reclaimed space: 1"), "{all}");
    assert_eq!(left(), "busy");
    let (status, body) = engine.api("POST", "/build/prune", None);
    assert_eq!(
        (status, body.trim()),
        (200, r#"{"CachesDeleted":null,"SpaceReclaimed":0}"#)
    );
    engine.finish();
}

#[test]
fn stop_signals_and_an_init() {
    let engine = Engine::start();
    let script = "trap 'echo usr; exit 5' USR1; while :; do sleep 0.05; done";
    let flags = [
        "--name",
        "trap",
        "--stop-signal",
        "USR1",
        "--stop-timeout",
        "-1",
    ];
    run(&engine, &flags, script);
    engine.docker(&["stop", "trap"]).ok();
    assert_eq!(inspect(&engine, "{{.State.ExitCode}}", "trap"), "5");
    assert_eq!(engine.docker(&["logs", "trap"]).ok(), "usr");
    run(&engine, &["--name", "reaped", "--init"], "sleep 600");
    let first = engine
        .docker(&["exec", "reaped", "cat", "/proc/1/comm"])
        .ok();
    assert_eq!(first, "docker-init");
    // What ignores the stop signal is killed; what `--init` forwards it to is not.
    engine.docker(&["stop", "-t", "5", "reaped"]).ok();
    assert_eq!(inspect(&engine, "{{.State.ExitCode}}", "reaped"), "143");
    engine.finish();
}

#[test]
fn what_is_required_starts_first() {
    let engine = Engine::start();
    let gantry = |flags: &[&str], command: &str| {
        let mut args = vec!["create", "--network", "none", "--stop-timeout", "0"];
        args.extend(flags);
        args.extend(["busybox", "sh", "-c", command]);
        engine.gantry(&args)
    };
    let healthy = [
        "--name",
        "cache",
        "--health-cmd",
        "test -e /ready",
        "--health-interval",
        "100ms",
        "--health-start-period",
        "30s",
        "--health-start-interval",
        "100ms",
    ];
    gantry(&["--name", "db"], "sleep 600").ok();
    gantry(&healthy, "sleep 1; touch /ready; sleep 600").ok();
    gantry(
        &["--name", "web", "--requires", "db,cache:healthy"],
        "sleep 600",
    )
    .ok();
    engine.docker(&["start", "web"]).ok();
    for name in ["db", "cache", "web"] {
        assert_eq!(state(&engine, name), "running", "{name}");
    }
    assert_eq!(
        inspect(&engine, "{{.State.Health.Status}}", "cache"),
        "healthy"
    );
    let started = |name| inspect(&engine, "{{.State.StartedAt}}", name);
    assert!(started("web") > started("cache") && started("cache") > started("db"));
    assert_eq!(
        engine
            .gantry(&["inspect", "-f", "{{.HostConfig.Requires}}", "web"])
            .ok(),
        "[db cache:healthy]"
    );
    // Those that depend on it do not end with it.
    engine.docker(&["stop", "db"]).ok();
    assert_eq!(state(&engine, "web"), "running");
    engine.docker(&["restart", "web"]).ok();
    assert_eq!(state(&engine, "db"), "running");

    for (requires, words) in [
        ("nosuch", "No such container: nosuch"),
        ("db:healthy", "has no health check"),
        ("db:sometimes", "unknown condition"),
    ] {
        gantry(&["--requires", requires], "true").fails(1, words);
    }
    // A circle is closed by a name that is given again.
    engine.docker(&["stop", "web"]).ok();
    engine.docker(&["rm", "-f", "db"]).ok();
    engine
        .docker(&["start", "web"])
        .fails(1, "requirement \"db\": No such container: db");
    gantry(&["--name", "db", "--requires", "web"], "true")
        .fails(1, "containers require each other: db -> web -> db");
    // What cannot start fails whoever requires it.
    gantry(&["--name", "db", "--entrypoint", "/nosuch"], "true").ok();
    engine
        .docker(&["start", "web"])
        .fails(1, "requirement \"db\": failed to create task");
    assert_eq!(state(&engine, "web"), "exited");
    engine.finish();
}

#[test]
fn containers_start_in_order_with_the_machine() {
    let mut engine = Engine::with(Options {
        boot_id: Some("first".into()),
        ..Options::default()
    });
    engine.import_busybox("busybox:latest");
    run(
        &engine,
        &["--name", "zz-base", "--restart", "always"],
        "sleep 600",
    );
    let joins = [
        "run",
        "-d",
        "--name",
        "aa-joins",
        "--restart",
        "unless-stopped",
        "--network",
        "container:zz-base",
        "--pid",
        "container:zz-base",
        "busybox",
        "sleep",
        "600",
    ];
    engine.docker(&joins).ok();
    let requires = [
        "run",
        "-d",
        "--name",
        "bb-requires",
        "--restart",
        "always",
        "--requires",
        "aa-joins",
        "--network",
        "none",
        "busybox",
        "sleep",
        "600",
    ];
    engine.gantry(&requires).ok();
    engine.reboot("second");
    for name in ["zz-base", "aa-joins", "bb-requires"] {
        becomes(&engine, name, "running");
        // None had to be tried twice.
        assert_eq!(inspect(&engine, "{{.RestartCount}}", name), "1", "{name}");
    }
    engine.finish();
}

#[test]
fn memory_that_runs_out_is_told_at_once() {
    let engine = Engine::start();
    run(&engine, &["--name", "tight", "-m", "16m"], "sleep 600");
    let eat = "head -c 50000000 /dev/zero | tail -n 1";
    engine.docker(&["exec", "tight", "sh", "-c", eat]);
    eventually("it is noted", 10, || {
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

#[test]
fn each_step_is_an_event() {
    let engine = Engine::start();
    let now = || {
        let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        format!("{:.9}", since.unwrap().as_secs_f64())
    };
    let since = now();
    run(&engine, &["--name", "one"], "sleep 600");
    for step in [
        &["pause", "one"][..],
        &["unpause", "one"],
        &["rename", "one", "other"],
        &["update", "-c", "512", "other"],
        &["restart", "-t", "0", "other"],
        &["rm", "-f", "other"],
    ] {
        engine.docker(step).ok();
    }
    let format = "{{.Action}}{{with .Actor.Attributes.signal}} {{.}}{{end}}{{with .Actor.Attributes.oldName}} {{.}}{{end}}{{with .Actor.Attributes.exitCode}} {{.}}{{end}}";
    let (until, filter) = (now(), "type=container");
    let events = engine
        .docker(&[
            "events", "--since", &since, "--until", &until, "--filter", filter, "--format", format,
        ])
        .ok();
    let expected = [
        "create",
        "start",
        "pause",
        "unpause",
        "rename /one",
        "update",
        "kill 15",
        "kill 9",
        "die 137",
        "stop",
        "start",
        "restart",
        "kill 9",
        "die 137",
        "destroy",
    ];
    assert_eq!(events.lines().collect::<Vec<_>>(), expected);
    engine.finish();
}
