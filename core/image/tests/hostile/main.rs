//! Archives, manifests and configurations of somebody malicious, through every way in: each is an error that says what is
//! wrong, nothing outside the data-root is touched, and nothing is left behind.

#[path = "../../src/extract/tests/builder.rs"]
mod builder;
#[path = "../common/mod.rs"]
mod common;
mod documents;
mod full_disk;
mod layers;
mod loads;
mod pulls;

use std::io::Cursor;
use std::path::PathBuf;

use common::Service;
use gantry_content::{Error as Blob, Hasher};
use gantry_driver_api::Call;
use gantry_image::{Error, ImportOptions, LoadOptions, PullOptions, Settings, Silent};
use gantry_model::Reference;
use serde_json::{Value, json};

/// A service with something outside of its data-root to hit.
struct Victim {
    service: Service,
    dir: tempfile::TempDir,
}

impl Victim {
    fn new(late: bool) -> Self {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("secret"), "untouched").unwrap();
        std::fs::create_dir(dir.path().join("data")).unwrap();
        let settings = Settings {
            max_attempts: 1,
            ..Settings::default()
        };
        Self {
            service: Service::at(&dir.path().join("data"), settings, late),
            dir,
        }
    }

    fn secret(&self) -> PathBuf {
        self.dir.path().join("secret")
    }

    fn load(&self, archive: Vec<u8>) -> Result<(), Error> {
        let images = &self.service.images;
        images
            .load(&mut Cursor::new(archive), &LoadOptions::default(), &Silent)
            .map(drop)
    }

    fn import(&self, archive: Vec<u8>) -> Result<(), Error> {
        let images = &self.service.images;
        images
            .import(
                &mut Cursor::new(archive),
                &ImportOptions::default(),
                &Silent,
            )
            .map(drop)
    }

    /// Pulls the image `evil:1` of the registry on disk.
    fn pull(&self) -> Result<(), Error> {
        let reference = Reference::parse("disk.local/evil:1").unwrap();
        let options = PullOptions::default();
        let images = &self.service.images;
        images.pull(&reference, &options, &Silent).map(drop)
    }

    /// What failed has left nothing: no image, no snapshot, no half a blob, nothing outside.
    fn assert_unharmed(&self, what: &str) {
        let service = &self.service;
        let images = service.images.list(&Default::default()).unwrap();
        assert!(images.is_empty(), "{what}: {images:?}");
        let snapshots = service.storage.list(&Call::new("t"), ()).unwrap();
        assert!(snapshots.is_empty(), "{what}: {snapshots:?}");
        let ingests = service.root.join("content/ingest");
        let ingests: Vec<_> = std::fs::read_dir(ingests).unwrap().collect();
        assert!(ingests.is_empty(), "{what}: {ingests:?}");
        assert_eq!(
            std::fs::read(self.secret()).unwrap(),
            b"untouched",
            "{what}"
        );
        let mut outside: Vec<_> = std::fs::read_dir(self.dir.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name())
            .collect();
        outside.sort();
        assert_eq!(outside, ["data", "secret"], "{what}");
    }

    /// As [`Victim::assert_unharmed`], and no blob either. A pull keeps what it has fetched for the next one.
    fn assert_empty(&self, what: &str) {
        self.assert_unharmed(what);
        let blobs = self.service.content.list().unwrap();
        assert!(blobs.is_empty(), "{what}: {blobs:?}");
    }
}

/// The error is the document's fault and says so in these words.
fn assert_refused(what: &str, result: Result<(), Error>, words: &str) {
    let error = result.expect_err(what);
    assert!(
        error.to_string().contains(words),
        "{what}: {error} ({error:?})"
    );
    let fault = match &error {
        Error::Malformed(_)
        | Error::Layer(_)
        | Error::Reference(_)
        | Error::NoPlatform(_)
        | Error::WrongPlatform(_)
        | Error::ManifestUnknown { .. }
        | Error::Content(Blob::Mismatch { .. } | Blob::Size { .. } | Blob::TooLarge { .. }) => true,
        Error::Driver(error) => !error.message.contains("panicked"),
        _ => false,
    };
    assert!(fault, "{what}: {error:?}");
}

fn digest(bytes: &[u8]) -> String {
    let mut hasher = Hasher::sha256();
    hasher.update(bytes);
    hasher.finish().to_string()
}

/// A configuration for layers of these diff IDs.
fn config(diff_ids: &[String]) -> Value {
    json!({"os": "linux", "architecture": gantry_model::Platform::host().architecture,
        "rootfs": {"type": "layers", "diff_ids": diff_ids}})
}
