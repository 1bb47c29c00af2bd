//! From a reference to the manifest of one image, through the servers of its registry.

use gantry_content::Hasher;
use gantry_driver_api::registry::{Endpoint, GetManifest, ManifestReply, Repository};
use gantry_driver_api::{Call, DriverError, ErrorCode, Registry};
use gantry_model::{Digest, Reference};

use super::retry;
use crate::service::Shared;
use crate::{Error, Progress, Result};

/// Attempts at a manifest: a user waits in front of it.
const ATTEMPTS: u32 = 3;

/// Asks the servers of one repository.
pub(super) struct Resolver<'a> {
    pub(super) shared: &'a Shared,
    pub(super) registry: &'a dyn Registry,
    pub(super) reference: &'a Reference,
    pub(super) progress: &'a dyn Progress,
    /// In the order in which to ask; who has answered comes first.
    pub(super) endpoints: Vec<Endpoint>,
}

impl Resolver<'_> {
    /// The digest that the reference stands for, without fetching anything; `None` when nobody says.
    pub(super) fn head(&mut self, reference: &str) -> Option<Digest> {
        let endpoint = self.endpoints.first()?;
        let request = self.request(endpoint, reference);
        let reply = self.registry.resolve(&Call::new("pull"), request).ok()?;
        reply.digest.parse().ok()
    }

    /// Fetches a manifest and verifies it against `reference` when that is a digest, else against what the server says.
    pub(super) fn fetch(&mut self, reference: &str) -> Result<(ManifestReply, Digest)> {
        let mut last = None;
        for at in 0..self.endpoints.len() {
            let endpoint = self.endpoints[at].clone();
            let fetch = || {
                let request = self.request(&endpoint, reference);
                self.registry.fetch_manifest(&Call::new("pull"), request)
            };
            // Where the same server may be asked on another scheme, that is the next attempt.
            let next = self.endpoints.get(at + 1);
            let other_scheme = next.is_some_and(|next| host(next) == host(&endpoint));
            let attempts = if other_scheme { 1 } else { ATTEMPTS };
            let base = self.shared.settings().retry_base;
            match retry::persist(attempts, base, || self.progress.cancelled(), fetch) {
                Ok(reply) => {
                    let digest = verify(&reply, reference)?;
                    self.shared.answered(&endpoint);
                    self.endpoints[..=at].rotate_right(1);
                    return Ok((reply, digest));
                }
                // A registry that answers on one scheme has answered for all; a mirror may lack what others have.
                Err(error) => {
                    let decided = other_scheme && error.code != ErrorCode::Unavailable;
                    last = Some(error);
                    if decided {
                        break;
                    }
                }
            }
            if self.progress.cancelled() {
                return Err(Error::Cancelled);
            }
        }
        let error = last.unwrap_or_else(|| DriverError::internal("no registry to ask"));
        Err(translate(error, self.reference))
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

fn host(endpoint: &Endpoint) -> &str {
    let url = &endpoint.url;
    url.split_once("://").map_or(url.as_str(), |(_, rest)| rest)
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
pub(super) fn translate(error: DriverError, reference: &Reference) -> Error {
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
