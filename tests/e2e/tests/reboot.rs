//! What a restart of the machine leaves of containers.

use gantry_e2e::{Engine, eventually};

#[test]
fn policies_apply_and_transient_containers_are_gone() {
    let mut engine = Engine::start();
    for args in [
        &["--name", "always", "--restart", "always"][..],
        &["--name", "stopped", "--restart", "unless-stopped"],
        &["--name", "plain", "-v", "/anonymous"],
        &["--name", "transient", "--rm", "-v", "/anonymous"],
    ] {
        let run = [&["run", "-d"], args, &["busybox", "sleep", "1000"]].concat();
        engine.docker(&run).ok();
    }
    engine.docker(&["stop", "-t", "0", "stopped"]).ok();
    engine
        .docker(&["run", "--name", "ended", "busybox", "sh", "-c", "exit 3"])
        .fails(3, "");
    // What is written behind an answer is on disk a moment later: an empty volume's creation waits for its turn.
    engine.docker(&["volume", "create", "marker"]).ok();
    engine.reboot("00000000-0000-0000-0000-000000000001");

    let state = |name: &str| {
        engine
            .docker(&[
                "inspect",
                "-f",
                "{{.State.Status}} {{.State.ExitCode}}",
                name,
            ])
            .out
            .trim()
            .to_owned()
    };
    eventually("always runs again", 10, || {
        (state("always") == "running 0").then_some(())
    });
    assert_eq!(state("stopped"), "exited 137");
    assert_eq!(state("plain"), "exited 255");
    assert_eq!(state("ended"), "exited 3");
    let names = engine.docker(&["ps", "-a", "--format", "{{.Names}}"]).ok();
    assert!(!names.contains("transient"), "{names}");
    let volumes = engine.docker(&["volume", "ls", "-q"]).ok();
    assert_eq!(volumes.lines().count(), 2, "{volumes}");

    engine.docker(&["start", "plain"]).ok();
    assert_eq!(state("plain"), "running 0");
    for name in ["always", "stopped", "plain", "ended"] {
        engine.docker(&["rm", "-fv", name]).ok();
    }
    engine.finish();
}
