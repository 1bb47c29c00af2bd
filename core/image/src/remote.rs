//! Looking into a registry, and tidying there, without fetching an image.

use std::fs::File;
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;

use gantry_content::Hasher;
use gantry_driver_api::registry::{
    Credentials, FetchBlob, GetManifest, GetReferrers, ManifestReply, Repository,
};
use gantry_driver_api::{Call, DriverError, ErrorCode, Registry};
use gantry_model::{Digest, Reference};
use rustix::fs::{MemfdFlags, SealFlags};
use serde::Deserialize;

use crate::manifest::{self, Document};
use crate::pull::resolve::{Resolver, translate};
use crate::record::Descriptor;
use crate::service::Shared;
use crate::{Error, Result, Silent};

/// What a registry holds under a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RemoteImage {
    /// Media type of the manifest or index.
    pub media_type: String,
    /// Its digest.
    pub digest: Digest,
    /// The document, byte for byte.
    pub document: Vec<u8>,
    /// The platforms that it is for; empty where nobody says, or has asked.
    pub platforms: Vec<RemotePlatform>,
}

/// What an image is for, as its index or configuration says it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct RemotePlatform {
    /// `amd64`.
    pub architecture: String,
    /// `linux`.
    pub os: String,
    /// For Windows.
    #[serde(rename = "os.version")]
    pub os_version: String,
    /// For Windows.
    #[serde(rename = "os.features")]
    pub os_features: Vec<String>,
    /// `v7`.
    pub variant: String,
}

pub(crate) fn inspect(
    shared: &Shared,
    reference: &Reference,
    credentials: &Credentials,
    platforms: bool,
) -> Result<RemoteImage> {
    let registry = shared
        .drivers
        .registry_for(reference.domain(), reference.path())?;
    let mut resolver = Resolver {
        shared,
        registry: registry.as_ref(),
        reference,
        progress: &Silent,
        servers: shared.servers(reference.domain(), credentials)?,
    };
    let (reply, digest) = resolver.fetch(&crate::pull::tag_or_digest(reference))?;
    let media_type = match manifest::media_type(&reply.bytes) {
        Some(own) => own,
        None => reply.media_type.clone(),
    };
    let platforms = match manifest::parse(&reply.bytes, &reply.media_type) {
        _ if !platforms => Vec::new(),
        Ok(Document::Index(_)) => of_index(&reply.bytes),
        Ok(Document::Manifest(manifest)) => of_config(resolver, &manifest.config),
        // Something that is no image has no platform.
        Err(_) => Vec::new(),
    };
    Ok(RemoteImage {
        media_type,
        digest,
        document: reply.bytes,
        platforms,
    })
}

fn of_index(document: &[u8]) -> Vec<RemotePlatform> {
    #[derive(Deserialize)]
    struct Index {
        manifests: Vec<Entry>,
    }
    #[derive(Deserialize)]
    struct Entry {
        #[serde(default)]
        platform: Option<RemotePlatform>,
    }
    let index: Option<Index> = serde_json::from_slice(document).ok();
    let entries = index.map(|index| index.manifests).unwrap_or_default();
    entries
        .into_iter()
        .map(|entry| entry.platform.unwrap_or_default())
        .collect()
}

/// What the configuration of a single image says. That it cannot be had changes nothing about the manifest.
fn of_config(resolver: Resolver<'_>, config: &Descriptor) -> Vec<RemotePlatform> {
    let repository = resolver.reference.path();
    let registry = resolver.registry;
    for endpoint in resolver.endpoints() {
        let at = Repository {
            endpoint,
            repository: repository.into(),
        };
        match small_blob(registry, at, config) {
            Ok(bytes) => {
                let platform: Option<RemotePlatform> = serde_json::from_slice(&bytes).ok();
                return platform
                    .filter(|found| !found.os.is_empty() || !found.architecture.is_empty())
                    .into_iter()
                    .collect();
            }
            Err(error) => tracing::debug!(%error, "a configuration cannot be fetched"),
        }
    }
    Vec::new()
}

/// A blob in memory, verified. The driver cannot write more of it than its descriptor says.
fn small_blob(registry: &dyn Registry, at: Repository, blob: &Descriptor) -> Result<Vec<u8>> {
    let io = |error: rustix::io::Errno| Error::io("memory for a blob", error.into());
    let memory = rustix::fs::memfd_create("blob", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)
        .map_err(io)?;
    rustix::fs::ftruncate(&memory, blob.size).map_err(io)?;
    rustix::fs::fcntl_add_seals(&memory, SealFlags::GROW | SealFlags::SHRINK).map_err(io)?;
    let request = FetchBlob {
        at,
        digest: blob.digest.to_string(),
        offset: 0,
    };
    let fds = [memory.as_fd()];
    registry.fetch_blob(&Call::new("inspect").with_fds(&fds), request)?;
    let mut bytes = vec![0; usize::try_from(blob.size).unwrap_or(0)];
    File::from(memory)
        .read_exact_at(&mut bytes, 0)
        .map_err(|error| Error::io("memory for a blob", error))?;
    let mut hasher = Hasher::for_digest(&blob.digest);
    hasher.update(&bytes);
    match hasher.finish() == blob.digest {
        true => Ok(bytes),
        false => Err(Error::Malformed(format!(
            "verification failed for digest {}",
            blob.digest
        ))),
    }
}

pub(crate) fn referrers(
    shared: &Shared,
    reference: &Reference,
    credentials: &Credentials,
) -> Result<Vec<u8>> {
    let registry = shared
        .drivers
        .registry_for(reference.domain(), reference.path())?;
    let subject = digest(shared, registry.as_ref(), reference, credentials)?;
    let mut servers = shared.servers(reference.domain(), credentials)?;
    servers.retain(|server| server.pulls);
    let reply = shared.ask(servers, |endpoint| {
        let request = GetReferrers {
            at: Repository {
                endpoint: endpoint.clone(),
                repository: reference.path().into(),
            },
            digest: subject.to_string(),
        };
        registry.referrers(&Call::new("inspect"), request)
    });
    let ManifestReply { bytes: index, .. } = reply.map_err(|error| translate(error, reference))?;
    match manifest::parse(&index, manifest::OCI_INDEX)? {
        Document::Index(_) => Ok(index),
        Document::Manifest(_) => Err(Error::Malformed(
            "the registry's list of referrers is no index".into(),
        )),
    }
}

pub(crate) fn delete(
    shared: &Shared,
    reference: &Reference,
    credentials: &Credentials,
) -> Result<Digest> {
    let registry = shared
        .drivers
        .registry_for(reference.domain(), reference.path())?;
    // Registries delete what a digest names; few know how to take away a tag alone.
    let digest = digest(shared, registry.as_ref(), reference, credentials)?;
    let servers = shared.own_servers(reference.domain(), credentials)?;
    let deleted = shared.ask(servers, |endpoint| {
        let request = GetManifest {
            at: Repository {
                endpoint: endpoint.clone(),
                repository: reference.path().into(),
            },
            reference: digest.to_string(),
        };
        registry.delete_manifest(&Call::new("delete"), request)
    });
    match deleted {
        Ok(()) => Ok(digest),
        Err(error) if error.code == ErrorCode::NotFound => Err(translate(error, reference)),
        Err(error) => Err(error.into()),
    }
}

/// What a reference stands for at the registry itself.
fn digest(
    shared: &Shared,
    registry: &dyn Registry,
    reference: &Reference,
    credentials: &Credentials,
) -> Result<Digest> {
    if let Some(digest) = reference.digest() {
        return Ok(digest.clone());
    }
    let servers = shared.own_servers(reference.domain(), credentials)?;
    let reply = shared.ask(servers, |endpoint| {
        let request = GetManifest {
            at: Repository {
                endpoint: endpoint.clone(),
                repository: reference.path().into(),
            },
            reference: crate::pull::tag_or_digest(reference),
        };
        registry.resolve(&Call::new("inspect"), request)
    });
    let reply = reply.map_err(|error| translate(error, reference))?;
    reply.digest.parse().map_err(|_| {
        let text = "the registry does not say which manifest a tag stands for";
        Error::Driver(DriverError::internal(text))
    })
}
