//! What registries send, and what administrators say of them.

use std::fs;

use gantry_driver_api::registry::{Endpoint, GetManifest, GetReferrers, Repository};
use gantry_plugin_sdk::{Call, DriverConfig, Log, Registry};
use gantry_registry_oci_dir::OciDir;

use http::header::WWW_AUTHENTICATE;
use http::{HeaderMap, HeaderValue};

use super::{bytes, text};
use crate::Target;

// Of another plugin: two cannot be linked into one program.
#[path = "../../../../drivers/registry-hub/src/challenge.rs"]
mod challenges;

pub(super) const HOSTS_FILE: Target = Target {
    name: "hosts_file",
    run: |input| gantry_image::fuzz::hosts_file(&text(input)),
    seeds: || {
        bytes(&[
            "server = \"https://a.example\"\n[host.\"http://127.0.0.1:5000/v2/x\"]\n  capabilities = [\"pull\", \"resolve\"]\n  ca = [\"a.crt\"]\n  client = [[\"c.cert\", \"c.key\"]]\n  skip_verify = true\n  override_path = true\n[host.\"http://127.0.0.1:5000/v2/x\".header]\n  x = [\"y\"]\n",
        ])
    },
    words: &[
        "server",
        "[host.",
        "capabilities",
        "header",
        "client",
        "https://",
    ],
    rounds: 10_000,
};
pub(super) const CHALLENGE: Target = Target {
    name: "challenge",
    run: challenge,
    seeds: || {
        bytes(&[
            "Bearer realm=\"https://auth.example/token\",service=\"registry\",scope=\"repository:a/b:pull,push\"",
            "Basic realm=\"a \\\"quoted\\\" one\", Bearer realm=x, error=\"invalid_token\"",
        ])
    },
    words: &["Bearer ", "Basic ", "realm=", "scope=", "\\\"", ", "],
    rounds: 50_000,
};
pub(super) const OCI_INDEX: Target = Target {
    name: "oci_index",
    run: oci_index,
    seeds: || {
        bytes(&[&format!(
            r#"{{"schemaVersion":2,"manifests":[{{"mediaType":"application/vnd.oci.image.index.v1+json","digest":"sha256:{}","size":5,"annotations":{{"org.opencontainers.image.ref.name":"1"}}}}]}}"#,
            "c".repeat(64)
        )])
    },
    words: &["manifests", "digest", "sha256:", "mediaType", "annotations"],
    rounds: 3_000,
};

/// Headers of an answer that asks for credentials.
fn challenge(input: &[u8]) {
    let Ok(value) = HeaderValue::from_bytes(input) else {
        return;
    };
    let mut headers = HeaderMap::new();
    headers.insert(WWW_AUTHENTICATE, value);
    for challenge in challenges::challenges(&headers) {
        let _ = (challenge.scheme.len(), challenge.parameter("realm"));
    }
}

/// The index of a layout that somebody else wrote, whose manifests are that index again.
fn oci_index(input: &[u8]) {
    thread_local! {
        static PLACE: (tempfile::TempDir, OciDir) = place();
    }
    PLACE.with(|(dir, driver)| {
        let layout = dir.path().join("a");
        let blob = layout.join("blobs/sha256").join("c".repeat(64));
        fs::write(blob, input).expect("it is ours");
        fs::write(layout.join("index.json"), input).expect("it is ours");
        let at = Repository {
            endpoint: Endpoint::default(),
            repository: "a".into(),
        };
        let call = Call::new("fuzz");
        let digest = format!("sha256:{}", "d".repeat(64));
        for reference in ["1", "latest", &digest] {
            let request = GetManifest {
                at: at.clone(),
                reference: reference.into(),
            };
            let _ = driver.fetch_manifest(&call, request.clone());
            let _ = driver.delete_manifest(&call, request);
        }
        let _ = driver.referrers(
            &call,
            GetReferrers {
                at: at.clone(),
                digest,
            },
        );
        let _ = driver.list_tags(&call, at);
    });
}

fn place() -> (tempfile::TempDir, OciDir) {
    let dir = tempfile::tempdir().expect("a temporary directory");
    for sub in ["a/blobs/sha256", "a/.gantry/uploads"] {
        fs::create_dir_all(dir.path().join(sub)).expect("it is ours");
    }
    fs::write(
        dir.path().join("a/oci-layout"),
        r#"{"imageLayoutVersion":"1.0.0"}"#,
    )
    .expect("it is ours");
    let config = DriverConfig {
        name: "oci-dir".into(),
        root: dir.path().into(),
        run: dir.path().into(),
        tag: "00000000".into(),
        options: serde_json::json!({}),
    };
    let driver = OciDir::new(config, Log::none()).expect("no options are right");
    (dir, driver)
}
