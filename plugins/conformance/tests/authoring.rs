//! The driver in `docs/driver-authoring/README.md` builds outside this workspace and keeps its contract.

use std::fs;
use std::path::Path;
use std::process::Command;

use gantry_driver_registry::Isolation;
use gantry_plugin_conformance::{Run, driver_host, run};

/// The first code block of a language.
fn block<'a>(page: &'a str, language: &str) -> &'a str {
    let (_, rest) = page
        .split_once(&format!("```{language}\n"))
        .expect("the page has it");
    rest.split_once("```").expect("the block ends").0
}

#[test]
fn the_documented_driver_works() {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../..")
        .canonicalize()
        .unwrap();
    let page = fs::read_to_string(workspace.join("docs/driver-authoring/README.md")).unwrap();
    let home = tempfile::tempdir().unwrap();
    let cargo = block(&page, "toml").replace("/path/to/gantry", workspace.to_str().unwrap());
    fs::write(home.path().join("Cargo.toml"), cargo).unwrap();
    fs::create_dir(home.path().join("src")).unwrap();
    fs::write(home.path().join("src/lib.rs"), block(&page, "rust")).unwrap();
    // The same versions as this workspace's, so that nothing needs to be fetched, and what is built can be used again.
    fs::copy(workspace.join("Cargo.lock"), home.path().join("Cargo.lock")).unwrap();
    let target = workspace.join("target/authoring");
    let built = Command::new(env!("CARGO"))
        .args(["build", "--quiet", "--offline", "--manifest-path"])
        .arg(home.path().join("Cargo.toml"))
        .env("CARGO_TARGET_DIR", &target)
        .env("CARGO_PROFILE_DEV_DEBUG", "0")
        .output()
        .unwrap();
    assert!(
        built.status.success(),
        "{}",
        String::from_utf8_lossy(&built.stderr)
    );
    for isolation in [Isolation::None, Isolation::Process] {
        let report = run(&Run {
            plugin: target.join("debug/libgantry_volume_plain.so"),
            isolation,
            options: serde_json::json!({}),
            driver_host: driver_host().expect("gantry-driver-host is built"),
            fixture: None,
        })
        .unwrap();
        assert_eq!(report.failed().count(), 0, "{isolation:?}\n{report}");
    }
}
