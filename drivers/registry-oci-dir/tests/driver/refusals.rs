//! Requests and layouts that are wrong, or hostile.

use std::fs;
use std::os::unix::fs::symlink;

use gantry_plugin_sdk::registry::BeginUpload;
use gantry_plugin_sdk::{Call, ErrorCode, Registry};
use serde_json::json;

use crate::place::{MANIFEST, Place, at, blob, code, digest, run};

#[test]
fn what_is_wrong_is_said() {
    let place = Place::new();
    place.push("a", "1", b"layer");
    let absent = digest(b"absent");
    assert_eq!(code(place.resolve("none", "1")), ErrorCode::NotFound);
    assert!(
        place
            .resolve("none", "1")
            .unwrap_err()
            .message
            .starts_with("name unknown")
    );
    assert!(
        place
            .resolve("a", "2")
            .unwrap_err()
            .message
            .starts_with("manifest unknown")
    );
    assert_eq!(code(place.fetch("a", &absent)), ErrorCode::NotFound);
    assert_eq!(
        code(place.fetch("a", "sha256:../../index.json")),
        ErrorCode::InvalidArgument
    );
    for name in ["../a", "a/blobs", ".gantry", "a/../../etc"] {
        assert_eq!(
            code(place.send(name, b"x")),
            ErrorCode::InvalidArgument,
            "{name}"
        );
    }
    let missing =
        json!({"schemaVersion": 2, "config": {"digest": absent, "size": 1}, "layers": []});
    let error = place.put("a", "3", MANIFEST, &missing).unwrap_err();
    assert!(
        error.message.starts_with("manifest blob unknown"),
        "{error}"
    );
    let error = place.put("a", &absent, MANIFEST, &json!({})).unwrap_err();
    assert!(error.message.starts_with("digest invalid"), "{error}");
    assert_eq!(
        code(place.put("a", "a/b", MANIFEST, &json!({}))),
        ErrorCode::InvalidArgument
    );
    // The medium of this registry is not there, and must not be made on the disk below.
    let mut usb = at("a");
    usb.endpoint.domain = "usb.local".into();
    assert_eq!(
        code(place.driver.list_tags(&Call::new("t"), usb.clone())),
        ErrorCode::Unavailable
    );
    let begin = BeginUpload {
        at: usb,
        digest: absent,
        mount_from: String::new(),
    };
    assert_eq!(
        code(place.driver.begin_upload(&Call::new("t"), begin)),
        ErrorCode::Unavailable
    );
    assert!(!place.dir.path().join("usb").exists());
}

#[test]
fn a_hostile_layout_leads_nowhere() {
    let place = Place::new();
    let secret = place.dir.path().join("secret");
    fs::write(&secret, "secret").unwrap();
    let (_, layer) = place.push("a", "1", b"layer");
    let layout = place.images().join("a");
    fs::remove_file(blob(&layout, &layer)).unwrap();
    symlink(&secret, blob(&layout, &layer)).unwrap();
    assert!(place.fetch("a", &layer).is_err());
    fs::remove_file(blob(&layout, &layer)).unwrap();
    run("mkfifo", &[blob(&layout, &layer).to_str().unwrap()]);
    assert_eq!(code(place.fetch("a", &layer)), ErrorCode::DataLoss);

    symlink("/", place.images().join("out")).unwrap();
    assert!(place.send("out/evil", b"x").is_err());
    let mut text = fs::read_to_string(layout.join("index.json")).unwrap();
    text.truncate(text.len() / 2);
    fs::write(layout.join("index.json"), text).unwrap();
    assert_eq!(code(place.resolve("a", "1")), ErrorCode::Unavailable);
    fs::write(
        layout.join("oci-layout"),
        r#"{"imageLayoutVersion":"2.0.0"}"#,
    )
    .unwrap();
    assert_eq!(code(place.resolve("a", "1")), ErrorCode::FailedPrecondition);
    assert_eq!(fs::read(&secret).unwrap(), b"secret");
}
