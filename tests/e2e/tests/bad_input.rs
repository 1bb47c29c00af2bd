//! Bad input gets Docker's status code and wording, and leaves nothing behind.

use gantry_e2e::{Engine, Options, bin_dir, eventually, run};

#[test]
fn requests() {
    let engine = Engine::start();
    let create = "/v1.51/containers/create";
    for (method, path, body, code, wording) in [
        ("POST", create, Some("{"), 400, "unexpected EOF"),
        (
            "POST",
            create,
            Some(r#"{"Image": 5}"#),
            400,
            "cannot unmarshal",
        ),
        (
            "POST",
            create,
            Some(r#"{"Image": "nope"}"#),
            404,
            "No such image: nope:latest",
        ),
        (
            "POST",
            "/v1.51/containers/create?name=b%20d",
            Some(r#"{"Image": "busybox"}"#),
            400,
            "Invalid container name",
        ),
        (
            "GET",
            "/v9.99/version",
            None,
            400,
            "client version 9.99 is too new",
        ),
        (
            "GET",
            "/v1.2/version",
            None,
            400,
            "client version 1.2 is too old",
        ),
        ("GET", "/v1.51/nothing", None, 404, "page not found"),
        ("GET", "/vx/version", None, 404, "page not found"),
        (
            "GET",
            "/v1.51/containers/none/json",
            None,
            404,
            "No such container: none",
        ),
        (
            "POST",
            "/v1.51/containers/none/start",
            None,
            404,
            "No such container: none",
        ),
        (
            "GET",
            "/v1.51/images/none/json",
            None,
            404,
            "No such image: none:latest",
        ),
        (
            "GET",
            "/v1.51/networks/nope",
            None,
            404,
            "network nope not found",
        ),
        ("GET", "/v1.51/volumes/none", None, 404, "no such volume"),
        (
            "GET",
            "/v1.51/containers/json?filters=%7B",
            None,
            400,
            "invalid",
        ),
        (
            "GET",
            "/v1.51/containers/json?filters=%7B%22nope%22%3A%5B%22x%22%5D%7D",
            None,
            400,
            "invalid filter",
        ),
        (
            "GET",
            "/v1.51/swarm",
            None,
            503,
            "This node is not a swarm manager",
        ),
    ] {
        let (status, text) = engine.api(method, path, body);
        assert_eq!(status, code, "{method} {path}: {text}");
        assert!(
            text.contains(wording),
            "{method} {path}: want {wording:?} in {text}"
        );
        assert!(text.starts_with("{\"message\":"), "{text}");
    }
    assert_eq!(engine.docker(&["ps", "-aq"]).ok(), "");
    engine.finish();
}

#[test]
fn names_conflict() {
    let engine = Engine::start();
    let id = engine.docker(&["create", "--name", "one", "busybox"]).ok();
    let message = engine
        .docker(&["create", "--name", "one", "busybox"])
        .fails(1, "is already in use by container");
    assert!(message.contains(&id), "{message}");
    engine.docker(&["network", "create", "net"]).ok();
    engine
        .docker(&["network", "create", "net"])
        .fails(1, "network with name net already exists");
    engine
        .docker(&["network", "rm", "bridge"])
        .fails(1, "pre-defined network");
    engine.docker(&["network", "rm", "net"]).ok();
    engine.finish();
}

#[test]
fn second_daemon_on_the_same_root() {
    let engine = Engine::start();
    let mut second = engine.spawn();
    let status = eventually("the second daemon gives up", 30, || {
        second.try_wait().unwrap()
    });
    assert!(!status.success());
    assert!(engine.log().contains("already in use"), "{}", engine.log());
    assert_eq!(
        engine
            .docker(&["run", "--rm", "busybox", "echo", "still here"])
            .ok(),
        "still here"
    );
    engine.finish();
}

#[test]
fn unreadable_configuration() {
    let dir = tempfile::tempdir().unwrap();
    let config = dir.path().join("daemon.json");
    let daemon = bin_dir().join("gantryd");
    for (text, wording) in [
        ("{", "daemon.json"),
        (r#"{"no-such-key": 1}"#, "no-such-key"),
        (r#"{"data-root": 5}"#, "data-root"),
        (
            r#"{"storage-driver": "a", "drivers": {"storage": "b"}}"#,
            "storage",
        ),
    ] {
        std::fs::write(&config, text).unwrap();
        let done = run(
            &daemon,
            &["--validate", "--config-file", &config.display().to_string()],
        );
        assert_ne!(done.code, 0, "{text}");
        assert!(done.err.contains(wording), "{text}: {}", done.err);
    }
    std::fs::write(&config, "{}").unwrap();
    assert_eq!(
        run(
            &daemon,
            &["--validate", "--config-file", &config.display().to_string()]
        )
        .code,
        0
    );
}

#[test]
fn full_disk_leaves_nothing_half_made() {
    // A small tmpfs as data-root stands for the full disk.
    let dir = tempfile::tempdir().unwrap();
    let small = dir.path().join("small");
    std::fs::create_dir(&small).unwrap();
    let small = small.display().to_string();
    run("mount", &["-t", "tmpfs", "-o", "size=24m", "tmpfs", &small]).ok();
    let engine = Engine::with(Options {
        args: vec!["--data-root".into(), format!("{small}/data")],
        ..Default::default()
    });
    let big = dir.path().join("big.tar").display().to_string();
    run(
        "sh",
        &[
            "-c",
            &format!(
                "cd {} && head -c 60m /dev/urandom > blob && tar cf big.tar blob",
                dir.path().display()
            ),
        ],
    )
    .ok();
    let done = engine.docker(&["import", &big, "big:1"]);
    let images = engine.docker(&["images", "-q"]).ok();
    let space = run("df", &["--output=pcent", &small]).ok();
    engine.finish();
    run("umount", &[&small]).ok();
    assert_ne!(done.code, 0);
    assert!(done.err.contains("no space left on device"), "{}", done.err);
    assert_eq!(images, "");
    let used: u32 = space
        .lines()
        .last()
        .unwrap()
        .trim()
        .trim_end_matches('%')
        .parse()
        .unwrap();
    assert!(used < 50, "the failed import still occupies {used}%");
}
