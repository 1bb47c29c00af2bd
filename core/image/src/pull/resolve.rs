//! From a reference to the manifest of one image, through the servers of its registry.

use gantry_content::Hasher;
use gantry_driver_api::registry::{Endpoint, GetManifest, ManifestReply, Repository};
use gantry_driver_api::{Call, DriverError, ErrorCode, Registry};
use gantry_model::{Digest, Reference};

use super::endpoint::Server;
use super::retry;
use crate::manifest::{IndexEntry, MAX_MANIFEST};
use crate::service::Shared;
use crate::{Error, Progress, Result};

/// Attempts at a manifest: a user waits in front of it.
pub(crate) const ATTEMPTS: u32 = 3;

/// Asks the servers of one repository. A mirror that fails is not asked again.
pub(crate) struct Resolver<'a> {
    pub(crate) shared: &'a Shared,
    pub(crate) registry: &'a dyn Registry,
    pub(crate) reference: &'a Reference,
    pub(crate) progress: &'a dyn Progress,
    /// In the order in which to ask; who has answered comes first.
    pub(crate) servers: Vec<Server>,
}

impl Resolver<'_> {
    /// The digest that the reference stands for, without fetching anything; `None` when nobody says.
    pub(super) fn head(&mut self, reference: &str) -> Option<Digest> {
        while let Some(at) = self.next(0, reference) {
            let server = self.servers[at].clone();
            let request = self.request(&server.endpoint, reference);
            match self.registry.resolve(&Call::new("pull"), request) {
                Ok(reply) => {
                    self.shared.note_limit(&server, &reply);
                    return reply.digest.parse().ok();
                }
                Err(error) if server.own => {
                    tracing::debug!(%error, "the registry does not tell a tag's digest");
                    return None;
                }
                Err(error) => self.give_up(at, &error),
            }
        }
        None
    }

    /// Fetches a manifest and verifies it against `reference` when that is a digest, else against what the server says.
    pub(crate) fn fetch(&mut self, reference: &str) -> Result<(ManifestReply, Digest)> {
        let mut failure = DriverError::internal("no registry to ask").into();
        let mut from = 0;
        while let Some(at) = self.next(from, reference) {
            let server = self.servers[at].clone();
            match self.fetch_from(&server, at, reference) {
                Ok(found) => {
                    self.shared.answered(&server.endpoint);
                    self.servers[..=at].rotate_right(1);
                    return Ok(found);
                }
                Err(error) if self.progress.cancelled() => {
                    tracing::debug!(%error, "a pull was given up");
                    return Err(Error::Cancelled);
                }
                Err(error) if server.own => {
                    // A registry that answers on one scheme has answered for all.
                    let unreachable = matches!(&error, Error::Driver(error) if error.code == ErrorCode::Unavailable);
                    failure = error;
                    if !unreachable {
                        break;
                    }
                    from = at + 1;
                }
                Err(error) => self.give_up(at, &error),
            }
        }
        Err(match failure {
            Error::Driver(error) => translate(error, self.reference),
            other => other,
        })
    }

    /// A document of an index and its media type: from here, or fetched and kept.
    pub(super) fn document(&mut self, entry: &IndexEntry) -> Result<(Vec<u8>, String)> {
        let content = &self.shared.content;
        if content.claim(&entry.digest) {
            let bytes = content.read(&entry.digest, MAX_MANIFEST)?;
            return Ok((bytes, entry.media_type.clone()));
        }
        let (reply, _) = self.fetch(entry.digest.as_str())?;
        content.write_as(&reply.bytes, &entry.digest)?;
        Ok((reply.bytes, reply.media_type))
    }

    fn fetch_from(
        &self,
        server: &Server,
        at: usize,
        reference: &str,
    ) -> Result<(ManifestReply, Digest)> {
        let endpoint = &server.endpoint;
        let fetch = || {
            let request = self.request(endpoint, reference);
            self.registry.fetch_manifest(&Call::new("pull"), request)
        };
        // Where there is somebody else to ask, or the same server on another scheme, that is the next attempt.
        let others = self.next(at + 1, reference).is_some();
        let attempts = if others { 1 } else { ATTEMPTS };
        let base = self.shared.settings().retry_base;
        let reply = retry::persist(attempts, base, || self.progress.cancelled(), fetch)?;
        self.shared.note_limit(server, &reply);
        let digest = verify(&reply, reference)?;
        Ok((reply, digest))
    }

    /// The first server from `from` on that may be asked for `reference`.
    fn next(&self, from: usize, reference: &str) -> Option<usize> {
        let by_digest = reference.parse::<Digest>().is_ok();
        (from..self.servers.len()).find(|at| {
            let server = &self.servers[*at];
            if by_digest {
                server.pulls
            } else {
                server.resolves
            }
        })
    }

    fn give_up(&mut self, at: usize, error: &dyn std::fmt::Display) {
        let server = self.servers.remove(at);
        tracing::warn!(mirror = server.endpoint.url, %error, "a mirror fails: the next one is asked");
    }

    /// Whom to ask for blobs, who has answered first.
    pub(crate) fn endpoints(self) -> Vec<Endpoint> {
        let servers = self.servers.into_iter();
        servers
            .filter(|server| server.pulls)
            .map(|server| server.endpoint)
            .collect()
    }

    fn request(&self, endpoint: &Endpoint, reference: &str) -> GetManifest {
        GetManifest {
            at: Repository {
                endpoint: endpoint.clone(),
                repository: self.reference.path().into(),
            },
            reference: reference.into(),
        }
    }
}

fn verify(reply: &ManifestReply, reference: &str) -> Result<Digest> {
    let wanted = reference
        .parse::<Digest>()
        .ok()
        .or_else(|| reply.digest.parse().ok());
    let mut hasher = wanted
        .as_ref()
        .map_or_else(Hasher::sha256, Hasher::for_digest);
    hasher.update(&reply.bytes);
    let found = hasher.finish();
    match wanted {
        Some(wanted) if wanted != found => Err(Error::Malformed(format!(
            "manifest verification failed for digest {wanted}"
        ))),
        _ => Ok(found),
    }
}

/// The registry's answer in the words that clients match on.
pub(crate) fn translate(error: DriverError, reference: &Reference) -> Error {
    let message = error.message.clone();
    match error.code {
        ErrorCode::NotFound if message.starts_with("name unknown") => Error::RepositoryUnknown {
            name: reference.familiar_name(),
            message,
        },
        ErrorCode::NotFound => Error::ManifestUnknown {
            reference: reference.familiar(),
            message,
        },
        ErrorCode::PermissionDenied => Error::AccessDenied {
            name: reference.familiar_name(),
            message,
        },
        _ => error.into(),
    }
}
