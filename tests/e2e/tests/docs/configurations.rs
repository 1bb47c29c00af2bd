//! Configurations of the daemon.

use std::fs;

use gantry_e2e::{Engine, Options, bin_dir, run};

use crate::page::{blocks, configuration};

#[test]
fn the_readme_s_configuration_starts_an_engine() {
    let mut config = configuration("README.md", "data-root");
    // The test's own; the flag that says so may not be beside the key.
    config
        .as_object_mut()
        .expect("an object")
        .remove("data-root");
    let engine = Engine::with(Options {
        config: Some(config),
        ..Options::default()
    });
    engine.import_busybox("busybox:latest");
    engine.docker(&["network", "create", "n"]).ok();
    let run = ["run", "--rm", "--network", "n", "busybox", "echo", "hello"];
    assert_eq!(engine.docker(&run).ok(), "hello");
    let listed = engine.gantry(&["driver", "ls"]).ok();
    let row = |kind: &str, name: &str| -> Vec<&str> {
        let rows = listed.lines().map(|line| line.split_whitespace());
        let mut rows = rows.map(Iterator::collect::<Vec<_>>);
        let found = rows.find(|row| row[..2] == [kind, name]);
        found.unwrap_or_else(|| panic!("{kind}/{name}: {listed}"))
    };
    assert!(row("network", "bridge").contains(&"process"), "{listed}");
    assert!(row("network", "host").contains(&"in-process"), "{listed}");
    assert!(row("storage", "overlayfs").contains(&"yes"), "{listed}");
    engine.finish();
}

#[test]
fn configurations_are_valid() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let path = dir.path().join("daemon.json");
    let gantryd = bin_dir().join("gantryd");
    let check = |text: &str| {
        fs::write(&path, text).expect("it is written");
        let file = path.display().to_string();
        run(&gantryd, &["--validate", "--config-file", &file])
    };
    for page in [
        "README.md",
        "docs/driver-authoring/README.md",
        "docs/networks-cni.md",
        "docs/registries-oci-dir.md",
        "docs/registries.md",
        "docs/storage.md",
    ] {
        let blocks = blocks(page, "json");
        assert!(!blocks.is_empty(), "{page}");
        for block in blocks {
            let done = check(&block);
            assert_eq!(done.code, 0, "{page}: {block}\n{}", done.err);
        }
    }
    check(r#"{"data-rot": "/srv/gantry"}"#).fails(1, "data-rot");
}
