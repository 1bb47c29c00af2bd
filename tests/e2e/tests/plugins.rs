//! Drivers are plugins: missing ones degrade the engine, isolated ones cannot take it down.

use std::fs;
use std::path::{Path, PathBuf};

use gantry_e2e::{Engine, Options, bin_dir, eventually};
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
    let pids = gantry_e2e::run("pgrep", &["-P", &parent, "-f", "driver-host"]).ok();
    assert!(pids.lines().count() >= 4, "{pids}");
    for pid in pids.lines() {
        gantry_e2e::run("kill", &["-9", pid]).ok();
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
