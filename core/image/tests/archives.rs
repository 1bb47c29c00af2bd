//! Archives: what skopeo and tar write, what we write, and what somebody malicious could.

mod common;

use std::fs::File;
use std::io::Cursor;

use common::{Layout, Recorder, Service, run};
use gantry_driver_api::{Call, ErrorCode};
use gantry_image::{Error, ImportOptions, LoadOptions, Settings, Silent};
use gantry_model::Reference;

fn load(service: &Service, file: &str) -> (Vec<gantry_image::Loaded>, Recorder) {
    let recorder = Recorder::default();
    let loaded = service
        .images
        .load(
            &mut File::open(file).unwrap(),
            &LoadOptions::default(),
            &recorder,
        )
        .unwrap();
    (loaded, recorder)
}

fn inspect(service: &Service, name: &str) -> serde_json::Value {
    let shown = service.images.inspect(name, &Default::default());
    serde_json::to_value(shown.unwrap()).unwrap()
}

/// Nothing but what images need is there.
fn assert_clean(service: &Service) {
    let images = service.images.list(&Default::default()).unwrap();
    let snapshots = service.storage.list(&Call::new("t"), ()).unwrap();
    let blobs = service.content.list().unwrap();
    if images.is_empty() {
        assert!(snapshots.is_empty(), "{snapshots:?}");
        assert!(blobs.is_empty(), "{blobs:?}");
    }
    assert!(
        !snapshots.iter().any(|s| s.key.starts_with("unpack-")),
        "{snapshots:?}"
    );
    assert_eq!(
        std::fs::read_dir(service.root.join("content/ingest"))
            .unwrap()
            .count(),
        0
    );
}

#[test]
fn docker_archives() {
    let layout = Layout::busybox();
    let file = layout.dir.path().join("box.tar");
    let file = file.to_str().unwrap();
    layout.push(&format!("docker-archive:{file}:box:1"), &[]);
    run("gzip", &["-k", file]);
    run("zstd", &["-q", "-k", file]);
    let mut ids = Vec::new();
    for file in [file.to_owned(), format!("{file}.gz"), format!("{file}.zst")] {
        for late in [true, false] {
            let service = Service::with(Settings::default(), late);
            let (loaded, recorder) = load(&service, &file);
            assert_eq!(loaded.len(), 1);
            assert!(
                recorder.has("Loaded image: box:1\n"),
                "{:?}",
                recorder.lines()
            );
            assert!(recorder.has(": Loading layer"));
            let image = service.images.get("box:1", None).unwrap();
            assert_eq!(image.config.rootfs.diff_ids.len(), 3);
            assert_eq!(service.actions(), ["load"]);
            assert_clean(&service);
            ids.push(image.id);
        }
    }
    assert!(ids.windows(2).all(|pair| pair[0] == pair[1]));
}

#[test]
fn the_old_form_with_links() {
    let layout = Layout::busybox();
    let dir = layout.dir.path().join("old");
    let target = format!("dir:{}", dir.display());
    layout.push(&target, &["--format", "v2s2", "--dest-decompress"]);
    let manifest: serde_json::Value =
        serde_json::from_slice(&std::fs::read(dir.join("manifest.json")).unwrap()).unwrap();
    let hex = |value: &serde_json::Value| value.as_str().unwrap()[7..].to_owned();
    let config = hex(&manifest["config"]["digest"]);
    std::fs::rename(dir.join(&config), dir.join(format!("{config}.json"))).unwrap();
    let mut layers = Vec::new();
    for (at, layer) in manifest["layers"].as_array().unwrap().iter().enumerate() {
        let name = format!("layer{at}");
        std::fs::create_dir(dir.join(&name)).unwrap();
        std::fs::rename(
            dir.join(hex(&layer["digest"])),
            dir.join(&name).join("layer.tar"),
        )
        .unwrap();
        layers.push(format!("{name}/layer.tar"));
    }
    // A layer that an older image has too stands there once and is linked to.
    std::fs::create_dir(dir.join("linked")).unwrap();
    std::os::unix::fs::symlink("../layer1/layer.tar", dir.join("linked/layer.tar")).unwrap();
    layers[1] = "linked/layer.tar".into();
    let text = serde_json::json!([{"Config": format!("{config}.json"), "RepoTags": ["old:1", "old:2"], "Layers": layers}]);
    std::fs::write(dir.join("manifest.json"), text.to_string()).unwrap();
    let file = layout.dir.path().join("old.tar");
    run(
        "tar",
        &[
            "-C",
            dir.to_str().unwrap(),
            "-cf",
            file.to_str().unwrap(),
            ".",
        ],
    );
    let service = Service::new();
    let (loaded, _) = load(&service, file.to_str().unwrap());
    assert_eq!(loaded[0].names.len(), 2);
    assert_eq!(
        service.images.find("old:1").unwrap(),
        service.images.find("old:2").unwrap()
    );
    assert_clean(&service);
}

#[test]
fn oci_layouts() {
    let layout = Layout::busybox();
    let file = layout.dir.path().join("oci.tar");
    let dir = layout.dir.path().join("layout");
    run(
        "tar",
        &[
            "-C",
            dir.to_str().unwrap(),
            "-cf",
            file.to_str().unwrap(),
            ".",
        ],
    );
    let service = Service::new();
    let (loaded, _) = load(&service, file.to_str().unwrap());
    assert_eq!(loaded.len(), 1);
    // The layout names a tag of no repository.
    assert!(loaded[0].names.is_empty());
    let descriptor = inspect(&service, loaded[0].id.as_str())["Descriptor"].clone();
    let index: serde_json::Value =
        serde_json::from_slice(&std::fs::read(dir.join("index.json")).unwrap()).unwrap();
    assert_eq!(descriptor["digest"], index["manifests"][0]["digest"]);
    assert_clean(&service);
}

#[test]
fn what_is_saved_can_be_loaded_here_and_by_others() {
    let layout = Layout::busybox();
    let file = layout.dir.path().join("box.tar");
    layout.push(&format!("docker-archive:{}:box:1", file.display()), &[]);
    let first = Service::new();
    load(&first, file.to_str().unwrap());
    first
        .images
        .tag("box:1", &Reference::parse("box:2").unwrap())
        .unwrap();
    let saved = layout.dir.path().join("saved.tar");
    first
        .images
        .save(&["box".to_owned()], &[], &mut File::create(&saved).unwrap())
        .unwrap();

    let second = Service::new();
    let (loaded, recorder) = load(&second, saved.to_str().unwrap());
    assert_eq!(loaded[0].id, first.images.find("box:1").unwrap());
    assert!(recorder.has("Loaded image: box:1\n") && recorder.has("Loaded image: box:2\n"));

    let copy = |source: String| {
        let target = format!("dir:{}/copy-{}", layout.dir.path().display(), source.len());
        run(
            "skopeo",
            &["copy", "--insecure-policy", "--quiet", &source, &target],
        );
    };
    copy(format!("docker-archive:{}:box:1", saved.display()));
    copy(format!("oci-archive:{}:1", saved.display()));

    let mut by_id = Vec::new();
    let id = first.images.find("box:1").unwrap();
    first
        .images
        .save(&[id.short().to_owned()], &[], &mut by_id)
        .unwrap();
    let third = Service::new();
    let loaded = third
        .images
        .load(&mut Cursor::new(by_id), &LoadOptions::default(), &Silent)
        .unwrap();
    assert!(loaded[0].names.is_empty());
    assert!(matches!(
        first
            .images
            .save(&["none".to_owned()], &[], &mut Vec::new()),
        Err(Error::NoSuchImage(_))
    ));
}

#[test]
fn imports() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("root");
    std::fs::create_dir_all(root.join("bin")).unwrap();
    std::fs::write(root.join("bin/x"), "x").unwrap();
    let file = dir.path().join("fs.tar.gz");
    run(
        "tar",
        &[
            "-C",
            root.to_str().unwrap(),
            "-czf",
            file.to_str().unwrap(),
            ".",
        ],
    );
    let service = Service::new();
    let options = ImportOptions {
        name: Some(Reference::parse("fs").unwrap()),
        changes: vec!["CMD [\"/bin/x\"]".into(), "EXPOSE 80".into()],
        message: "from a test".into(),
        ..ImportOptions::default()
    };
    let id = service
        .images
        .import(&mut File::open(&file).unwrap(), &options, &Silent)
        .unwrap();
    let image = service.images.get("fs", None).unwrap();
    assert_eq!(image.id, id);
    assert_eq!(
        image.config.config.cmd.as_deref(),
        Some(&["/bin/x".to_owned()][..])
    );
    let shown = inspect(&service, "fs");
    assert_eq!(shown["Comment"], "from a test");
    assert_eq!(
        shown["Config"]["ExposedPorts"]["80/tcp"],
        serde_json::json!({})
    );
    let history = service.images.history("fs", None).unwrap();
    assert_eq!((history.len(), history[0].size), (1, 1));
    assert_eq!(
        history[0].tags.as_deref(),
        Some(&["fs:latest".to_owned()][..])
    );
    assert_clean(&service);

    let bad = ImportOptions {
        changes: vec!["RUN true".into()],
        ..ImportOptions::default()
    };
    let error = service
        .images
        .import(&mut Cursor::new(Vec::new()), &bad, &Silent)
        .unwrap_err();
    assert_eq!(error.code(), ErrorCode::InvalidArgument);
    let error = service
        .images
        .import(
            &mut Cursor::new(vec![7; 5000]),
            &ImportOptions::default(),
            &Silent,
        )
        .unwrap_err();
    assert!(error.to_string().contains("tar header"), "{error}");
    assert_eq!(service.images.list(&Default::default()).unwrap().len(), 1);
    assert_clean(&service);
}

#[test]
fn broken_archives_leave_nothing() {
    let layout = Layout::busybox();
    let file = layout.dir.path().join("box.tar");
    layout.push(&format!("docker-archive:{}:box:1", file.display()), &[]);
    let bytes = std::fs::read(&file).unwrap();
    let archive = |files: &[(&str, &str)]| {
        let mut archive = tar::Builder::new(Vec::new());
        for (name, text) in files {
            let mut header = tar::Header::new_gnu();
            header.set_size(text.len() as u64);
            header.set_mode(0o644);
            archive
                .append_data(&mut header, name, text.as_bytes())
                .unwrap();
        }
        archive.into_inner().unwrap()
    };
    let config =
        |ids: &str| format!(r#"{{"os":"linux","rootfs":{{"type":"layers","diff_ids":[{ids}]}}}}"#);
    let manifest =
        |layers: &str| format!(r#"[{{"Config":"c.json","RepoTags":["x:1"],"Layers":[{layers}]}}]"#);
    let zeros = format!("\"sha256:{}\"", "0".repeat(64));
    for (what, bytes) in [
        ("cut off", bytes[..bytes.len() / 2].to_vec()),
        ("empty", Vec::new()),
        ("not an archive", vec![b'x'; 4096]),
        ("no manifest", archive(&[("a", "b")])),
        ("bad manifest", archive(&[("manifest.json", "{")])),
        ("no config", archive(&[("manifest.json", &manifest(""))])),
        (
            "a config outside",
            archive(&[(
                "manifest.json",
                &manifest("").replace("c.json", "../../etc/passwd"),
            )]),
        ),
        (
            "no layer",
            archive(&[
                ("manifest.json", &manifest("\"l\"")),
                ("c.json", &config(&zeros)),
            ]),
        ),
        (
            "too few layers",
            archive(&[
                ("manifest.json", &manifest("")),
                ("c.json", &config(&zeros)),
            ]),
        ),
        (
            "another layer",
            archive(&[
                ("manifest.json", &manifest("\"l\"")),
                ("c.json", &config(&zeros)),
                ("l", &"\0".repeat(1024)),
            ]),
        ),
        (
            "a bad name",
            archive(&[
                ("manifest.json", &manifest("").replace("x:1", "X:1")),
                ("c.json", &config("")),
            ]),
        ),
        (
            "an index without its blobs",
            archive(&[(
                "index.json",
                &format!(
                    r#"{{"schemaVersion":2,"manifests":[{{"digest":{zeros},"size":2,"mediaType":"application/vnd.oci.image.manifest.v1+json"}}]}}"#
                ),
            )]),
        ),
    ] {
        let service = Service::new();
        let error = service
            .images
            .load(&mut Cursor::new(bytes), &LoadOptions::default(), &Silent)
            .expect_err(what);
        assert!(
            matches!(
                error,
                Error::Malformed(_) | Error::Layer(_) | Error::Reference(_)
            ),
            "{what}: {error:?}"
        );
        assert_clean(&service);
    }
}
