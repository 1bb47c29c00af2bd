//! One row a change of a reply.

use gantry_model::container::ContainerConfig;
use serde_json::{Map, Value, json};

use super::Reply;
use crate::ApiVersion;

/// One change of a reply.
pub(super) struct Row {
    /// The reply that changed.
    pub(super) reply: Reply,
    /// The first version with the new form.
    pub(super) since: ApiVersion,
    /// Turns the new form into the old.
    pub(super) undo: fn(&mut Value),
}

const fn row(reply: Reply, since: (u16, u16), undo: fn(&mut Value)) -> Row {
    Row {
        reply,
        since: ApiVersion::new(since.0, since.1),
        undo,
    }
}

/// All of them, newest first within a reply.
pub(super) const REPLIES: &[Row] = &[
    row(Reply::ContainerInspect, (1, 48), |inspect| {
        drop_members(inspect, &["ImageManifestDescriptor"]);
    }),
    row(Reply::ContainerInspect, (1, 45), implied_aliases),
    row(Reply::ContainerInspect, (1, 42), |inspect| {
        add_members(
            &mut inspect["HostConfig"],
            json!({"KernelMemory": 0, "KernelMemoryTCP": 0}),
        );
    }),
    row(Reply::ContainerList, (1, 48), |summary| {
        drop_members(summary, &["ImageManifestDescriptor"]);
    }),
    row(Reply::ContainerList, (1, 46), |summary| {
        drop_members(&mut summary["HostConfig"], &["Annotations"]);
    }),
    row(Reply::ImageInspect, (1, 52), |image| {
        add_members(&mut image["Config"], empty_config_1_51());
    }),
    row(Reply::ImageInspect, (1, 50), |image| {
        add_members(&mut image["Config"], container_only_config());
    }),
    row(Reply::ImageInspect, (1, 48), |image| {
        drop_members(image, &["Descriptor"]);
    }),
    row(Reply::ImageInspect, (1, 45), |image| {
        let config = json!(ContainerConfig::default());
        add_members(image, json!({"Container": "", "ContainerConfig": config}));
    }),
    row(Reply::ImageInspect, (1, 44), |image| {
        virtual_size(image);
        add_members(image, json!({"Created": "0001-01-01T00:00:00Z"}));
    }),
    row(Reply::ImageList, (1, 51), |summary| {
        summary["Containers"] = json!(-1);
    }),
    row(Reply::ImageList, (1, 48), |summary| {
        drop_members(summary, &["Descriptor"]);
    }),
    row(Reply::ImageList, (1, 44), virtual_size),
    row(Reply::ImageList, (1, 43), no_names),
    row(Reply::Info, (1, 50), |info| {
        drop_members(info, &["DiscoveredDevices"]);
        add_members(
            info,
            json!({"BridgeNfIptables": false, "BridgeNfIp6tables": false}),
        );
    }),
    row(Reply::Info, (1, 49), |info| {
        drop_members(info, &["FirewallBackend"]);
        add_members(
            &mut info["RegistryConfig"],
            json!({"AllowNondistributableArtifactsCIDRs": [], "AllowNondistributableArtifactsHostnames": []}),
        );
        for part in ["ContainerdCommit", "RuncCommit", "InitCommit"] {
            let id = info[part]["ID"].clone();
            add_members(&mut info[part], json!({ "Expected": id }));
        }
    }),
    row(Reply::Info, (1, 42), |info| {
        add_members(info, json!({"KernelMemory": false}));
    }),
    row(Reply::Event, (1, 52), event_members),
];

fn drop_members(object: &mut Value, names: &[&str]) {
    if let Value::Object(members) = object {
        for name in names {
            members.shift_remove(*name);
        }
    }
}

/// Adds those members that are not there yet.
fn add_members(object: &mut Value, more: Value) {
    if let (Value::Object(members), Value::Object(more)) = (object, more) {
        for (name, value) in more {
            members.entry(name).or_insert(value);
        }
    }
}

/// An image without a name had names that say so.
fn no_names(image: &mut Value) {
    let none = |names: &Value| names.as_array().is_none_or(Vec::is_empty);
    if none(&image["RepoTags"]) && none(&image["RepoDigests"]) {
        image["RepoTags"] = json!(["<none>:<none>"]);
        image["RepoDigests"] = json!(["<none>@<none>"]);
    }
}

fn virtual_size(image: &mut Value) {
    let size = image["Size"].clone();
    add_members(image, json!({ "VirtualSize": size }));
}

/// Members of an image's configuration that were written even when empty.
fn empty_config_1_51() -> Value {
    json!({"Cmd": null, "Entrypoint": null, "Env": null, "Labels": null, "OnBuild": null, "User": "", "Volumes": null,
        "WorkingDir": ""})
}

/// Members of a container's configuration that an image's had as well.
fn container_only_config() -> Value {
    json!({"AttachStderr": false, "AttachStdin": false, "AttachStdout": false, "Domainname": "", "Hostname": "",
        "Image": "", "OpenStdin": false, "StdinOnce": false, "Tty": false})
}

/// Before 1.45 the aliases of an attachment to a network of the user's contained the container's short identifier and
/// host name.
fn implied_aliases(inspect: &mut Value) {
    let id: String = inspect["Id"]
        .as_str()
        .unwrap_or_default()
        .chars()
        .take(12)
        .collect();
    let host = inspect["Config"]["Hostname"]
        .as_str()
        .unwrap_or_default()
        .to_owned();
    let Some(networks) = inspect["NetworkSettings"]["Networks"].as_object_mut() else {
        return;
    };
    for (name, settings) in networks {
        if matches!(name.as_str(), "default" | "bridge" | "host" | "none") {
            continue;
        }
        let mut aliases = settings["Aliases"].as_array().cloned().unwrap_or_default();
        for name in [&id, &host] {
            if !name.is_empty() && !aliases.iter().any(|alias| alias == name) {
                aliases.push(json!(name));
            }
        }
        settings["Aliases"] = aliases.into();
    }
}

/// Up to 1.51, events of containers and images said the most important things twice.
fn event_members(event: &mut Value) {
    let mut old = Map::new();
    let kind = event["Type"].as_str().unwrap_or_default();
    if matches!(kind, "container" | "image") {
        old.insert("status".into(), event["Action"].clone());
        old.insert("id".into(), event["Actor"]["ID"].clone());
    }
    if kind == "container" {
        let image = &event["Actor"]["Attributes"]["image"];
        if image.is_string() {
            old.insert("from".into(), image.clone());
        }
    }
    // dockerd writes them first, and clients print events as they come.
    if let Value::Object(members) = event {
        old.append(members);
        *members = old;
    }
}
