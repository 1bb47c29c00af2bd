//! Images as read-only file systems of containers: who uses them, and what is left.

use std::fs;
use std::path::Path;

use gantry_e2e::Engine;

/// How many snapshots the storage driver has.
fn snapshots(engine: &Engine) -> usize {
    let root = engine.dir().join("data/storage/overlayfs/s");
    let entries = fs::read_dir(&root).unwrap_or_else(|e| panic!("{}: {e}", root.display()));
    entries.count()
}

#[test]
fn an_image_is_mounted_while_a_container_has_it() {
    let mut engine = Engine::start();
    let other = engine.dir().join("other");
    fs::create_dir_all(other.join("a/b")).unwrap();
    fs::write(other.join("a/b/file"), "of the other image\n").unwrap();
    let tar = engine.dir().join("other.tar").display().to_string();
    let root = other.display().to_string();
    gantry_e2e::run("tar", &["-C", &root, "-cf", &tar, "."]).ok();
    engine.docker(&["import", &tar, "other:1"]).ok();
    let before = snapshots(&engine);

    let whole = "type=image,source=other:1,target=/m";
    let part = "type=image,source=other:1,target=/part,image-subpath=a/b";
    let script = "cat /m/a/b/file /part/file; touch /m/x; touch /part/x; sleep 1000";
    let run = [
        "run", "-d", "--name", "user", "--mount", whole, "--mount", part, "busybox", "sh", "-c",
        script,
    ];
    engine.docker(&run).ok();
    let log = gantry_e2e::eventually("the script has looked", 30, || {
        let logs = engine.docker(&["logs", "user"]);
        logs.err.contains("/part/x").then_some(logs)
    });
    assert_eq!(log.out, "of the other image\nof the other image\n");
    assert_eq!(
        log.err.matches("Read-only file system").count(),
        2,
        "{}",
        log.err
    );
    let format = "{{range .Mounts}}{{.Type}} {{.Source}} {{.Destination}} {{.RW}};{{end}}";
    let shown = engine.docker(&["inspect", "-f", format, "user"]).ok();
    assert_eq!(shown, "image other:1 /m false;image other:1 /part false;");

    engine.docker(&["rmi", "other:1"]).fails(1, "container");
    engine.kill9();
    engine.boot();
    let read = ["exec", "user", "cat", "/part/file"];
    assert_eq!(engine.docker(&read).ok(), "of the other image");
    engine.docker(&["stop", "-t", "0", "user"]).ok();
    // Seen without a process too, and written to no more than with one.
    for path in ["/m/a/b/file", "/part/file"] {
        let to = engine.dir().join("copied").display().to_string();
        engine.docker(&["cp", &format!("user:{path}"), &to]).ok();
        assert_eq!(fs::read_to_string(&to).unwrap(), "of the other image\n");
        engine
            .docker(&["cp", &to, "user:/m/new"])
            .fails(1, "mounted volume is marked read-only");
    }
    engine.terminate();
    engine.boot();
    engine.docker(&["start", "user"]).ok();
    assert_eq!(engine.docker(&read).ok(), "of the other image");

    engine.docker(&["rm", "-f", "user"]).ok();
    assert_eq!(snapshots(&engine), before);
    assert!(
        !Path::new(&engine.dir().join("run/volumes"))
            .read_dir()
            .is_ok_and(|d| d.count() > 0)
    );
    engine.docker(&["rmi", "other:1"]).ok();
    engine.finish();
}
