//! Kills.

use gantry_e2e::{Engine, Registry, Relay};

use crate::tools::{
    LAYER, MB, begin, fsck, has, in_order, kill_at, push_image, runs, trash_is_empty, usage,
};

/// Events on the disk at which the daemon is killed. A kill that finds the work done is one of a daemon at rest.
const EVENTS: [usize; 3] = [1, 5, 16];

/// What is asked of a registry besides blobs.
const DOCUMENTS: u64 = MB / 8;

/// Bytes of blobs, whole or not, that the engine has.
fn fetched(engine: &Engine) -> u64 {
    let report = fsck(engine, &["--quick"]);
    usage(&report, "blobs").1 + usage(&report, "downloads").1
}

#[test]
fn a_pull_killed_anywhere_fetches_nothing_twice() {
    let registry = Registry::start();
    push_image(&registry, "big:1");
    let relay = Relay::start(registry.port());
    let mut engine = Engine::with(Default::default());
    let name = format!("{}/big:1", relay.domain());
    engine.docker(&["pull", &name]).ok();
    let whole = relay.down.total();
    assert!(whole > 2 * LAYER);
    let finish = |engine: &Engine, when: &str| {
        in_order(engine, &format!("a pull killed {when}"));
        let (have, before) = (fetched(engine), relay.down.total());
        engine.docker(&["pull", &name]).ok();
        let moved = relay.down.total() - before;
        let missing = whole.saturating_sub(have);
        assert!(
            moved < missing + DOCUMENTS,
            "{when}: {moved} bytes, {missing} were missing"
        );
        runs(engine, &name);
        in_order(engine, "a pull");
        assert_eq!(usage(&fsck(engine, &["--quick"]), "downloads"), (0, 0));
    };
    // While documents, and each of the layers, come.
    for at in [600, 2 * MB, 5 * MB] {
        engine.docker(&["rmi", &name]).ok();
        relay.down.hold_at(relay.down.total() + at);
        let mut client = begin(&engine, &["pull", &name]);
        relay.down.await_hold();
        engine.kill9();
        assert!(!client.wait().unwrap().success());
        relay.down.release();
        engine.boot();
        assert!(!has(&engine, &name));
        finish(&engine, &format!("at byte {at}"));
    }
    // While they are unpacked and recorded.
    for nth in EVENTS {
        engine.docker(&["rmi", &name]).ok();
        let pulled = kill_at(&mut engine, nth, &["pull", &name]);
        assert!(has(&engine, &name) || !pulled.success(), "event {nth}");
        finish(&engine, &format!("at event {nth}"));
    }
    engine.finish();
}

#[test]
fn a_push_killed_anywhere_is_gone_on_with() {
    let registry = Registry::start();
    push_image(&registry, "big:1");
    let target = Registry::start();
    let relay = Relay::start(target.port());
    let mut engine = Engine::with(Default::default());
    let (name, there) = (
        format!("{}/big:1", registry.domain()),
        format!("{}/big:1", relay.domain()),
    );
    engine.docker(&["pull", "-q", &name]).ok();
    engine.docker(&["tag", &name, &there]).ok();
    for at in [300, 2 * MB, 5 * MB] {
        relay.up.hold_at(at);
        let mut client = begin(&engine, &["push", &there]);
        relay.up.await_hold();
        engine.kill9();
        assert!(!client.wait().unwrap().success());
        relay.up.release();
        engine.boot();
        in_order(&engine, &format!("a push killed at byte {at}"));
    }
    engine.docker(&["push", &there]).ok();
    engine.docker(&["rmi", &name, &there]).ok();
    engine.docker(&["pull", &there]).ok();
    runs(&engine, &there);
    engine.finish();
}

#[test]
fn a_load_or_commit_killed_anywhere_is_whole_or_not_at_all() {
    let mut engine = Engine::start();
    engine
        .docker(&[
            "run",
            "--name",
            "box",
            "busybox",
            "sh",
            "-c",
            "head -c 2000000 /dev/urandom >/new",
        ])
        .ok();
    for nth in EVENTS {
        let committed = kill_at(&mut engine, nth, &["commit", "box", "new:1"]);
        assert!(has(&engine, "new:1") || !committed.success(), "event {nth}");
        in_order(&engine, &format!("a commit killed at event {nth}"));
        assert_eq!(usage(&fsck(&engine, &["--quick"]), "downloads"), (0, 0));
        engine.docker(&["commit", "box", "new:1"]).ok();
        let size = engine.docker(&["run", "--rm", "new:1", "stat", "-c", "%s", "/new"]);
        assert_eq!(size.ok(), "2000000");
        engine.docker(&["rmi", "new:1"]).ok();
    }
    engine.docker(&["commit", "box", "new:1"]).ok();
    engine.docker(&["rm", "box"]).ok();

    let archive = engine.dir().join("image.tar").display().to_string();
    engine
        .docker(&["save", "-o", &archive, "new:1", "busybox"])
        .ok();
    for nth in EVENTS {
        engine.docker(&["rmi", "new:1", "busybox"]).ok();
        let loaded = kill_at(&mut engine, nth, &["load", "-i", &archive]);
        assert!(has(&engine, "new:1") || !loaded.success(), "event {nth}");
        in_order(&engine, &format!("a load killed at event {nth}"));
        assert_eq!(usage(&fsck(&engine, &["--quick"]), "downloads"), (0, 0));
        engine.docker(&["load", "-i", &archive]).ok();
        engine.docker(&["run", "--rm", "new:1", "true"]).ok();
    }
    engine.finish();
}

#[test]
fn a_removal_killed_anywhere_is_finished_by_the_next_daemon() {
    let registry = Registry::start();
    push_image(&registry, "big:1");
    let mut engine = Engine::with(Default::default());
    let name = format!("{}/big:1", registry.domain());
    for (nth, args) in EVENTS.into_iter().flat_map(|nth| {
        let rmi = vec!["rmi", name.as_str()];
        let prune = vec!["image", "prune", "-a", "-f"];
        [(nth, rmi), (nth, prune)]
    }) {
        engine.docker(&["pull", "-q", &name]).ok();
        let removed = kill_at(&mut engine, nth, &args);
        assert!(!has(&engine, &name) || !removed.success(), "{args:?} {nth}");
        in_order(&engine, &format!("{args:?} killed at event {nth}"));
        if has(&engine, &name) {
            runs(&engine, &name);
            engine.docker(&args).ok();
        }
        trash_is_empty(&engine);
        let report = fsck(&engine, &["--quick"]);
        for category in ["blobs", "downloads", "layers", "trash"] {
            assert_eq!(
                usage(&report, category),
                (0, 0),
                "{args:?} {nth}: {category}"
            );
        }
    }
    engine.finish();
}
