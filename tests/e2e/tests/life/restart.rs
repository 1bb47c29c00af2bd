//! Restart policies.

use gantry_e2e::{Engine, eventually};

use crate::{becomes, inspect, run, state};

#[test]
fn a_policy_goes_on_when_the_start_itself_fails() {
    let mut engine = Engine::start();
    let place = engine.dir().join("config");
    let place = place.to_str().unwrap();
    std::fs::create_dir(place).unwrap();
    let mount = format!("type=bind,src={place},dst=/config");
    run(
        &engine,
        &["--name", "needs", "--restart", "always", "--mount", &mount],
        "while test -e /config/stay; do sleep 0.1; done; exit 3",
    );
    run(
        &engine,
        &[
            "--name",
            "twice",
            "--restart",
            "on-failure:2",
            "--mount",
            &mount,
        ],
        "exit 4",
    );
    becomes(&engine, "twice", "exited");
    assert_eq!(inspect(&engine, "{{.RestartCount}}", "twice"), "2");
    becomes(&engine, "needs", "restarting");
    std::fs::remove_dir(place).unwrap();
    eventually("a start failed", 20, || {
        let error = inspect(&engine, "{{.State.Error}}", "needs");
        error
            .contains("bind source path does not exist")
            .then_some(())
    });
    becomes(&engine, "needs", "restarting");
    // The next daemon goes on where the last one was.
    let count = |engine: &Engine| -> u32 {
        inspect(engine, "{{.RestartCount}}", "needs")
            .parse()
            .unwrap()
    };
    let before = count(&engine);
    engine.kill9();
    engine.boot();
    assert!(count(&engine) >= before);
    assert_ne!(state(&engine, "needs"), "exited");
    std::fs::create_dir(place).unwrap();
    std::fs::write(format!("{place}/stay"), "").unwrap();
    becomes(&engine, "needs", "running");
    // A restart that waits is stopped without having started.
    std::fs::remove_dir_all(place).unwrap();
    becomes(&engine, "needs", "restarting");
    engine
        .docker(&["rm", "needs"])
        .fails(1, "stop the container before removing");
    engine
        .docker(&["pause", "needs"])
        .fails(1, "is restarting, wait until the container is running");
    engine.docker(&["stop", "needs"]).ok();
    assert_eq!(state(&engine, "needs"), "exited");
    engine
        .docker(&["start", "needs"])
        .fails(1, "bind source path does not exist");
    assert_eq!(state(&engine, "needs"), "exited");
    engine.finish();
}

#[test]
fn a_manual_stop_is_remembered() {
    let mut engine = Engine::start();
    for (name, policy) in [
        ("always", "always"),
        ("unless", "unless-stopped"),
        ("failing", "on-failure"),
    ] {
        run(&engine, &["--name", name, "--restart", policy], "sleep 600");
    }
    run(
        &engine,
        &["--name", "kept", "--restart", "unless-stopped"],
        "sleep 600",
    );
    run(&engine, &["--name", "brief", "--rm"], "sleep 600");
    engine.docker(&["stop", "always", "unless", "failing"]).ok();
    let pid = inspect(&engine, "{{.State.Pid}}", "brief");
    engine.kill9();
    // It ends while there is no daemon to remove it.
    gantry_e2e::run("kill", &["-9", &pid]).ok();
    engine.boot();
    becomes(&engine, "always", "running");
    assert_eq!(state(&engine, "unless"), "exited");
    assert_eq!(state(&engine, "failing"), "exited");
    assert_eq!(state(&engine, "kept"), "running");
    assert_eq!(inspect(&engine, "{{.RestartCount}}", "kept"), "0");
    assert!(
        !engine
            .docker(&["ps", "-a", "--format", "{{.Names}}"])
            .ok()
            .contains("brief")
    );
    // A restart is no stop.
    engine.docker(&["restart", "kept"]).ok();
    engine.docker(&["kill", "-s", "KILL", "always"]).ok();
    assert_eq!(state(&engine, "always"), "exited");
    engine.finish();
}
