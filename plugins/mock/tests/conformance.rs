//! The mocks keep their contracts: what the suite asks can be done by more than one driver.

mod common;

use common::{BOTH, mock};
use gantry_plugin_conformance::{RegistryFixture, Run, driver_host, run};
use serde_json::{Value, json};

fn verify(built: &str, options: Value, fixture: Option<RegistryFixture>) {
    for isolation in BOTH {
        let plan = Run {
            plugin: mock(built),
            isolation,
            options: options.clone(),
            driver_host: driver_host().expect("gantry-driver-host is built"),
            fixture: fixture.clone(),
        };
        let report = run(&plan).unwrap();
        assert_eq!(report.failed().count(), 0, "{isolation:?}\n{report}");
    }
}

#[test]
fn storage() {
    verify("mock_storage", json!({}), None);
}

#[test]
fn network() {
    verify("mock_network", json!({}), None);
}

#[test]
fn volume() {
    verify("mock_volume", json!({}), None);
}

#[test]
fn registry() {
    let blob = "hello";
    let digest = "sha256:2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824";
    let options = json!({"manifests": {"a/b@latest": "{}"}, "blobs": {digest: blob}});
    let fixture = RegistryFixture::new("mock://here", "a/b", "latest", digest);
    verify("mock_registry", options, Some(fixture));
}

/// The suite must see a driver that breaks its promises.
#[test]
fn a_broken_promise_is_seen() {
    let options =
        json!({"fail": {"remove": {"with": "error", "code": "internal", "message": "no"}}});
    let plan = Run {
        plugin: mock("mock_volume"),
        isolation: gantry_driver_registry::Isolation::None,
        options,
        driver_host: Default::default(),
        fixture: None,
    };
    let report = run(&plan).unwrap();
    assert!(report.failed().count() >= 3, "{report}");
}
