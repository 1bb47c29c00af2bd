//! What is around the process: its limits, its init, shared memory, runtime, annotations, storage.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use serde_json::{Value, json};

use crate::lab::{Lab, Seen};

/// A runtime that keeps the last specification it was given and hands everything to runc.
const SPY: &str = "#!/bin/sh
previous=
for word; do
  [ \"$previous\" = --bundle ] && cp \"$word/config.json\" \"$(dirname \"$0\")/seen.json\"
  previous=$word
done
exec runc \"$@\"
";

/// The engine's configuration: a runtime of its own in `dir`.
pub(crate) fn runtimes(dir: &Path) -> Value {
    let spy = dir.join("spy");
    fs::write(&spy, SPY).expect("a temporary directory is writable");
    fs::set_permissions(&spy, fs::Permissions::from_mode(0o755)).expect("it was just made");
    json!({"runtimes": {"spy": {"path": spy}}})
}

/// Limits of one process.
pub(crate) fn limits_of_the_process(lab: &Lab<'_>, seen: &Seen) {
    let config = json!({"Ulimits": [{"Name": "nofile", "Soft": 100, "Hard": 200}, {"Name": "core", "Soft": -1, "Hard": -1}],
        "OomScoreAdj": 444});
    let script = "echo score=$(cat /proc/self/oom_score_adj); echo nofile=$(grep 'Max open files' /proc/self/limits | sed 's/  */ /g')
echo core=$(grep 'Max core' /proc/self/limits | sed 's/  */ /g')";
    let inside = lab.run(&json!({"HostConfig": config}), script);
    seen.eq("HostConfig.OomScoreAdj", inside.get("score"), "444");
    for property in [
        "HostConfig.Ulimits",
        "Ulimit.Name",
        "Ulimit.Soft",
        "Ulimit.Hard",
    ] {
        seen.eq(
            property,
            inside.get("nofile"),
            "Max open files 100 200 files",
        );
    }
    seen.eq(
        "Ulimit.Hard",
        inside.get("core"),
        "Max core file size unlimited unlimited bytes",
    );
    let wrong = |name: &str, soft: i64, hard: i64| {
        let ulimit = json!({"Name": name, "Soft": soft, "Hard": hard});
        lab.refusal(&json!({"Cmd": ["true"], "HostConfig": {"Ulimits": [ulimit]}}))
    };
    seen.refused(
        "Ulimit.Name",
        wrong("wat", 1, 1),
        400,
        "invalid ulimit type: wat",
    );
    seen.refused(
        "Ulimit.Soft",
        wrong("nofile", 5, 1),
        400,
        "ulimit soft limit must be less than or equal to hard limit: 5 > 1",
    );
    let range = lab.refusal(&json!({"HostConfig": {"OomScoreAdj": 2000}}));
    seen.refused(
        "HostConfig.OomScoreAdj",
        range,
        400,
        "Invalid value 2000, range for oom score adj is [-1000, 1000]",
    );
}

/// Shared memory, and an init.
pub(crate) fn shm_and_init(lab: &Lab<'_>, seen: &Seen) {
    let script =
        "echo shm=$(df -k /dev/shm | tail -1 | awk '{print $2}'); echo first=$(cat /proc/1/comm)";
    let plain = lab.run(&json!({}), script);
    seen.eq("HostConfig.ShmSize", plain.get("shm"), "65536");
    seen.eq("HostConfig.Init", plain.get("first"), "sh");
    let asked = lab.run(
        &json!({"HostConfig": {"ShmSize": 8 << 20, "Init": true}}),
        script,
    );
    seen.eq("HostConfig.ShmSize", asked.get("shm"), "8192");
    seen.eq("HostConfig.Init", asked.get("first"), "docker-init");
    let negative = lab.refusal(&json!({"HostConfig": {"ShmSize": -1}}));
    seen.refused(
        "HostConfig.ShmSize",
        negative,
        400,
        "SHM size can not be less than 0",
    );
}

/// A runtime by name sees the annotations.
pub(crate) fn annotations_and_runtime(lab: &Lab<'_>, seen: &Seen) {
    let config = json!({"Runtime": "spy", "Annotations": {"org.example.a": "b"}});
    let container = lab.create(&json!({"Cmd": ["true"], "HostConfig": config}));
    let done = container.run();
    seen.eq(
        "HostConfig.Runtime",
        (done.code, done.err.as_str()),
        (0, ""),
    );
    let shown = container.inspect()["HostConfig"].take();
    seen.eq("HostConfig.Runtime", &shown["Runtime"], "spy");
    let info = lab.api("GET", "/v1.51/info", None).1;
    let spy = info["Runtimes"]["spy"]["path"]
        .as_str()
        .map(str::to_owned)
        .unwrap_or_default();
    let spec = fs::read(Path::new(&spy).with_file_name("seen.json")).unwrap_or_default();
    let spec: Value = serde_json::from_slice(&spec).unwrap_or_default();
    seen.eq(
        "HostConfig.Annotations",
        &spec["annotations"]["org.example.a"],
        "b",
    );
    seen.eq(
        "HostConfig.Annotations",
        &shown["Annotations"],
        &json!({"org.example.a": "b"}),
    );
    let unknown = lab.refusal(&json!({"HostConfig": {"Runtime": "nope"}}));
    seen.refused(
        "HostConfig.Runtime",
        unknown,
        400,
        "unknown or invalid runtime name: nope",
    );
}

/// A quota needs a file system with project quotas, which the machines of these tests do not have.
pub(crate) fn storage(lab: &Lab<'_>, seen: &Seen) {
    let ask = |options| lab.refusal(&json!({"HostConfig": {"StorageOpt": options}}));
    let words = "--storage-opt is supported only for overlay over xfs with 'pquota' mount option";
    let (status, said) = ask(json!({"size": "10G"}));
    seen.holds(
        "HostConfig.StorageOpt",
        status >= 400 && said.contains(words),
        format!("{status} {said}"),
    );
    let (status, said) = ask(json!({"wat": "1"}));
    seen.holds(
        "HostConfig.StorageOpt",
        status >= 400 && said.contains("Unknown option wat"),
        format!("{status} {said}"),
    );
}
