//! The examples of the Engine API's specification (v1.51) survive reading and writing.
//!
//! `examples.json` holds, for each definition, the example of the specification, or one put together from those of its
//! properties (without what the specification misspells).

use gantry_wire::lenient;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

/// What of `want` is not in `have`, as paths.
fn lost(want: &Value, have: &Value, path: &str, out: &mut Vec<String>) {
    match (want, have) {
        (Value::Object(want), Value::Object(have)) => {
            for (key, value) in want {
                let path = format!("{path}.{key}");
                match have.get(key) {
                    Some(found) => lost(value, found, &path, out),
                    // Go's zero values are what `omitempty` leaves out.
                    None if is_zero(value) => {}
                    None => out.push(path),
                }
            }
        }
        (Value::Array(want), Value::Array(have)) if want.len() == have.len() => {
            for (index, (want, have)) in want.iter().zip(have).enumerate() {
                lost(want, have, &format!("{path}[{index}]"), out);
            }
        }
        // A command may be written as one string.
        (Value::String(_), Value::Array(words)) if words.as_slice() == [want.clone()] => {}
        _ if want == have => {}
        _ => out.push(format!("{path}: {want} became {have}")),
    }
}

fn is_zero(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Bool(flag) => !flag,
        Value::Number(number) => number.as_f64() == Some(0.0),
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Object(members) => members.is_empty(),
    }
}

fn survives<T: DeserializeOwned + Serialize>(examples: &Value, name: &str, left_out: &[&str]) {
    let example = &examples[name];
    assert!(example.is_object(), "no example of {name}");
    let read: T = lenient::from_value(example.clone()).unwrap_or_else(|e| panic!("{name}: {e}"));
    let mut missing = Vec::new();
    lost(
        example,
        &serde_json::to_value(&read).unwrap(),
        name,
        &mut missing,
    );
    missing.retain(|path| !left_out.iter().any(|left| path.starts_with(left)));
    assert!(missing.is_empty(), "{missing:#?}");
}

#[test]
fn examples_survive() {
    use gantry_wire::*;
    let examples: Value = serde_json::from_str(include_str!("examples.json")).unwrap();
    let examples = &examples;
    survives::<spec::ContainerConfig>(examples, "ContainerConfig", &[]);
    survives::<spec::HostConfig>(examples, "HostConfig", &[]);
    survives::<spec::Mount>(examples, "Mount", &[]);
    survives::<spec::HealthConfig>(examples, "HealthConfig", &[]);
    survives::<spec::EndpointSettings>(examples, "EndpointSettings", &[]);
    survives::<ContainerCreateRequest>(examples, "ContainerCreate", &[]);
    survives::<NetworkSettings>(examples, "NetworkSettings", &[]);
    survives::<ContainerInspect>(examples, "ContainerInspectResponse", &[]);
    survives::<ContainerState>(examples, "ContainerState", &[]);
    survives::<ContainerSummary>(examples, "ContainerSummary", &[]);
    survives::<Port>(examples, "Port", &[]);
    survives::<ContainerCreateReply>(examples, "ContainerCreateResponse", &[]);
    survives::<FilesystemChange>(examples, "FilesystemChange", &[]);
    survives::<ExecCreateRequest>(examples, "ExecCreate", &[]);
    survives::<ExecInspect>(examples, "ExecInspect", &[]);
    survives::<ImageInspect>(examples, "ImageInspect", &["ImageInspect.Manifests"]);
    survives::<ImageSummary>(examples, "ImageSummary", &["ImageSummary.Manifests"]);
    survives::<HistoryItem>(examples, "History", &[]);
    survives::<Descriptor>(examples, "OCIDescriptor", &[]);
    survives::<SystemVersion>(examples, "SystemVersion", &[]);
    survives::<AuthConfig>(examples, "AuthConfig", &[]);
    survives::<EventMessage>(examples, "EventMessage", &[]);
    survives::<NetworkCreateReply>(examples, "NetworkCreateResponse", &[]);
    survives::<NetworkCreateRequest>(examples, "NetworkCreate", &[]);
    survives::<NetworkConnectRequest>(examples, "NetworkConnect", &[]);
    survives::<VolumeListReply>(
        examples,
        "VolumeListResponse",
        &["VolumeListResponse.Volumes[0].ClusterVolume"],
    );
    survives::<Volume>(examples, "Volume", &["Volume.ClusterVolume"]);
    survives::<VolumeCreateRequest>(
        examples,
        "VolumeCreateOptions",
        &["VolumeCreateOptions.ClusterVolumeSpec"],
    );
    survives::<Network>(examples, "Network", &["Network.Peers"]);
    // An engine without a cluster and without containerd has nothing to say there.
    survives::<SystemInfo>(
        examples,
        "SystemInfo",
        &[
            "SystemInfo.Containerd",
            "SystemInfo.Swarm.Nodes",
            "SystemInfo.Swarm.Managers",
            "SystemInfo.Swarm.Cluster",
        ],
    );
}
