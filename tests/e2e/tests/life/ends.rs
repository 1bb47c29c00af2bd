//! Stops, waits for the end, prunes, and the events of each step.

use gantry_e2e::Engine;
use serde_json::{Value, json};

use crate::{becomes, inspect, run};

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
