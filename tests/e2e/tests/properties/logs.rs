//! Log drivers; `tests/e2e/tests/logs` tells more of them.

use serde_json::json;

use crate::lab::{Lab, Seen};

pub(crate) fn driver_and_options(lab: &Lab<'_>, seen: &Seen) {
    let body = |log| json!({"Cmd": ["echo", "said"], "Labels": {"a": "b"}, "HostConfig": {"LogConfig": log}});
    let kept = lab.create(&body(
        json!({"Type": "json-file", "Config": {"labels": "a", "tag": "{{.ImageName}}"}}),
    ));
    kept.run();
    let details = lab.engine.docker(&["logs", "--details", &kept.id]).ok();
    seen.holds(
        "LogConfig.Config",
        details.contains("a=b") && details.contains("tag=busybox"),
        &details,
    );
    seen.holds("HostConfig.LogConfig", details.ends_with("said"), &details);
    let shown = kept.inspect()["HostConfig"]["LogConfig"].take();
    seen.eq("LogConfig.Type", &shown["Type"], "json-file");
    let none = lab.create(&body(json!({"Type": "none"})));
    none.run();
    let (status, answer) = none.api("GET", "logs?stdout=1");
    let words = "configured logging driver does not support reading";
    seen.refused("LogConfig.Type", (status, answer.to_string()), 501, words);
    for (field, log, words) in [
        ("Type", json!({"Type": "nope"}), "nope"),
        (
            "Config",
            json!({"Type": "json-file", "Config": {"wat": "1"}}),
            "unknown log opt 'wat' for json-file log driver",
        ),
        (
            "Config",
            json!({"Type": "json-file", "Config": {"mode": "wat"}}),
            "logging mode not supported: wat",
        ),
    ] {
        seen.refused(
            &format!("LogConfig.{field}"),
            lab.refusal(&body(log)),
            400,
            words,
        );
    }
}
