//! Names and identifiers: giving, taking away, and what goes with the last one.

use gantry_e2e::{Engine, Registry};
use serde_json::Value;

fn id(engine: &Engine, name: &str) -> String {
    engine.docker(&["images", "-q", "--no-trunc", name]).ok()
}

/// Makes an image of another with one more layer.
fn child(engine: &Engine, of: &str, name: &str) -> String {
    let made = engine
        .docker(&[
            "run",
            "-d",
            of,
            "sh",
            "-c",
            &format!("echo {name} > /{name}"),
        ])
        .ok();
    engine.docker(&["wait", &made]).ok();
    let committed = engine.docker(&["commit", &made, name]).ok();
    engine.docker(&["rm", &made]).ok();
    committed
}

#[test]
fn removal_tells_what_went_in_order() {
    let registry = Registry::start();
    registry.push_busybox("box:1");
    let engine = Engine::with(Default::default());
    let name = format!("{}/box:1", registry.domain());
    engine.docker(&["pull", "-q", &name]).ok();
    let digest = engine
        .docker(&["image", "inspect", "-f", "{{index .RepoDigests 0}}", &name])
        .ok();
    let image = id(&engine, &name);
    let layer = engine
        .docker(&[
            "image",
            "inspect",
            "-f",
            "{{index .RootFS.Layers 0}}",
            &name,
        ])
        .ok();
    let removed = engine.docker(&["rmi", &name]).ok();
    let wanted =
        format!("Untagged: {name}\nUntagged: {digest}\nDeleted: {image}\nDeleted: {layer}");
    assert_eq!(removed, wanted);

    // By short identifier, with everything that is its name.
    engine.docker(&["pull", "-q", &name]).ok();
    let removed = engine.docker(&["rmi", &image[7..15]]).ok();
    assert_eq!(removed, wanted);

    // By digest only that name goes.
    engine.docker(&["pull", "-q", &name]).ok();
    assert_eq!(
        engine.docker(&["rmi", &digest]).ok(),
        format!("Untagged: {digest}")
    );
    assert_eq!(id(&engine, &name), image);
    // Without a tag it is dangling, although it has a digest.
    engine.docker(&["rmi", &name]).ok();
    engine.docker(&["pull", "-q", &digest]).ok();
    let dangling = engine
        .docker(&["images", "-q", "--no-trunc", "-f", "dangling=true"])
        .ok();
    assert_eq!(dangling, image);
    let pruned = engine.docker(&["image", "prune", "-f"]).ok();
    assert!(
        pruned.contains(&format!("untagged: {digest}"))
            && pruned.contains(&format!("deleted: {image}")),
        "{pruned}"
    );
    engine.finish();
}

#[test]
fn conflicts_are_those_of_docker() {
    let engine = Engine::start();
    let image = id(&engine, "busybox");
    let short = &image[7..19];
    engine.docker(&["tag", "busybox", "other:1"]).ok();
    engine.docker(&["rmi", short]).fails(
        1,
        &format!("conflict: unable to delete {short} (must be forced) - image is referenced in multiple repositories"),
    );
    let container = engine
        .docker(&["run", "-d", "busybox", "sleep", "1000"])
        .ok();
    let by = &container[..12];
    assert_eq!(engine.docker(&["rmi", "other:1"]).ok(), "Untagged: other:1");
    engine.docker(&["rmi", "busybox"]).fails(
        1,
        &format!("conflict: unable to remove repository reference \"busybox\" (must force) - container {by} is using its referenced image {short}"),
    );
    for force in [&["rmi", short][..], &["rmi", "-f", short]] {
        engine.docker(force).fails(
            1,
            &format!("conflict: unable to delete {short} (cannot be forced) - image is being used by running container {by}"),
        );
    }
    // By force the name goes, the image stays as long as it is used.
    assert_eq!(
        engine.docker(&["rmi", "-f", "busybox"]).ok(),
        "Untagged: busybox:latest"
    );
    engine.docker(&["kill", &container]).ok();
    engine.docker(&["wait", &container]).ok();
    engine.docker(&["rmi", short]).fails(
        1,
        &format!("conflict: unable to delete {short} (must be forced) - image is being used by stopped container {by}"),
    );
    assert!(
        engine
            .docker(&["rmi", "-f", short])
            .ok()
            .starts_with(&format!("Deleted: {image}"))
    );
    engine
        .docker(&["rmi", short])
        .fails(1, &format!("No such image: {short}:latest"));
    let (status, body) = engine.api("DELETE", "/v1.51/images/%20", None);
    assert_eq!(
        (status, body.contains("image name cannot be blank")),
        (400, true)
    );
    engine.finish();
}

#[test]
fn parents_go_with_their_last_child() {
    let engine = Engine::start();
    let base = id(&engine, "busybox");
    let middle = child(&engine, "busybox", "middle");
    let top = child(&engine, "middle", "top");
    engine
        .docker(&["rmi", &middle[7..19]])
        .fails(1, "image has dependent child images");
    assert_eq!(
        engine.docker(&["rmi", "middle"]).ok(),
        "Untagged: middle:latest"
    );
    // A step of another is shown on request only.
    let shown = |more: &[&str]| {
        engine
            .docker(&[&["images", "-q", "--no-trunc"], more].concat())
            .ok()
    };
    assert!(!shown(&[]).contains(&middle) && shown(&["-a"]).contains(&middle));
    let history = engine.docker(&["history", "-q", "--no-trunc", "top"]).ok();
    assert_eq!(history.lines().collect::<Vec<_>>(), [&top, &middle, &base]);
    let removed = engine.docker(&["rmi", "top"]).ok();
    let lines: Vec<&str> = removed.lines().collect();
    assert_eq!(lines[0], "Untagged: top:latest");
    assert_eq!(
        (lines[1], lines[3]),
        (&*format!("Deleted: {top}"), &*format!("Deleted: {middle}"))
    );
    assert_eq!(lines.len(), 5, "{removed}");

    let middle = child(&engine, "busybox", "middle");
    child(&engine, "middle", "top");
    engine.docker(&["rmi", "middle"]).ok();
    engine.docker(&["rmi", "--no-prune", "top"]).ok();
    assert!(shown(&["-f", "dangling=true"]).contains(&middle));
    engine.docker(&["image", "prune", "-f"]).ok();
    assert_eq!(shown(&["-a"]), base);
    engine
        .docker(&["run", "--name", "user", "busybox", "true"])
        .ok();
    let pruned = engine.docker(&["image", "prune", "-af"]).ok();
    assert_eq!(pruned, "Total reclaimed space: 0B");
    engine.docker(&["rm", "user"]).ok();
    let pruned = engine.docker(&["image", "prune", "-af"]).ok();
    assert!(pruned.contains("untagged: busybox:latest"), "{pruned}");
    let (_, body) = engine.api("GET", "/v1.51/images/json?all=1", None);
    assert_eq!(
        serde_json::from_str::<Value>(&body).unwrap(),
        serde_json::json!([])
    );
    engine.finish();
}
