//! Manifests and configurations that are none, whichever way they come.

use serde_json::{Value, json};

use super::{config, digest};

pub(super) const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub(super) const INDEX: &str = "application/vnd.oci.image.index.v1+json";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const LAYER: &str = "application/vnd.oci.image.layer.v1.tar+gzip";

fn deep(open: &str) -> Vec<u8> {
    open.repeat(100_000).into_bytes()
}

/// What, the document, words of the error.
pub(super) fn configurations() -> Vec<(&'static str, Vec<u8>, &'static str)> {
    let changed = |change: fn(&mut Value)| {
        let mut document = config(&[]);
        change(&mut document);
        document.to_string().into_bytes()
    };
    vec![
        (
            "no configuration",
            Vec::new(),
            "invalid image configuration",
        ),
        (
            "not JSON",
            b"\x7fELF".to_vec(),
            "invalid image configuration",
        ),
        ("a list", b"[]".to_vec(), "invalid image configuration"),
        (
            "deep nesting",
            deep("{\"a\":"),
            "invalid image configuration",
        ),
        (
            "deep nesting of an unknown member",
            [b"{\"x\":", &deep("[")[..]].concat(),
            "invalid image configuration",
        ),
        (
            "no file system",
            br#"{"os":"linux"}"#.to_vec(),
            "missing field `rootfs`",
        ),
        (
            "a file system of text",
            changed(|c| c["rootfs"] = "layers".into()),
            "invalid image configuration",
        ),
        (
            "a number for a name",
            changed(|c| c["os"] = 5.into()),
            "invalid image configuration",
        ),
        (
            "text for an environment",
            changed(|c| c["config"] = json!({"Env": "A=b"})),
            "invalid image configuration",
        ),
        (
            "a number too large",
            changed(|c| c["config"] = json!({"Healthcheck": {"Interval": 1e300}})),
            "invalid image configuration",
        ),
        (
            "a diff ID that is a path",
            changed_ids("sha256:../../../x"),
            "invalid image configuration",
        ),
        (
            "a diff ID of an unknown algorithm",
            changed_ids("crc32:00000000"),
            "invalid image configuration",
        ),
        (
            "a diff ID of no algorithm",
            changed_ids(&"a".repeat(64)),
            "invalid image configuration",
        ),
        (
            "a diff ID that is empty",
            changed_ids(""),
            "invalid image configuration",
        ),
        (
            "more layers than can be mounted",
            config(&vec![digest(b""); 600]).to_string().into_bytes(),
            "max depth exceeded",
        ),
        (
            "a configuration of 10 MB",
            config(&[])
                .to_string()
                .into_bytes()
                .into_iter()
                .chain(vec![b' '; 10 << 20])
                .collect(),
            "large",
        ),
    ]
}

fn changed_ids(id: &str) -> Vec<u8> {
    config(&[id.to_owned()]).to_string().into_bytes()
}

/// What, the document, the media type that comes with it, words of the error. The configuration is there.
pub(super) fn manifests(
    config: &str,
    size: usize,
) -> Vec<(&'static str, Vec<u8>, &'static str, &'static str)> {
    let honest = json!({"schemaVersion": 2, "mediaType": MANIFEST,
        "config": {"mediaType": CONFIG, "digest": config, "size": size}, "layers": []});
    let changed = |change: &dyn Fn(&mut Value)| {
        let mut document = honest.clone();
        change(&mut document);
        document.to_string().into_bytes()
    };
    let layer = |digest: &str, size: Value| {
        let digest = digest.to_owned();
        changed(&move |m| {
            m["layers"] = json!([{"mediaType": LAYER, "digest": digest, "size": size}])
        })
    };
    let absent = digest(b"absent");
    vec![
        ("not JSON", b"<html>".to_vec(), MANIFEST, "invalid image manifest"),
        ("nothing", Vec::new(), MANIFEST, "invalid image manifest"),
        ("deep nesting", deep("["), MANIFEST, "invalid image manifest"),
        ("deep nesting inside", [b"{\"schemaVersion\":2,\"x\":", &deep("[")[..]].concat(), MANIFEST, "invalid image manifest"),
        (
            "schema 1",
            br#"{"schemaVersion":1,"name":"evil","tag":"1","fsLayers":[],"history":[],"signatures":[]}"#.to_vec(),
            "application/vnd.docker.distribution.manifest.v1+prettyjws",
            "Docker Image manifest version 2, schema 1 is not supported",
        ),
        ("an image and an index", changed(&|m| m["manifests"] = json!([])), MANIFEST, "an index and an image at once"),
        ("no configuration", changed(&|m| m["config"] = Value::Null), MANIFEST, "invalid image manifest"),
        ("no layers", changed(&|m| m["layers"] = Value::Null), MANIFEST, "invalid image manifest"),
        ("text for layers", changed(&|m| m["layers"] = "all".into()), MANIFEST, "invalid image manifest"),
        ("an unknown media type", br#"{"schemaVersion":2,"mediaType":"text/plain"}"#.to_vec(), "text/plain", "unsupported media type"),
        (
            "an artifact",
            changed(&|m| m["config"]["mediaType"] = "application/vnd.cncf.helm.config.v1+json".into()),
            MANIFEST,
            "something that is not an image",
        ),
        ("a negative size", layer(&absent, json!(-1)), MANIFEST, "invalid image manifest"),
        ("a size beyond all", layer(&absent, json!(1e300)), MANIFEST, "invalid image manifest"),
        ("a size that is text", layer(&absent, json!("1")), MANIFEST, "invalid image manifest"),
        ("a digest that is a path", layer("sha256:../../../etc/passwd", json!(1)), MANIFEST, "invalid image manifest"),
        ("a digest of an unknown algorithm", layer("md5:d41d8cd98f00b204e9800998ecf8427e", json!(1)), MANIFEST, "invalid image manifest"),
        ("a digest that is too long", layer(&format!("{absent}00"), json!(1)), MANIFEST, "invalid image manifest"),
        ("a huge configuration", changed(&|m| m["config"]["size"] = (1_u64 << 40).into()), MANIFEST, "configuration is too large"),
        ("a layer too many", layer(&absent, json!(1)), MANIFEST, "1 layers, but 0 diff IDs"),
        (
            "600 layers",
            changed(&|m| m["layers"] = vec![json!({"mediaType": LAYER, "digest": digest(b""), "size": 0}); 600].into()),
            MANIFEST,
            "max depth exceeded",
        ),
        ("an index of nothing", json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": []}).to_string().into_bytes(), INDEX, "no matching manifest"),
        (
            "an index of the unknown",
            json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": [
                {"mediaType": MANIFEST, "digest": absent, "size": 2, "platform": {"os": "plan9", "architecture": "mips"}}]})
            .to_string()
            .into_bytes(),
            INDEX,
            "no matching manifest",
        ),
        ("text for an index", json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": "all"}).to_string().into_bytes(), INDEX, "invalid image manifest"),
    ]
}
