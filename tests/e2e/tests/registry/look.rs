//! Looking into registries without pulling: distribution inspect, manifests, tags, referrers; and deleting there.

use gantry_e2e::{Engine, Registry, run, skopeo_digest};
use serde_json::{Value, json};

use crate::{engine, push};

const MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";

fn api(engine: &Engine, path: &str) -> (u16, Value) {
    let (status, text) = engine.api("GET", path, None);
    (
        status,
        serde_json::from_str(&text).unwrap_or_else(|_| panic!("{text}")),
    )
}

#[test]
fn distribution_inspect() {
    let registry = Registry::start();
    let engine = engine(json!({}));
    let name = format!("{}/box:1", registry.domain());
    let digest = push(&engine, &name);
    assert_eq!(
        digest,
        skopeo_digest(&format!("docker://{name}"), &["--tls-verify=false"])
    );
    for name in [name.clone(), format!("{}/box@{digest}", registry.domain())] {
        let (status, found) = api(&engine, &format!("/v1.51/distribution/{name}/json"));
        assert_eq!(status, 200, "{found}");
        let raw = run(
            "skopeo",
            &[
                "inspect",
                "--raw",
                "--tls-verify=false",
                &format!("docker://{name}"),
            ],
        )
        .out;
        let descriptor = json!({"mediaType": MANIFEST, "digest": digest, "size": raw.len()});
        assert_eq!(found["Descriptor"], descriptor);
        let architecture = engine.docker(&["version", "-f", "{{.Server.Arch}}"]).ok();
        assert_eq!(
            found["Platforms"],
            json!([{"architecture": architecture, "os": "linux"}])
        );
    }
    let missing = format!("/distribution/{}/box:2/json", registry.domain());
    let (status, said) = api(&engine, &missing);
    assert_eq!(status, 404, "{said}");
    assert!(
        said["message"]
            .as_str()
            .unwrap()
            .contains("manifest unknown"),
        "{said}"
    );
    let (status, said) = api(&engine, "/distribution/Bad_Name:x/json");
    assert_eq!(
        (status, said["message"].as_str().unwrap()),
        (
            400,
            "invalid reference format: repository name (library/Bad_Name) must be lowercase"
        )
    );
    assert_eq!(api(&engine, "/distribution/box/xml").0, 404);
    // Nothing came along.
    assert_eq!(
        engine
            .docker(&["images", "-q", &format!("{}/other", registry.domain())])
            .ok(),
        ""
    );
    engine.finish();
}

#[test]
fn manifests_tags_and_deletion() {
    let registry = Registry::start();
    let engine = engine(json!({}));
    let repository = format!("{}/box", registry.domain());
    let (one, two) = (format!("{repository}:1"), format!("{repository}:two"));
    let digest = push(&engine, &one);
    push(&engine, &two);
    let shown: Value =
        serde_json::from_str(&engine.gantry(&["manifest", "inspect", &one]).ok()).unwrap();
    let docker = engine
        .docker(&["manifest", "inspect", "--insecure", &one])
        .ok();
    let docker: Value = serde_json::from_str(&docker).unwrap();
    assert_eq!(
        shown, docker,
        "the docker client, which asks the registry itself"
    );
    let shown: Value =
        serde_json::from_str(&engine.gantry(&["manifest", "inspect", "-v", &one]).ok()).unwrap();
    assert_eq!(shown["Descriptor"]["digest"], digest.as_str());
    assert_eq!(shown["SchemaV2Manifest"], docker);
    let tags = engine.gantry(&["registry", "tags", &repository]).ok();
    let mut tags: Vec<&str> = tags.lines().collect();
    tags.sort_unstable();
    assert_eq!(tags, ["1", "two"]);
    let referrers: Value =
        serde_json::from_str(&engine.gantry(&["registry", "referrers", &one]).ok()).unwrap();
    assert_eq!(referrers["manifests"], json!([]));
    engine
        .gantry(&["registry", "rm", &repository])
        .fails(1, "names no manifest: a tag or digest is needed");
    assert_eq!(engine.gantry(&["registry", "rm", &one]).ok(), digest);
    engine
        .gantry(&["registry", "rm", &one])
        .fails(1, "not found");
    engine
        .gantry(&["manifest", "inspect", &two])
        .fails(1, "manifest unknown");
    engine.finish();
}

/// All tags of a repository.
#[test]
fn pull_of_all_tags() {
    let registry = Registry::start();
    let engine = engine(json!({}));
    let repository = format!("{}/box", registry.domain());
    for tag in ["1", "2", "latest"] {
        push(&engine, &format!("{repository}:{tag}"));
        engine.docker(&["rmi", &format!("{repository}:{tag}")]).ok();
    }
    engine.docker(&["pull", "-a", &repository]).ok();
    let tags = engine
        .docker(&["images", "--format", "{{.Tag}}", &repository])
        .ok();
    let mut tags: Vec<&str> = tags.lines().collect();
    tags.sort_unstable();
    assert_eq!(tags, ["1", "2", "latest"]);
    engine
        .docker(&["pull", "-a", &format!("{}/nothing", registry.domain())])
        .fails(1, "repository");
    engine.finish();
}
