//! Indexes: choice by platform, attestations, and what goes back to a registry.

use gantry_e2e::{Engine, Registry};
use serde_json::Value;

use crate::layout::{Compression, Layout, at_registry, busybox_layer, file_layer};

#[test]
fn an_index_is_loaded_pushed_and_chosen_from() {
    let registry = Registry::start();
    let engine = Engine::with(Default::default());
    let mut layout = Layout::new(&engine.dir().join("layout"));
    let amd64 = layout.image("linux/amd64", &[busybox_layer(Compression::Gzip)]);
    let foreign = file_layer("foreign", "arm", Compression::Gzip);
    let arm = layout.image("linux/arm/v7", std::slice::from_ref(&foreign));
    let newer = layout.image("linux/amd64/v3", &[foreign]);
    let attested = layout.attestation(&amd64);
    let index = layout.index(&[&arm, &newer, &attested, &amd64]);
    let name = format!("{}/box:1", registry.domain());
    layout.name(&index, &name);
    let loaded = engine.docker(&["load", "-i", &layout.archive()]).ok();
    assert_eq!(loaded, format!("Loaded image: {name}"));
    let platform = |name: &str| {
        let format = "{{.Os}}/{{.Architecture}}{{.Variant}}";
        engine
            .docker(&["image", "inspect", "-f", format, name])
            .ok()
    };
    assert_eq!(platform(&name), "linux/amd64");
    assert_eq!(
        engine.docker(&["run", "--rm", &name, "echo", "hi"]).ok(),
        "hi"
    );

    // All of it is here, so all of it goes to the registry, byte for byte.
    engine.docker(&["push", "-q", &name]).ok();
    let (there, digest) = at_registry(&name);
    assert_eq!(Value::from(digest.clone()), index["digest"]);
    assert_eq!(there["manifests"].as_array().unwrap().len(), 4);

    tree(&engine, &amd64);
    engine.docker(&["rmi", "-f", &name]).ok();
    pulls(&engine, &registry, &name, &digest, &platform);
    engine.finish();
}

/// What both clients show of the index.
fn tree(engine: &Engine, amd64: &Value) {
    let (_, body) = engine.api("GET", "/v1.51/images/json?manifests=1", None);
    let list: Value = serde_json::from_str(&body).unwrap();
    let manifests = list[0]["Manifests"].as_array().unwrap();
    let kinds: Vec<&str> = manifests
        .iter()
        .map(|m| m["Kind"].as_str().unwrap())
        .collect();
    assert_eq!(kinds, ["image", "image", "attestation", "image"]);
    assert!(manifests.iter().all(|m| m["Available"] == true), "{body}");
    let own = &manifests[3];
    assert_eq!(own["ID"], amd64["digest"]);
    assert_eq!(own["ImageData"]["Platform"]["architecture"], "amd64");
    let size =
        |m: &Value| m["Size"]["Total"].as_i64().unwrap() - m["Size"]["Content"].as_i64().unwrap();
    assert_eq!(
        size(own),
        own["ImageData"]["Size"]["Unpacked"].as_i64().unwrap()
    );
    assert_eq!(manifests[2]["AttestationData"]["For"], amd64["digest"]);
    assert_eq!(list[0]["Containers"], 0);
    // Older versions know nothing of it.
    let (_, body) = engine.api("GET", "/v1.46/images/json?manifests=1", None);
    let list: Value = serde_json::from_str(&body).unwrap();
    assert!(list[0].get("Manifests").is_none() && list[0].get("Descriptor").is_none());
    assert_eq!(list[0]["Containers"], -1);

    let rows = |text: String| -> Vec<String> {
        let rows = text
            .lines()
            .filter(|line| line.contains('─') || line.contains("/box:1"));
        rows.map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "))
            .collect()
    };
    let docker = rows(engine.docker(&["image", "ls", "--tree"]).ok());
    assert_eq!(docker.len(), 4, "{docker:?}");
    assert!(docker[1].starts_with("├─ linux/arm/v7 ") && docker[3].starts_with("└─ linux/amd64 "));
    assert_eq!(rows(engine.gantry(&["image", "ls", "--tree"]).ok()), docker);
}

fn pulls(
    engine: &Engine,
    registry: &Registry,
    name: &str,
    digest: &str,
    platform: &dyn Fn(&str) -> String,
) {
    engine
        .docker(&["pull", "--platform", "linux/s390x", name])
        .fails(
            1,
            "no matching manifest for linux/s390x in the manifest list entries",
        );
    engine
        .docker(&["pull", "-q", "--platform", "linux/arm/v8", name])
        .ok();
    assert_eq!(platform(name), "linux/armv7");
    engine
        .docker(&["pull", "-q", "--platform", "linux/amd64/v4", name])
        .ok();
    assert_eq!(platform(name), "linux/amd64v3");
    // A run for this machine takes the image for this machine.
    let arguments = [
        "run",
        "--rm",
        "--platform",
        "linux/amd64",
        name,
        "echo",
        "hi",
    ];
    let missing = engine.docker(&[
        "run",
        "--rm",
        "--pull",
        "never",
        "--platform",
        "linux/s390x",
        name,
    ]);
    missing.fails(125, &format!("image with reference {name} was found but does not provide the specified platform (linux/s390x)"));
    assert_eq!(engine.docker(&arguments).ok(), "hi");
    assert_eq!(platform(name), "linux/amd64");
    // The name of the index is that of whatever was chosen from it.
    let by_digest = format!("{}/box@{digest}", registry.domain());
    let digests = ["image", "inspect", "-f", "{{index .RepoDigests 0}}", name];
    assert_eq!(engine.docker(&digests).ok(), by_digest);
    assert_eq!(
        engine
            .docker(&["run", "--rm", &by_digest, "echo", "hi"])
            .ok(),
        "hi"
    );
    let nowhere = engine.dir().join("none.tar").display().to_string();
    for command in [
        &["image", "inspect", "--platform", "linux/s390x", name][..],
        &["history", "--platform", "linux/s390x", name],
        &["save", "--platform", "linux/s390x", "-o", &nowhere, name],
        &["push", "--platform", "linux/s390x", name],
    ] {
        let wording = "was found but does not provide the specified platform (linux/s390x)";
        engine.docker(command).fails(1, wording);
    }

    // Not all of it is here: elsewhere only goes what is, and the client is told.
    let other = format!("{}/other:1", registry.domain());
    engine.docker(&["tag", name, &other]).ok();
    let pushed = engine.docker(&["push", &other]);
    assert_eq!(pushed.code, 0, "{pushed:?}");
    let told = format!("{}{}", pushed.out, pushed.err);
    assert!(
        told.contains("only the available single-platform image was pushed"),
        "{told}"
    );
    let (there, _) = at_registry(&other);
    assert!(there.get("config").is_some(), "{there}");
}

#[test]
fn attestations_come_along_and_go_back() {
    let registry = Registry::start();
    let engine = Engine::with(Default::default());
    let mut layout = Layout::new(&engine.dir().join("layout"));
    let image = layout.image("linux/amd64", &[busybox_layer(Compression::Zstd)]);
    let attested = layout.attestation(&image);
    let index = layout.index(&[&image, &attested]);
    let name = format!("{}/built:1", registry.domain());
    layout.name(&index, &name);
    engine.docker(&["load", "-q", "-i", &layout.archive()]).ok();
    engine.docker(&["push", "-q", &name]).ok();
    engine.docker(&["rmi", &name]).ok();
    assert_eq!(engine.docker(&["images", "-aq"]).ok(), "");

    engine.docker(&["pull", "-q", &name]).ok();
    let (_, body) = engine.api(
        "GET",
        &format!("/v1.51/images/{name}/json?manifests=1"),
        None,
    );
    let shown: Value = serde_json::from_str(&body).unwrap();
    assert_eq!(shown["Descriptor"]["digest"], index["digest"]);
    assert_eq!(shown["Manifests"][1]["Kind"], "attestation");
    assert_eq!(shown["Manifests"][1]["Available"], true);
    let (status, body) = engine.api(
        "GET",
        &format!("/v1.51/images/{name}/json?manifests=1&platform=linux%2Famd64"),
        None,
    );
    assert_eq!(status, 400, "{body}");
    let copy = format!("{}/copy:1", registry.domain());
    engine.docker(&["tag", &name, &copy]).ok();
    engine.docker(&["push", "-q", &copy]).ok();
    assert_eq!(at_registry(&copy).1, at_registry(&name).1);
    engine.finish();
}
