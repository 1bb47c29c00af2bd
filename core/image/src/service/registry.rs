//! Registries: images that come and go, and what registries tell.

use std::collections::BTreeMap;

use gantry_driver_api::registry::{AuthReply, Credentials, SearchResult};
use gantry_model::{Digest, Reference};

use super::ImageService;
use crate::{Progress, PullOptions, Pulled, PushOptions, RateLimit, RemoteImage, Result};

impl ImageService {
    /// Fetches an image and unpacks it. `:latest` is meant where `reference` has neither tag nor digest. Layers that are
    /// here already are not fetched; what an earlier, failed pull has fetched is used.
    ///
    /// # Errors
    /// [`crate::Error::ManifestUnknown`], [`crate::Error::AccessDenied`], [`crate::Error::NoPlatform`],
    /// [`crate::Error::Malformed`], [`crate::Error::Driver`], [`crate::Error::Cancelled`].
    pub fn pull(
        &self,
        reference: &Reference,
        options: &PullOptions,
        progress: &dyn Progress,
    ) -> Result<Pulled> {
        crate::pull::pull(&self.shared, reference, options, progress)
    }

    /// Pulls all tags of a repository (`docker pull --all-tags`); the first failure ends it.
    ///
    /// # Errors
    /// As [`ImageService::pull`].
    pub fn pull_all(
        &self,
        repository: &Reference,
        options: &PullOptions,
        progress: &dyn Progress,
    ) -> Result<Vec<Pulled>> {
        crate::pull::pull_all(&self.shared, repository, options, progress)
    }

    /// Sends an image to a registry under its name, or, where `reference` has no tag, every tag of that name.
    ///
    /// # Errors
    /// [`crate::Error::NotHere`], [`crate::Error::Driver`], [`crate::Error::Cancelled`].
    pub fn push(
        &self,
        reference: &Reference,
        options: &PushOptions,
        progress: &dyn Progress,
    ) -> Result<()> {
        crate::push::push(&self.shared, reference, options, progress)
    }

    /// Looks for repositories: in Docker Hub's index, or that of the registry that `term` begins with (`host/term`).
    ///
    /// # Errors
    /// [`crate::Error::Invalid`] for filters and limits that are none, [`crate::Error::Driver`].
    pub fn search(
        &self,
        term: &str,
        limit: Option<i64>,
        filters: &BTreeMap<String, Vec<String>>,
        credentials: &Credentials,
    ) -> Result<Vec<SearchResult>> {
        crate::search::search(&self.shared, term, limit, filters, credentials)
    }

    /// The registry that [`ImageService::search`] asks for `term`, to which its credentials go.
    #[must_use]
    pub fn search_domain(&self, term: &str) -> String {
        crate::search::domain(term)
    }

    /// Checks credentials against the registry `domain` (`docker.io`, `127.0.0.1:5000`).
    ///
    /// # Errors
    /// [`crate::Error::Driver`] with `Unauthenticated` when they are wrong.
    pub fn authenticate(&self, domain: &str, credentials: &Credentials) -> Result<AuthReply> {
        crate::pull::authenticate(&self.shared, domain, credentials)
    }

    /// What a registry holds under `reference`, without fetching the image; what it is for only with `platforms`, since that
    /// may take another request.
    ///
    /// # Errors
    /// [`crate::Error::Driver`] with the registry's words.
    pub fn remote(
        &self,
        reference: &Reference,
        credentials: &Credentials,
        platforms: bool,
    ) -> Result<RemoteImage> {
        crate::remote::inspect(&self.shared, reference, credentials, platforms)
    }

    /// The tags that a registry has of a repository.
    ///
    /// # Errors
    /// [`crate::Error::RepositoryUnknown`], [`crate::Error::AccessDenied`], [`crate::Error::Driver`].
    pub fn remote_tags(
        &self,
        repository: &Reference,
        credentials: &Credentials,
    ) -> Result<Vec<String>> {
        crate::pull::tags(&self.shared, repository, credentials, || false)
    }

    /// The manifests in a registry that refer to what `reference` names: signatures, attestations. They come as an OCI index.
    ///
    /// # Errors
    /// As [`ImageService::remote`].
    pub fn remote_referrers(
        &self,
        reference: &Reference,
        credentials: &Credentials,
    ) -> Result<Vec<u8>> {
        crate::remote::referrers(&self.shared, reference, credentials)
    }

    /// Deletes a manifest from a registry: by its digest, or the one that a tag names, with all its tags. Returns the digest.
    ///
    /// # Errors
    /// As [`ImageService::remote`].
    pub fn remote_delete(
        &self,
        reference: &Reference,
        credentials: &Credentials,
    ) -> Result<Digest> {
        crate::remote::delete(&self.shared, reference, credentials)
    }

    /// What registries last told of their limits, by name.
    #[must_use]
    pub fn rate_limits(&self) -> BTreeMap<String, RateLimit> {
        self.shared.limits.lock().clone()
    }
}
