//! Fields of other platforms: refused or without effect, in the words of Docker on Linux.

use serde_json::json;

use crate::lab::{Lab, Seen};

pub(crate) fn only(lab: &Lab<'_>, seen: &Seen) {
    let refusal =
        |field: &str, value: serde_json::Value| lab.refusal(&json!({"HostConfig": {field: value}}));
    let words = "linux does not support configuration of maximum IOPs";
    seen.refused(
        "HostConfig.IOMaximumIOps",
        refusal("IOMaximumIOps", json!(5)),
        400,
        words,
    );
    let words = "linux does not support configuration of maximum bandwidth";
    seen.refused(
        "HostConfig.IOMaximumBandwidth",
        refusal("IOMaximumBandwidth", json!(5)),
        400,
        words,
    );
    let words = "nvalid isolation: \"hyperv\" - linux only supports 'default'";
    seen.refused(
        "HostConfig.Isolation",
        refusal("Isolation", json!("hyperv")),
        400,
        words,
    );
    let container = lab
        .create(&json!({"HostConfig": {"CpuCount": 2, "CpuPercent": 5, "Isolation": "Default"}}));
    let shown = container.inspect()["HostConfig"].take();
    seen.eq("HostConfig.CpuCount", &shown["CpuCount"], 2);
    let words = "linux does not support CPU percent. Percent discarded.";
    let warned = container.warnings.iter().any(|w| w == words);
    seen.holds(
        "HostConfig.CpuPercent",
        warned && shown["CpuPercent"] == 0,
        format!("{:?}", container.warnings),
    );
    for kind in ["npipe", "cluster", "wat"] {
        let mount = json!({"Type": kind, "Source": "x", "Target": "/x"});
        let words = format!("invalid mount config for type \"{kind}\": mount type unknown");
        let reply = lab.refusal(&json!({"HostConfig": {"Mounts": [mount]}}));
        seen.refused("Mount.Type", reply, 400, &words);
    }
}
