//! Health checks: every field by what it does.

use gantry_e2e::eventually;
use serde_json::{Value, json};

use crate::lab::{Container, Lab, Seen};

const MS: i64 = 1_000_000;
const HOUR: i64 = 3_600_000 * MS;

fn state(container: &Container<'_>) -> Value {
    container.inspect()["State"]["Health"].take()
}

fn until(container: &Container<'_>, status: &str) -> Value {
    eventually(&format!("the container is {status}"), 25, || {
        Some(state(container)).filter(|health| health["Status"] == status)
    })
}

/// Test, interval, timeout, retries; the shell.
pub(crate) fn fields(lab: &Lab<'_>, seen: &Seen) {
    let check = json!({"Test": ["CMD-SHELL", "test -e /tmp/well || { echo ill; exit 5; }"], "Interval": 100 * MS, "Retries": 3});
    let container = lab.hold(&json!({"Healthcheck": check}));
    let ill = until(&container, "unhealthy");
    let log = ill["Log"].as_array().cloned().unwrap_or_default();
    seen.holds(
        "HealthConfig.Retries",
        ill["FailingStreak"].as_i64() >= Some(3),
        &ill,
    );
    seen.holds("HealthConfig.Interval", log.len() >= 3, &ill);
    seen.eq(
        "HealthConfig.Test",
        (&log[0]["ExitCode"], &log[0]["Output"]),
        (&json!(5), &json!("ill\n")),
    );
    container.exec("touch /tmp/well");
    let well = until(&container, "healthy");
    seen.eq("Config.Healthcheck", &well["FailingStreak"], 0);
    drop(container);

    let slow = json!({"Test": ["CMD", "sleep", "30"], "Interval": 50 * MS, "Timeout": 100 * MS, "Retries": 1});
    let slow = lab.hold(&json!({"Healthcheck": slow}));
    let timed_out = until(&slow, "unhealthy");
    let words = timed_out["Log"][0]["Output"]
        .as_str()
        .unwrap_or_default()
        .to_owned();
    seen.holds(
        "HealthConfig.Timeout",
        words.contains("Health check exceeded timeout (100ms)"),
        words,
    );
    drop(slow);

    let shell = lab.hold(&json!({"Shell": ["/bin/echo", "said by"], "Healthcheck": {"Test": ["CMD-SHELL", "a shell"], "Interval": 50 * MS}}));
    let said = until(&shell, "healthy");
    seen.eq(
        "Config.Shell",
        &said["Log"][0]["Output"],
        "said by a shell\n",
    );
    drop(shell);

    let none = lab.hold(&json!({"Image": crate::lab::RICH, "Entrypoint": ["sleep", "1000"], "Healthcheck": {"Test": ["NONE"]}}));
    seen.eq("HealthConfig.Test", state(&none), Value::Null);
    for (check, words) in [
        (
            json!({"Interval": 1}),
            "Interval in Healthcheck cannot be less than 1ms",
        ),
        (
            json!({"Timeout": 1}),
            "Timeout in Healthcheck cannot be less than 1ms",
        ),
        (
            json!({"StartPeriod": 1}),
            "StartPeriod in Healthcheck cannot be less than 1ms",
        ),
        (
            json!({"StartInterval": 1}),
            "StartInterval in Healthcheck cannot be less than 1ms",
        ),
        (
            json!({"Retries": -1}),
            "Retries in Healthcheck cannot be negative",
        ),
    ] {
        let field = check
            .as_object()
            .and_then(|c| c.keys().next())
            .expect("one field")
            .clone();
        let reply = lab.refusal(&json!({"Healthcheck": check}));
        seen.refused(&format!("HealthConfig.{field}"), reply, 400, words);
    }
}

/// Failures in the start period do not count, and checks come at its interval.
pub(crate) fn start_period(lab: &Lab<'_>, seen: &Seen) {
    let check = json!({"Test": ["CMD", "false"], "Interval": HOUR, "StartPeriod": HOUR, "StartInterval": 100 * MS, "Retries": 1});
    let container = lab.hold(&json!({"Healthcheck": check}));
    let health = eventually("three checks", 25, || {
        Some(state(&container))
            .filter(|health| health["Log"].as_array().is_some_and(|log| log.len() >= 3))
    });
    seen.eq(
        "HealthConfig.StartInterval",
        health["Log"].as_array().is_some_and(|log| log.len() >= 3),
        true,
    );
    seen.eq(
        "HealthConfig.StartPeriod",
        (&health["Status"], &health["FailingStreak"]),
        (&json!("starting"), &json!(0)),
    );
}
