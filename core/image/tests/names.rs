//! Names, lookups and removal, in Docker's words.

mod common;

use std::collections::BTreeMap;
use std::io::Cursor;

use common::{Service, forced, gently};
use gantry_driver_api::{Call, ErrorCode};
use gantry_image::{Error, ImageUse, ImportOptions, ListQuery, Removed, Silent};
use gantry_model::{ImageId, Reference};

/// An image of one small file.
fn make(service: &Service, name: &str, content: &str, label: &str) -> ImageId {
    let mut archive = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_size(content.len() as u64);
    header.set_mode(0o644);
    archive
        .append_data(&mut header, "file", content.as_bytes())
        .unwrap();
    let options = ImportOptions {
        name: (!name.is_empty()).then(|| Reference::parse(name).unwrap()),
        changes: vec![format!("LABEL {label}")],
        ..ImportOptions::default()
    };
    let bytes = archive.into_inner().unwrap();
    service
        .images
        .import(&mut Cursor::new(bytes), &options, &Silent)
        .unwrap()
}

fn untagged(name: &str) -> Removed {
    Removed::Untagged(name.into())
}

fn conflict(result: gantry_image::Result<Vec<Removed>>) -> String {
    let error = result.unwrap_err();
    assert_eq!(error.code(), ErrorCode::Conflict, "{error}");
    error.to_string()
}

#[test]
fn lookups() {
    let service = Service::new();
    let id = make(&service, "box", "a", "k=v");
    for name in [
        "box",
        "box:latest",
        "docker.io/library/box",
        "library/box:latest",
        id.as_str(),
        id.hex(),
        id.short(),
        &id.as_str()[..20],
        &format!("box@{id}"),
    ] {
        assert_eq!(service.images.find(name).unwrap(), id, "{name}");
    }
    for (name, message) in [
        ("none", "No such image: none:latest".to_owned()),
        ("none:1", "No such image: none:1".into()),
        ("box:2", "No such image: box:2".into()),
        (
            "reg.example:5000/x",
            "No such image: reg.example:5000/x:latest".into(),
        ),
        ("ffffffffffff", "No such image: ffffffffffff:latest".into()),
    ] {
        let error = service.images.find(name).unwrap_err();
        assert_eq!(
            (error.to_string(), error.code()),
            (message, ErrorCode::NotFound)
        );
    }
    let error = service.images.find("Box").unwrap_err();
    assert_eq!(error.code(), ErrorCode::InvalidArgument);
    assert_eq!(
        error.to_string(),
        "invalid reference format: repository name (library/Box) must be lowercase"
    );
}

#[test]
fn removal_by_name() {
    let service = Service::new();
    let id = make(&service, "box:1", "a", "k=v");
    service
        .images
        .tag("box:1", &Reference::parse("box:2").unwrap())
        .unwrap();
    let uses = [ImageUse {
        container: "c".repeat(64),
        image: id.clone(),
        running: false,
    }];
    assert_eq!(
        service.images.remove("box:1", &gently(), &uses).unwrap(),
        [untagged("box:1")]
    );
    assert_eq!(
        conflict(service.images.remove("box:2", &gently(), &uses)),
        format!(
            "conflict: unable to remove repository reference \"box:2\" (must force) - container cccccccccccc is using its referenced image {}",
            id.short()
        )
    );
    // By force the name goes; the image stays for its container, nameless.
    let root = service
        .images
        .prepare_container(&"c".repeat(64), &id, None)
        .unwrap();
    let running = [ImageUse {
        running: true,
        ..uses[0].clone()
    }];
    assert_eq!(
        service.images.remove("box:2", &forced(), &running).unwrap(),
        [untagged("box:2")]
    );
    let list = service.images.list(&ListQuery::default()).unwrap();
    assert_eq!(
        (list[0].id.clone(), list[0].repo_tags.len()),
        (id.clone(), 0)
    );
    assert_eq!(
        conflict(service.images.remove(id.short(), &forced(), &running)),
        format!(
            "conflict: unable to delete {} (cannot be forced) - image is being used by running container cccccccccccc",
            id.short()
        )
    );
    assert_eq!(
        conflict(service.images.remove(id.short(), &gently(), &uses)),
        format!(
            "conflict: unable to delete {} (must be forced) - image is being used by stopped container cccccccccccc",
            id.short()
        )
    );
    // The layer goes with the container that stands on it.
    assert_eq!(
        service.images.remove(id.short(), &forced(), &uses).unwrap(),
        [Removed::Deleted(id.to_string())]
    );
    assert_eq!(service.storage.list(&Call::new("t"), ()).unwrap().len(), 2);
    service
        .images
        .remove_container(&root.driver, &"c".repeat(64))
        .unwrap();
    assert!(
        service
            .storage
            .list(&Call::new("t"), ())
            .unwrap()
            .is_empty()
    );
    assert!(service.content.list().unwrap().is_empty());
    assert_eq!(
        service.actions(),
        ["tag", "import", "tag", "untag", "untag", "delete"]
    );
}

#[test]
fn removal_by_identifier() {
    let service = Service::new();
    let id = make(&service, "box:1", "a", "k=v");
    service
        .images
        .tag("box:1", &Reference::parse("other").unwrap())
        .unwrap();
    assert_eq!(
        conflict(service.images.remove(id.short(), &gently(), &[])),
        format!(
            "conflict: unable to delete {} (must be forced) - image is referenced in multiple repositories",
            id.short()
        )
    );
    let chain = &service
        .images
        .get("other", None)
        .unwrap()
        .config
        .rootfs
        .diff_ids[0];
    let removed = service.images.remove(id.short(), &forced(), &[]).unwrap();
    assert_eq!(
        removed,
        [
            untagged("box:1"),
            untagged("other:latest"),
            Removed::Deleted(id.to_string()),
            Removed::Deleted(chain.to_string()),
        ]
    );
    assert_eq!(
        serde_json::to_string(&removed[0]).unwrap(),
        r#"{"Untagged":"box:1"}"#
    );
    assert!(matches!(
        service.images.remove(id.short(), &forced(), &[]),
        Err(Error::NoSuchImage(_))
    ));
    assert!(service.content.list().unwrap().is_empty());
    // One name: the identifier alone suffices.
    let id = make(&service, "box:1", "a", "k=v");
    assert_eq!(
        service
            .images
            .remove(id.short(), &gently(), &[])
            .unwrap()
            .len(),
        3
    );
}

#[test]
fn shared_layers_stay() {
    let service = Service::new();
    let one = make(&service, "one", "same", "k=1");
    let two = make(&service, "two", "same", "k=2");
    assert_ne!(one, two);
    let removed = service.images.remove("one", &gently(), &[]).unwrap();
    assert_eq!(
        removed,
        [untagged("one:latest"), Removed::Deleted(one.to_string())]
    );
    assert!(service.images.prepare_container("c", &two, None).is_ok());
}

#[test]
fn lists_and_filters() {
    let service = Service::new();
    let one = make(&service, "a/one:1", "1", "k=1");
    let two = make(&service, "two", "22", "k=2");
    let loose = make(&service, "", "333", "z=2");
    let list = |filters: &[(&str, &str)]| -> Vec<ImageId> {
        let mut map: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for (name, value) in filters {
            map.entry((*name).into()).or_default().push((*value).into());
        }
        let query = ListQuery {
            filters: map,
            ..ListQuery::default()
        };
        let list = service.images.list(&query).unwrap();
        list.into_iter().map(|image| image.id).collect()
    };
    assert_eq!(
        list(&[]),
        [loose.clone(), two.clone(), one.clone()],
        "newest first"
    );
    assert_eq!(list(&[("dangling", "true")]), std::slice::from_ref(&loose));
    assert_eq!(list(&[("dangling", "false")]), [two.clone(), one.clone()]);
    assert_eq!(list(&[("label", "k")]), [two.clone(), one.clone()]);
    assert_eq!(list(&[("label", "k=1")]), std::slice::from_ref(&one));
    assert_eq!(list(&[("label!", "k")]), std::slice::from_ref(&loose));
    assert_eq!(list(&[("reference", "a/*")]), std::slice::from_ref(&one));
    assert_eq!(
        list(&[("reference", "two:lat*")]),
        std::slice::from_ref(&two)
    );
    assert_eq!(list(&[("before", "two")]), std::slice::from_ref(&one));
    assert_eq!(list(&[("since", "two")]), std::slice::from_ref(&loose));
    assert_eq!(list(&[("until", "1h")]), [] as [ImageId; 0]);
    for (name, value) in [("nonsense", "x"), ("dangling", "x"), ("until", "x")] {
        let query = ListQuery {
            filters: BTreeMap::from([(name.into(), vec![value.into()])]),
            ..ListQuery::default()
        };
        assert!(
            matches!(service.images.list(&query), Err(Error::Invalid(_))),
            "{name}"
        );
    }
    let json = serde_json::to_value(service.images.list(&ListQuery::default()).unwrap()).unwrap();
    assert_eq!(json[2]["RepoTags"], serde_json::json!(["a/one:1"]));
    assert_eq!(
        (
            &json[2]["Size"],
            &json[2]["Containers"],
            &json[2]["SharedSize"]
        ),
        (&1.into(), &(-1).into(), &(-1).into())
    );
    let (removed, bytes) = service
        .images
        .prune(false, &ListQuery::default(), &[])
        .unwrap();
    assert_eq!((removed.len(), bytes), (2, 3));
    assert_eq!(list(&[]), [two, one]);
}

#[test]
fn a_name_moves() {
    let service = Service::new();
    let one = make(&service, "box", "1", "k=1");
    let two = make(&service, "box", "2", "k=1");
    assert_eq!(service.images.find("box").unwrap(), two);
    let inspect = service
        .images
        .inspect(one.as_str(), &Default::default())
        .unwrap();
    assert!(inspect.repo_tags.is_empty());
    let digest = Reference::parse(&format!("x@sha256:{}", "a".repeat(64))).unwrap();
    let error = service.images.tag("box", &digest).unwrap_err();
    assert_eq!(
        error.to_string(),
        "refusing to create a tag with a digest reference"
    );
}
