//! Pulls from a real registry.

mod common;

use std::os::unix::fs::{FileTypeExt, MetadataExt};

use common::{Layout, Recorder, RegistryServer, Service, forced, run};
use gantry_driver_api::Call;
use gantry_driver_api::ErrorCode;
use gantry_driver_api::registry::Credentials;
use gantry_driver_api::storage::SnapshotKey;
use gantry_image::{Error, PullOptions, Settings, Silent};
use gantry_model::{Platform, Reference};

fn reference(text: &str) -> Reference {
    Reference::parse(text).unwrap()
}

#[test]
fn a_pull_from_beginning_to_end() {
    let registry = RegistryServer::start(None);
    let layout = Layout::busybox();
    let name = format!("{}/library/busybox", registry.domain());
    layout.push(&format!("docker://{name}:latest"), &["--format", "v2s2"]);
    for late in [true, false] {
        let service = Service::with(Settings::default(), late);
        let recorder = Recorder::default();
        let pulled = service
            .images
            .pull(&reference(&name), &PullOptions::default(), &recorder)
            .unwrap();
        assert!(pulled.newer);
        let lines = recorder.lines();
        assert_eq!(lines[0], "latest: Pulling from library/busybox");
        for text in [
            ": Pulling fs layer",
            ": Downloading",
            ": Verifying Checksum",
            ": Download complete",
            ": Extracting",
            ": Pull complete",
        ] {
            let times = lines.iter().filter(|line| line.ends_with(text)).count();
            assert!(
                times >= 3,
                "late parent {late}: {text} {times} times in {lines:#?}"
            );
        }
        assert_eq!(lines[lines.len() - 2], format!("Digest: {}", pulled.digest));
        assert_eq!(
            lines[lines.len() - 1],
            format!("Status: Downloaded newer image for {name}:latest")
        );

        let image = service.images.get(&name, None).unwrap();
        assert_eq!(image.id, pulled.id);
        assert_eq!(
            image.config.config.cmd.as_deref(),
            Some(&["sh".to_owned()][..])
        );
        let inspect =
            serde_json::to_value(service.images.inspect(&name, &Default::default()).unwrap())
                .unwrap();
        assert_eq!(inspect["RepoTags"][0], format!("{name}:latest"));
        assert_eq!(
            inspect["RepoDigests"][0],
            format!("{name}@{}", pulled.digest)
        );
        assert_eq!(inspect["RootFS"]["Layers"].as_array().unwrap().len(), 3);
        assert_eq!(inspect["Config"]["Labels"]["k"], "v");
        assert!(inspect["Size"].as_u64().unwrap() > 5 << 20);
        assert_eq!(service.actions(), ["pull"]);

        let root = service
            .images
            .prepare_container(&"c".repeat(64), &image.id, None)
            .unwrap();
        assert_eq!(root.driver, "overlayfs");
        let key = SnapshotKey {
            key: image_top(&service, &image),
        };
        let upper = service.storage.stat(&Call::new("t"), key).unwrap().upper;
        if late {
            let gone = upper.unwrap().join("opt/gone").symlink_metadata().unwrap();
            assert!(
                gone.file_type().is_char_device() && gone.rdev() == 0,
                "a whiteout"
            );
        } else {
            let tree = root.plan.directory().unwrap();
            assert!(!tree.join("opt/gone").exists() && tree.join("opt").exists());
            assert!(!tree.join("bin/ls").exists());
            assert_eq!(std::fs::read(tree.join("etc/motd")).unwrap(), b"hello\n");
            let (a, b) = (tree.join("bin/busybox"), tree.join("bin/sh"));
            assert_eq!(std::fs::read(a).unwrap(), std::fs::read(b).unwrap());
        }
    }
}

fn image_top(service: &Service, image: &gantry_image::Image) -> String {
    let chain = gantry_image::chain_ids(&image.config.rootfs.diff_ids);
    let _ = service;
    chain.last().unwrap().to_string()
}

#[test]
fn again_and_by_digest() {
    let registry = RegistryServer::start(None);
    let layout = Layout::busybox();
    let name = format!("{}/box", registry.domain());
    layout.push(&format!("docker://{name}:a"), &[]);
    layout.push(&format!("docker://{name}:b"), &[]);
    let service = Service::new();
    let options = PullOptions::default();
    let first = service
        .images
        .pull(&reference(&format!("{name}:a")), &options, &Silent)
        .unwrap();

    let recorder = Recorder::default();
    let again = service
        .images
        .pull(&reference(&format!("{name}:a")), &options, &recorder)
        .unwrap();
    assert!(!again.newer);
    assert_eq!(
        recorder.lines(),
        [
            "a: Pulling from box".to_owned(),
            format!("Digest: {}", first.digest),
            format!("Status: Image is up to date for {name}:a"),
        ]
    );

    let recorder = Recorder::default();
    let other = service
        .images
        .pull(&reference(&format!("{name}:b")), &options, &recorder)
        .unwrap();
    assert_eq!((other.id.clone(), other.newer), (first.id.clone(), true));
    assert_eq!(
        recorder
            .lines()
            .iter()
            .filter(|l| l.ends_with(": Already exists"))
            .count(),
        3
    );

    let fresh = Service::new();
    let all = fresh
        .images
        .pull_all(&reference(&name), &options, &Silent)
        .unwrap();
    assert_eq!(all.len(), 2);
    assert!(fresh.images.find(&format!("{name}:b")).is_ok());

    let digest = format!("{name}@{}", first.digest);
    let recorder = Recorder::default();
    service
        .images
        .pull(&reference(&digest), &options, &recorder)
        .unwrap();
    assert_eq!(recorder.lines()[0], format!("{digest}: Pulling from box"));
    assert_eq!(service.images.find(&digest).unwrap(), first.id);
}

#[test]
fn two_pulls_of_one_image_at_once() {
    let registry = RegistryServer::start(None);
    let name = format!("{}/box:1", registry.domain());
    Layout::busybox().push(&format!("docker://{name}"), &[]);
    let service = Service::new();
    let ids: Vec<_> = std::thread::scope(|scope| {
        let pulls: Vec<_> = (0..4)
            .map(|_| {
                scope.spawn(|| {
                    service
                        .images
                        .pull(&reference(&name), &PullOptions::default(), &Silent)
                        .unwrap()
                        .id
                })
            })
            .collect();
        pulls.into_iter().map(|pull| pull.join().unwrap()).collect()
    });
    assert!(ids.windows(2).all(|pair| pair[0] == pair[1]));
    let snapshots = service.storage.list(&Call::new("t"), ()).unwrap();
    assert_eq!(
        snapshots.len(),
        3,
        "nothing unfinished is left: {snapshots:?}"
    );
}

#[test]
fn what_two_pulls_share_is_unpacked_once() {
    let registry = RegistryServer::start(None);
    let layout = Layout::busybox();
    let names = ["a", "b", "c"].map(|tag| format!("{}/box:{tag}", registry.domain()));
    for (name, tag) in names.iter().zip(["a", "b", "c"]) {
        layout.push_variant(tag, &format!("docker://{name}"));
    }
    let service = Service::new();
    std::thread::scope(|scope| {
        for name in &names {
            scope.spawn(|| {
                let options = PullOptions::default();
                service
                    .images
                    .pull(&reference(name), &options, &Silent)
                    .unwrap();
            });
        }
    });
    let prepared = &service.late.as_ref().unwrap().prepared;
    assert_eq!(prepared.load(std::sync::atomic::Ordering::Relaxed), 3);
    // Each image knows the size of all of it.
    let sizes = names.map(|name| {
        service
            .images
            .inspect(&name, &Default::default())
            .unwrap()
            .size
    });
    assert!(
        sizes[0] > 5 << 20 && sizes.iter().all(|size| *size == sizes[0]),
        "{sizes:?}"
    );
    for id in service.images.list(&Default::default()).unwrap() {
        service
            .images
            .remove(id.id.as_str(), &forced(), &[])
            .unwrap();
    }
    assert!(
        service
            .storage
            .list(&Call::new("t"), ())
            .unwrap()
            .is_empty()
    );
}

#[test]
fn pulls_and_removals_at_once() {
    let registry = RegistryServer::start(None);
    let layout = Layout::busybox();
    let names = [1, 2].map(|n| format!("{}/box:{n}", registry.domain()));
    for name in &names {
        layout.push(&format!("docker://{name}"), &[]);
    }
    let service = Service::new();
    std::thread::scope(|scope| {
        for name in &names {
            scope.spawn(|| {
                for _ in 0..8 {
                    let pulled = service
                        .images
                        .pull(&reference(name), &PullOptions::default(), &Silent)
                        .unwrap();
                    // Removed by the other thread already, perhaps.
                    let _ = service.images.remove(pulled.id.as_str(), &forced(), &[]);
                }
            });
        }
    });
    let _ = service.images.remove(&names[0], &forced(), &[]);
    let _ = service.images.remove(&names[1], &forced(), &[]);
    service.images.reconcile(&[]).unwrap();
    assert!(
        service
            .storage
            .list(&Call::new("t"), ())
            .unwrap()
            .is_empty()
    );
    assert!(service.images.list(&Default::default()).unwrap().is_empty());
    let pulled = service
        .images
        .pull(&reference(&names[0]), &PullOptions::default(), &Silent)
        .unwrap();
    service
        .images
        .prepare_container("c", &pulled.id, None)
        .unwrap();
}

#[test]
fn an_index_is_asked_for_the_platform() {
    let registry = RegistryServer::start(None);
    let layout = Layout::busybox();
    let dir = layout.dir.path().join("layout");
    // Two images, one for another machine, under one index.
    run(
        "umoci",
        &[
            "tag",
            "--image",
            &format!("{}:latest", dir.display()),
            "other",
        ],
    );
    run(
        "umoci",
        &[
            "config",
            "--image",
            &format!("{}:other", dir.display()),
            "--architecture",
            "s390x",
        ],
    );
    let index: serde_json::Value =
        serde_json::from_slice(&std::fs::read(dir.join("index.json")).unwrap()).unwrap();
    let mut manifests = index["manifests"].as_array().unwrap().clone();
    let host = Platform::host();
    for manifest in &mut manifests {
        let other = manifest["annotations"]["org.opencontainers.image.ref.name"] == "other";
        let architecture = if other { "s390x" } else { &host.architecture };
        manifest["platform"] = serde_json::json!({"os": "linux", "architecture": architecture});
    }
    let text = serde_json::json!({
        "schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": manifests,
    })
    .to_string();
    let mut hasher = gantry_content::Hasher::sha256();
    hasher.update(text.as_bytes());
    let digest = hasher.finish();
    std::fs::write(dir.join("blobs/sha256").join(digest.hex()), &text).unwrap();
    let mut index = index;
    index["manifests"] = serde_json::json!([{
        "mediaType": "application/vnd.oci.image.index.v1+json", "digest": digest, "size": text.len(),
        "annotations": {"org.opencontainers.image.ref.name": "latest"},
    }]);
    std::fs::write(dir.join("index.json"), index.to_string()).unwrap();
    let name = format!("{}/multi:1", registry.domain());
    layout.push(&format!("docker://{name}"), &["--all"]);

    let service = Service::new();
    let pull = |platform: Option<&str>| {
        let options = PullOptions {
            platform: platform.map(|text| Platform::parse(text).unwrap()),
            ..PullOptions::default()
        };
        service.images.pull(&reference(&name), &options, &Silent)
    };
    let pulled = pull(None).unwrap();
    assert_eq!(pulled.digest, digest);
    assert_eq!(
        service.images.get(&name, None).unwrap().config.architecture,
        host.architecture
    );
    let error = pull(Some("linux/riscv64")).unwrap_err();
    assert_eq!(
        error.to_string(),
        "no matching manifest for linux/riscv64 in the manifest list entries"
    );
    assert_eq!(error.code(), ErrorCode::NotFound);
    pull(Some("linux/s390x")).unwrap();
    assert_eq!(
        service.images.get(&name, None).unwrap().config.architecture,
        "s390x"
    );
}

#[test]
fn failures_in_dockers_words() {
    let registry = RegistryServer::start(None);
    let domain = registry.domain();
    Layout::busybox().push(&format!("docker://{domain}/box:1"), &[]);
    let service = Service::new();
    let pull = |name: &str| {
        service
            .images
            .pull(&reference(name), &PullOptions::default(), &Silent)
            .unwrap_err()
    };
    let error = pull(&format!("{domain}/box:nope"));
    assert_eq!(
        error.to_string(),
        format!("manifest for {domain}/box:nope not found: manifest unknown: manifest unknown")
    );
    assert_eq!(error.code(), ErrorCode::NotFound);
    let error = pull(&format!("{domain}/none"));
    assert!(
        matches!(
            error,
            Error::ManifestUnknown { .. } | Error::RepositoryUnknown { .. }
        ),
        "{error}"
    );
    let port = common::free_port();
    let error = pull(&format!("127.0.0.1:{port}/x"));
    assert_eq!(
        error.to_string(),
        format!(
            "Get \"http://127.0.0.1:{port}/v2/x/manifests/latest\": dial tcp 127.0.0.1:{port}: connect: connection refused"
        )
    );
    assert_eq!(error.code(), ErrorCode::Internal);
    assert!(service.images.list(&Default::default()).unwrap().is_empty());
}

#[test]
fn passwords() {
    // bcrypt of "secret".
    let hash = "$2b$04$uZ4NEoH6aXTdQw.LHljQSOREkaP2/0EbFPee2oFg7zyrZYs/I0Pba";
    let registry = RegistryServer::start(Some(("me", hash)));
    let name = format!("{}/box:1", registry.domain());
    Layout::busybox().push(&format!("docker://{name}"), &["--dest-creds", "me:secret"]);
    let service = Service::new();
    let pull = |password: Option<&str>| {
        let options = PullOptions {
            credentials: password.map_or_else(Credentials::default, |password| Credentials {
                username: "me".into(),
                password: password.into(),
                ..Credentials::default()
            }),
            ..PullOptions::default()
        };
        service.images.pull(&reference(&name), &options, &Silent)
    };
    let error = pull(None).unwrap_err();
    assert!(
        error.to_string().ends_with("no basic auth credentials"),
        "{error}"
    );
    let error = pull(Some("wrong")).unwrap_err();
    assert_eq!(error.to_string(), "unauthorized: authentication required");
    // At 401 the docker CLI would ask for a password.
    assert_eq!(error.code(), ErrorCode::Internal);
    pull(Some("secret")).unwrap();

    let login = |password: &str| {
        let credentials = Credentials {
            username: "me".into(),
            password: password.into(),
            ..Credentials::default()
        };
        service
            .images
            .authenticate(&registry.domain(), &credentials)
    };
    assert_eq!(login("secret").unwrap().status, "Login Succeeded");
    let error = login("wrong").unwrap_err();
    assert_eq!(
        error.to_string(),
        format!(
            "login attempt to http://{}/v2/ failed with status: 401 Unauthorized",
            registry.domain()
        )
    );
}
