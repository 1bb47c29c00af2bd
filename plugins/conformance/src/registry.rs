//! What is promised of a registry driver.

mod push;

use std::io::Read;
use std::os::fd::AsFd;
use std::sync::Arc;

use gantry_driver_api::registry::{FetchBlob, FetchReply, GetManifest, Repository};
use gantry_driver_api::{DriverResult, ErrorCode, Registry};
use sha2::{Digest, Sha256};

use crate::report::{Problem, Report, expect, refused, skip};
use crate::subject::call;
use crate::{RegistryFixture, Subject};

const ABSENT: &str = "sha256:0000000000000000000000000000000000000000000000000000000000000000";

struct Driver<'a> {
    driver: Arc<dyn Registry>,
    fixture: &'a RegistryFixture,
}

impl Driver<'_> {
    fn manifest(&self, reference: &str) -> GetManifest {
        GetManifest {
            at: self.fixture.repository.clone(),
            reference: reference.to_owned(),
        }
    }

    /// Fetches a blob through a pipe.
    fn fetch(
        &self,
        digest: &str,
        offset: u64,
    ) -> Result<(DriverResult<FetchReply>, Vec<u8>), Problem> {
        let (mut reader, writer) = std::io::pipe()?;
        let request = FetchBlob {
            at: self.fixture.repository.clone(),
            digest: digest.to_owned(),
            offset,
        };
        std::thread::scope(|scope| {
            let read = scope.spawn(move || {
                let mut bytes = Vec::new();
                reader.read_to_end(&mut bytes).map(|_| bytes)
            });
            let fds = [writer.as_fd()];
            let reply = self.driver.fetch_blob(&call().with_fds(&fds), request);
            drop(writer);
            let bytes = read.join().unwrap_or_else(|_| Ok(Vec::new()))?;
            Ok((reply, bytes))
        })
    }
}

fn digest(bytes: &[u8]) -> String {
    format!("sha256:{}", hex::encode(Sha256::digest(bytes)))
}

pub(crate) fn verify(subject: &Subject, fixture: Option<&RegistryFixture>, report: &mut Report) {
    type Run = fn(&Driver<'_>) -> Result<(), Problem>;
    let checks: &[(&'static str, Run)] = &[
        (
            "authenticate accepts what the registry accepts",
            authenticate,
        ),
        (
            "resolve and fetch_manifest agree, by tag and by digest",
            manifest,
        ),
        ("a blob arrives whole", blob),
        ("a blob can be resumed", resume),
        ("a reader that went away is Cancelled", broken_pipe),
        ("absent manifests and blobs are NotFound", absent),
        (
            "a registry that does not answer is Unavailable",
            unreachable,
        ),
        ("a blob that is sent is there", push::whole),
        ("a blob can be sent in pieces", push::in_pieces),
        ("other bytes than promised are refused", push::other_bytes),
        (
            "a manifest is there under its tag and digest; a tag moves",
            push::manifests,
        ),
        (
            "a manifest of what is not there is refused",
            push::missing_blobs,
        ),
        ("what is deleted is gone", push::deletion),
        ("what refers to a manifest is listed", push::referrers),
    ];
    for &(promise, run) in checks {
        report.check(promise, || {
            let Some(fixture) = fixture else {
                return skip("no registry was named");
            };
            let driver = subject
                .registry()
                .map_err(|e| Problem::Failed(e.to_string()))?;
            run(&Driver { driver, fixture })
        });
    }
}

fn authenticate(driver: &Driver<'_>) -> Result<(), Problem> {
    let endpoint = driver.fixture.repository.endpoint.clone();
    let reply = driver.driver.authenticate(&call(), endpoint)?;
    expect(!reply.status.is_empty(), || "it says nothing".into())
}

fn manifest(driver: &Driver<'_>) -> Result<(), Problem> {
    let tag = driver.manifest(&driver.fixture.tag);
    let resolved = driver.driver.resolve(&call(), tag.clone())?;
    let fetched = driver.driver.fetch_manifest(&call(), tag)?;
    expect(resolved.bytes.is_empty(), || {
        "resolve sent the document".into()
    })?;
    expect(resolved.media_type == fetched.media_type, || {
        format!("{} and {}", resolved.media_type, fetched.media_type)
    })?;
    expect(fetched.size == fetched.bytes.len() as u64, || {
        format!("size {}", fetched.size)
    })?;
    let found = digest(&fetched.bytes);
    for said in [&resolved.digest, &fetched.digest] {
        expect(said.is_empty() || *said == found, || {
            format!("{said} for {found}")
        })?;
    }
    if fetched.digest.is_empty() {
        return Ok(());
    }
    let again = driver
        .driver
        .fetch_manifest(&call(), driver.manifest(&found))?;
    expect(again.bytes == fetched.bytes, || {
        "by digest it is another".into()
    })
}

fn blob(driver: &Driver<'_>) -> Result<(), Problem> {
    let (reply, bytes) = driver.fetch(&driver.fixture.blob, 0)?;
    let reply = reply?;
    expect(reply.written == bytes.len() as u64, || {
        format!("{reply:?} for {}", bytes.len())
    })?;
    let found = digest(&bytes);
    expect(found == driver.fixture.blob, || {
        format!("the content is {found}")
    })
}

fn resume(driver: &Driver<'_>) -> Result<(), Problem> {
    let (_, whole) = driver.fetch(&driver.fixture.blob, 0)?;
    let half = whole.len() / 2;
    let (reply, rest) = driver.fetch(&driver.fixture.blob, half as u64)?;
    reply?;
    expect(rest == whole[half..], || {
        format!("{} bytes from {half} of {}", rest.len(), whole.len())
    })
}

fn broken_pipe(driver: &Driver<'_>) -> Result<(), Problem> {
    let (reader, writer) = std::io::pipe()?;
    drop(reader);
    let fds = [writer.as_fd()];
    let request = FetchBlob {
        at: driver.fixture.repository.clone(),
        digest: driver.fixture.blob.clone(),
        offset: 0,
    };
    refused(
        driver.driver.fetch_blob(&call().with_fds(&fds), request),
        ErrorCode::Cancelled,
    )
}

fn absent(driver: &Driver<'_>) -> Result<(), Problem> {
    let manifest = driver.manifest("verify-no-such-tag");
    refused(
        driver.driver.resolve(&call(), manifest.clone()),
        ErrorCode::NotFound,
    )?;
    refused(
        driver.driver.fetch_manifest(&call(), manifest),
        ErrorCode::NotFound,
    )?;
    let (reply, bytes) = driver.fetch(ABSENT, 0)?;
    refused(reply, ErrorCode::NotFound)?;
    expect(bytes.is_empty(), || "and yet something came".into())
}

fn unreachable(driver: &Driver<'_>) -> Result<(), Problem> {
    if !driver.fixture.repository.endpoint.url.starts_with("http") {
        return skip("there is no network in it");
    }
    let mut repository: Repository = driver.fixture.repository.clone();
    // Port 1 of this machine: refused at once.
    repository.endpoint.url = "http://127.0.0.1:1".to_owned();
    repository.endpoint.domain = "127.0.0.1:1".to_owned();
    let request = GetManifest {
        at: repository,
        reference: driver.fixture.tag.clone(),
    };
    refused(
        driver.driver.resolve(&call(), request),
        ErrorCode::Unavailable,
    )
}
