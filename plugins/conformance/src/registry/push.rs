//! What is promised of sending. Everything is sent to the fixture's repository and deleted again as far as the driver can.

use std::io::{Seek, SeekFrom, Write};
use std::os::fd::AsFd;

use gantry_driver_api::registry::{
    BeginUpload, FinishUpload, GetReferrers, PutManifest, StatBlob, Upload, UploadChunk,
    UploadStatus,
};
use gantry_driver_api::{DriverResult, ErrorCode};
use serde_json::{Value, json};

use super::{ABSENT, Driver, digest};
use crate::report::{Problem, expect, refused, skip};
use crate::subject::call;

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const TAG: &str = "gantry-verify";

/// The reply; a driver that does not send at all is left alone.
fn supported<T>(result: DriverResult<T>) -> Result<T, Problem> {
    match result {
        Err(error) if error.code == ErrorCode::NotImplemented => skip("the driver does not do it"),
        other => Ok(other?),
    }
}

impl Driver<'_> {
    fn begin(&self, digest: &str) -> Result<Upload, Problem> {
        supported(self.driver.begin_upload(
            &call(),
            BeginUpload {
                at: self.fixture.repository.clone(),
                digest: digest.to_owned(),
                mount_from: String::new(),
            },
        ))
    }

    fn chunk(&self, location: &str, offset: u64, bytes: &[u8]) -> DriverResult<Upload> {
        let file = holding(bytes);
        let request = UploadChunk {
            at: self.fixture.repository.clone(),
            location: location.to_owned(),
            offset,
            size: bytes.len() as u64,
        };
        let fds = [file.as_fd()];
        self.driver.upload_chunk(&call().with_fds(&fds), request)
    }

    fn finish(&self, location: &str, digest: &str, bytes: &[u8]) -> DriverResult<()> {
        let file = holding(bytes);
        let request = FinishUpload {
            at: self.fixture.repository.clone(),
            location: location.to_owned(),
            digest: digest.to_owned(),
            size: bytes.len() as u64,
        };
        let fds = [file.as_fd()];
        self.driver.finish_upload(&call().with_fds(&fds), request)
    }

    fn send(&self, bytes: &[u8]) -> Result<String, Problem> {
        let digest = digest(bytes);
        let upload = self.begin(&digest)?;
        supported(self.finish(&upload.location, &digest, bytes))?;
        Ok(digest)
    }

    fn stat(&self, digest: &str) -> DriverResult<u64> {
        let request = StatBlob {
            at: self.fixture.repository.clone(),
            digest: digest.to_owned(),
        };
        Ok(self.driver.stat_blob(&call(), request)?.size)
    }

    fn put(&self, reference: &str, document: &Value) -> DriverResult<String> {
        let request = PutManifest {
            at: self.fixture.repository.clone(),
            reference: reference.to_owned(),
            media_type: MANIFEST.to_owned(),
            bytes: document.to_string().into_bytes(),
        };
        Ok(self.driver.put_manifest(&call(), request)?.digest)
    }

    /// Sends a configuration and returns the document of an image of no layers, and its digest.
    fn image(&self, mark: &str) -> Result<(Value, String), Problem> {
        let config =
            json!({"os": "linux", "author": mark, "rootfs": {"type": "layers", "diff_ids": []}});
        let config = config.to_string();
        let document = json!({
            "schemaVersion": 2, "mediaType": MANIFEST, "layers": [],
            "config": {
                "mediaType": "application/vnd.oci.image.config.v1+json",
                "digest": self.send(config.as_bytes())?, "size": config.len(),
            },
        });
        let digest = digest(document.to_string().as_bytes());
        Ok((document, digest))
    }

    fn referring(&self, digest: &str) -> Result<Vec<String>, Problem> {
        let request = GetReferrers {
            at: self.fixture.repository.clone(),
            digest: digest.to_owned(),
        };
        let reply = supported(self.driver.referrers(&call(), request))?;
        let index: Value =
            serde_json::from_slice(&reply.bytes).map_err(|e| Problem::Failed(e.to_string()))?;
        let manifests = index["manifests"].as_array().cloned();
        let manifests = manifests.ok_or_else(|| Problem::Failed(format!("no index: {index}")))?;
        Ok(manifests
            .iter()
            .filter_map(|m| m["digest"].as_str().map(str::to_owned))
            .collect())
    }
}

/// A file at whose current position `bytes` begin.
fn holding(bytes: &[u8]) -> std::fs::File {
    let mut file = tempfile::tempfile().expect("temporary files can be made");
    file.write_all(bytes)
        .and_then(|()| file.seek(SeekFrom::Start(0)))
        .expect("temporary files can be written");
    file
}

pub(super) fn whole(driver: &Driver<'_>) -> Result<(), Problem> {
    let bytes = vec![7; 100_000];
    let digest = driver.send(&bytes)?;
    let size = supported(driver.stat(&digest))?;
    expect(size == bytes.len() as u64, || format!("size {size}"))?;
    let (reply, back) = driver.fetch(&digest, 0)?;
    reply?;
    expect(back == bytes, || "other bytes came back".into())
}

pub(super) fn in_pieces(driver: &Driver<'_>) -> Result<(), Problem> {
    let bytes: Vec<u8> = (0..=255).cycle().take(50_000).collect();
    let digest = digest(&bytes);
    let upload = driver.begin(&digest)?;
    let upload = supported(driver.chunk(&upload.location, 0, &bytes[..20_000]))?;
    let request = UploadStatus {
        at: driver.fixture.repository.clone(),
        location: upload.location.clone(),
    };
    let upload = match driver.driver.upload_status(&call(), request) {
        Err(error) if error.code == ErrorCode::NotImplemented => upload,
        other => {
            let status = other?;
            expect(status.offset == 20_000, || format!("{status:?}"))?;
            status
        }
    };
    let upload = driver.chunk(&upload.location, 20_000, &bytes[20_000..40_000])?;
    driver.finish(&upload.location, &digest, &bytes[40_000..])?;
    let (reply, back) = driver.fetch(&digest, 0)?;
    reply?;
    expect(back == bytes, || "other bytes came back".into())
}

pub(super) fn other_bytes(driver: &Driver<'_>) -> Result<(), Problem> {
    let wanted = digest(b"what was promised");
    let upload = driver.begin(&wanted)?;
    refused(
        driver.finish(&upload.location, &wanted, b"what is sent"),
        ErrorCode::InvalidArgument,
    )?;
    refused(driver.stat(&wanted), ErrorCode::NotFound)
}

pub(super) fn manifests(driver: &Driver<'_>) -> Result<(), Problem> {
    let (document, digest) = driver.image("one")?;
    let said = supported(driver.put(TAG, &document))?;
    expect(said.is_empty() || said == digest, || {
        format!("{said} for {digest}")
    })?;
    for reference in [TAG, &digest] {
        let fetched = driver
            .driver
            .fetch_manifest(&call(), driver.manifest(reference))?;
        expect(fetched.bytes == document.to_string().into_bytes(), || {
            format!("{reference} is another")
        })?;
        expect(fetched.media_type == MANIFEST, || fetched.media_type)?;
    }
    let tags = supported(
        driver
            .driver
            .list_tags(&call(), driver.fixture.repository.clone()),
    )?;
    expect(tags.tags.iter().any(|tag| tag == TAG), || {
        format!("{tags:?}")
    })?;

    let (other, moved) = driver.image("two")?;
    driver.put(TAG, &other)?;
    let resolved = driver.driver.resolve(&call(), driver.manifest(TAG))?;
    expect(resolved.digest == moved, || "the tag did not move".into())?;
    driver
        .driver
        .fetch_manifest(&call(), driver.manifest(&digest))?;
    Ok(())
}

pub(super) fn missing_blobs(driver: &Driver<'_>) -> Result<(), Problem> {
    let (mut document, _) = driver.image("one")?;
    document["config"]["digest"] = ABSENT.into();
    match driver.put("gantry-verify-missing", &document) {
        Err(error) if error.code == ErrorCode::NotImplemented => skip("the driver does not do it"),
        Err(error) if matches!(error.code, ErrorCode::InvalidArgument | ErrorCode::NotFound) => {
            Ok(())
        }
        other => Err(Problem::Failed(format!("{other:?}"))),
    }
}

pub(super) fn deletion(driver: &Driver<'_>) -> Result<(), Problem> {
    let (document, digest) = driver.image("three")?;
    supported(driver.put("gantry-verify-gone", &document))?;
    supported(
        driver
            .driver
            .delete_manifest(&call(), driver.manifest(&digest)),
    )?;
    for reference in ["gantry-verify-gone", &digest] {
        let resolved = driver.driver.resolve(&call(), driver.manifest(reference));
        refused(resolved, ErrorCode::NotFound)?;
    }
    refused(
        driver
            .driver
            .delete_manifest(&call(), driver.manifest(&digest)),
        ErrorCode::NotFound,
    )
}

pub(super) fn referrers(driver: &Driver<'_>) -> Result<(), Problem> {
    let (image, subject) = driver.image("signed")?;
    supported(driver.put(TAG, &image))?;
    expect(driver.referring(&subject)?.is_empty(), || {
        "there are some already".into()
    })?;
    let (mut signature, _) = driver.image("signature")?;
    signature["subject"] =
        json!({"mediaType": MANIFEST, "digest": subject, "size": image.to_string().len()});
    let own = digest(signature.to_string().as_bytes());
    driver.put(&own, &signature)?;
    let found = driver.referring(&subject)?;
    // Registries from before that list answer with an empty one.
    expect(found.is_empty() || found == [own], || format!("{found:?}"))
}
