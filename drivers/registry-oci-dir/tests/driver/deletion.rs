//! What a deletion frees, and what it keeps.

use std::fs;
use std::time::{Duration, SystemTime};

use gantry_plugin_sdk::registry::StatBlob;
use gantry_plugin_sdk::{Call, ErrorCode, Registry};
use serde_json::{Value, json};

use crate::place::{INDEX, MANIFEST, Place, at, blob, code};

#[test]
fn deletion_frees_what_only_that_image_needs() {
    let place = Place::new();
    let (first, old) = place.push("a", "1", b"old");
    let (_, kept) = place.push("a", "2", b"kept");
    let layout = place.images().join("a");
    let age = |digest: &str| {
        let long_ago = SystemTime::now() - Duration::from_secs(48 * 3600);
        let file = fs::File::options()
            .write(true)
            .open(blob(&layout, digest))
            .unwrap();
        file.set_modified(long_ago).unwrap();
    };
    for digest in [&first, &old, &kept] {
        age(digest);
    }
    place.delete("a", "1").unwrap();
    assert_eq!(code(place.resolve("a", "1")), ErrorCode::NotFound);
    assert_eq!(
        place.resolve("a", &first).unwrap(),
        first,
        "without a name it is still there"
    );
    // Somebody is about to push an image of this layer.
    let stat = StatBlob {
        at: at("a"),
        digest: old.clone(),
    };
    assert_eq!(
        place.driver.stat_blob(&Call::new("t"), stat).unwrap().size,
        3
    );
    place.delete("a", &first).unwrap();
    assert_eq!(code(place.resolve("a", &first)), ErrorCode::NotFound);
    assert!(!blob(&layout, &first).exists());
    assert!(blob(&layout, &old).exists() && blob(&layout, &kept).exists());
    assert!(place.resolve("a", "2").is_ok());
    assert_eq!(code(place.delete("a", &first)), ErrorCode::NotFound);
}

#[test]
fn an_index_leads_to_its_images_and_keeps_them() {
    let place = Place::new();
    let (image, layer) = place.push("a", "1", b"layer");
    let document = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": [
        {"mediaType": MANIFEST, "digest": image, "size": 1}]});
    place.put("a", "all", INDEX, &document).unwrap();
    // As other tools write it: the index alone is listed.
    let path = place.images().join("a/index.json");
    let mut index: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    index["manifests"]
        .as_array_mut()
        .unwrap()
        .retain(|m| m["mediaType"] == INDEX);
    fs::write(&path, index.to_string()).unwrap();
    assert_eq!(place.resolve("a", &image).unwrap(), image);
    let (extra, _) = place.push("a", "2", b"other");
    for digest in [&image, &layer] {
        let file = fs::File::options()
            .write(true)
            .open(blob(&place.images().join("a"), digest))
            .unwrap();
        file.set_modified(SystemTime::UNIX_EPOCH).unwrap();
    }
    place.delete("a", &extra).unwrap();
    assert_eq!(place.fetch("a", &layer).unwrap(), b"layer");
}
