//! A directory as a registry: chosen by configuration, through the docker CLI, shared with other engines and tools.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use gantry_e2e::{Engine, Options, run, skopeo_digest};
use serde_json::json;

/// An engine that serves `airgap.local` from a directory.
fn engine(images: &Path, isolation: &str) -> Engine {
    Engine::with(Options {
        config: Some(json!({"drivers": {"registry": {"oci-dir": {
            "hosts": ["airgap.local"], "isolation": isolation, "options": {"root": images},
        }}}})),
        ..Default::default()
    })
}

#[test]
fn images_travel_in_a_directory() {
    let dir = tempfile::tempdir().unwrap();
    let images = dir.path();
    let name = "airgap.local/team/app:1";
    let sender = engine(images, "none");
    sender.import_busybox("busybox:latest");
    // By way of skopeo, which makes an OCI image of it: it reads no others from a layout.
    let saved = sender.dir().join("saved.tar").display().to_string();
    sender.docker(&["save", "-o", &saved, "busybox"]).ok();
    let first = format!("oci:{}:1", images.join("first").display());
    let archive = format!("docker-archive:{saved}");
    run(
        "skopeo",
        &["copy", "--quiet", "--insecure-policy", &archive, &first],
    )
    .ok();
    sender.docker(&["rmi", "busybox"]).ok();
    sender.docker(&["pull", "airgap.local/first:1"]).ok();
    sender.docker(&["tag", "airgap.local/first:1", name]).ok();
    let pushed = sender.docker(&["push", name]).ok();
    assert!(pushed.contains("1: digest: sha256:"), "{pushed}");
    assert!(pushed.contains("Mounted from first"), "{pushed}");
    let again = sender.docker(&["push", name]).ok();
    assert!(again.contains("Layer already exists"), "{again}");

    // Another repository of the same layer holds it without a copy.
    let other = "airgap.local/other:2";
    sender.docker(&["tag", name, other]).ok();
    let mounted = sender.docker(&["push", other]).ok();
    assert!(mounted.contains("Mounted from "), "{mounted}");
    let layers = fs::read_dir(images.join("other/blobs/sha256")).unwrap();
    let links = layers.map(|blob| blob.unwrap().metadata().unwrap().nlink());
    assert!(links.max() >= Some(2));

    let layout = images.join("team/app").display().to_string();
    let source = format!("oci:{layout}:1");
    let said = skopeo_digest(&source, &[]);
    assert!(pushed.contains(&said), "{said}: {pushed}");
    sender.finish();

    let receiver = engine(images, "process");
    let pulled = receiver.docker(&["pull", name]).ok();
    assert!(pulled.contains(&format!("Digest: {said}")), "{pulled}");
    let hello = ["run", "--rm", name, "echo", "hello"];
    assert_eq!(receiver.docker(&hello).ok(), "hello");
    let removed = receiver.docker(&["rmi", name]).ok();
    assert!(removed.contains("Deleted: sha256:"), "{removed}");
    receiver.docker(&["pull", "-q", name]).ok();

    // What skopeo puts there is an image like any other.
    let target = format!("oci:{layout}:from-skopeo");
    run(
        "skopeo",
        &["copy", "--quiet", "--insecure-policy", &source, &target],
    )
    .ok();
    receiver
        .docker(&["pull", "airgap.local/team/app:from-skopeo"])
        .ok();
    let found = receiver
        .docker(&["search", "--format", "{{.Name}}", "airgap.local/app"])
        .ok();
    assert_eq!(found, "team/app");

    receiver
        .docker(&["pull", "airgap.local/team/app:none"])
        .fails(
            1,
            "manifest for airgap.local/team/app:none not found: manifest unknown",
        );
    receiver
        .docker(&["pull", "airgap.local/none"])
        .fails(1, "repository airgap.local/none not found: name unknown");
    receiver.finish();
}

#[test]
fn a_registry_has_one_driver_and_says_when_it_is_not_there() {
    let dir = tempfile::tempdir().unwrap();
    let unmounted = dir.path().join("usb");
    let engine = engine(&unmounted, "none");
    engine
        .docker(&["pull", "airgap.local/app"])
        .fails(1, "/usb: ");
    engine.import_busybox("airgap.local/app:1");
    engine
        .docker(&["push", "airgap.local/app:1"])
        .fails(1, "/usb: ");
    assert!(!unmounted.exists(), "nothing is put below a mount point");
    fs::create_dir(&unmounted).unwrap();
    engine.docker(&["push", "airgap.local/app:1"]).ok();
    engine.finish();
}
