//! A registry that is all in the options.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{ErrorKind, Write};

use gantry_plugin_sdk::registry::{
    AuthReply, Endpoint, FetchBlob, FetchReply, GetManifest, ManifestReply, Repository, Tags,
};
use gantry_plugin_sdk::{
    Call, Driver, DriverConfig, DriverError, DriverResult, ErrorCode, Log, Registry, serde_json,
};
use serde::Deserialize;

use crate::Script;

/// What is to be fetched.
#[derive(Debug, Default, Deserialize)]
struct Store {
    /// Documents by `repository@reference`.
    #[serde(default)]
    manifests: BTreeMap<String, String>,
    /// Contents by digest.
    #[serde(default)]
    blobs: BTreeMap<String, String>,
}

/// The driver.
pub struct MockRegistry {
    script: Script,
    store: Store,
}

impl MockRegistry {
    /// See [`Script`]; further options are `manifests` and `blobs`.
    ///
    /// # Errors
    /// What the script says.
    pub fn new(config: DriverConfig, _: Log) -> DriverResult<Self> {
        Ok(Self {
            script: Script::parse(&config.options)?,
            store: serde_json::from_value(config.options)
                .map_err(|e| DriverError::invalid(format!("options: {e}")))?,
        })
    }

    fn manifest(&self, request: &GetManifest) -> DriverResult<ManifestReply> {
        let key = format!("{}@{}", request.at.repository, request.reference);
        let text = self
            .store
            .manifests
            .get(&key)
            .ok_or_else(|| DriverError::not_found("manifest unknown"))?;
        Ok(ManifestReply {
            media_type: "application/vnd.oci.image.manifest.v1+json".to_owned(),
            digest: String::new(),
            size: text.len() as u64,
            bytes: text.clone().into_bytes(),
            rate_limit: Vec::new(),
        })
    }
}

impl Driver for MockRegistry {}

impl Registry for MockRegistry {
    fn authenticate(&self, _: &Call<'_>, request: Endpoint) -> DriverResult<AuthReply> {
        self.script.gate("authenticate")?;
        if request.credentials.password == "wrong" {
            return Err(DriverError::new(
                ErrorCode::Unauthenticated,
                "incorrect username or password",
            ));
        }
        Ok(AuthReply {
            status: "Login Succeeded".to_owned(),
            identity_token: String::new(),
        })
    }

    fn resolve(&self, _: &Call<'_>, request: GetManifest) -> DriverResult<ManifestReply> {
        self.script.gate("resolve")?;
        Ok(ManifestReply {
            bytes: Vec::new(),
            ..self.manifest(&request)?
        })
    }

    fn fetch_manifest(&self, _: &Call<'_>, request: GetManifest) -> DriverResult<ManifestReply> {
        self.script.gate("fetch_manifest")?;
        self.manifest(&request)
    }

    fn fetch_blob(&self, call: &Call<'_>, request: FetchBlob) -> DriverResult<FetchReply> {
        self.script.gate("fetch_blob")?;
        let blob = self
            .store
            .blobs
            .get(&request.digest)
            .ok_or_else(|| DriverError::not_found("blob unknown"))?;
        let rest = usize::try_from(request.offset)
            .ok()
            .and_then(|n| blob.as_bytes().get(n..));
        let rest = rest.ok_or_else(|| DriverError::invalid("range not satisfiable"))?;
        let fd = call
            .fds
            .first()
            .ok_or_else(|| DriverError::invalid("no descriptor"))?;
        let fd = fd
            .try_clone_to_owned()
            .map_err(|e| DriverError::io("using the descriptor", &e))?;
        match File::from(fd).write_all(rest) {
            Ok(()) => Ok(FetchReply {
                offset: request.offset,
                written: rest.len() as u64,
            }),
            Err(e) if e.kind() == ErrorKind::BrokenPipe => Err(DriverError::new(
                ErrorCode::Cancelled,
                "the reader went away",
            )),
            Err(e) => Err(DriverError::io("writing", &e)),
        }
    }

    fn list_tags(&self, _: &Call<'_>, request: Repository) -> DriverResult<Tags> {
        self.script.gate("list_tags")?;
        let prefix = format!("{}@", request.repository);
        let keys = self.store.manifests.keys();
        let tags = keys.filter_map(|key| key.strip_prefix(&prefix).map(str::to_owned));
        Ok(Tags {
            tags: tags.filter(|tag| !tag.contains(':')).collect(),
        })
    }
}
