//! What registries hold, looked at without fetching it.

use gantry_image::{RemoteImage, RemotePlatform};
use gantry_model::{Digest, Reference};
use gantry_wire as wire;
use gantry_wire::image::{Descriptor, ImagePlatform};

use super::credentials::credentials_for;
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
        let image = self.remote_manifest(name, auth).await?;
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

    /// The manifest or index that a registry holds under a name.
    ///
    /// # Errors
    /// As [`Engine::distribution_inspect`].
    pub async fn remote_manifest(
        &self,
        name: &str,
        auth: &wire::RegistryAuth,
    ) -> Result<RemoteImage> {
        let reference = parse(name)?.with_default_tag();
        let credentials = credentials_for(auth, reference.domain())?;
        let images = self.services.images.clone();
        Ok(blocking(move || images.remote(&reference, &credentials)).await??)
    }

    /// The tags that a registry has of a repository.
    ///
    /// # Errors
    /// As [`Engine::distribution_inspect`].
    pub async fn remote_tags(&self, name: &str, auth: &wire::RegistryAuth) -> Result<Vec<String>> {
        let reference = parse(name)?;
        if reference.tag().is_some() || reference.digest().is_some() {
            return Err(EngineError::bad_request(format!(
                "{name:?} names more than a repository"
            )));
        }
        let credentials = credentials_for(auth, reference.domain())?;
        let images = self.services.images.clone();
        Ok(blocking(move || images.remote_tags(&reference, &credentials)).await??)
    }

    /// What refers to a manifest in a registry, as an OCI index.
    ///
    /// # Errors
    /// As [`Engine::distribution_inspect`].
    pub async fn remote_referrers(&self, name: &str, auth: &wire::RegistryAuth) -> Result<Vec<u8>> {
        let reference = parse(name)?.with_default_tag();
        let credentials = credentials_for(auth, reference.domain())?;
        let images = self.services.images.clone();
        let found = blocking(move || images.remote_referrers(&reference, &credentials)).await??;
        Ok(found.index)
    }

    /// Deletes a manifest from a registry, and with it the tags that name it. Returns its digest.
    ///
    /// # Errors
    /// As [`Engine::distribution_inspect`].
    pub async fn remote_delete(&self, name: &str, auth: &wire::RegistryAuth) -> Result<Digest> {
        let reference = parse(name)?;
        if reference.tag().is_none() && reference.digest().is_none() {
            return Err(EngineError::bad_request(format!(
                "{name:?} names no manifest: a tag or digest is needed"
            )));
        }
        let credentials = credentials_for(auth, reference.domain())?;
        let images = self.services.images.clone();
        Ok(blocking(move || images.remote_delete(&reference, &credentials)).await??)
    }
}

fn parse(name: &str) -> Result<Reference> {
    Reference::parse(name).map_err(|error| EngineError::bad_request(error.to_string()))
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
