//! Health: checks by command and over the network, and what follows from them.

use gantry_e2e::{Engine, eventually};
use serde_json::Value;

fn health(engine: &Engine, name: &str) -> Value {
    let text = engine
        .docker(&["inspect", "-f", "{{json .State.Health}}", name])
        .ok();
    serde_json::from_str(&text).unwrap()
}

#[track_caller]
fn becomes(engine: &Engine, name: &str, status: &str) -> Value {
    eventually(&format!("{name} is {status}"), 20, || {
        let health = health(engine, name);
        (health["Status"] == status).then_some(health)
    })
}

fn run(engine: &Engine, flags: &[&str], command: &str) {
    let mut args = vec!["run", "-d", "--network", "none", "--stop-timeout", "0"];
    args.extend(["--health-interval", "100ms"]);
    args.extend(flags);
    args.extend(["busybox", "sh", "-c", command]);
    engine.gantry(&args).ok();
}

/// What has happened to a container so far.
fn events(engine: &Engine, name: &str) -> String {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let until = format!("{:.9}", now.unwrap().as_secs_f64());
    let filter = format!("container={name}");
    let mut args = vec!["events", "--since", "10m", "--until", &until];
    args.extend(["--filter", &filter, "--format", "{{.Action}}"]);
    engine.docker(&args).ok()
}

/// What the last check said.
fn last(health: &Value) -> &Value {
    health["Log"]
        .as_array()
        .and_then(|log| log.last())
        .expect("a result")
}

#[test]
fn commands_are_checked_reported_and_killed() {
    let mut engine = Engine::start();
    let check = "echo seen; test -e /ok";
    let flags = [
        "--name",
        "app",
        "--health-cmd",
        check,
        "--health-retries",
        "2",
        "--health-start-period",
        "300ms",
        "--health-start-interval",
        "50ms",
    ];
    run(&engine, &flags, "sleep 600");
    let sick = becomes(&engine, "app", "unhealthy");
    assert_eq!(last(&sick)["ExitCode"], 1);
    assert_eq!(last(&sick)["Output"], "seen\n");
    assert!(engine.docker(&["ps"]).ok().contains("(unhealthy)"));
    // More than two checks were made: those of the start period did not count.
    assert!(sick["Log"].as_array().unwrap().len() > 2, "{sick}");
    engine.docker(&["exec", "app", "touch", "/ok"]).ok();
    let well = becomes(&engine, "app", "healthy");
    assert_eq!(well["FailingStreak"], 0);
    eventually("the last five results are kept", 30, || {
        (health(&engine, "app")["Log"].as_array()?.len() == 5).then_some(())
    });
    let events = events(&engine, "app");
    let at = |wanted: &str| events.lines().position(|line| line == wanted);
    let create = format!("exec_create: /bin/sh -c {check}");
    assert!(
        at(&create) < at(&create.replace("create", "start")),
        "{events}"
    );
    assert!(at("exec_die").is_some(), "{events}");
    assert!(
        at("health_status: unhealthy") < at("health_status: healthy"),
        "{events}"
    );

    // A paused container is not asked, and counts as unhealthy; a new daemon goes on asking the others.
    engine.docker(&["pause", "app"]).ok();
    let paused = health(&engine, "app");
    assert_eq!(paused["Status"], "unhealthy");
    engine.docker(&["unpause", "app"]).ok();
    becomes(&engine, "app", "healthy");
    engine.kill9();
    engine.boot();
    let before = last(&health(&engine, "app"))["Start"].clone();
    eventually("checks go on", 30, || {
        (last(&health(&engine, "app"))["Start"] != before).then_some(())
    });

    let slow = [
        "--name",
        "slow",
        "--health-cmd",
        "echo half; sleep 77",
        "--health-timeout",
        "200ms",
        "--health-retries",
        "1",
    ];
    run(&engine, &slow, "sleep 600");
    let sick = becomes(&engine, "slow", "unhealthy");
    assert_eq!(last(&sick)["ExitCode"], -1);
    assert_eq!(
        last(&sick)["Output"],
        "Health check exceeded timeout (200ms): half\n"
    );
    engine.docker(&["pause", "slow"]).ok();
    engine.docker(&["unpause", "slow"]).ok();
    let missing = [
        "--name",
        "wordy",
        "--health-cmd",
        "head -c 9000 /dev/zero | tr '\\0' x",
        "--health-retries",
        "1",
    ];
    run(&engine, &missing, "sleep 600");
    let wordy = becomes(&engine, "wordy", "healthy");
    let output = last(&wordy)["Output"].as_str().unwrap();
    assert!(
        output.len() == 4099 && output.ends_with("x..."),
        "{}",
        output.len()
    );
    engine
        .docker(&[
            "create",
            "--health-cmd",
            "x",
            "--health-timeout",
            "70us",
            "busybox",
        ])
        .fails(1, "Timeout in Healthcheck cannot be less than 1ms");
    engine
        .docker(&[
            "run",
            "-d",
            "--name",
            "none",
            "--no-healthcheck",
            "busybox",
            "sleep",
            "60",
        ])
        .ok();
    assert!(health(&engine, "none").is_null());
    engine.finish();
}

#[test]
fn checks_over_the_network_need_no_program() {
    let engine = Engine::start();
    let serve = "mkdir /www; echo fine > /www/up; httpd -p 127.0.0.1:8080 -h /www; sleep 600";
    let http = |name: &str, path: &str| {
        let url = format!("http://:8080{path}");
        run(
            &engine,
            &[
                "--name",
                name,
                "--health-retries",
                "1",
                "--health-http",
                &url,
            ],
            serve,
        );
    };
    http("web", "/up");
    let well = becomes(&engine, "web", "healthy");
    assert_eq!(last(&well)["Output"], "fine\n");
    assert_eq!(last(&well)["ExitCode"], 0);
    // Nothing was executed in it.
    let events = events(&engine, "web");
    assert!(!events.contains("exec_"), "{events}");
    http("lost", "/nothing");
    let lost = becomes(&engine, "lost", "unhealthy");
    eventually("the server answers", 30, || {
        let said = last(&health(&engine, "lost"))["Output"]
            .as_str()?
            .to_owned();
        said.starts_with("404 Not Found: ").then_some(())
    });
    assert_eq!(last(&lost)["ExitCode"], 1);
    let tcp = |name: &str, port: &str| {
        run(
            &engine,
            &[
                "--name",
                name,
                "--health-retries",
                "1",
                "--health-tcp",
                port,
            ],
            serve,
        );
    };
    tcp("open", "8080");
    becomes(&engine, "open", "healthy");
    tcp("closed", "8081");
    let closed = becomes(&engine, "closed", "unhealthy");
    let said = last(&closed)["Output"].as_str().unwrap().to_owned();
    assert!(said.contains("connection refused"), "{said}");
    // Who accepts and does not answer is not waited for.
    let silent = [
        "--name",
        "mute",
        "--health-retries",
        "1",
        "--health-http",
        "http://:9/",
        "--health-timeout",
        "300ms",
    ];
    run(&engine, &silent, "nc -ll -p 9 -e sleep 600");
    eventually("a check takes too long", 20, || {
        let said = last_output(&engine, "mute")?;
        (said == "Health check exceeded timeout (300ms)").then_some(())
    });
    engine
        .gantry(&["create", "--health-http", "https://:1/", "busybox"])
        .fails(1, "invalid HTTP healthcheck");
    engine.finish();
}

fn last_output(engine: &Engine, name: &str) -> Option<String> {
    let health = health(engine, name);
    let last = health["Log"].as_array()?.last()?;
    Some(last["Output"].as_str()?.to_owned())
}

#[test]
fn bad_health_restarts_who_asked_for_it() {
    let engine = Engine::start();
    let check = ["--health-cmd", "test ! -e /bad", "--health-retries", "2"];
    let run = |name: &str, flags: &[&str]| {
        let mut all = vec!["--name", name];
        all.extend(check);
        all.extend(flags);
        run(
            &engine,
            &all,
            "test -e /twice && exec sleep 600; touch /twice; sleep 0.5; touch /bad; sleep 600",
        );
    };
    run("left", &["--restart", "always"]);
    run("healed", &["--restart-unhealthy"]);
    // Docker's client does not know the flag, and leaves it out.
    let inspect = |format: &str, name: &str| engine.gantry(&["inspect", "-f", format, name]).ok();
    assert_eq!(
        inspect("{{json .HostConfig.RestartPolicy}}", "healed"),
        r#"{"MaximumRetryCount":0,"Name":"on-failure","Unhealthy":true}"#
    );
    eventually("it was restarted", 20, || {
        (inspect("{{.RestartCount}} {{.State.Status}}", "healed") == "1 running").then_some(())
    });
    becomes(&engine, "left", "unhealthy");
    assert_eq!(
        inspect("{{.RestartCount}} {{.State.Status}}", "left"),
        "0 running"
    );
    engine
        .gantry(&["update", "--restart-unhealthy=false", "healed"])
        .ok();
    assert_eq!(
        inspect("{{.HostConfig.RestartPolicy.Name}}", "healed"),
        "on-failure"
    );
    let events = events(&engine, "healed");
    let steps: Vec<&str> = events
        .lines()
        .filter(|line| !line.starts_with("exec_"))
        .collect();
    let bad = steps
        .iter()
        .position(|step| *step == "health_status: unhealthy")
        .unwrap();
    assert_eq!(&steps[bad + 1..bad + 2], ["kill"], "{events}");
    assert!(
        steps[bad..].contains(&"die") && steps[bad..].contains(&"start"),
        "{events}"
    );
    engine.finish();
}
