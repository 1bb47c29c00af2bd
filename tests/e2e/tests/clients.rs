//! Other clients: docker-py, and the project's own command line.

use gantry_e2e::{Done, Engine, Options, Registry, busybox_tar, eventually};

/// Runs one of the Python programs beside the tests.
fn python(engine: &Engine, script: &str, args: &[&str]) -> Done {
    let script = format!("{}/scripts/{script}", env!("CARGO_MANIFEST_DIR"));
    let python = std::env::var("GANTRY_TEST_PYTHON").unwrap_or_else(|_| "python3".into());
    let mut line = vec![script.as_str()];
    line.extend(args);
    engine.client(python, &line)
}

#[test]
fn docker_py() {
    let engine = Engine::with(Options::default());
    let out = python(&engine, "docker_py.py", &[busybox_tar()]).ok();
    assert!(out.contains("all calls passed"), "{out}");
    engine.finish();
}

#[test]
fn testcontainers_starts_and_stops_services() {
    let registry = Registry::start();
    for image in ["nginx", "postgres", "redis"] {
        registry.push_stack_image(image);
    }
    let engine = Engine::with(Options::default());
    let out = python(&engine, "testcontainers_services.py", &[&registry.domain()]).ok();
    assert!(out.contains("all services ran"), "{out}");
    assert_eq!(engine.docker(&["ps", "-aq"]).ok(), "");
    engine.finish();
}

#[test]
fn three_hundred_containers_by_eight_clients() {
    let engine = Engine::start();
    let out = python(&engine, "load.py", &[]).ok();
    assert!(out.contains("nothing is left"), "{out}");
    engine.finish();
}

#[test]
fn gantry_speaks_dockers_words() {
    let engine = Engine::start();
    assert_eq!(
        engine
            .gantry(&["run", "--rm", "busybox", "echo", "hi"])
            .ok(),
        "hi"
    );
    assert_eq!(
        engine
            .gantry(&["run", "--rm", "busybox", "sh", "-c", "exit 7"])
            .code,
        7
    );
    engine
        .gantry(&["run", "--rm", "busybox", "no-such-program"])
        .fails(127, "executable file not found");
    engine
        .gantry(&["run", "--rm", "busybox", "/etc/passwd"])
        .fails(126, "permission denied");
    engine
        .gantry(&["run", "--rm", "--no-such-flag", "busybox"])
        .fails(125, "unknown flag: --no-such-flag");
    let id = engine
        .gantry(&["run", "-d", "--name", "same", "busybox", "sleep", "60"])
        .ok();
    // The same engine through both clients gives the same answers.
    for args in [
        &[
            "ps",
            "-a",
            "--no-trunc",
            "--format",
            "{{.ID}} {{.Names}} {{.Image}} {{.Command}} {{.State}}",
        ][..],
        &[
            "inspect",
            "-f",
            "{{.Id}} {{.State.Pid}} {{json .Config.Cmd}}",
            "same",
        ],
        &[
            "images",
            "--format",
            "{{.Repository}}:{{.Tag}} {{.ID}} {{.Size}}",
        ],
        &[
            "network",
            "ls",
            "--format",
            "{{.Name}} {{.Driver}} {{.Scope}}",
        ],
        &["ps"],
        &["images"],
    ] {
        // Ages grow: what is said before and after the other client's answer must be the same for a comparison.
        let (ours, theirs) = eventually("nothing grows older meanwhile", 30, || {
            let (before, theirs) = (engine.gantry(args).ok(), engine.docker(args).ok());
            (engine.gantry(args).ok() == before).then_some((before, theirs))
        });
        assert_eq!(ours, theirs, "{args:?}");
    }
    assert_eq!(engine.gantry(&["exec", "same", "hostname"]).ok(), id[..12]);
    engine.gantry(&["stop", "-t", "0", "same"]).ok();
    assert_eq!(engine.gantry(&["rm", "same"]).ok(), "same");
    let as_docker = engine.dir().join("docker");
    std::os::unix::fs::symlink(gantry_e2e::bin_dir().join("gantry"), &as_docker).unwrap();
    assert_eq!(
        engine
            .client(&as_docker, &["run", "--rm", "busybox", "echo", "hi"])
            .ok(),
        "hi"
    );
    engine.finish();
}
