//! Images as archives: ours, and those of skopeo and umoci.

use std::fs;
use std::path::Path;

use gantry_e2e::{Engine, Registry, busybox_rootfs, run, skopeo_digest};
use serde_json::Value;

use crate::layout::{Compression, Layout, busybox_layer};

#[test]
fn load_and_import() {
    let engine = Engine::start();
    let dir = engine.dir().join("in");
    fs::create_dir(&dir).unwrap();
    let root = dir.join("root");
    busybox_rootfs(&root);
    let layout = dir.join("layout").display().to_string();
    let image = format!("{layout}:latest");
    run("umoci", &["init", "--layout", &layout]).ok();
    run("umoci", &["new", "--image", &image]).ok();
    run(
        "umoci",
        &[
            "insert",
            "--image",
            &image,
            &root.display().to_string(),
            "/",
        ],
    )
    .ok();
    let archive = dir.join("archive.tar").display().to_string();
    let to = format!("docker-archive:{archive}:loaded:one");
    run("skopeo", &["copy", "-q", &format!("oci:{image}"), &to]).ok();
    assert_eq!(
        engine.docker(&["load", "-i", &archive]).ok(),
        "Loaded image: loaded:one"
    );
    assert_eq!(
        engine
            .docker(&["run", "--rm", "loaded:one", "/bin/echo", "hi"])
            .ok(),
        "hi"
    );

    let id = engine
        .docker(&[
            "import",
            "-m",
            "by hand",
            gantry_e2e::busybox_tar(),
            "imported:x",
        ])
        .ok();
    assert!(id.starts_with("sha256:"), "{id}");
    assert_eq!(
        engine
            .docker(&["inspect", "-f", "{{.Comment}}", "imported:x"])
            .ok(),
        "by hand"
    );
    engine.finish();
}

/// Files of an archive: path and digest of the content.
fn blobs(archive: &str) -> Vec<String> {
    let list = run("tar", &["-tf", archive]).ok();
    let blobs = list
        .lines()
        .filter(|path| path.starts_with("blobs/sha256/") && !path.ends_with('/'));
    blobs
        .map(|path| path["blobs/sha256/".len()..].to_owned())
        .collect()
}

fn document(archive: &str, path: &str) -> Value {
    let text = run("tar", &["-xOf", archive, path]).ok();
    serde_json::from_str(&text).expect("a document of an archive is JSON")
}

/// Copies with skopeo, without a signature policy.
fn skopeo(arguments: &[&str]) {
    let mut all = vec!["--insecure-policy", "copy", "-q"];
    all.extend(arguments);
    run("skopeo", &all).ok();
}

#[test]
fn what_was_pulled_is_saved_as_it_came() {
    let registry = Registry::start();
    registry.push_busybox("box:1");
    let engine = Engine::with(Default::default());
    let name = format!("{}/box:1", registry.domain());
    let there = format!("docker://{name}");
    engine.docker(&["pull", "-q", &name]).ok();
    let saved = engine.dir().join("saved.tar").display().to_string();
    engine.docker(&["save", "-o", &saved, &name]).ok();

    // Manifest, configuration and layer, each under its digest.
    let index = document(&saved, "index.json");
    let entry = &index["manifests"][0];
    let digest = skopeo_digest(&there, &["--tls-verify=false"]);
    assert_eq!(entry["digest"].as_str().unwrap(), digest);
    assert_eq!(entry["annotations"]["io.containerd.image.name"], *name);
    for hex in blobs(&saved) {
        let line = format!("tar -xOf {saved} blobs/sha256/{hex} | sha256sum");
        assert!(run("sh", &["-c", &line]).ok().starts_with(&hex));
    }
    let image = &document(&saved, "manifest.json")[0];
    assert_eq!(image["RepoTags"][0], *name);
    let layer = image["Layers"][0].as_str().unwrap();
    let kind = run(
        "sh",
        &[
            "-c",
            &format!("tar -xOf {saved} {layer} | head -c 2 | od -An -tx1"),
        ],
    );
    assert_eq!(kind.ok(), "1f 8b", "the layer is not compressed any more");
    assert_eq!(
        document(&saved, "repositories").as_object().unwrap().len(),
        1
    );

    // Others read both forms, and find the same image.
    let archive = format!("oci-archive:{saved}:1");
    assert_eq!(skopeo_digest(&archive, &[]), digest);
    let dir = format!("dir:{}", engine.dir().join("copied").display());
    skopeo(&[&format!("docker-archive:{saved}:{name}"), &dir]);
    skopeo(&[&archive, &dir]);

    // And so do we, from what they write.
    let again = engine.dir().join("again.tar").display().to_string();
    skopeo(&[&archive, &format!("oci-archive:{again}:{name}")]);
    engine.docker(&["rmi", &name]).ok();
    assert_eq!(
        engine.docker(&["load", "-i", &again]).ok(),
        format!("Loaded image: {name}")
    );
    let twice = engine.dir().join("twice.tar").display().to_string();
    engine.docker(&["save", "-o", &twice, &name]).ok();
    assert_eq!(
        document(&twice, "index.json")["manifests"][0]["digest"],
        entry["digest"]
    );
    engine.finish();
}

#[test]
fn images_of_one_archive_share_their_layers() {
    let engine = Engine::start();
    engine
        .docker(&["run", "--name", "made", "busybox", "touch", "/new"])
        .ok();
    engine.docker(&["commit", "made", "child:1"]).ok();
    engine.docker(&["rm", "made"]).ok();
    engine.docker(&["tag", "child:1", "child:2"]).ok();
    let id = engine
        .docker(&["images", "-q", "--no-trunc", "child:1"])
        .ok();
    let saved = engine.dir().join("saved.tar").display().to_string();
    engine
        .docker(&["save", "-o", &saved, "busybox", "child"])
        .ok();
    let written = blobs(&saved);
    // Two layers, two configurations, two manifests.
    assert_eq!(written.len(), 6, "{written:?}");
    let images = document(&saved, "manifest.json");
    assert_eq!(images[0]["Layers"][0], images[1]["Layers"][0]);
    assert_eq!(
        images[1]["RepoTags"],
        serde_json::json!(["child:1", "child:2"])
    );
    assert_eq!(
        document(&saved, "index.json")["manifests"]
            .as_array()
            .unwrap()
            .len(),
        3
    );
    engine
        .docker(&["rmi", "child:1", "child:2", "busybox"])
        .ok();
    assert_eq!(engine.docker(&["images", "-aq"]).ok(), "");
    let mut loaded: Vec<String> = engine
        .docker(&["load", "-i", &saved])
        .ok()
        .lines()
        .map(Into::into)
        .collect();
    loaded.sort();
    let wanted =
        ["busybox:latest", "child:1", "child:2"].map(|name| format!("Loaded image: {name}"));
    assert_eq!(loaded, wanted);
    assert_eq!(
        engine
            .docker(&["images", "-q", "--no-trunc", "child:2"])
            .ok(),
        id
    );

    // By its identifier it goes without names; a name that moves is told of.
    engine.docker(&["save", "-o", &saved, &id]).ok();
    engine.docker(&["rmi", "child:1", "child:2"]).ok();
    assert_eq!(
        engine.docker(&["load", "-i", &saved]).ok(),
        format!("Loaded image ID: {id}")
    );
    engine.docker(&["tag", &id, "moving:1"]).ok();
    engine.docker(&["save", "-o", &saved, "moving:1"]).ok();
    engine.docker(&["tag", "busybox", "moving:1"]).ok();
    let said = engine.docker(&["load", "-i", &saved]).ok();
    assert!(
        said.starts_with("The image moving:1 already exists, renaming the old one with ID sha256:"),
        "{said}"
    );
    engine.finish();
}

#[test]
fn the_tools_of_others_talk_to_the_daemon() {
    let engine = Engine::start();
    let daemon = ["--src-daemon-host", &engine.host()];
    let target = engine.dir().join("oci").display().to_string();
    let image = format!("oci:{target}:copied");
    skopeo(&[&daemon[..], &["docker-daemon:busybox:latest", &image]].concat());
    let id = engine
        .docker(&["image", "inspect", "-f", "{{.Id}}", "busybox"])
        .ok();
    let layout = fs::read_to_string(Path::new(&target).join("index.json")).unwrap();
    let index: Value = serde_json::from_str(&layout).unwrap();
    assert_eq!(index["manifests"].as_array().unwrap().len(), 1);

    // umoci changes it, and it comes back.
    let umoci = format!("{target}:copied");
    run(
        "umoci",
        &["config", "--image", &umoci, "--config.env", "FROM=umoci"],
    )
    .ok();
    let back = [
        "--dest-daemon-host",
        &engine.host(),
        &image,
        "docker-daemon:back:1",
    ];
    skopeo(&back);
    let shown = engine
        .docker(&["run", "--rm", "back:1", "sh", "-c", "echo $FROM"])
        .ok();
    assert_eq!(shown, "umoci");
    assert_ne!(
        engine
            .docker(&["image", "inspect", "-f", "{{.Id}}", "back:1"])
            .ok(),
        id
    );

    // umoci reads what is saved.
    let saved = engine.dir().join("saved.tar").display().to_string();
    engine.docker(&["save", "-o", &saved, "back:1"]).ok();
    let unpacked = engine.dir().join("layout").display().to_string();
    fs::create_dir(&unpacked).unwrap();
    run("tar", &["-C", &unpacked, "-xf", &saved]).ok();
    assert_eq!(run("umoci", &["ls", "--layout", &unpacked]).ok(), "1");
    let bundle = engine.dir().join("bundle").display().to_string();
    run(
        "umoci",
        &["unpack", "--image", &format!("{unpacked}:1"), &bundle],
    )
    .ok();
    assert!(Path::new(&bundle).join("rootfs/bin/busybox").exists());
    engine.finish();
}

#[test]
fn platforms_of_archives() {
    let engine = Engine::with(Default::default());
    let mut layout = Layout::new(&engine.dir().join("layout"));
    let amd64 = layout.image("linux/amd64", &[busybox_layer(Compression::Gzip)]);
    let arm = layout.image("linux/arm64", &[busybox_layer(Compression::Zstd)]);
    let index = layout.index(&[&amd64, &arm]);
    layout.name(&index, "both:1");
    let archive = layout.archive();
    engine
        .docker(&["load", "--platform", "linux/s390x", "-i", &archive])
        .fails(
            1,
            "no images providing the requested platform linux/s390x found",
        );
    assert_eq!(engine.docker(&["images", "-aq"]).ok(), "");
    let arch = || {
        engine
            .docker(&["image", "inspect", "-f", "{{.Architecture}}", "both:1"])
            .ok()
    };
    engine
        .docker(&["load", "-q", "--platform", "linux/arm64", "-i", &archive])
        .ok();
    assert_eq!(arch(), "arm64");
    let saved = engine.dir().join("saved.tar").display().to_string();
    engine.docker(&["save", "-o", &saved, "both:1"]).ok();
    // The index, and of its images the one that is here: manifest, configuration, layer.
    assert_eq!(blobs(&saved).len(), 4);
    engine.docker(&["load", "-q", "-i", &archive]).ok();
    assert_eq!(arch(), "amd64");
    engine.docker(&["save", "-o", &saved, "both:1"]).ok();
    assert_eq!(blobs(&saved).len(), 7);
    assert_eq!(
        document(&saved, "index.json")["manifests"][0]["digest"],
        index["digest"]
    );
    engine
        .docker(&["save", "--platform", "linux/amd64", "-o", &saved, "both:1"])
        .ok();
    assert_eq!(blobs(&saved).len(), 3);
    assert_eq!(
        document(&saved, "index.json")["manifests"][0]["digest"],
        amd64["digest"]
    );
    engine.finish();
}
