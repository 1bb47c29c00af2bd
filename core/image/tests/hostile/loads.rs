//! Archives of images that lie about themselves.

use serde_json::{Value, json};

use super::builder::Tar;
use super::documents::{configurations, manifests};
use super::{Victim, assert_refused, config, digest};

/// With the end mark.
pub(super) fn archive_of(tar: Tar) -> Vec<u8> {
    let mut bytes = tar.0;
    bytes.resize(bytes.len() + 1024, 0);
    bytes
}

/// An archive of one image `evil:1`.
pub(super) fn docker_archive(config: &[u8], layers: &[&[u8]]) -> Vec<u8> {
    let mut tar = Tar::default().raw(b"config.json", b'0', b"", config, |_| {});
    let mut names = Vec::new();
    for (at, layer) in layers.iter().enumerate() {
        let name = format!("layer{at}.tar");
        tar = tar.raw(name.as_bytes(), b'0', b"", layer, |_| {});
        names.push(name);
    }
    let manifest = json!([{"Config": "config.json", "RepoTags": ["evil:1"], "Layers": names}]);
    archive_of(tar.file("manifest.json", &manifest.to_string()))
}

/// A layout of one image.
fn layout(manifest: &[u8], media_type: &str, blobs: &[&[u8]]) -> Vec<u8> {
    let mut tar = Tar::default().file("oci-layout", r#"{"imageLayoutVersion":"1.0.0"}"#);
    for blob in blobs.iter().chain([&manifest]) {
        let path = format!("blobs/{}", digest(blob).replace(':', "/"));
        tar = tar.raw(path.as_bytes(), b'0', b"", blob, |_| {});
    }
    let index = json!({"schemaVersion": 2, "manifests": [
        {"mediaType": media_type, "digest": digest(manifest), "size": manifest.len()}]});
    archive_of(tar.file("index.json", &index.to_string()))
}

#[test]
fn configurations_in_archives() {
    let victim = Victim::new(true);
    for (what, text, words) in configurations() {
        assert_refused(what, victim.load(docker_archive(&text, &[])), words);
        victim.assert_empty(what);
    }
}

#[test]
fn manifests_in_layouts() {
    let victim = Victim::new(true);
    let config = config(&[]).to_string();
    // An archive is refused for what it lacks: whatever is no manifest.
    for (what, text, media_type, _) in manifests(&digest(config.as_bytes()), config.len()) {
        let archive = layout(&text, media_type, &[config.as_bytes()]);
        assert_refused(what, victim.load(archive), "invalid archive");
        victim.assert_empty(what);
    }
}

#[test]
fn manifest_json_that_lies() {
    let victim = Victim::new(true);
    let text = config(&[]).to_string();
    let layer = archive_of(Tar::default().file("f", "x"));
    let one_layer = config(&[digest(&layer)]).to_string();
    let with = |manifest: &str, config: &str| {
        let tar =
            Tar::default()
                .file("config.json", config)
                .raw(b"layer.tar", b'0', b"", &layer, |_| {});
        archive_of(tar.file("manifest.json", manifest))
    };
    let image = |change: fn(&mut Value)| {
        let mut image = json!({"Config": "config.json", "RepoTags": ["evil:1"], "Layers": []});
        change(&mut image);
        json!([image]).to_string()
    };
    let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    for (what, archive, words) in [
        ("an object", with("{}", &text), "manifest.json"),
        ("deep nesting", with(&deep, &text), "invalid"),
        (
            "not UTF-8",
            archive_of(Tar::default().raw(b"manifest.json", b'0', b"", b"[\"\xff\"]", |_| {})),
            "manifest.json",
        ),
        (
            "5 MB",
            with(&format!("[{}1]", " ".repeat(5 << 20)), &text),
            "large",
        ),
        (
            "a number as a path",
            with(&image(|i| i["Config"] = 7.into()), &text),
            "manifest.json",
        ),
        (
            "a path outside",
            with(&image(|i| i["Config"] = "/etc/passwd".into()), &text),
            "missing",
        ),
        (
            "a path up",
            with(&image(|i| i["Config"] = "../../secret".into()), &text),
            "missing",
        ),
        (
            "a layer for none",
            with(&image(|i| i["Layers"] = json!(["layer.tar"])), &text),
            "layers length mismatch",
        ),
        (
            "no layer for one",
            with(&image(|_| {}), &one_layer),
            "layers length mismatch",
        ),
        (
            "one layer too many",
            with(
                &image(|i| i["Layers"] = json!(["layer.tar", "layer.tar"])),
                &one_layer,
            ),
            "layers length mismatch",
        ),
        (
            "600 layers",
            with(
                &image(|i| i["Layers"] = vec!["layer.tar"; 600].into()),
                &one_layer,
            ),
            "max depth exceeded",
        ),
        (
            "another diff ID",
            with(
                &image(|i| i["Layers"] = json!(["layer.tar"])),
                &config(&[digest(b"")]).to_string(),
            ),
            "unpacks to",
        ),
        (
            "a name of capitals",
            with(&image(|i| i["RepoTags"] = json!(["EVIL:1"])), &text),
            "invalid reference",
        ),
        (
            "a name of a path",
            with(&image(|i| i["RepoTags"] = json!(["../../evil:1"])), &text),
            "invalid reference",
        ),
        (
            "a name without end",
            with(
                &image(|i| i["RepoTags"] = json!(["e".repeat(100_000)])),
                &text,
            ),
            "",
        ),
        (
            "a link to itself",
            archive_of(Tar::default().symlink("manifest.json", "manifest.json")),
            "unrecognized",
        ),
        (
            "links in a circle",
            archive_of(
                Tar::default()
                    .symlink("config.json", "c2")
                    .symlink("c2", "config.json")
                    .file("manifest.json", &image(|_| {})),
            ),
            "missing",
        ),
        (
            "a link to the host",
            archive_of(
                Tar::default()
                    .symlink("config.json", "/etc/passwd")
                    .file("manifest.json", &image(|_| {})),
            ),
            "missing",
        ),
        (
            "a device",
            archive_of(Tar::default().raw(b"manifest.json", b'3', b"", b"", |_| {})),
            "unrecognized",
        ),
        (
            "an entry without end",
            archive_of(
                Tar::default().raw(b"manifest.json", b'0', b"", b"[]", |h| h.set_size(1 << 60)),
            ),
            "unexpected end",
        ),
    ] {
        assert_refused(what, victim.load(archive), words);
        victim.assert_empty(what);
    }
}

#[test]
fn index_json_that_lies() {
    let victim = Victim::new(true);
    let with = |index: &str| {
        let tar = Tar::default().file("oci-layout", r#"{"imageLayoutVersion":"1.0.0"}"#);
        archive_of(tar.file("index.json", index))
    };
    let entry = |digest: &str, size: &str| {
        format!(
            r#"{{"schemaVersion":2,"manifests":[{{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"{digest}","size":{size}}}]}}"#
        )
    };
    let absent = digest(b"absent");
    for (what, index, words) in [
        ("a missing manifest", entry(&absent, "2"), "missing"),
        (
            "a digest that is a path",
            entry("sha256:../../../../etc/passwd", "2"),
            "index.json",
        ),
        (
            "a digest of an unknown algorithm",
            entry("md5:d41d8cd98f00b204e9800998ecf8427e", "2"),
            "index.json",
        ),
        (
            "a digest that is too short",
            entry("sha256:abc", "2"),
            "index.json",
        ),
        (
            "a digest in capitals",
            entry(&absent.to_uppercase().replace("SHA", "sha"), "2"),
            "index.json",
        ),
        ("a negative size", entry(&absent, "-2"), "index.json"),
        ("a huge size", entry(&absent, "1e99"), "index.json"),
        ("a size that is text", entry(&absent, "\"2\""), "index.json"),
        (
            "a list that is none",
            r#"{"schemaVersion":2,"manifests":{}}"#.into(),
            "index.json",
        ),
        ("nothing", "".into(), "index.json"),
        (
            "deep nesting",
            format!("{{\"manifests\":{}", "[".repeat(100_000)),
            "invalid",
        ),
    ] {
        assert_refused(what, victim.load(with(&index)), words);
        victim.assert_empty(what);
    }
}

/// A file under another's digest is not that blob.
#[test]
fn a_layout_whose_blobs_are_others() {
    let victim = Victim::new(true);
    let manifest = br#"{"schemaVersion":2}"#;
    let honest = config(&[]).to_string();
    let path = format!("blobs/{}", digest(honest.as_bytes()).replace(':', "/"));
    let index = json!({"schemaVersion": 2, "manifests": [
        {"mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": digest(honest.as_bytes()), "size": 2}]});
    let tar = Tar::default()
        .file("oci-layout", r#"{"imageLayoutVersion":"1.0.0"}"#)
        .raw(path.as_bytes(), b'0', b"", manifest, |_| {})
        .file("index.json", &index.to_string());
    assert_refused("another blob", victim.load(archive_of(tar)), "missing");
    victim.assert_empty("another blob");
}
