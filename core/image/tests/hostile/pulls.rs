//! A registry that lies.

use std::path::PathBuf;

use serde_json::json;

use super::builder::Tar;
use super::documents::{INDEX, MANIFEST, configurations, manifests};
use super::loads::archive_of;
use super::{Victim, assert_refused, config, digest};

impl Victim {
    fn repository(&self) -> PathBuf {
        self.service.root.join("disk/evil")
    }

    /// Puts a blob under a digest, be it its own or not.
    fn publish(&self, digest: &str, bytes: &[u8]) {
        let blobs = self.repository().join("blobs");
        std::fs::create_dir_all(&blobs).unwrap();
        std::fs::write(blobs.join(digest), bytes).unwrap();
    }

    /// Says that a document is what a tag or digest names.
    fn publish_as(&self, reference: &str, media_type: &str, bytes: &[u8]) {
        let path = self.repository().join(reference);
        std::fs::create_dir_all(self.repository()).unwrap();
        std::fs::write(&path, bytes).unwrap();
        std::fs::write(format!("{}.type", path.display()), media_type).unwrap();
    }

    fn publish_manifest(&self, media_type: &str, bytes: &[u8]) {
        self.publish_as("1", media_type, bytes);
    }

    /// Publishes an image; what its manifest says of its blobs may differ from what they are.
    fn publish_image(&self, config: (&str, usize), layers: &[(&str, usize)]) {
        let layers: Vec<_> = layers
            .iter()
            .map(|(digest, size)| {
                json!({"mediaType": "application/vnd.oci.image.layer.v1.tar", "digest": digest, "size": size})
            })
            .collect();
        let document = json!({"schemaVersion": 2, "mediaType": MANIFEST, "layers": layers, "config":
            {"mediaType": "application/vnd.oci.image.config.v1+json", "digest": config.0, "size": config.1}});
        self.publish_manifest(MANIFEST, document.to_string().as_bytes());
    }
}

#[test]
fn manifests_of_a_registry() {
    let victim = Victim::new(true);
    let config = config(&[]).to_string();
    victim.publish(&digest(config.as_bytes()), config.as_bytes());
    for (what, text, media_type, words) in manifests(&digest(config.as_bytes()), config.len()) {
        victim.publish_manifest(media_type, &text);
        assert_refused(what, victim.pull(), words);
        victim.assert_unharmed(what);
    }
    let huge = format!("{{\"schemaVersion\":2,\"x\":\"{}\"}}", "x".repeat(10 << 20));
    victim.publish_manifest(MANIFEST, huge.as_bytes());
    assert_refused("10 MB", victim.pull(), "too large");
    victim.assert_unharmed("10 MB");
}

#[test]
fn configurations_of_a_registry() {
    for (what, text, words) in configurations() {
        let victim = Victim::new(true);
        let id = digest(&text);
        victim.publish(&id, &text);
        victim.publish_image((&id, text.len()), &[]);
        assert_refused(what, victim.pull(), words);
        victim.assert_unharmed(what);
    }
}

#[test]
fn blobs_that_are_others() {
    let layer = archive_of(Tar::default().file("f", "content"));
    let text = config(&[digest(&layer)]).to_string();
    let (id, text) = (digest(text.as_bytes()), text.as_bytes());
    let name = digest(&layer);
    type Lie<'a> = (&'a str, &'a [u8], usize, &'a [u8], usize, &'a str);
    let longer = [&layer[..], b"more"].concat();
    let other = archive_of(Tar::default().file("f", "CONTENT"));
    let cases: [Lie<'_>; 8] = [
        (
            "another configuration",
            &text[1..],
            text.len() - 1,
            &layer,
            layer.len(),
            "",
        ),
        (
            "a longer configuration",
            text,
            text.len() - 1,
            &layer,
            layer.len(),
            "",
        ),
        (
            "a shorter configuration",
            text,
            text.len() + 1,
            &layer,
            layer.len(),
            "",
        ),
        (
            "another layer",
            text,
            text.len(),
            &other,
            other.len(),
            "verification failed",
        ),
        (
            "a longer layer",
            text,
            text.len(),
            &longer,
            longer.len(),
            "verification failed",
        ),
        (
            "a layer longer than said",
            text,
            text.len(),
            &layer,
            layer.len() - 512,
            "",
        ),
        (
            "a layer shorter than said",
            text,
            text.len(),
            &layer,
            layer.len() + 512,
            "",
        ),
        ("a layer of nothing", text, text.len(), b"", layer.len(), ""),
    ];
    for late in [true, false] {
        for (what, config, config_size, bytes, size, words) in cases {
            let victim = Victim::new(late);
            victim.publish(&id, config);
            victim.publish(&name, bytes);
            victim.publish_image((&id, config_size), &[(&name, size)]);
            assert_refused(what, victim.pull(), words);
            let images = victim.service.images.list(&Default::default()).unwrap();
            assert!(images.is_empty(), "{what}");
            assert_eq!(std::fs::read(victim.secret()).unwrap(), b"untouched");
            // The same registry, honest again: whatever was kept does no harm.
            victim.publish(&id, text);
            victim.publish(&name, &layer);
            victim.publish_image((&id, text.len()), &[(&name, layer.len())]);
            victim
                .pull()
                .unwrap_or_else(|error| panic!("{what}: {error}"));
        }
    }
}

#[test]
fn indexes_in_circles() {
    let victim = Victim::new(true);
    // A digest cannot be in its own document, but what lies under it can be anything.
    let name = digest(b"circle");
    let platform = gantry_model::Platform::host();
    let index = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": [
        {"mediaType": MANIFEST, "digest": name, "size": 300, "platform": {"os": "linux", "architecture": platform.architecture}}]});
    victim.publish_as(&name, INDEX, index.to_string().as_bytes());
    victim.publish_manifest(INDEX, index.to_string().as_bytes());
    assert_refused("a circle", victim.pull(), "verification failed");
    victim.assert_unharmed("a circle");
    // An honest index within an index.
    let inner = index.to_string();
    let mut outer = index.clone();
    outer["manifests"][0]["digest"] = digest(inner.as_bytes()).into();
    outer["manifests"][0]["size"] = inner.len().into();
    victim.publish_as(&digest(inner.as_bytes()), INDEX, inner.as_bytes());
    victim.publish_manifest(INDEX, outer.to_string().as_bytes());
    assert_refused(
        "an index within an index",
        victim.pull(),
        "index within an index",
    );
    victim.assert_unharmed("an index within an index");
}
