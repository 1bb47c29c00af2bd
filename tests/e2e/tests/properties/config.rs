//! What is shown again, and what an image says for its containers.

use serde_json::{Value, json};

use crate::lab::{Lab, RICH, Seen};

/// The changes that make the image `rich`.
pub(crate) const RICH_CHANGES: &[&str] = &[
    "ENTRYPOINT [\"echo\", \"rich\"]",
    "CMD [\"by\", \"default\"]",
    "ENV GONE=1",
    "ENV KEEP=2",
    "EXPOSE 8000/udp",
    "LABEL from=image",
    "LABEL both=image",
    "VOLUME /var/www",
    "STOPSIGNAL SIGUSR2",
    "HEALTHCHECK --interval=7s --retries=4 CMD true",
    "ONBUILD RUN true",
];

/// Fields that mean nothing to a running container on Linux.
pub(crate) fn kept(lab: &Lab<'_>, seen: &Seen) {
    let body = json!({
        "Cmd": ["true"], "ArgsEscaped": true, "OnBuild": ["RUN x"], "Labels": {"a": "b", "": "empty"},
        "ExposedPorts": {"80/tcp": {}}, "Image": "busybox",
        "HostConfig": {"ContainerIDFile": "/nowhere/cid", "Cgroup": "container:x", "NetworkMode": "none"}
    });
    let container = lab.create(&body);
    let shown = container.inspect();
    let config = &shown["Config"];
    seen.eq("Config.ArgsEscaped", &config["ArgsEscaped"], true);
    seen.eq("Config.OnBuild", &config["OnBuild"], &json!(["RUN x"]));
    seen.eq(
        "Config.Labels",
        &config["Labels"],
        &json!({"a": "b", "": "empty"}),
    );
    seen.eq(
        "Config.ExposedPorts",
        &config["ExposedPorts"],
        &json!({"80/tcp": {}}),
    );
    seen.eq("Config.Image", &config["Image"], "busybox");
    let image = lab.api("GET", "/v1.51/images/busybox/json", None).1;
    seen.eq("Config.Image", &shown["Image"], &image["Id"]);
    let host = &shown["HostConfig"];
    seen.eq(
        "HostConfig.ContainerIDFile",
        &host["ContainerIDFile"],
        "/nowhere/cid",
    );
    seen.holds(
        "HostConfig.ContainerIDFile",
        !std::path::Path::new("/nowhere").exists(),
        "the client writes it",
    );
    seen.eq("HostConfig.Cgroup", &host["Cgroup"], "container:x");
    let listed = lab
        .engine
        .docker(&["ps", "-aq", "--no-trunc", "--filter", "label=a=b"])
        .ok();
    seen.eq("Config.Labels", listed.as_str(), container.id.as_str());
    let empty = json!({"Env": [], "Volumes": {}, "Labels": null, "HostConfig": {"Links": [], "Mounts": [], "PortBindings": null}});
    let shown = lab.create(&empty).inspect();
    let config = &shown["Config"];
    seen.eq(
        "Config.Env",
        (&config["Env"], &config["Volumes"]),
        (&Value::Null, &Value::Null),
    );
    let host = &shown["HostConfig"];
    seen.eq(
        "HostConfig.Mounts",
        (host.get("Mounts"), &host["Links"]),
        (None, &Value::Null),
    );
    let unknown = lab.refusal(&json!({"Image": "nope"}));
    seen.refused("Config.Image", unknown, 404, "No such image: nope:latest");
    let none = lab.refusal(&json!({"Image": ""}));
    seen.refused("Config.Image", none, 400, "no image specified");
}

/// Fields that an image fills where the request says nothing.
pub(crate) fn image_says(lab: &Lab<'_>, seen: &Seen) {
    let body = json!({"Image": RICH, "Labels": {"both": "mine"}, "ExposedPorts": {"81/tcp": {}},
        "Healthcheck": {"Interval": 3_000_000_000_i64}});
    let config = lab.create(&body).inspect()["Config"].take();
    seen.eq(
        "Config.Labels",
        &config["Labels"],
        &json!({"both": "mine", "from": "image"}),
    );
    seen.eq(
        "Config.ExposedPorts",
        &config["ExposedPorts"],
        &json!({"81/tcp": {}, "8000/udp": {}}),
    );
    seen.eq("Config.StopSignal", &config["StopSignal"], "SIGUSR2");
    seen.eq(
        "Config.Volumes",
        &config["Volumes"],
        &json!({"/var/www": {}}),
    );
    let check = json!({"Test": ["CMD-SHELL", "true"], "Interval": 3_000_000_000_i64, "Retries": 4});
    seen.eq("Config.Healthcheck", &config["Healthcheck"], &check);
    let image = lab
        .api("GET", &format!("/v1.51/images/{RICH}/json"), None)
        .1;
    seen.eq(
        "Config.OnBuild",
        &image["Config"]["OnBuild"],
        &json!(["RUN true"]),
    );
}

/// Volumes without a name, of the request and of the image.
pub(crate) fn anonymous_volumes(lab: &Lab<'_>, seen: &Seen) {
    let container = lab.hold(&json!({"Image": RICH, "Entrypoint": ["sleep"], "Cmd": ["1000"],
        "Healthcheck": {"Test": ["NONE"]}, "Volumes": {"/data": {}}, "HostConfig": {"NetworkMode": "none", "VolumeDriver": "local"}}));
    let inside = container.exec("echo data=$(grep -c ' /data ' /proc/self/mountinfo); echo www=$(grep -c ' /var/www ' /proc/self/mountinfo)");
    seen.eq(
        "Config.Volumes",
        (inside.get("data"), inside.get("www")),
        ("1", "1"),
    );
    let shown = container.inspect();
    let mounts = shown["Mounts"].as_array().cloned().unwrap_or_default();
    let drivers: Vec<&Value> = mounts.iter().map(|m| &m["Driver"]).collect();
    seen.eq("HostConfig.VolumeDriver", drivers, vec!["local", "local"]);
    let names: Vec<String> = mounts
        .iter()
        .filter_map(|m| m["Name"].as_str().map(str::to_owned))
        .collect();
    drop(container);
    let left: Vec<u16> = names
        .iter()
        .map(|n| lab.api("GET", &format!("/v1.51/volumes/{n}"), None).0)
        .collect();
    seen.eq("Config.Volumes", left, vec![404, 404]);
    let driver =
        lab.refusal(&json!({"HostConfig": {"VolumeDriver": "nope", "Binds": ["some:/x"]}}));
    let words = "create some: error looking up volume plugin nope: plugin \"nope\" not found";
    seen.refused("HostConfig.VolumeDriver", driver, 404, words);
}
