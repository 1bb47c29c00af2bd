//! Layers, archives, manifests, configurations, references.

use std::path::Path;

use gantry_image::fuzz;
use gantry_model::{Digest, Platform, Reference, Timestamp};
use tar::{EntryType, Header};

use super::{bytes, text};
use crate::Target;

pub(super) const LAYER: Target = Target {
    name: "layer",
    run: layer,
    seeds: archives,
    words: &[
        "ustar",
        "GNU.sparse.",
        "SCHILY.xattr.",
        ".wh.",
        ".wh..wh..opq",
        "../",
        "path=",
        "0000644",
    ],
    rounds: 2_000,
};
pub(super) const ARCHIVE: Target = Target {
    name: "archive",
    run: fuzz::archive,
    seeds: archives,
    words: LAYER.words,
    rounds: 4_000,
};
pub(super) const MANIFEST: Target = Target {
    name: "manifest",
    run: fuzz::manifest,
    seeds: manifests,
    words: &[
        "mediaType",
        "schemaVersion",
        "manifests",
        "config",
        "layers",
        "digest",
        "size",
        "platform",
        "sha256:",
    ],
    rounds: 20_000,
};
pub(super) const CONFIG: Target = Target {
    name: "config",
    run: config,
    seeds: configs,
    words: &[
        "rootfs",
        "diff_ids",
        "history",
        "config",
        "Env",
        "Cmd",
        "Healthcheck",
        "ExposedPorts",
        "sha512:",
    ],
    rounds: 20_000,
};
pub(super) const REFERENCE: Target = Target {
    name: "reference",
    run: reference,
    seeds: references,
    words: &[
        "docker.io",
        "library/",
        "sha256:",
        "@",
        "localhost",
        "[::1]",
    ],
    rounds: 50_000,
};

/// A directory to unpack into, with something beside it that must not change.
fn layer(input: &[u8]) {
    thread_local! {
        static PLACE: tempfile::TempDir = place();
    }
    PLACE.with(|place| {
        let root = place.path().join("root");
        std::fs::create_dir(&root).expect("the root was removed");
        fuzz::layer(&root, input);
        std::fs::remove_dir_all(&root).expect("what was unpacked can be removed");
        assert_contained(place.path());
    });
}

fn place() -> tempfile::TempDir {
    let dir = tempfile::tempdir().expect("a temporary directory");
    std::fs::write(dir.path().join("secret"), "untouched").expect("it is ours");
    dir
}

fn assert_contained(place: &Path) {
    let names: Vec<_> = std::fs::read_dir(place)
        .expect("it is ours")
        .flatten()
        .map(|entry| entry.file_name())
        .collect();
    assert_eq!(names, ["secret"]);
    let secret = std::fs::read(place.join("secret")).expect("it is there");
    assert_eq!(secret, b"untouched");
}

fn config(input: &[u8]) {
    let Ok(config) = gantry_image::ImageConfig::parse(input) else {
        return;
    };
    // What was read can be written and read again.
    let written = serde_json::to_vec(&config).expect("it is JSON");
    let again = gantry_image::ImageConfig::parse(&written).expect("our own is right");
    assert_eq!(config, again);
}

fn reference(input: &[u8]) {
    let text = &*text(input);
    if let Ok(reference) = Reference::parse(text) {
        let full = reference.to_string();
        let again = Reference::parse(&full).unwrap_or_else(|e| panic!("{full}: {e}"));
        assert_eq!(reference, again, "{full}");
        // The short form is Docker's, which can mean something else (`docker.io/a.b/c`).
        let _ = Reference::parse(&reference.familiar());
    }
    let _ = text.parse::<Digest>();
    let _ = text.parse::<Timestamp>();
    if let Some(platform) = Platform::parse(text) {
        let _ = platform.normalized().to_string();
    }
}

fn manifests() -> Vec<Vec<u8>> {
    let digest = format!("sha256:{}", "a".repeat(64));
    bytes(&[
        &format!(
            r#"{{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":{{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"{digest}","size":7}},"layers":[{{"mediaType":"application/vnd.oci.image.layer.v1.tar+gzip","digest":"{digest}","size":5}}]}}"#
        ),
        &format!(
            r#"{{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[{{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"{digest}","size":9,"platform":{{"os":"linux","architecture":"arm","variant":"v7"}},"annotations":{{"k":"v"}}}}]}}"#
        ),
        r#"{"schemaVersion":1,"name":"x","fsLayers":[],"history":[]}"#,
        &format!(
            r#"[{{"Config":"c.json","RepoTags":["a:1"],"Layers":["l/layer.tar"],"LayerSources":{{"{digest}":{{}}}}}}]"#
        ),
    ])
}

fn configs() -> Vec<Vec<u8>> {
    bytes(&[&format!(
        r#"{{"created":"2024-01-02T03:04:05.678Z","architecture":"amd64","os":"linux","config":{{"User":"1:2","ExposedPorts":{{"80/tcp":{{}}}},"Env":["A=b"],"Entrypoint":["x"],"Cmd":["sh","-c"],"Healthcheck":{{"Test":["CMD","true"],"Interval":5}},"Volumes":{{"/d":{{}}}},"Labels":{{"k":"v"}}}},"rootfs":{{"type":"layers","diff_ids":["sha256:{}"]}},"history":[{{"created":"2024-01-02T03:04:05Z","created_by":"RUN x","empty_layer":true}}]}}"#,
        "b".repeat(64)
    )])
}

fn references() -> Vec<Vec<u8>> {
    bytes(&[
        "busybox",
        "docker.io/library/busybox:1.36",
        "localhost:5000/a/b_c/d.e-f:T_1.2-3",
        "[::1]:5000/a",
        &format!("registry.example/a@sha256:{}", "0".repeat(64)),
        "linux/arm64/v8",
        "2024-01-02T03:04:05.678+02:00",
    ])
}

fn archives() -> Vec<Vec<u8>> {
    let sparse = b"22 GNU.sparse.major=1\n22 GNU.sparse.minor=0\n20 GNU.sparse.name=s\n28 GNU.sparse.realsize=9000\n";
    let old = b"30 mtime=1350244992.023960108\n21 SCHILY.xattr.u=v\n20 path=other/name.x\n";
    let mut map = b"1\n4096\n3\n".to_vec();
    map.resize(512, 0);
    map.extend_from_slice(b"abc");
    let mut all = vec![
        archive(&[
            ("d/", b'5', "", b""),
            ("d/f", b'0', "", b"content"),
            ("d/s", b'2', "../../f", b""),
            ("h", b'1', "d/f", b""),
            ("d/.wh.gone", b'0', "", b""),
            ("d/.wh..wh..opq", b'0', "", b""),
            ("fifo", b'6', "", b""),
            ("dev", b'3', "", b""),
        ]),
        archive(&[("pax", b'x', "", sparse), ("s", b'0', "", &map)]),
        archive(&[
            ("pax", b'x', "", old),
            ("f", b'0', "", b"x"),
            ("f", b'5', "", b""),
        ]),
        archive(&[
            ("long", b'L', "", &b"long/".repeat(40)),
            ("x", b'0', "", b"y"),
            ("old", b'S', "", b""),
        ]),
        archive(&[
            (
                "manifest.json",
                b'0',
                "",
                br#"[{"Config":"c","RepoTags":["a:1"],"Layers":["l"]}]"#,
            ),
            ("c", b'2', "l", b""),
        ]),
    ];
    all.push(archive(&[]));
    all
}

fn archive(entries: &[(&str, u8, &str, &[u8])]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (path, kind, link, data) in entries {
        let mut header = Header::new_gnu();
        header.set_entry_type(EntryType::new(*kind));
        header.set_mode(0o644);
        header.set_uid(0);
        header.set_gid(0);
        header.set_size(data.len() as u64);
        let old = header.as_old_mut();
        old.name[..path.len()].copy_from_slice(path.as_bytes());
        old.linkname[..link.len()].copy_from_slice(link.as_bytes());
        header.set_cksum();
        bytes.extend_from_slice(header.as_bytes());
        bytes.extend_from_slice(data);
        bytes.resize(bytes.len().next_multiple_of(512), 0);
    }
    bytes.resize(bytes.len() + 1024, 0);
    bytes
}
