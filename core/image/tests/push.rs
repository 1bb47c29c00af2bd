//! Pushing to a real registry.

mod common;

use common::{Layout, Recorder, RegistryServer, Relay, Service, run};
use gantry_driver_api::registry::Credentials;
use gantry_image::{ImportOptions, PullOptions, PushOptions, Silent};
use gantry_model::Reference;

fn reference(text: &str) -> Reference {
    Reference::parse(text).unwrap()
}

fn digest_there(name: &str) -> String {
    let text = run(
        "skopeo",
        &[
            "inspect",
            "--tls-verify=false",
            "--format",
            "{{.Digest}}",
            &format!("docker://{name}"),
        ],
    );
    text.trim().to_owned()
}

fn push(service: &Service, name: &str) -> Result<Recorder, gantry_image::Error> {
    let recorder = Recorder::default();
    service
        .images
        .push(&reference(name), &PushOptions::default(), &recorder)?;
    Ok(recorder)
}

#[test]
fn what_was_pulled_is_pushed_byte_for_byte() {
    let registry = RegistryServer::start(None);
    let name = format!("{}/box:1", registry.domain());
    Layout::busybox().push(&format!("docker://{name}"), &[]);
    let service = Service::new();
    let pulled = service
        .images
        .pull(&reference(&name), &PullOptions::default(), &Silent)
        .unwrap();

    // To another registry: everything is sent.
    let other = RegistryServer::start(None);
    let there = format!("{}/deep/er/box:2", other.domain());
    service.images.tag(&name, &reference(&there)).unwrap();
    let said = push(&service, &there).unwrap();
    assert_eq!(digest_there(&there), pulled.digest.to_string());
    let lines = said.lines();
    assert_eq!(
        lines[0],
        format!(
            "The push refers to repository [{}/deep/er/box]",
            other.domain()
        )
    );
    assert_eq!(
        lines
            .iter()
            .filter(|line| line.ends_with(": Pushed"))
            .count(),
        3,
        "{lines:?}"
    );
    assert!(
        said.has("Preparing") && said.has("2: digest: sha256:"),
        "{lines:?}"
    );

    // Again: nothing.
    let said = push(&service, &there).unwrap();
    assert!(
        !said.has("Pushed") && said.has("Layer already exists"),
        "{:?}",
        said.lines()
    );

    // To another repository of that registry: taken from the first.
    let third = format!("{}/third:1", other.domain());
    service.images.tag(&name, &reference(&third)).unwrap();
    let said = push(&service, &third).unwrap();
    assert!(
        said.has("Mounted from deep/er/box") && !said.has("Pushed"),
        "{:?}",
        said.lines()
    );
    assert_eq!(digest_there(&third), pulled.digest.to_string());
    let digests = service
        .images
        .inspect(&name, &Default::default())
        .unwrap()
        .repo_digests;
    assert_eq!(digests.len(), 3, "{digests:?}");
    assert!(service.actions().contains(&"push".to_owned()));
}

#[test]
fn plain_layers_are_compressed_once() {
    let registry = RegistryServer::start(None);
    let service = Service::new();
    let name = format!("{}/made:1", registry.domain());
    let mut archive = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_size(1 << 20);
    header.set_mode(0o644);
    header.set_cksum();
    archive
        .append_data(
            &mut header,
            "file",
            std::io::Read::take(std::io::repeat(7), 1 << 20),
        )
        .unwrap();
    let archive = archive.into_inner().unwrap();
    let options = ImportOptions {
        name: Some(reference(&name)),
        ..ImportOptions::default()
    };
    let id = service
        .images
        .import(&mut &archive[..], &options, &Silent)
        .unwrap();
    push(&service, &name).unwrap();
    let raw = run(
        "skopeo",
        &[
            "inspect",
            "--tls-verify=false",
            "--raw",
            &format!("docker://{name}"),
        ],
    );
    let manifest: serde_json::Value = serde_json::from_str(&raw).unwrap();
    assert_eq!(manifest["config"]["digest"], id.to_string());
    let size = manifest["layers"][0]["size"].as_u64().unwrap();
    assert!(size < 1 << 16, "{size}");
    let digest = digest_there(&name);

    // It comes back as the same image, and goes out again as the same manifest.
    let fresh = Service::new();
    let pulled = fresh
        .images
        .pull(&reference(&name), &PullOptions::default(), &Silent)
        .unwrap();
    assert_eq!((pulled.id, pulled.digest.to_string()), (id, digest.clone()));
    let again = format!("{}/again:1", registry.domain());
    service.images.tag(&name, &reference(&again)).unwrap();
    push(&service, &again).unwrap();
    assert_eq!(digest_there(&again), digest);
}

#[test]
fn a_cut_upload_is_sent_again() {
    let registry = RegistryServer::start(None);
    let name = format!("{}/box:1", registry.domain());
    Layout::busybox().push(&format!("docker://{name}"), &[]);
    let service = Service::new();
    service
        .images
        .pull(&reference(&name), &PullOptions::default(), &Silent)
        .unwrap();
    let other = RegistryServer::start(None);
    let relay = Relay::start(other.port);
    *relay.upload_cuts.lock().unwrap() = vec![100_000, 1 << 20, 50_000];
    let there = format!("{}/box:1", relay.domain());
    service.images.tag(&name, &reference(&there)).unwrap();
    push(&service, &there).unwrap();
    assert!(relay.upload_cuts.lock().unwrap().is_empty());
    let direct = format!("{}/box:1", other.domain());
    assert_eq!(digest_there(&direct), digest_there(&name));
}

#[test]
fn refusals() {
    // bcrypt of `secret`.
    let hash = "$2y$05$f8LZ1usWEJcoBwbOI3iOtO6fn11nsxsXK6QbFOf3qk6GpXTuJFFK2";
    let registry = RegistryServer::start(Some(("alice", hash)));
    let service = Service::new();
    let name = format!("{}/box:1", registry.domain());
    let text = |result: Result<Recorder, gantry_image::Error>| {
        result.err().expect("a refusal").to_string()
    };
    assert_eq!(
        text(push(&service, &name)),
        format!("tag does not exist: {name}")
    );
    let bare = format!("{}/box", registry.domain());
    assert_eq!(
        text(push(&service, &bare)),
        format!("An image does not exist locally with the tag: {bare}")
    );
    let options = ImportOptions {
        name: Some(reference(&name)),
        ..ImportOptions::default()
    };
    let empty = tar::Builder::new(Vec::new()).into_inner().unwrap();
    service
        .images
        .import(&mut &empty[..], &options, &Silent)
        .unwrap();
    assert!(
        text(push(&service, &name))
            .starts_with("denied: requested access to the resource is denied")
    );
    let options = PushOptions {
        credentials: Credentials {
            username: "alice".into(),
            password: "secret".into(),
            ..Credentials::default()
        },
        ..PushOptions::default()
    };
    // Without a tag: all tags of the name.
    let second = format!("{bare}:2");
    service.images.tag(&name, &reference(&second)).unwrap();
    let recorder = Recorder::default();
    service
        .images
        .push(&reference(&bare), &options, &recorder)
        .unwrap();
    assert!(
        recorder.has("1: digest:") && recorder.has("2: digest:"),
        "{:?}",
        recorder.lines()
    );
}
