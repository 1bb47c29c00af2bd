//! A driver on a directory of its own, and what is done to it over and over.

use std::fs;
use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::Command;

use gantry_plugin_sdk::registry::{
    BeginUpload, Endpoint, FetchBlob, FinishUpload, GetManifest, PutManifest, Repository,
};
use gantry_plugin_sdk::{Call, DriverConfig, DriverError, DriverResult, ErrorCode, Log, Registry};
use gantry_registry_oci_dir::OciDir;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

pub(crate) const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub(crate) const INDEX: &str = "application/vnd.oci.image.index.v1+json";

/// A driver with a directory of images, and one of a medium that is not there.
pub(crate) struct Place {
    pub(crate) dir: tempfile::TempDir,
    pub(crate) driver: OciDir,
}

impl Place {
    pub(crate) fn new() -> Self {
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

    pub(crate) fn images(&self) -> PathBuf {
        self.dir.path().join("images")
    }

    /// Sends a blob, and returns its digest.
    pub(crate) fn send(&self, repository: &str, bytes: &[u8]) -> DriverResult<String> {
        let begin = BeginUpload {
            at: at(repository),
            digest: digest(bytes),
            mount_from: String::new(),
        };
        let upload = self.driver.begin_upload(&Call::new("t"), begin)?;
        self.finish(repository, &upload.location, &digest(bytes), bytes)?;
        Ok(digest(bytes))
    }

    pub(crate) fn finish(
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
    pub(crate) fn push(&self, repository: &str, tag: &str, layer: &[u8]) -> (String, String) {
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

    pub(crate) fn put(
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

    pub(crate) fn resolve(&self, repository: &str, reference: &str) -> DriverResult<String> {
        let request = manifest(repository, reference);
        Ok(self.driver.resolve(&Call::new("t"), request)?.digest)
    }

    pub(crate) fn delete(&self, repository: &str, reference: &str) -> DriverResult<()> {
        let request = manifest(repository, reference);
        self.driver.delete_manifest(&Call::new("t"), request)
    }

    pub(crate) fn fetch(&self, repository: &str, digest: &str) -> DriverResult<Vec<u8>> {
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

pub(crate) fn at(repository: &str) -> Repository {
    Repository {
        endpoint: Endpoint {
            domain: "airgap.local".into(),
            url: "https://airgap.local".into(),
            ..Endpoint::default()
        },
        repository: repository.into(),
    }
}

pub(crate) fn manifest(repository: &str, reference: &str) -> GetManifest {
    GetManifest {
        at: at(repository),
        reference: reference.into(),
    }
}

pub(crate) fn digest(bytes: &[u8]) -> String {
    format!("sha256:{}", hex::encode(Sha256::digest(bytes)))
}

pub(crate) fn blob(layout: &Path, digest: &str) -> PathBuf {
    layout.join("blobs").join(digest.replace(':', "/"))
}

pub(crate) fn code<T: std::fmt::Debug>(result: Result<T, DriverError>) -> ErrorCode {
    result.unwrap_err().code
}

pub(crate) fn run(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output().unwrap();
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {arguments:?}: {text}");
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}
