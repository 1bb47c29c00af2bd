//! What happens at the end of a container.

use std::time::{Duration, Instant};

use gantry_e2e::eventually;
use serde_json::json;

use crate::lab::{Container, Lab, Seen};

/// Restart policies.
pub(crate) fn restarts(lab: &Lab<'_>, seen: &Seen) {
    let body = |policy| json!({"Cmd": ["false"], "HostConfig": {"RestartPolicy": policy}});
    let count =
        |container: &Container<'_>| container.inspect()["RestartCount"].as_i64().unwrap_or(0);
    let always = lab.create(&body(json!({"Name": "always"})));
    always.start();
    let twice = lab.create(&body(json!({"Name": "on-failure", "MaximumRetryCount": 2})));
    twice.start();
    let again = eventually("it is restarted", 30, || {
        Some(count(&always)).filter(|n| *n >= 1)
    });
    seen.holds("HostConfig.RestartPolicy", again >= 1, again);
    seen.holds("RestartPolicy.Name", again >= 1, again);
    let state = eventually("the retries end", 30, || {
        let shown = twice.inspect();
        let status = shown["State"]["Status"].as_str()?.to_owned();
        (status == "exited").then_some((status, shown["RestartCount"].as_i64()))
    });
    seen.eq(
        "RestartPolicy.MaximumRetryCount",
        state,
        ("exited".to_owned(), Some(2)),
    );
    for (policy, words) in [
        (json!({"Name": "wat"}), "unknown policy 'wat'"),
        (
            json!({"Name": "always", "MaximumRetryCount": 3}),
            "maximum retry count",
        ),
        (
            json!({"Name": "on-failure", "MaximumRetryCount": -1}),
            "maximum retry count cannot be negative",
        ),
    ] {
        seen.refused(
            "RestartPolicy.MaximumRetryCount",
            lab.refusal(&body(policy)),
            400,
            words,
        );
    }
    let both = json!({"HostConfig": {"AutoRemove": true, "RestartPolicy": {"Name": "always"}}});
    let words = "can't create 'AutoRemove' container with restart policy";
    seen.refused("HostConfig.AutoRemove", lab.refusal(&both), 400, words);
}

/// The signal that stops, and the time it is given.
pub(crate) fn stops(lab: &Lab<'_>, seen: &Seen) {
    let script = "trap 'exit 3' USR1; : >/ready; while :; do sleep 0.05; done";
    let polite = lab.create(&json!({"Cmd": ["sh", "-c", script], "StopSignal": "SIGUSR1"}));
    polite.start();
    eventually("the trap is set", 20, || {
        let words = polite.exec("[ -e /ready ] && echo ready=yes; true");
        (words.get("ready") == "yes").then_some(())
    });
    polite.api("POST", "stop");
    seen.eq(
        "Config.StopSignal",
        &polite.inspect()["State"]["ExitCode"],
        3,
    );
    let stubborn = lab.create(
        &json!({"Cmd": ["sh", "-c", "trap '' TERM; while :; do sleep 1; done"], "StopTimeout": 0}),
    );
    stubborn.start();
    let began = Instant::now();
    stubborn.api("POST", "stop");
    seen.eq(
        "Config.StopTimeout",
        &stubborn.inspect()["State"]["ExitCode"],
        137,
    );
    // Without the field it is ten seconds.
    let took = began.elapsed();
    seen.holds(
        "Config.StopTimeout",
        took < Duration::from_secs(10),
        format!("{took:?}"),
    );
    let wrong = lab.refusal(&json!({"StopSignal": "SIGWAT"}));
    seen.refused("Config.StopSignal", wrong, 400, "nvalid signal: SIGWAT");
}

/// `--rm`.
pub(crate) fn removes_itself(lab: &Lab<'_>, seen: &Seen) {
    let container = lab.create(
        &json!({"Cmd": ["true"], "Volumes": {"/gone": {}}, "HostConfig": {"AutoRemove": true}}),
    );
    let volume = container.inspect()["Mounts"][0]["Name"]
        .as_str()
        .unwrap_or_default()
        .to_owned();
    container.start();
    eventually("it is removed", 30, || {
        (container.api("GET", "json").0 == 404).then_some(())
    });
    seen.eq("HostConfig.AutoRemove", container.api("GET", "json").0, 404);
    let volume = eventually("so is its volume", 30, || {
        let status = lab.api("GET", &format!("/v1.51/volumes/{volume}"), None).0;
        (status == 404).then_some(status)
    });
    seen.eq("HostConfig.AutoRemove", volume, 404);
}
