//! OCI image layouts made by hand: what no tool here writes.

use std::fs;
use std::path::{Path, PathBuf};

use gantry_e2e::{busybox_tar, run};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const INDEX: &str = "application/vnd.oci.image.index.v1+json";

/// How a layer is compressed.
#[derive(Clone, Copy)]
pub(crate) enum Compression {
    None,
    Gzip,
    Zstd,
}

/// A layer: its archive and how to write it.
pub(crate) type Layer = (Vec<u8>, Compression);

/// The busybox file system as a layer.
pub(crate) fn busybox_layer(compression: Compression) -> Layer {
    let tar = fs::read(busybox_tar()).expect("the fixture is there");
    (tar, compression)
}

/// A layer with one file in the root.
pub(crate) fn file_layer(name: &str, text: &str, compression: Compression) -> Layer {
    let dir = tempfile::tempdir().expect("a temporary directory");
    fs::write(dir.path().join(name), text).expect("it is writable");
    let root = dir.path().display().to_string();
    let tar = dir.path().join("layer.tar").display().to_string();
    run(
        "tar",
        &["-C", &root, "--owner=0", "--group=0", "-cf", &tar, name],
    )
    .ok();
    (fs::read(&tar).expect("tar wrote it"), compression)
}

fn digest(bytes: &[u8]) -> String {
    format!("sha256:{}", hex::encode(Sha256::digest(bytes)))
}

/// A layout in a directory of its own.
pub(crate) struct Layout {
    dir: PathBuf,
    entries: Vec<Value>,
}

impl Layout {
    pub(crate) fn new(dir: &Path) -> Self {
        fs::create_dir_all(dir.join("blobs/sha256")).expect("a new directory");
        fs::write(dir.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).expect("writable");
        Self {
            dir: dir.to_owned(),
            entries: Vec::new(),
        }
    }

    fn blob(&self, bytes: &[u8], media_type: &str) -> Value {
        let digest = digest(bytes);
        fs::write(self.dir.join("blobs/sha256").join(&digest[7..]), bytes).expect("writable");
        json!({"mediaType": media_type, "digest": digest, "size": bytes.len()})
    }

    fn layer(&self, (tar, compression): &Layer) -> Value {
        const TYPE: &str = "application/vnd.oci.image.layer.v1.tar";
        let packed = |program: &str| {
            let plain = tempfile::NamedTempFile::new().expect("a temporary file");
            fs::write(plain.path(), tar).expect("writable");
            let packed = plain.path().with_extension("packed");
            let line = format!(
                "{program} < {} > {}",
                plain.path().display(),
                packed.display()
            );
            run("sh", &["-c", &line]).ok();
            let bytes = fs::read(&packed).expect("it was written");
            fs::remove_file(packed).expect("it is ours");
            bytes
        };
        match compression {
            Compression::None => self.blob(tar, TYPE),
            Compression::Gzip => self.blob(&packed("gzip -n"), &format!("{TYPE}+gzip")),
            Compression::Zstd => self.blob(&packed("zstd -q"), &format!("{TYPE}+zstd")),
        }
    }

    /// Adds an image; its descriptor names its platform (`os/arch[/variant]`).
    pub(crate) fn image(&self, platform: &str, layers: &[Layer]) -> Value {
        let parts: Vec<&str> = platform.split('/').collect();
        let mut platform = json!({"os": parts[0], "architecture": parts[1]});
        if let Some(variant) = parts.get(2) {
            platform["variant"] = json!(variant);
        }
        let mut config = platform.clone();
        config["created"] = json!("2024-01-02T03:04:05Z");
        config["config"] =
            json!({"Cmd": ["sh"], "Env": ["PATH=/bin"], "Labels": {"made": "by-hand"}});
        let diff_ids: Vec<String> = layers.iter().map(|(tar, _)| digest(tar)).collect();
        config["rootfs"] = json!({"type": "layers", "diff_ids": diff_ids});
        let mut history: Vec<Value> = (0..layers.len())
            .map(|at| json!({"created_by": format!("step {at}"), "comment": "by hand"}))
            .collect();
        history.push(json!({"created_by": "CMD [\"sh\"]", "empty_layer": true}));
        config["history"] = json!(history);
        let config = self.blob(
            config.to_string().as_bytes(),
            "application/vnd.oci.image.config.v1+json",
        );
        let layers: Vec<Value> = layers.iter().map(|layer| self.layer(layer)).collect();
        let manifest =
            json!({"schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": layers});
        let mut descriptor = self.blob(manifest.to_string().as_bytes(), MANIFEST);
        descriptor["platform"] = platform;
        descriptor
    }

    /// Adds what BuildKit attests of an image.
    pub(crate) fn attestation(&self, image: &Value) -> Value {
        let config = json!({"architecture": "unknown", "os": "unknown", "rootfs": {"type": "layers", "diff_ids": []}});
        let config = self.blob(
            config.to_string().as_bytes(),
            "application/vnd.oci.image.config.v1+json",
        );
        let statement = self.blob(
            br#"{"_type":"https://in-toto.io/Statement/v0.1"}"#,
            "application/vnd.in-toto+json",
        );
        let manifest = json!({"schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": [statement]});
        let mut descriptor = self.blob(manifest.to_string().as_bytes(), MANIFEST);
        descriptor["platform"] = json!({"architecture": "unknown", "os": "unknown"});
        descriptor["annotations"] = json!({
            "vnd.docker.reference.type": "attestation-manifest", "vnd.docker.reference.digest": image["digest"],
        });
        descriptor
    }

    /// Adds an index.
    pub(crate) fn index(&self, entries: &[&Value]) -> Value {
        let index = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": entries});
        self.blob(index.to_string().as_bytes(), INDEX)
    }

    /// Gives a document a full name.
    pub(crate) fn name(&mut self, document: &Value, name: &str) {
        let mut entry = document.clone();
        entry["annotations"]["io.containerd.image.name"] = json!(name);
        self.entries.push(entry);
    }

    /// The layout as an archive.
    pub(crate) fn archive(&self) -> String {
        let index = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": self.entries});
        fs::write(self.dir.join("index.json"), index.to_string()).expect("writable");
        let archive = self.dir.with_extension("tar").display().to_string();
        let dir = self.dir.display().to_string();
        run("tar", &["-C", &dir, "-cf", &archive, "."]).ok();
        archive
    }
}

/// The document that a registry has under a name, and its digest.
pub(crate) fn at_registry(name: &str) -> (Value, String) {
    let name = format!("docker://{name}");
    let raw = run("skopeo", &["inspect", "--tls-verify=false", "--raw", &name]);
    let text = raw.out.clone();
    raw.ok();
    (
        serde_json::from_str(&text).expect("a manifest is JSON"),
        digest(text.as_bytes()),
    )
}
