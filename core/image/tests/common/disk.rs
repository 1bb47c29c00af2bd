//! A registry that says whatever a test has put into a directory: `<repository>/<tag or digest>` is a manifest, with its
//! media type beside it in `.type`, `<repository>/blobs/<digest>` a blob.

use std::fs::{self, File};
use std::io::{self, Seek, SeekFrom};
use std::path::PathBuf;

use gantry_driver_api::registry::{
    AuthReply, Endpoint, FetchBlob, FetchReply, GetManifest, ManifestReply,
};
use gantry_driver_api::{Call, Driver, DriverError, DriverResult, Registry};

pub(crate) struct DiskRegistry {
    root: PathBuf,
}

impl DiskRegistry {
    pub(crate) fn new(root: PathBuf) -> Self {
        Self { root }
    }
}

impl Driver for DiskRegistry {}

impl Registry for DiskRegistry {
    fn authenticate(&self, _: &Call<'_>, _: Endpoint) -> DriverResult<AuthReply> {
        Err(DriverError::internal("not asked for"))
    }

    fn resolve(&self, call: &Call<'_>, request: GetManifest) -> DriverResult<ManifestReply> {
        self.fetch_manifest(call, request)
    }

    fn fetch_manifest(&self, _: &Call<'_>, request: GetManifest) -> DriverResult<ManifestReply> {
        let path = self
            .root
            .join(request.at.repository)
            .join(request.reference);
        let bytes = fs::read(&path).map_err(|e| DriverError::io("manifest unknown", &e))?;
        let media_type = fs::read_to_string(format!("{}.type", path.display()));
        Ok(ManifestReply {
            media_type: media_type.unwrap_or_default(),
            digest: String::new(),
            size: bytes.len() as u64,
            bytes,
            rate_limit: Vec::new(),
        })
    }

    fn fetch_blob(&self, call: &Call<'_>, request: FetchBlob) -> DriverResult<FetchReply> {
        let blobs = self.root.join(request.at.repository).join("blobs");
        let error = |e: io::Error| DriverError::io("blob unknown", &e);
        let mut blob = File::open(blobs.join(request.digest)).map_err(error)?;
        blob.seek(SeekFrom::Start(request.offset)).map_err(error)?;
        let mut target = File::from(call.fds[0].try_clone_to_owned().map_err(error)?);
        let written = io::copy(&mut blob, &mut target).map_err(error)?;
        Ok(FetchReply {
            offset: request.offset,
            written,
        })
    }
}
