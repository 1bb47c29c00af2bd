//! Requests as Go's decoder reads them, which is what clients were written against.

use serde_json::Value;

use crate::lab::{Lab, Seen, message};

pub(crate) fn go_reads_them(lab: &Lab<'_>, seen: &Seen) {
    let create = "/v1.51/containers/create";
    let post = |body: &str| {
        let (status, answer) = lab.engine.api("POST", create, Some(body));
        (
            status,
            serde_json::from_str::<Value>(&answer).unwrap_or_default(),
        )
    };
    let (status, answer) = post(
        r#"{"image": "busybox", "CMD": "date", "Env": null, "Labels": null, "Unknown": {"x": 1}, "ExposedPorts": null,
            "hostconfig": {"memory": 1e8, "NanoCpus": 500000000.0, "Binds": null, "PortBindings": null, "Ulimits": null, "networkmode": "none"},
            "NetworkingConfig": null}"#,
    );
    seen.eq("Config.Cmd", status, 201);
    let id = answer["Id"].as_str().unwrap_or_default();
    let shown = lab
        .api("GET", &format!("/v1.51/containers/{id}/json"), None)
        .1;
    lab.api("DELETE", &format!("/v1.51/containers/{id}"), None);
    seen.eq(
        "Config.Cmd",
        &shown["Config"]["Cmd"],
        &serde_json::json!(["date"]),
    );
    seen.eq(
        "HostConfig.Memory",
        &shown["HostConfig"]["Memory"],
        100_000_000,
    );
    seen.eq(
        "HostConfig.NanoCpus",
        &shown["HostConfig"]["NanoCpus"],
        500_000_000,
    );
    for (property, body, words) in [
        (
            "Config.Image",
            r#"{"Image": 5}"#,
            "cannot unmarshal number into Go struct field",
        ),
        (
            "HostConfig.Memory",
            r#"{"Image": "busybox", "HostConfig": {"Memory": "1g"}}"#,
            "cannot unmarshal string into Go struct field",
        ),
        (
            "HostConfig.NanoCpus",
            r#"{"Image": "busybox", "HostConfig": {"NanoCpus": 1.5}}"#,
            "cannot unmarshal number 1.5 into Go struct field",
        ),
        (
            "Config.Env",
            r#"{"Image": "busybox", "Env": "A=b"}"#,
            "cannot unmarshal string into Go struct field",
        ),
        (
            "Config.Cmd",
            r#"{"Image": "busybox", "Cmd": 5}"#,
            "cannot unmarshal number into Go struct field ContainerConfig.Cmd of type string",
        ),
        (
            "HostConfig.PortBindings",
            r#"{"Image": "busybox", "HostConfig": {"PortBindings": {"80/tcp": {}}}}"#,
            "cannot unmarshal object into Go struct field HostConfig.HostConfig.PortBindings of type []PortBinding",
        ),
        (
            "Config.Labels",
            r#"{"Image": "busybox", "Labels": ["a"]}"#,
            "cannot unmarshal array into Go struct field ContainerConfig.Labels of type map[string]string",
        ),
        (
            "Config.Image",
            "",
            "config cannot be empty in order to create a container",
        ),
        (
            "Config.Image",
            "null",
            "config cannot be empty in order to create a container",
        ),
        ("Config.Image", "{} {}", "unexpected content after JSON"),
    ] {
        let (status, answer) = post(body);
        seen.refused(property, (status, message(&answer)), 400, words);
    }
}
