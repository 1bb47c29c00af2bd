//! What a restart of the machine leaves of containers.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;

use gantry_e2e::{Engine, eventually};

/// Directories of snapshots of all drivers.
fn snapshots(engine: &Engine) -> BTreeSet<PathBuf> {
    let drivers = fs::read_dir(engine.data().join("storage"))
        .unwrap()
        .flatten();
    let dirs = drivers.filter_map(|driver| fs::read_dir(driver.path().join("s")).ok());
    dirs.flatten().flatten().map(|dir| dir.path()).collect()
}

/// A container is on the disk before its files are: these begin anew when the power goes in between.
#[test]
fn a_container_outlives_its_files() {
    let mut engine = Engine::start();
    let before = snapshots(&engine);
    let script = "cat /data; echo seen > /data";
    let create = ["create", "--name", "box", "busybox", "sh", "-c", script];
    engine.docker(&create).ok();
    let after = snapshots(&engine);
    let made: Vec<_> = after.difference(&before).collect();
    let [made] = made.as_slice() else {
        panic!("{made:?}")
    };
    engine.terminate();
    fs::remove_dir_all(made).unwrap();
    engine.boot();
    let run = || {
        let done = engine.docker(&["start", "-a", "box"]);
        (done.out, done.err)
    };
    let first = run();
    assert!(first.1.contains("No such file"), "{first:?}");
    assert_eq!(run().0, "seen\n");
    engine.finish();
}

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
    eventually("always runs again", 30, || {
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
