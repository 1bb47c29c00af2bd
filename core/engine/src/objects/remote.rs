//! What registries hold, looked at without fetching it.

use gantry_driver_api::registry::Credentials;
use gantry_image::{ImageService, RemoteImage, RemotePlatform};
use gantry_model::{Digest, Reference};
use gantry_wire as wire;
use gantry_wire::image::{Descriptor, ImagePlatform};

use super::credentials::credentials_for;
use super::images::parse_reference;
use crate::engine::blocking;
use crate::{Engine, EngineError, Result};

impl Engine {
    /// `GET /distribution/{name}/json`.
    ///
    /// # Errors
    /// Bad names; what the registry says, with its status.
    pub async fn distribution_inspect(
        &self,
        name: &str,
        auth: &wire::RegistryAuth,
    ) -> Result<wire::DistributionInspect> {
        let reference = parse_reference(name)?.with_default_tag();
        let image = self
            .ask(reference, auth, |images, reference, credentials| {
                images.remote(reference, credentials, true)
            })
            .await?;
        let platforms: Vec<ImagePlatform> = image.platforms.into_iter().map(platform).collect();
        Ok(wire::DistributionInspect {
            descriptor: Descriptor {
                media_type: image.media_type,
                digest: image.digest.to_string(),
                size: i64::try_from(image.document.len()).unwrap_or(i64::MAX),
                ..Descriptor::default()
            },
            platforms: Some(platforms).filter(|platforms| !platforms.is_empty()),
        })
    }

    /// The manifest or index that a registry holds under a name, without the platforms that it is for.
    ///
    /// # Errors
    /// As [`Engine::distribution_inspect`].
    pub async fn remote_manifest(
        &self,
        name: &str,
        auth: &wire::RegistryAuth,
    ) -> Result<RemoteImage> {
        let reference = parse_reference(name)?.with_default_tag();
        self.ask(reference, auth, |images, reference, credentials| {
            images.remote(reference, credentials, false)
        })
        .await
    }

    /// The tags that a registry has of a repository.
    ///
    /// # Errors
    /// As [`Engine::distribution_inspect`].
    pub async fn remote_tags(&self, name: &str, auth: &wire::RegistryAuth) -> Result<Vec<String>> {
        let reference = parse_reference(name)?;
        if reference.tag().is_some() || reference.digest().is_some() {
            return Err(EngineError::bad_request(format!(
                "{name:?} names more than a repository"
            )));
        }
        self.ask(reference, auth, ImageService::remote_tags).await
    }

    /// What refers to a manifest in a registry, as an OCI index.
    ///
    /// # Errors
    /// As [`Engine::distribution_inspect`].
    pub async fn remote_referrers(&self, name: &str, auth: &wire::RegistryAuth) -> Result<Vec<u8>> {
        let reference = parse_reference(name)?.with_default_tag();
        self.ask(reference, auth, ImageService::remote_referrers)
            .await
    }

    /// Deletes a manifest from a registry, and with it the tags that name it. Returns its digest.
    ///
    /// # Errors
    /// As [`Engine::distribution_inspect`].
    pub async fn remote_delete(&self, name: &str, auth: &wire::RegistryAuth) -> Result<Digest> {
        let reference = parse_reference(name)?;
        if reference.tag().is_none() && reference.digest().is_none() {
            return Err(EngineError::bad_request(format!(
                "{name:?} names no manifest: a tag or digest is needed"
            )));
        }
        self.ask(reference, auth, ImageService::remote_delete).await
    }

    /// Does the work of a request to the registry of `reference`, with what is to be shown to it.
    async fn ask<T: Send + 'static>(
        &self,
        reference: Reference,
        auth: &wire::RegistryAuth,
        work: impl FnOnce(&ImageService, &Reference, &Credentials) -> gantry_image::Result<T>
        + Send
        + 'static,
    ) -> Result<T> {
        let credentials = credentials_for(auth, reference.domain())?;
        let images = self.services.images.clone();
        Ok(blocking(move || work(&images, &reference, &credentials)).await??)
    }
}

fn platform(platform: RemotePlatform) -> ImagePlatform {
    let some = |text: String| Some(text).filter(|text| !text.is_empty());
    ImagePlatform {
        architecture: platform.architecture,
        os: platform.os,
        os_version: some(platform.os_version),
        os_features: Some(platform.os_features).filter(|features| !features.is_empty()),
        variant: some(platform.variant),
    }
}
