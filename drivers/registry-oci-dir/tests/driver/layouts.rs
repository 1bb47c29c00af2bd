//! Directories that other tools and other engines write and read as well.

use std::fs;
use std::os::unix::fs::MetadataExt;

use gantry_plugin_sdk::registry::{BeginUpload, Search};
use gantry_plugin_sdk::{Call, ErrorCode, Registry};

use crate::place::{Place, at, blob, code, digest, run};

#[test]
fn tools_read_what_is_pushed_and_the_other_way_round() {
    let place = Place::new();
    let team = place.images().join("team");
    fs::create_dir(&team).unwrap();
    let theirs = team.join("theirs").display().to_string();
    run("umoci", &["init", "--layout", &theirs]);
    run("umoci", &["new", "--image", &format!("{theirs}:1.0")]);
    let found = place.resolve("team/theirs", "1.0").unwrap();
    let said = run(
        "skopeo",
        &["inspect", "-f", "{{.Digest}}", &format!("oci:{theirs}:1.0")],
    );
    assert_eq!(found, said);
    // Added to their layout, beside what they have.
    let (ours, _) = place.push("team/theirs", "2.0", b"layer");
    let said = run(
        "skopeo",
        &["inspect", "--raw", &format!("oci:{theirs}:2.0")],
    );
    assert_eq!(digest(said.as_bytes()), ours);
    assert_eq!(run("umoci", &["ls", "--layout", &theirs]), "1.0\n2.0");
    run("umoci", &["gc", "--layout", &theirs]);
    assert!(place.resolve("team/theirs", "2.0").is_ok());
    let tags = place.driver.list_tags(&Call::new("t"), at("team/theirs"));
    assert_eq!(tags.unwrap().tags, ["1.0", "2.0"]);

    // Without a name: what a tool makes of a directory alone.
    let unnamed = place.images().join("unnamed");
    let target = format!("oci:{}", unnamed.display());
    run(
        "skopeo",
        &[
            "copy",
            "--quiet",
            "--insecure-policy",
            &format!("oci:{theirs}:1.0"),
            &target,
        ],
    );
    assert_eq!(place.resolve("unnamed", "latest").unwrap(), found);
    assert_eq!(code(place.resolve("unnamed", "other")), ErrorCode::NotFound);
}

#[test]
fn one_image_in_two_repositories_is_one_file() {
    let place = Place::new();
    let (_, layer) = place.push("a", "1", b"shared layer");
    let request = BeginUpload {
        at: at("b/c"),
        digest: layer.clone(),
        mount_from: "a".into(),
    };
    let upload = place
        .driver
        .begin_upload(&Call::new("t"), request.clone())
        .unwrap();
    assert!(upload.mounted);
    let (one, two) = (
        blob(&place.images().join("a"), &layer),
        blob(&place.images().join("b/c"), &layer),
    );
    assert_eq!(
        fs::metadata(one).unwrap().ino(),
        fs::metadata(two).unwrap().ino()
    );
    let nowhere = BeginUpload {
        mount_from: "none".into(),
        ..request
    };
    let upload = place.driver.begin_upload(&Call::new("t"), nowhere).unwrap();
    assert!(!upload.mounted && !upload.location.is_empty());
}

#[test]
fn engines_share_a_directory() {
    let place = Place::new();
    std::thread::scope(|scope| {
        for engine in 0..4 {
            let place = &place;
            scope.spawn(move || {
                for round in 0..5 {
                    place.push(
                        "a",
                        &format!("t{engine}-{round}"),
                        format!("{engine}").as_bytes(),
                    );
                }
            });
        }
    });
    let tags = place.driver.list_tags(&Call::new("t"), at("a")).unwrap();
    assert_eq!(tags.tags.len(), 20, "{tags:?}");
}

#[test]
fn repositories_are_found() {
    let place = Place::new();
    for repository in ["a", "team/app", "team/tool"] {
        place.push(repository, "1", b"layer");
    }
    let search = |term: &str, limit| {
        let request = Search {
            endpoint: at("a").endpoint,
            term: term.into(),
            limit,
        };
        let found = place.driver.search(&Call::new("t"), request).unwrap();
        found
            .results
            .into_iter()
            .map(|r| r.name)
            .collect::<Vec<_>>()
    };
    assert_eq!(search("", 10), ["a", "team/app", "team/tool"]);
    assert_eq!(search("tool", 10), ["team/tool"]);
    assert_eq!(search("", 1), ["a"]);
}
