//! Volumes and bind mounts through the docker CLI.

use std::fs;

use gantry_e2e::Engine;

#[test]
fn named_volumes_outlive_containers() {
    let engine = Engine::start();
    engine.docker(&["volume", "create", "data"]).ok();
    engine
        .docker(&[
            "run",
            "--rm",
            "-v",
            "data:/d",
            "busybox",
            "sh",
            "-c",
            "echo kept > /d/file",
        ])
        .ok();
    assert_eq!(
        engine
            .docker(&[
                "run",
                "--rm",
                "-v",
                "data:/d:ro",
                "busybox",
                "cat",
                "/d/file"
            ])
            .ok(),
        "kept"
    );
    let read_only = [
        "run",
        "--rm",
        "-v",
        "data:/d:ro",
        "busybox",
        "touch",
        "/d/x",
    ];
    engine.docker(&read_only).fails(1, "Read-only file system");
    let path = engine
        .docker(&["volume", "inspect", "-f", "{{.Mountpoint}}", "data"])
        .ok();
    assert_eq!(
        fs::read_to_string(format!("{path}/file")).unwrap(),
        "kept\n"
    );
    engine
        .docker(&[
            "run", "-d", "--name", "user", "-v", "data:/d", "busybox", "sleep", "60",
        ])
        .ok();
    engine
        .docker(&["volume", "rm", "data"])
        .fails(1, "volume is in use");
    engine.docker(&["rm", "-f", "user"]).ok();
    engine.docker(&["volume", "rm", "data"]).ok();
    engine
        .docker(&["volume", "inspect", "data"])
        .fails(1, "no such volume");
    engine.finish();
}

#[test]
fn lists_are_filtered_by_regular_expressions() {
    let engine = Engine::start();
    for name in ["data", "mydata", "other"] {
        engine.docker(&["volume", "create", name]).ok();
    }
    for (name, found) in [
        ("data", "data\nmydata"),
        ("^data$", "data"),
        ("^.{5}$", "other"),
        ("[", ""),
    ] {
        let filter = format!("name={name}");
        let listed = engine.docker(&["volume", "ls", "-q", "-f", &filter]);
        assert_eq!(listed.ok(), found, "{name}");
    }
    engine.finish();
}

#[test]
fn a_new_volume_gets_the_image_content() {
    let engine = Engine::start();
    // An empty volume is filled whoever made it, and when.
    engine.docker(&["volume", "create", "made"]).ok();
    for volume in ["fresh", "made"] {
        let mount = format!("{volume}:/etc");
        let read = ["run", "--rm", "-v", &mount, "busybox", "cat", "/etc/group"];
        let out = engine.docker(&read).ok();
        assert!(out.contains("extra:x:44:www"), "{volume}: {out}");
    }
    engine
        .docker(&[
            "run",
            "--rm",
            "-v",
            "made:/etc",
            "busybox",
            "rm",
            "/etc/group",
        ])
        .ok();
    engine
        .docker(&[
            "run",
            "--rm",
            "-v",
            "made:/etc",
            "busybox",
            "cat",
            "/etc/group",
        ])
        .fails(1, "No such file");
    engine.docker(&["volume", "rm", "made"]).ok();
    engine
        .docker(&[
            "run",
            "--rm",
            "-v",
            "/anonymous",
            "busybox",
            "touch",
            "/anonymous/x",
        ])
        .ok();
    assert_eq!(engine.docker(&["volume", "ls", "-q"]).ok(), "fresh");
    engine.docker(&["volume", "rm", "fresh"]).ok();
    engine.finish();
}

#[test]
fn bind_mounts() {
    let engine = Engine::start();
    let dir = engine.dir().join("bound");
    fs::create_dir(&dir).unwrap();
    fs::write(dir.join("in"), "from the host").unwrap();
    let bind = format!("{}:/b", dir.display());
    let script = "cat /b/in; echo back > /b/out";
    assert_eq!(
        engine
            .docker(&["run", "--rm", "-v", &bind, "busybox", "sh", "-c", script])
            .ok(),
        "from the host"
    );
    assert_eq!(fs::read_to_string(dir.join("out")).unwrap(), "back\n");
    let missing = format!("type=bind,source={}/none,target=/b", dir.display());
    engine
        .docker(&["run", "--rm", "--mount", &missing, "busybox", "true"])
        .fails(125, "bind source path does not exist");
    let made = format!("{}/made:/b", dir.display());
    engine
        .docker(&["run", "--rm", "-v", &made, "busybox", "true"])
        .ok();
    assert!(dir.join("made").is_dir());
    engine.finish();
}
