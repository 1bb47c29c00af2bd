//! Looking into containers: export, diff, commit, stats, top.

use gantry_e2e::{Engine, eventually, run};
use serde_json::{Value, json};

fn sleeper(engine: &Engine, name: &str, flags: &[&str]) {
    let mut args = vec!["run", "-d", "--name", name];
    args.extend_from_slice(flags);
    args.extend_from_slice(&["busybox", "sleep", "600"]);
    engine.docker(&args).ok();
}

fn sh(engine: &Engine, name: &str, script: &str) -> String {
    engine.docker(&["exec", name, "sh", "-c", script]).ok()
}

#[test]
fn diff_tells_what_has_changed_and_nothing_else() {
    let engine = Engine::start();
    sleeper(&engine, "box", &["-v", "data:/data", "--tmpfs", "/memory"]);
    assert_eq!(engine.docker(&["diff", "box"]).ok(), "A /data\nA /memory");
    engine
        .docker(&["create", "--name", "fresh", "busybox"])
        .ok();
    let (_, nothing) = engine.api("GET", "/containers/fresh/changes", None);
    assert_eq!(nothing.trim(), "null");
    sh(
        &engine,
        "box",
        "mkdir -p /x/y; touch /x/y/z /data/f /memory/f; rm /bin/ash; echo >>/etc/group; rm -r /var/www; mkdir /var/www",
    );
    let wanted = "C /bin\nD /bin/ash\nA /data\nC /etc\nC /etc/group\nA /memory\nC /var\nC /var/www\nA /x\nA /x/y\nA /x/y/z";
    assert_eq!(engine.docker(&["diff", "box"]).ok(), wanted);
    engine.docker(&["stop", "-t", "0", "box"]).ok();
    assert_eq!(engine.gantry(&["diff", "box"]).ok(), wanted);
    engine
        .docker(&["diff", "none"])
        .fails(1, "No such container: none");
    engine.finish();
}

#[test]
fn export_is_the_root_file_system_alone() {
    let engine = Engine::start();
    sleeper(&engine, "box", &["-v", "data:/data", "--tmpfs", "/memory"]);
    sh(
        &engine,
        "box",
        "echo root >/file; touch /data/hidden /memory/hidden",
    );
    for state in ["running", "stopped"] {
        let out = engine.dir().join(format!("{state}.tar"));
        let out = out.display().to_string();
        engine.docker(&["export", "-o", &out, "box"]).ok();
        let names = run("tar", &["-tf", &out]).ok();
        for there in ["file", "bin/busybox", "data/", "memory/"] {
            assert!(
                names.lines().any(|name| name == there),
                "{there} in {state}"
            );
        }
        assert!(!names.contains("hidden"), "{state}");
        engine.docker(&["import", &out, state]).ok();
        let cat = ["run", "--rm", state, "/bin/busybox", "cat", "/file"];
        assert_eq!(engine.docker(&cat).ok(), "root");
        engine.docker(&["stop", "-t", "0", "box"]).ok();
    }
    engine.finish();
}

#[test]
fn commit_makes_an_image_of_what_was_changed() {
    let engine = Engine::start();
    sleeper(
        &engine,
        "box",
        &["-v", "data:/data", "-e", "KEPT=1", "-l", "of=box"],
    );
    sh(
        &engine,
        "box",
        "echo new >/new; rm /bin/ash; touch /data/hidden",
    );
    engine
        .docker(&[
            "commit",
            "-a",
            "somebody",
            "-m",
            "words",
            "-c",
            "ENV ADDED=2",
            "-c",
            "EXPOSE 80",
            "-c",
            "CMD [\"cat\", \"/new\"]",
            "-c",
            "WORKDIR /tmp",
            "-c",
            "LABEL more=yes",
            "box",
            "made:1",
        ])
        .ok();
    assert_eq!(
        engine
            .docker(&["inspect", "-f", "{{.State.Status}}", "box"])
            .ok(),
        "running"
    );
    assert_eq!(engine.docker(&["run", "--rm", "made:1"]).ok(), "new");
    let script = "echo $KEPT$ADDED; pwd; ls /data; ls /bin/ash 2>&1";
    let seen = engine.docker(&["run", "--rm", "made:1", "sh", "-c", script]);
    assert_eq!(
        seen.out.trim(),
        "12\n/tmp\nls: /bin/ash: No such file or directory"
    );
    let image: Value = serde_json::from_str(&engine.docker(&["inspect", "made:1"]).ok()).unwrap();
    let image = &image[0];
    assert_eq!(
        (&image["Author"], &image["Comment"]),
        (&json!("somebody"), &json!("words"))
    );
    assert_eq!(image["Config"]["ExposedPorts"], json!({"80/tcp": {}}));
    assert_eq!(
        image["Config"]["Labels"],
        json!({"of": "box", "more": "yes"})
    );
    assert_eq!(image["RootFS"]["Layers"].as_array().unwrap().len(), 2);
    let history = engine.docker(&[
        "history",
        "--format",
        "{{.CreatedBy}}|{{.Comment}}",
        "made:1",
    ]);
    assert!(history.ok().starts_with("sleep 600|words"));

    // Nothing changed: no layer. And a body stands for the container's own configuration.
    engine.docker(&["create", "--name", "same", "busybox"]).ok();
    let body = json!({"Cmd": ["from", "body"]}).to_string();
    let (status, reply) = engine.api("POST", "/commit?container=same&repo=same", Some(&body));
    assert_eq!(status, 201, "{reply}");
    let layers = [
        "image",
        "inspect",
        "-f",
        "{{len .RootFS.Layers}} {{.Config.Cmd}}",
        "same",
    ];
    assert_eq!(engine.docker(&layers).ok(), "1 [from body]");
    engine
        .docker(&["commit", "-c", "RUN true", "box"])
        .fails(1, "run is not a valid change command");
    engine.docker(&["rm", "-f", "box", "same"]).ok();
    engine.docker(&["rmi", "made:1", "same"]).ok();
    engine.finish();
}

#[test]
fn a_commit_that_dies_with_the_daemon_leaves_nothing() {
    let mut engine = Engine::start();
    sleeper(&engine, "box", &["--network", "none"]);
    sh(&engine, "box", "head -c 60000000 /dev/urandom >/big");
    let mut client = engine
        .docker_command()
        .args(["commit", "box", "never"])
        .spawn()
        .unwrap();
    eventually("the container is frozen", 20, || {
        let state = engine
            .docker(&["inspect", "-f", "{{.State.Status}}", "box"])
            .ok();
        (state == "paused").then_some(())
    });
    engine.kill9();
    client.wait().unwrap();
    engine.boot();
    assert_eq!(engine.docker(&["images", "-q", "never"]).ok(), "");
    assert_eq!(
        engine
            .docker(&["inspect", "-f", "{{.State.Status}}", "box"])
            .ok(),
        "running"
    );
    // It runs, and is not frozen.
    assert_eq!(sh(&engine, "box", "echo alive"), "alive");
    engine.docker(&["commit", "box", "later"]).ok();
    engine.finish();
}

/// Lines of a stream of statistics, cut off after `seconds`.
fn stream(engine: &Engine, name: &str, seconds: &str) -> Vec<Value> {
    let socket = engine.socket().display().to_string();
    let url = format!("http://localhost/containers/{name}/stats");
    let args = ["-s", "-N", "-m", seconds, "--unix-socket", &socket, &url];
    let out = run("curl", &args);
    let lines = out.out.lines();
    lines
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

#[test]
fn stats_of_a_container() {
    let engine = Engine::start();
    sleeper(&engine, "box", &["-m", "64m"]);
    let once = |path: &str| -> Value {
        let (status, body) = engine.api("GET", path, None);
        assert_eq!(status, 200, "{body}");
        serde_json::from_str(&body).unwrap()
    };
    let shot = once("/containers/box/stats?stream=0&one-shot=1");
    assert_eq!(shot["name"], "/box");
    assert_eq!(shot["preread"], "0001-01-01T00:00:00Z");
    assert_eq!(shot["memory_stats"]["limit"], 64 << 20);
    assert!(shot["pids_stats"]["current"].as_u64().unwrap() >= 1);
    assert!(
        shot["cpu_stats"]["cpu_usage"]["total_usage"]
            .as_u64()
            .unwrap()
            > 0
    );
    assert!(shot["networks"]["eth0"]["rx_bytes"].is_u64());
    assert!(shot["networks"].get("lo").is_none());
    let exec = ["exec", "-d", "box", "sh", "-c", "while :; do :; done"];
    engine.docker(&exec).ok();
    let lines = stream(&engine, "box", "3");
    assert!(lines.len() >= 2, "{lines:?}");
    let last = lines.last().unwrap();
    let used = |stats: &Value| stats["cpu_usage"]["total_usage"].as_u64().unwrap();
    assert!(used(&last["cpu_stats"]) > used(&last["precpu_stats"]));
    assert!(
        last["cpu_stats"]["system_cpu_usage"].as_u64()
            > last["precpu_stats"]["system_cpu_usage"].as_u64()
    );

    engine.docker(&["create", "--name", "idle", "busybox"]).ok();
    let empty = once("/containers/idle/stats?stream=0");
    assert_eq!(empty["read"], "0001-01-01T00:00:00Z");
    assert_eq!(empty["memory_stats"], json!({}));
    for table in [
        engine
            .docker(&["stats", "--no-stream", "--format", "{{.Name}} {{.PIDs}}"])
            .ok(),
        engine
            .gantry(&["stats", "--no-stream", "--format", "{{.Name}} {{.PIDs}}"])
            .ok(),
    ] {
        assert_eq!(table, "box 2");
    }
    assert_eq!(engine.api("GET", "/containers/none/stats", None).0, 404);
    engine.finish();
}

#[test]
fn top_takes_the_arguments_of_ps() {
    let engine = Engine::start();
    sleeper(&engine, "box", &["--network", "none"]);
    let pid = engine
        .docker(&["inspect", "-f", "{{.State.Pid}}", "box"])
        .ok();
    let top = engine.docker(&["top", "box"]).ok();
    assert!(
        top.starts_with("UID") && top.ends_with("sleep 600"),
        "{top}"
    );
    let chosen = engine.docker(&["top", "box", "-o", "pid,args"]).ok();
    let mut lines = chosen.lines();
    let words = |line: Option<&str>| {
        line.unwrap()
            .split_whitespace()
            .collect::<Vec<_>>()
            .join(" ")
    };
    assert_eq!(words(lines.next()), "PID COMMAND");
    assert_eq!(words(lines.next()), format!("{pid} sleep 600"));
    assert!(
        engine
            .gantry(&["top", "box", "aux"])
            .ok()
            .contains("sleep 600")
    );
    engine
        .docker(&["top", "box", "-o", "args"])
        .fails(1, "Couldn't find PID field in ps output");
    let wrong = engine
        .docker(&["top", "box", "--nope"])
        .fails(1, "ps: error: unknown gnu long option");
    assert_eq!(wrong.trim().lines().count(), 1);
    engine.finish();
}
