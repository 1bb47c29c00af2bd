//! Drivers are plugins: missing ones degrade the engine, isolated ones cannot take it down.

use std::fs;
use std::path::{Path, PathBuf};

use gantry_e2e::{Engine, Options, bin_dir, eventually, run};
use serde_json::json;

/// A plugin directory with every shipped plugin but `without`.
fn plugin_dir(into: &Path, without: &str) -> PathBuf {
    let dir = into.join("plugins");
    fs::create_dir(&dir).unwrap();
    for entry in fs::read_dir(bin_dir()).unwrap().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.starts_with("libgantry_")
            && name.ends_with(".so")
            && !name.contains(without)
            && !name.contains("mock")
        {
            fs::copy(entry.path(), dir.join(&name)).unwrap();
        }
    }
    dir
}

#[test]
fn a_missing_plugin_refuses_only_what_needs_it() {
    let dir = tempfile::tempdir().unwrap();
    let plugins = plugin_dir(dir.path(), "network_bridge");
    let engine = Engine::with(Options {
        plugins: Some(plugins),
        ..Default::default()
    });
    engine.import_busybox("busybox:latest");
    let listed = engine.gantry(&["driver", "ls"]).ok();
    let bridge = listed
        .lines()
        .find(|l| l.contains("bridge"))
        .unwrap_or_default();
    assert!(
        listed.contains("overlayfs") && bridge.contains("refused"),
        "{listed}"
    );
    assert_eq!(
        engine
            .docker(&["run", "--rm", "--network", "none", "busybox", "echo", "hi"])
            .ok(),
        "hi"
    );
    let refused = engine.docker(&["run", "--rm", "busybox", "true"]);
    assert_eq!(refused.code, 125, "{refused:?}");
    assert!(refused.err.contains("bridge"), "{refused:?}");
    engine.finish();
}

#[test]
fn a_broken_plugin_is_listed_with_its_reason() {
    let dir = tempfile::tempdir().unwrap();
    let plugins = plugin_dir(dir.path(), "volume_local");
    fs::write(plugins.join("libgantry_volume_local.so"), "not an ELF file").unwrap();
    let engine = Engine::with(Options {
        plugins: Some(plugins),
        ..Default::default()
    });
    engine.import_busybox("busybox:latest");
    let listed = engine.gantry(&["driver", "ls"]).ok();
    let line = listed
        .lines()
        .find(|l| l.contains("local"))
        .unwrap_or_default();
    assert!(
        line.contains("refused") && line.contains("is not a"),
        "{listed}"
    );
    assert_eq!(
        engine
            .docker(&["run", "--rm", "busybox", "echo", "hi"])
            .ok(),
        "hi"
    );
    assert_ne!(
        engine
            .docker(&["run", "--rm", "-v", "vol:/v", "busybox", "true"])
            .code,
        0
    );
    engine.finish();
}

#[test]
fn the_same_plugins_in_child_processes() {
    let config = json!({"drivers": {
        "storage": {"overlayfs": {"isolation": "process"}},
        "network": {"bridge": {"isolation": "process"}},
        "volume": {"local": {"isolation": "process"}},
        "registry": {"hub": {"isolation": "process"}},
    }});
    let engine = Engine::with(Options {
        config: Some(config),
        ..Default::default()
    });
    engine.import_busybox("busybox:latest");
    assert!(
        engine
            .gantry(&["driver", "ls"])
            .ok()
            .matches("process")
            .count()
            >= 4
    );
    let out = engine.docker(&[
        "run",
        "--rm",
        "-v",
        "vol:/v",
        "busybox",
        "sh",
        "-c",
        "echo a > /v/x; cat /v/x; ls /sys/class/net",
    ]);
    assert_eq!(out.ok(), "a\neth0\nlo");

    // Killing the driver's process costs one generation, not the engine.
    let parent = engine.pid().to_string();
    let pids = run("pgrep", &["-P", &parent, "-f", "driver-host"]).ok();
    assert!(pids.lines().count() >= 4, "{pids}");
    for pid in pids.lines() {
        run("kill", &["-9", pid]).ok();
    }
    eventually("the drivers are back", 20, || {
        (engine
            .docker(&["run", "--rm", "-v", "vol:/v", "busybox", "cat", "/v/x"])
            .out
            == "a\n")
            .then_some(())
    });
    engine.docker(&["volume", "rm", "vol"]).ok();
    engine.finish();
}

/// An engine with the mock volume driver, which fails to create volumes in the way that `fail` says.
fn with_mock(dir: &Path, isolation: &str, fail: &serde_json::Value) -> Engine {
    let plugins = plugin_dir(dir, "nothing");
    let mock = bin_dir().join("examples/libmock_volume.so");
    fs::copy(mock, plugins.join("libgantry_volume_mock.so")).unwrap();
    let mock = json!({"isolation": isolation, "options": {"fail": {"create": fail}}});
    let engine = Engine::with(Options {
        config: Some(json!({"drivers": {"volume": {"mock": mock}}})),
        plugins: Some(plugins),
        ..Default::default()
    });
    engine.import_busybox("busybox:latest");
    engine
}

#[test]
fn a_driver_that_fails_costs_one_error() {
    for (isolation, fail, wording) in [
        ("in-process", json!({"with": "panic"}), "panicked"),
        ("process", json!({"with": "panic"}), "panicked"),
        ("process", json!({"with": "segfault"}), "signal"),
        (
            "process",
            json!({"with": "error", "code": "resource_exhausted", "message": "no more room"}),
            "no more room",
        ),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let engine = with_mock(dir.path(), isolation, &fail);
        let said = engine
            .docker(&["volume", "create", "-d", "mock", "vol"])
            .fails(1, "");
        assert!(said.contains(wording), "{isolation} {fail}: {said}");
        assert_eq!(said.lines().count(), 1, "one clear error: {said}");
        let args = ["run", "--rm", "-v", "data:/d", "busybox", "echo", "on"];
        assert_eq!(engine.docker(&args).ok(), "on", "{isolation} {fail}");
        engine.docker(&["volume", "rm", "data"]).ok();
        engine.finish();
    }
}

#[test]
fn a_plugin_of_another_protocol_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let plugins = plugin_dir(dir.path(), "nothing");
    let future = bin_dir().join("examples/libmock_future.so");
    fs::copy(future, plugins.join("libgantry_network_future.so")).unwrap();
    let engine = Engine::with(Options {
        plugins: Some(plugins),
        ..Default::default()
    });
    let listed = engine.gantry(&["driver", "ls", "--no-trunc"]).ok();
    let line = listed
        .lines()
        .find(|l| l.contains("future"))
        .unwrap_or_default();
    assert!(
        line.contains("refused") && line.contains("protocol"),
        "{listed}"
    );
    engine.finish();
}

/// Builds a crate of `tests/third-party` as its author would: outside the workspace, with the SDK as its dependency.
fn third_party(name: &str, into: &Path) -> PathBuf {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let workspace = workspace.canonicalize().unwrap();
    let source = workspace.join("tests/third-party").join(name);
    let home = into.join(name);
    fs::create_dir_all(home.join("src")).unwrap();
    let manifest = fs::read_to_string(source.join("Cargo.toml")).unwrap();
    let manifest = manifest.replace("../../..", workspace.to_str().unwrap());
    fs::write(home.join("Cargo.toml"), manifest).unwrap();
    fs::copy(source.join("src/lib.rs"), home.join("src/lib.rs")).unwrap();
    // The same versions as the workspace's, so that nothing needs to be fetched, and what is built can be used again.
    fs::copy(workspace.join("Cargo.lock"), home.join("Cargo.lock")).unwrap();
    let target = workspace.join("target/authoring");
    let manifest = home.join("Cargo.toml").display().to_string();
    let environment = [
        ("CARGO_TARGET_DIR", target.to_str().unwrap()),
        ("CARGO_PROFILE_DEV_DEBUG", "0"),
    ]
    .map(|(key, value)| (key.to_owned(), value.to_owned()));
    let args = [
        "build",
        "--quiet",
        "--offline",
        "--manifest-path",
        &manifest,
    ];
    gantry_e2e::run_env(env!("CARGO"), &args, &environment).ok();
    target.join(format!("debug/libgantry_{}.so", name.replace('-', "_")))
}

#[test]
fn a_network_driver_from_elsewhere() {
    let dir = tempfile::tempdir().unwrap();
    let built = third_party("network-routed", dir.path());
    run(bin_dir().join("driver-verify"), &[&built]).ok();
    let plugins = plugin_dir(dir.path(), "nothing");
    fs::copy(&built, plugins.join("libgantry_network_routed.so")).unwrap();
    let engine = Engine::with(Options {
        config: Some(json!({"drivers": {"network": {"routed": {"isolation": "process"}}}})),
        plugins: Some(plugins),
        ..Default::default()
    });
    engine.import_busybox("busybox:latest");
    let create = [
        "network",
        "create",
        "-d",
        "routed",
        "--subnet",
        "10.178.0.0/24",
        "far",
    ];
    engine.docker(&create).ok();
    let start = |name: &str| {
        let script =
            format!("mkdir /www; echo {name} > /www/index.html; exec httpd -f -p 80 -h /www");
        let args = [
            "run",
            "-d",
            "--name",
            name,
            "--network",
            "far",
            "busybox",
            "sh",
            "-c",
            &script,
        ];
        engine.docker(&args)
    };
    let ask = |from: &str, whom: &str| {
        let url = format!("http://{whom}/");
        eventually("a container reaches another", 20, || {
            let done = engine.docker(&["exec", from, "timeout", "2", "wget", "-qO-", &url]);
            (done.code == 0).then_some(done.out)
        })
    };
    start("one").ok();
    start("two").ok();
    assert_eq!(ask("one", "two"), "two\n");
    let address = "{{.NetworkSettings.Networks.far.IPAddress}}";
    let one = engine.docker(&["inspect", "-f", address, "one"]).ok();
    assert_eq!(run("curl", &["-s", &format!("http://{one}/")]).ok(), "one");
    let routes = engine.docker(&["exec", "one", "ip", "route"]).ok();
    assert_eq!(
        routes.lines().map(str::trim).collect::<Vec<_>>(),
        [
            "default via 10.178.0.1 dev eth0",
            "10.178.0.1 dev eth0 scope link"
        ]
    );

    // Without its driver's process the network goes on, and the next process serves who comes next.
    let hosts = ["-P", &engine.pid().to_string(), "-f", "driver-host"];
    let host = run("pgrep", &hosts).ok();
    run("kill", &["-9", &host]).ok();
    assert_eq!(ask("two", "one"), "one\n");
    eventually("the driver is back", 20, || {
        let started = start("three").code == 0;
        if !started {
            engine.docker(&["rm", "-f", "three"]);
        }
        started.then_some(())
    });
    assert_eq!(ask("three", "one"), "one\n");
    assert_eq!(ask("one", "three"), "three\n");
    engine.docker(&["network", "disconnect", "far", "two"]).ok();
    let links = engine.docker(&["exec", "two", "ls", "/sys/class/net"]).ok();
    assert_eq!(links, "lo");
    engine.docker(&["rm", "-f", "one", "two", "three"]).ok();
    engine.docker(&["network", "rm", "far"]).ok();
    engine.finish();
}
