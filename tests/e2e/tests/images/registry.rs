//! Images from and to a real registry.

use gantry_e2e::{Engine, Registry, skopeo_digest};

#[test]
fn pull_run_and_remove() {
    let registry = Registry::start();
    registry.push_busybox("tools/busybox:1");
    let name = format!("{}/tools/busybox:1", registry.domain());
    let engine = Engine::with(Default::default());
    let pulled = engine.docker(&["pull", &name]).ok();
    for words in [
        "1: Pulling from tools/busybox",
        "Pull complete",
        "Digest: sha256:",
        "Status: Downloaded newer image",
    ] {
        assert!(pulled.contains(words), "{words}: {pulled}");
    }
    assert!(
        engine
            .docker(&["pull", &name])
            .ok()
            .contains("Image is up to date")
    );
    let skopeo = skopeo_digest(&format!("docker://{name}"), &["--tls-verify=false"]);
    let digests = engine
        .docker(&["inspect", "-f", "{{index .RepoDigests 0}}", &name])
        .ok();
    assert!(digests.ends_with(&skopeo), "{digests} {skopeo}");
    assert_eq!(
        engine.docker(&["run", "--rm", &name, "echo", "hi"]).ok(),
        "hi"
    );
    assert!(engine.docker(&["history", &name]).ok().lines().count() >= 2);

    engine.docker(&["tag", &name, "mine:two"]).ok();
    assert!(
        engine
            .docker(&["images", "--format", "{{.Repository}}:{{.Tag}}"])
            .ok()
            .contains("mine:two")
    );
    engine
        .docker(&["run", "--name", "user", "mine:two", "true"])
        .ok();
    let removed = engine.docker(&["rmi", &name]).ok();
    assert!(removed.contains(&format!("Untagged: {name}")), "{removed}");
    engine.docker(&["rmi", "mine:two"]).fails(
        1,
        "conflict: unable to remove repository reference \"mine:two\"",
    );
    engine.docker(&["rm", "user"]).ok();
    let removed = engine.docker(&["rmi", "mine:two"]).ok();
    assert!(
        removed.contains("Untagged: mine:two") && removed.contains("Deleted: sha256:"),
        "{removed}"
    );
    assert_eq!(engine.docker(&["images", "-q"]).ok(), "");
    engine.finish();
}

#[test]
fn run_pulls_what_is_missing_and_login_is_checked() {
    let registry = Registry::with_password();
    let engine = Engine::with(Default::default());
    let name = format!("{}/private:1", registry.domain());
    let refused = engine.docker(&["run", "--rm", &name, "true"]);
    assert_eq!(refused.code, 125, "{refused:?}");
    let wrong = engine.docker(&["login", "-u", "alice", "-p", "wrong", &registry.domain()]);
    assert_ne!(wrong.code, 0);
    engine
        .docker(&["login", "-u", "alice", "-p", "secret", &registry.domain()])
        .ok();
    engine.docker(&["pull", &name]).fails(1, "not found");
    engine.finish();
}

#[test]
fn push_through_both_clients() {
    let (from, to) = (Registry::start(), Registry::with_password());
    from.push_busybox("busybox:1");
    let engine = Engine::with(Default::default());
    let name = format!("{}/busybox:1", from.domain());
    engine.docker(&["pull", "-q", &name]).ok();
    let digest = |name: &str, credentials: &[&str]| {
        let options = [&["--tls-verify=false"], credentials].concat();
        skopeo_digest(&format!("docker://{name}"), &options)
    };
    let there = format!("{}/team/busybox", to.domain());
    let (first, second) = (format!("{there}:1"), format!("{there}:2"));
    engine.docker(&["tag", &name, &first]).ok();
    engine
        .docker(&["push", &first])
        .fails(1, "denied: requested access to the resource is denied");
    engine
        .docker(&["push", &second])
        .fails(1, &format!("tag does not exist: {second}"));
    let login = ["login", "-u", "alice", "-p", "secret", &to.domain()];
    engine.docker(&login).ok();
    let said = engine.docker(&["push", &first]).ok();
    for words in [
        &format!("The push refers to repository [{there}]"),
        "Pushed",
        "1: digest: sha256:",
    ] {
        assert!(said.contains(words), "{words}: {said}");
    }
    let wanted = digest(&name, &[]);
    let credentials = ["--creds", "alice:secret"];
    assert_eq!(digest(&first, &credentials), wanted);
    engine.docker(&["tag", &name, &second]).ok();
    let said = engine.gantry(&["push", &second]).ok();
    assert!(said.contains("Layer already exists"), "{said}");
    assert_eq!(digest(&second, &credentials), wanted);
    let digests = engine
        .docker(&[
            "images",
            "--digests",
            "--format",
            "{{.Repository}} {{.Digest}}",
        ])
        .ok();
    assert!(digests.contains(&format!("{there} {wanted}")), "{digests}");

    // What was made here goes out compressed, comes back the same, and all tags go at once.
    engine.import_busybox(&format!("{there}/made:a"));
    engine
        .docker(&[
            "tag",
            &format!("{there}/made:a"),
            &format!("{there}/made:b"),
        ])
        .ok();
    let id = |name: &str| engine.docker(&["images", "-q", "--no-trunc", name]).ok();
    let before = id(&format!("{there}/made:a"));
    engine
        .docker(&["push", "--all-tags", &format!("{there}/made")])
        .ok();
    engine.docker(&["rmi", "-f", &before]).ok();
    engine
        .docker(&["pull", "-q", &format!("{there}/made:b")])
        .ok();
    assert_eq!(id(&format!("{there}/made:b")), before);
    engine.finish();
}
