//! Storage drivers: containers on plain copies, two drivers in one daemon, and moving from one to the other.

#[path = "storage/reflink.rs"]
mod reflink;

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Command, Stdio};

use gantry_e2e::{Engine, Options, Registry, bin_dir, eventually, run};
use serde_json::{Value, json};

fn on(driver: &str) -> Value {
    json!({"drivers": {"storage": driver}})
}

fn engine_on(driver: &str) -> Engine {
    let engine = Engine::with(Options {
        config: Some(on(driver)),
        ..Options::default()
    });
    engine.import_busybox("busybox:latest");
    engine
}

/// Ends the daemon and starts it with another default.
fn switch(engine: &mut Engine, driver: &str) {
    engine.terminate();
    engine.configure(on(driver));
    engine.boot();
}

fn info(engine: &Engine, template: &str) -> String {
    engine.docker(&["info", "-f", template]).ok()
}

fn inspect(engine: &Engine, template: &str, name: &str) -> String {
    engine.docker(&["inspect", "-f", template, name]).ok()
}

/// Directories of a driver's snapshots.
fn snapshots(engine: &Engine, driver: &str) -> Vec<PathBuf> {
    let dir = engine.dir().join("data/storage").join(driver).join("s");
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    entries.map(|entry| entry.path()).collect()
}

/// What a container of the image `busybox` changes, and what `docker diff` tells of it.
const CHANGES: &str = "mkdir -p /new/deep; echo one >/new/file; ln /new/file /new/deep/same; rm /bin/ash; \
    echo >>/etc/group; rm -r /var/www; mkdir /var/www; echo x >/var/www/index; chmod 4755 /bin/busybox; \
    ln -s nowhere /new/link; mkfifo /new/pipe; chown 33:44 /etc/passwd; dd if=/dev/zero of=/new/holes bs=1 count=1 seek=8M 2>&-";
const DIFF: &str = "C /bin\nD /bin/ash\nC /bin/busybox\nC /etc\nC /etc/group\nC /etc/passwd\nA /new\nA /new/deep\n\
    A /new/deep/same\nA /new/file\nA /new/holes\nA /new/link\nA /new/pipe\nC /var\nC /var/www\nA /var/www/index";
/// Looks at all of that from inside.
const LOOK: &str = "cat /new/deep/same; ls /bin/ash 2>&1; ls /var/www; readlink /new/link; \
    stat -c '%a %u:%g %h' /bin/busybox /etc/passwd /new/file; test -p /new/pipe && echo pipe; \
    test $(stat -c %b /new/holes) -lt 1000 && echo holes";
const SEEN: &str = "one\nls: /bin/ash: No such file or directory\nindex\nnowhere\n4755 0:0 1\n644 33:44 1\n644 0:0 2\npipe\nholes";

#[test]
fn containers_live_on_plain_copies() {
    let engine = engine_on("native");
    assert_eq!(info(&engine, "{{.Driver}}"), "native");
    assert!(info(&engine, "{{.DriverStatus}}").contains("Backing Filesystem"));
    let dir = engine.dir().display().to_string();
    engine
        .docker(&["run", "--name", "box", "busybox", "sh", "-c", CHANGES])
        .ok();
    assert_eq!(
        inspect(&engine, "{{.Driver}} {{.GraphDriver.Name}}", "box"),
        "native vfs"
    );
    assert_eq!(engine.docker(&["diff", "box"]).ok(), DIFF);
    let size: u64 = inspect_size(&engine, "box");
    assert!((4096..40 << 10).contains(&size) || size > 1 << 20, "{size}");

    engine.docker(&["commit", "box", "made"]).ok();
    let look = ["run", "--rm", "made", "sh", "-c", LOOK];
    assert_eq!(engine.docker(&look).ok(), SEEN);
    let layers = inspect(&engine, "{{len .RootFS.Layers}}", "made");
    assert_eq!(layers, "2");
    // A layer of nothing but changes, as on any other driver.
    let tar = format!("{dir}/made.tar");
    engine.docker(&["save", "-o", &tar, "made"]).ok();
    assert!(fs::metadata(&tar).unwrap().len() < 6 << 20);

    engine
        .docker(&["cp", "box:/new/file", &format!("{dir}/file")])
        .ok();
    assert_eq!(fs::read_to_string(format!("{dir}/file")).unwrap(), "one\n");
    engine
        .docker(&["cp", &format!("{dir}/file"), "box:/again"])
        .ok();
    engine.docker(&["export", "-o", &tar, "box"]).ok();
    assert!(
        run("tar", &["-tf", &tar])
            .ok()
            .lines()
            .any(|name| name == "again")
    );

    let private = [
        "run",
        "--rm",
        "--userns",
        "private",
        "busybox",
        "sh",
        "-c",
        "touch /f; stat -c %u:%g /f /bin",
    ];
    assert_eq!(engine.gantry(&private).ok(), "0:0\n0:0");
    engine.docker(&["rm", "box"]).ok();
    engine.docker(&["rmi", "made"]).ok();
    eventually("the trees of what was removed are gone", 60, || {
        let graves = engine.dir().join("data/storage/native/d");
        (snapshots(&engine, "native").len() == 1 && fs::read_dir(graves).unwrap().count() == 0)
            .then_some(())
    });
    engine.finish();
}

fn inspect_size(engine: &Engine, name: &str) -> u64 {
    let size = engine.docker(&["inspect", "-s", "-f", "{{.SizeRw}}", name]);
    size.ok().parse().unwrap()
}

#[test]
fn dockers_name_for_it_is_known() {
    let engine = Engine::with(Options {
        config: Some(json!({"storage-driver": "vfs"})),
        ..Options::default()
    });
    assert_eq!(info(&engine, "{{.Driver}}"), "native");
    engine.finish();
}

/// An engine with an image of two layers from a registry that is gone.
fn engine_with_image(driver: &str) -> (Engine, String) {
    let registry = Registry::start();
    registry.push_busybox("tools/busybox:1");
    let name = format!("{}/tools/busybox:1", registry.domain());
    let engine = Engine::with(Options {
        config: Some(on(driver)),
        ..Options::default()
    });
    engine.docker(&["pull", "-q", &name]).ok();
    engine.docker(&["tag", &name, "busybox:latest"]).ok();
    (engine, name)
}

#[test]
fn a_changed_default_affects_new_objects_only() {
    let (mut engine, name) = engine_with_image("overlayfs");
    engine
        .docker(&[
            "run",
            "--name",
            "old",
            &name,
            "sh",
            "-c",
            "test -e /kept || echo yes >/kept; cat /kept",
        ])
        .ok();
    switch(&mut engine, "native");
    assert_eq!(engine.docker(&["start", "-a", "old"]).ok(), "yes");
    // The registry is gone: this comes from the blobs that were kept.
    let new = ["run", "--name", "new", &name, "echo", "hi"];
    assert_eq!(engine.docker(&new).ok(), "hi");
    let driver = |name: &str| inspect(&engine, "{{.Driver}}", name);
    assert_eq!(
        (driver("old").as_str(), driver("new").as_str()),
        ("overlayfs", "native")
    );
    assert_eq!(engine.docker(&["start", "-a", "old"]).ok(), "yes");
    assert_eq!(engine.docker(&["diff", "old"]).ok(), "A /kept");
    engine.docker(&["commit", "old", "both"]).ok();
    let both = engine.docker(&["run", "--rm", "both", "cat", "/kept"]);
    assert_eq!(both.ok(), "yes");
    // The image's layers leave the old driver with the last container on them.
    assert!(!snapshots(&engine, "overlayfs").is_empty());
    engine.docker(&["rm", "old"]).ok();
    assert!(snapshots(&engine, "overlayfs").is_empty());
    engine.finish();
}

#[test]
fn everything_moves_to_the_other_driver_and_back() {
    let (mut engine, name) = engine_with_image("overlayfs");
    engine
        .docker(&["run", "--name", "box", &name, "sh", "-c", CHANGES])
        .ok();
    engine.docker(&["commit", "box", "made"]).ok();
    engine
        .docker(&["run", "-d", "--name", "busy", &name, "sleep", "600"])
        .ok();
    let refused = engine.gantry(&["driver", "migrate", "--to", "native"]);
    refused.fails(1, "the default storage driver");
    for (from, to) in [("overlayfs", "native"), ("native", "overlayfs")] {
        switch(&mut engine, to);
        let dry = engine
            .gantry(&["driver", "migrate", "--from", from, "--dry-run"])
            .ok();
        for line in [
            "container box: would be moved",
            "image made:latest: would be moved",
        ] {
            assert!(dry.contains(line), "{dry}");
        }
        assert_eq!(inspect(&engine, "{{.Driver}}", "box"), from);

        let told = engine.gantry(&["driver", "migrate"]).ok();
        assert!(told.contains("container box: moved"), "{told}");
        assert!(told.contains("image made:latest: moved"), "{told}");
        if from == "overlayfs" {
            assert!(
                told.contains("container busy: left where it is: it is running"),
                "{told}"
            );
            engine.docker(&["rm", "-f", "busy"]).ok();
        }
        assert!(
            snapshots(&engine, from).is_empty(),
            "{:?}",
            snapshots(&engine, from)
        );
        assert_eq!(inspect(&engine, "{{.Driver}}", "box"), to);
        assert_eq!(engine.docker(&["diff", "box"]).ok(), DIFF);
        let made = ["run", "--rm", "made", "sh", "-c", LOOK];
        assert_eq!(engine.docker(&made).ok(), SEEN);
        let copy = format!("moved-to-{to}");
        engine.docker(&["commit", "box", &copy]).ok();
        let moved = ["run", "--rm", &copy, "sh", "-c", LOOK];
        assert_eq!(engine.docker(&moved).ok(), SEEN);
        assert_eq!(engine.gantry(&["driver", "migrate"]).ok(), "");
    }
    let (code, body) = engine.api(
        "POST",
        "/gantry/drivers/storage/migrate",
        Some("{\"From\": \"none\"}"),
    );
    assert_eq!(code, 404, "{body}");
    engine.finish();
}

#[test]
fn a_migration_that_is_killed_loses_nothing() {
    let (mut engine, name) = engine_with_image("overlayfs");
    for n in 0..4 {
        let (container, image) = (format!("c{n}"), format!("i{n}"));
        let script = format!("echo {n} >/number");
        engine
            .docker(&["run", "--name", &container, &name, "sh", "-c", &script])
            .ok();
        engine.docker(&["commit", &container, &image]).ok();
    }
    switch(&mut engine, "native");
    // After the first object, then in the middle of what is left.
    for _ in 0..2 {
        let mut migration = Command::new(bin_dir().join("gantry"))
            .args(["driver", "migrate"])
            .env("DOCKER_HOST", engine.host())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(migration.stdout.take().unwrap()).lines();
        let first = lines.next().unwrap().unwrap();
        engine.kill9();
        migration.wait().unwrap();
        assert!(first.ends_with(": moved"), "{first}");
        engine.boot();
    }
    for n in 0..4 {
        let (container, image) = (format!("c{n}"), format!("i{n}"));
        assert_eq!(
            engine.docker(&["diff", &container]).ok(),
            "A /number",
            "{container}"
        );
        let cat = ["run", "--rm", &image, "cat", "/number"];
        assert_eq!(engine.docker(&cat).ok(), n.to_string());
    }
    engine.gantry(&["driver", "migrate"]).ok();
    assert!(snapshots(&engine, "overlayfs").is_empty());
    for n in 0..4 {
        let container = format!("c{n}");
        assert_eq!(inspect(&engine, "{{.Driver}}", &container), "native");
        assert_eq!(
            engine.docker(&["diff", &container]).ok(),
            "A /number",
            "{container}"
        );
    }
    engine.finish();
}
