//! OCI image layouts on disk as a registry.
//!
//! The repository `team/app` is the layout in the directory `team/app` below the root, and its tags are the layout's
//! names (`org.opencontainers.image.ref.name`): what skopeo, umoci and others call `oci:<root>/team/app:<tag>`. Layouts
//! that they wrote can be pulled, what is pushed can be read by them.
//! Source: OCI image specification, *Image Layout*; for what a registry answers, OCI distribution specification.
//!
//! - A layout is read without a lock, also on a read-only file system. It is changed under a lock that other engines on
//!   the same directory take too; each change is one rename, after what it names has been flushed.
//! - A blob under a digest's name has that digest when it was pushed here. Others' are verified by core, as everybody's.
//! - Nothing in a layout leads out of it: symlinks inside are not followed.
//! - What has no name yet lies in `.gantry` inside the layout, which no repository can be called.

mod blob;
mod collect;
mod digest;
mod index;
mod layout;
mod lock;
mod manifest;
mod options;
mod referrers;
mod search;
mod upload;

use std::path::{Path, PathBuf};

use gantry_plugin_sdk::registry::{
    AuthReply, BeginUpload, BlobStat, Endpoint, FetchBlob, FetchReply, FinishUpload, GetManifest,
    GetReferrers, ManifestReply, PutManifest, PutReply, Repository, Search, SearchReply, StatBlob,
    Tags, Upload, UploadChunk, UploadStatus,
};
use gantry_plugin_sdk::{
    Call, Driver, DriverConfig, DriverError, DriverResult, ErrorCode, Health, Log, Registry,
};

use layout::Layout;
use options::Options;

/// A manifest of more bytes is refused.
const MAX_MANIFEST: u64 = 4 << 20;

/// The driver.
#[derive(Debug)]
pub struct OciDir {
    options: Options,
    /// Where repositories are unless the options say otherwise: the driver's own directory.
    own: PathBuf,
}

impl OciDir {
    /// Reads the options; looks at no directory yet, for it may be a medium that is not there yet.
    ///
    /// # Errors
    /// `InvalidArgument` for wrong options.
    pub fn new(config: DriverConfig, _log: Log) -> DriverResult<Self> {
        Ok(Self {
            options: Options::parse(config.options)?,
            own: config.root,
        })
    }

    /// The directory of a registry's repositories.
    fn root(&self, domain: &str) -> &Path {
        self.options.root(domain).unwrap_or(&self.own)
    }

    fn layout(&self, at: &Repository) -> DriverResult<Layout> {
        Layout::open(self.root(&at.endpoint.domain), &at.repository)
    }

    fn layout_to_change(&self, at: &Repository, call: &Call<'_>) -> DriverResult<Layout> {
        Layout::create(self.root(&at.endpoint.domain), &at.repository, call)
    }
}

impl Driver for OciDir {
    fn health(&self, _: &Call<'_>) -> DriverResult<Health> {
        let missing = self.options.missing_root();
        Ok(Health {
            healthy: true,
            message: missing
                .map(|root| format!("{} is not there", root.display()))
                .unwrap_or_default(),
            status: Vec::new(),
        })
    }
}

impl Registry for OciDir {
    /// The file system decides who may do what: any credentials are as good as none.
    fn authenticate(&self, _: &Call<'_>, request: Endpoint) -> DriverResult<AuthReply> {
        layout::open_root(self.root(&request.domain))?;
        Ok(AuthReply {
            status: "Login Succeeded".into(),
            identity_token: String::new(),
        })
    }
    fn resolve(&self, _: &Call<'_>, request: GetManifest) -> DriverResult<ManifestReply> {
        let reply = manifest::fetch(&self.layout(&request.at)?, &request.reference)?;
        Ok(ManifestReply {
            bytes: Vec::new(),
            ..reply
        })
    }
    fn fetch_manifest(&self, _: &Call<'_>, request: GetManifest) -> DriverResult<ManifestReply> {
        manifest::fetch(&self.layout(&request.at)?, &request.reference)
    }
    fn fetch_blob(&self, call: &Call<'_>, request: FetchBlob) -> DriverResult<FetchReply> {
        let layout = self.layout(&request.at)?;
        blob::fetch(&layout, &request.digest, request.offset, descriptor(call)?)
    }
    fn list_tags(&self, _: &Call<'_>, request: Repository) -> DriverResult<Tags> {
        manifest::tags(&self.layout(&request)?)
    }
    fn stat_blob(&self, call: &Call<'_>, request: StatBlob) -> DriverResult<BlobStat> {
        blob::stat(&self.layout(&request.at)?, &request.digest, call)
    }
    fn begin_upload(&self, call: &Call<'_>, request: BeginUpload) -> DriverResult<Upload> {
        let layout = self.layout_to_change(&request.at, call)?;
        let digest = request.digest.parse()?;
        if !request.mount_from.is_empty() {
            let from = Repository {
                repository: request.mount_from,
                ..request.at
            };
            // A repository that is not there is no reason not to upload.
            if self
                .layout(&from)
                .is_ok_and(|from| blob::link(&from, &layout, &digest))
            {
                return Ok(Upload {
                    location: String::new(),
                    mounted: true,
                    offset: 0,
                });
            }
        }
        upload::begin(&layout)
    }
    fn upload_chunk(&self, call: &Call<'_>, request: UploadChunk) -> DriverResult<Upload> {
        let layout = self.layout(&request.at)?;
        upload::chunk(&layout, &request, descriptor(call)?)
    }
    fn upload_status(&self, _: &Call<'_>, request: UploadStatus) -> DriverResult<Upload> {
        upload::status(&self.layout(&request.at)?, request.location)
    }
    fn finish_upload(&self, call: &Call<'_>, request: FinishUpload) -> DriverResult<()> {
        let layout = self.layout(&request.at)?;
        let source = match request.size {
            0 => None,
            _ => Some(descriptor(call)?),
        };
        upload::finish(&layout, &request, source)
    }
    fn put_manifest(&self, call: &Call<'_>, request: PutManifest) -> DriverResult<PutReply> {
        let layout = self.layout_to_change(&request.at, call)?;
        manifest::put(&layout, request, call)
    }
    fn delete_manifest(&self, call: &Call<'_>, request: GetManifest) -> DriverResult<()> {
        manifest::delete(&self.layout(&request.at)?, &request.reference, call)
    }
    fn referrers(&self, _: &Call<'_>, request: GetReferrers) -> DriverResult<ManifestReply> {
        referrers::of(&self.layout(&request.at)?, &request.digest)
    }
    fn search(&self, _: &Call<'_>, request: Search) -> DriverResult<SearchReply> {
        search::find(
            self.root(&request.endpoint.domain),
            &request.term,
            request.limit,
        )
    }
}

/// The descriptor that bytes come from or go to.
fn descriptor<'a>(call: &Call<'a>) -> DriverResult<std::os::fd::BorrowedFd<'a>> {
    let fd = call.fds.first().copied();
    fd.ok_or_else(|| DriverError::invalid("no descriptor for the bytes"))
}

fn unknown_manifest() -> DriverError {
    DriverError::not_found("manifest unknown: manifest unknown")
}

fn unknown_blob(digest: &str) -> DriverError {
    DriverError::not_found(format!("blob unknown: blob unknown to registry: {digest}"))
}

/// What a failed system call means; a file system that is full says so.
fn doing(what: &str, error: rustix::io::Errno) -> DriverError {
    match error {
        rustix::io::Errno::ROFS => {
            DriverError::new(ErrorCode::PermissionDenied, format!("{what}: {error}"))
        }
        _ => DriverError::io(what, &error.into()),
    }
}

gantry_plugin_sdk::plugin! {
    kind: registry,
    driver: OciDir,
    name: "oci-dir",
    capabilities: [
        "list_tags", "stat_blob", "begin_upload", "upload_chunk", "upload_status", "finish_upload", "put_manifest", "delete_manifest",
        "referrers", "search"
    ],
    options: r#"{
        "type": "object",
        "properties": {
            "root": {"type": "string", "description": "Directory of the repositories."},
            "roots": {
                "type": "object",
                "additionalProperties": {"type": "string"},
                "description": "Directories of single registries, by their names."
            }
        },
        "additionalProperties": false
    }"#
}
