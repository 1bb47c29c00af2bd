//! The driver as the engine calls it, on directories that other tools wrote and read.

use std::fs;
use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, SystemTime};

use gantry_plugin_sdk::registry::{
    BeginUpload, Endpoint, FetchBlob, FinishUpload, GetManifest, PutManifest, Repository, Search,
    StatBlob, UploadChunk,
};
use gantry_plugin_sdk::{Call, DriverConfig, DriverError, DriverResult, ErrorCode, Log, Registry};
use gantry_registry_oci_dir::OciDir;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const INDEX: &str = "application/vnd.oci.image.index.v1+json";

struct Place {
    dir: tempfile::TempDir,
    driver: OciDir,
}

impl Place {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("own")).unwrap();
        fs::create_dir(dir.path().join("images")).unwrap();
        let options = json!({"root": dir.path().join("images"), "roots": {"usb.local": dir.path().join("usb")}});
        let config = DriverConfig {
            name: "oci-dir".into(),
            root: dir.path().join("own"),
            run: dir.path().join("own"),
            tag: "00000000".into(),
            options,
        };
        let driver = OciDir::new(config, Log::none()).unwrap();
        Self { dir, driver }
    }

    fn images(&self) -> PathBuf {
        self.dir.path().join("images")
    }

    /// Sends a blob, and returns its digest.
    fn send(&self, repository: &str, bytes: &[u8]) -> DriverResult<String> {
        let begin = BeginUpload {
            at: at(repository),
            digest: digest(bytes),
            mount_from: String::new(),
        };
        let upload = self.driver.begin_upload(&Call::new("t"), begin)?;
        self.finish(repository, &upload.location, &digest(bytes), bytes)?;
        Ok(digest(bytes))
    }

    fn finish(
        &self,
        repository: &str,
        location: &str,
        digest: &str,
        bytes: &[u8],
    ) -> DriverResult<()> {
        let (reader, mut writer) = std::io::pipe().unwrap();
        let request = FinishUpload {
            at: at(repository),
            location: location.into(),
            digest: digest.into(),
            size: bytes.len() as u64,
        };
        std::thread::scope(|scope| {
            // A driver that refuses does not read to the end.
            scope.spawn(move || writer.write_all(bytes));
            let fds = [reader.as_fd()];
            let done = self
                .driver
                .finish_upload(&Call::new("t").with_fds(&fds), request);
            drop(reader);
            done
        })
    }

    /// Makes an image of one layer under a tag, and returns the digests of manifest and layer.
    fn push(&self, repository: &str, tag: &str, layer: &[u8]) -> (String, String) {
        let text = format!(
            r#"{{"os":"linux","architecture":"amd64","author":"{tag}","rootfs":{{"type":"layers"}}}}"#
        );
        let config = self.send(repository, text.as_bytes()).unwrap();
        let size = layer.len();
        let layer = self.send(repository, layer).unwrap();
        let document = json!({"schemaVersion": 2, "mediaType": MANIFEST,
            "config": {"mediaType": "application/vnd.oci.image.config.v1+json", "digest": config, "size": text.len()},
            "layers": [{"mediaType": "application/vnd.oci.image.layer.v1.tar", "digest": layer, "size": size}]});
        let put = self.put(repository, tag, MANIFEST, &document).unwrap();
        (put, layer)
    }

    fn put(
        &self,
        repository: &str,
        tag: &str,
        kind: &str,
        document: &Value,
    ) -> DriverResult<String> {
        let request = PutManifest {
            at: at(repository),
            reference: tag.into(),
            media_type: kind.into(),
            bytes: document.to_string().into(),
        };
        Ok(self.driver.put_manifest(&Call::new("t"), request)?.digest)
    }

    fn resolve(&self, repository: &str, reference: &str) -> DriverResult<String> {
        let request = manifest(repository, reference);
        Ok(self.driver.resolve(&Call::new("t"), request)?.digest)
    }

    fn delete(&self, repository: &str, reference: &str) -> DriverResult<()> {
        let request = manifest(repository, reference);
        self.driver.delete_manifest(&Call::new("t"), request)
    }

    fn fetch(&self, repository: &str, digest: &str) -> DriverResult<Vec<u8>> {
        let (mut reader, writer) = std::io::pipe().unwrap();
        let request = FetchBlob {
            at: at(repository),
            digest: digest.into(),
            offset: 0,
        };
        std::thread::scope(|scope| {
            let read = scope.spawn(move || {
                let mut bytes = Vec::new();
                reader.read_to_end(&mut bytes).unwrap();
                bytes
            });
            let fds = [writer.as_fd()];
            let reply = self
                .driver
                .fetch_blob(&Call::new("t").with_fds(&fds), request);
            drop(writer);
            let bytes = read.join().unwrap();
            reply.map(|_| bytes)
        })
    }
}

fn at(repository: &str) -> Repository {
    Repository {
        endpoint: Endpoint {
            domain: "airgap.local".into(),
            url: "https://airgap.local".into(),
            ..Endpoint::default()
        },
        repository: repository.into(),
    }
}

fn manifest(repository: &str, reference: &str) -> GetManifest {
    GetManifest {
        at: at(repository),
        reference: reference.into(),
    }
}

fn digest(bytes: &[u8]) -> String {
    format!("sha256:{}", hex::encode(Sha256::digest(bytes)))
}

fn blob(layout: &Path, digest: &str) -> PathBuf {
    layout.join("blobs").join(digest.replace(':', "/"))
}

fn code<T: std::fmt::Debug>(result: Result<T, DriverError>) -> ErrorCode {
    result.unwrap_err().code
}

fn run(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output().unwrap();
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {arguments:?}: {text}");
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

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
fn an_upload_that_was_cut_off_goes_on() {
    let place = Place::new();
    let bytes = vec![9; 10_000];
    let begin = BeginUpload {
        at: at("a"),
        digest: digest(&bytes),
        mount_from: String::new(),
    };
    let location = place
        .driver
        .begin_upload(&Call::new("t"), begin)
        .unwrap()
        .location;
    let chunk = |offset: u64, size: u64, bytes: &[u8]| {
        let (reader, mut writer) = std::io::pipe().unwrap();
        writer.write_all(bytes).unwrap();
        drop(writer);
        let request = UploadChunk {
            at: at("a"),
            location: location.clone(),
            offset,
            size,
        };
        let fds = [reader.as_fd()];
        place
            .driver
            .upload_chunk(&Call::new("t").with_fds(&fds), request)
    };
    assert_eq!(chunk(0, 4_000, &bytes[..4_000]).unwrap().offset, 4_000);
    // The sender died in the middle of the second chunk, and comes again.
    assert_eq!(
        code(chunk(4_000, 4_000, &bytes[..100])),
        ErrorCode::Unavailable
    );
    assert_eq!(code(chunk(9_000, 1, b"x")), ErrorCode::InvalidArgument);
    assert_eq!(chunk(4_000, 4_000, &bytes[..4_000]).unwrap().offset, 8_000);
    place
        .finish("a", &location, &digest(&bytes), &bytes[..2_000])
        .unwrap();
    assert_eq!(place.fetch("a", &digest(&bytes)).unwrap(), bytes);
    assert_eq!(
        code(place.finish("a", &location, &digest(&bytes), b"")),
        ErrorCode::NotFound
    );
    let uploads = place.images().join("a/.gantry/uploads");
    assert_eq!(fs::read_dir(uploads).unwrap().count(), 0);
}

#[test]
fn deletion_frees_what_only_that_image_needs() {
    let place = Place::new();
    let (first, old) = place.push("a", "1", b"old");
    let (_, kept) = place.push("a", "2", b"kept");
    let layout = place.images().join("a");
    let age = |digest: &str| {
        let long_ago = SystemTime::now() - Duration::from_secs(48 * 3600);
        let file = fs::File::options()
            .write(true)
            .open(blob(&layout, digest))
            .unwrap();
        file.set_modified(long_ago).unwrap();
    };
    for digest in [&first, &old, &kept] {
        age(digest);
    }
    place.delete("a", "1").unwrap();
    assert_eq!(code(place.resolve("a", "1")), ErrorCode::NotFound);
    assert_eq!(
        place.resolve("a", &first).unwrap(),
        first,
        "without a name it is still there"
    );
    // Somebody is about to push an image of this layer.
    let stat = StatBlob {
        at: at("a"),
        digest: old.clone(),
    };
    assert_eq!(
        place.driver.stat_blob(&Call::new("t"), stat).unwrap().size,
        3
    );
    place.delete("a", &first).unwrap();
    assert_eq!(code(place.resolve("a", &first)), ErrorCode::NotFound);
    assert!(!blob(&layout, &first).exists());
    assert!(blob(&layout, &old).exists() && blob(&layout, &kept).exists());
    assert!(place.resolve("a", "2").is_ok());
    assert_eq!(code(place.delete("a", &first)), ErrorCode::NotFound);
}

#[test]
fn an_index_leads_to_its_images_and_keeps_them() {
    let place = Place::new();
    let (image, layer) = place.push("a", "1", b"layer");
    let document = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": [
        {"mediaType": MANIFEST, "digest": image, "size": 1}]});
    place.put("a", "all", INDEX, &document).unwrap();
    // As other tools write it: the index alone is listed.
    let path = place.images().join("a/index.json");
    let mut index: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    index["manifests"]
        .as_array_mut()
        .unwrap()
        .retain(|m| m["mediaType"] == INDEX);
    fs::write(&path, index.to_string()).unwrap();
    assert_eq!(place.resolve("a", &image).unwrap(), image);
    let (extra, _) = place.push("a", "2", b"other");
    for digest in [&image, &layer] {
        let file = fs::File::options()
            .write(true)
            .open(blob(&place.images().join("a"), digest))
            .unwrap();
        file.set_modified(SystemTime::UNIX_EPOCH).unwrap();
    }
    place.delete("a", &extra).unwrap();
    assert_eq!(place.fetch("a", &layer).unwrap(), b"layer");
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
fn what_is_wrong_is_said() {
    let place = Place::new();
    place.push("a", "1", b"layer");
    let absent = digest(b"absent");
    assert_eq!(code(place.resolve("none", "1")), ErrorCode::NotFound);
    assert!(
        place
            .resolve("none", "1")
            .unwrap_err()
            .message
            .starts_with("name unknown")
    );
    assert!(
        place
            .resolve("a", "2")
            .unwrap_err()
            .message
            .starts_with("manifest unknown")
    );
    assert_eq!(code(place.fetch("a", &absent)), ErrorCode::NotFound);
    assert_eq!(
        code(place.fetch("a", "sha256:../../index.json")),
        ErrorCode::InvalidArgument
    );
    for name in ["../a", "a/blobs", ".gantry", "a/../../etc"] {
        assert_eq!(
            code(place.send(name, b"x")),
            ErrorCode::InvalidArgument,
            "{name}"
        );
    }
    let missing =
        json!({"schemaVersion": 2, "config": {"digest": absent, "size": 1}, "layers": []});
    let error = place.put("a", "3", MANIFEST, &missing).unwrap_err();
    assert!(
        error.message.starts_with("manifest blob unknown"),
        "{error}"
    );
    let error = place.put("a", &absent, MANIFEST, &json!({})).unwrap_err();
    assert!(error.message.starts_with("digest invalid"), "{error}");
    assert_eq!(
        code(place.put("a", "a/b", MANIFEST, &json!({}))),
        ErrorCode::InvalidArgument
    );
    // The medium of this registry is not there, and must not be made on the disk below.
    let mut usb = at("a");
    usb.endpoint.domain = "usb.local".into();
    assert_eq!(
        code(place.driver.list_tags(&Call::new("t"), usb.clone())),
        ErrorCode::Unavailable
    );
    let begin = BeginUpload {
        at: usb,
        digest: absent,
        mount_from: String::new(),
    };
    assert_eq!(
        code(place.driver.begin_upload(&Call::new("t"), begin)),
        ErrorCode::Unavailable
    );
    assert!(!place.dir.path().join("usb").exists());
}

#[test]
fn a_hostile_layout_leads_nowhere() {
    let place = Place::new();
    let secret = place.dir.path().join("secret");
    fs::write(&secret, "secret").unwrap();
    let (_, layer) = place.push("a", "1", b"layer");
    let layout = place.images().join("a");
    fs::remove_file(blob(&layout, &layer)).unwrap();
    symlink(&secret, blob(&layout, &layer)).unwrap();
    assert!(place.fetch("a", &layer).is_err());
    fs::remove_file(blob(&layout, &layer)).unwrap();
    run("mkfifo", &[blob(&layout, &layer).to_str().unwrap()]);
    assert_eq!(code(place.fetch("a", &layer)), ErrorCode::DataLoss);

    symlink("/", place.images().join("out")).unwrap();
    assert!(place.send("out/evil", b"x").is_err());
    let mut text = fs::read_to_string(layout.join("index.json")).unwrap();
    text.truncate(text.len() / 2);
    fs::write(layout.join("index.json"), text).unwrap();
    assert_eq!(code(place.resolve("a", "1")), ErrorCode::Unavailable);
    fs::write(
        layout.join("oci-layout"),
        r#"{"imageLayoutVersion":"2.0.0"}"#,
    )
    .unwrap();
    assert_eq!(code(place.resolve("a", "1")), ErrorCode::FailedPrecondition);
    assert_eq!(fs::read(&secret).unwrap(), b"secret");
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
